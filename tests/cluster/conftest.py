"""The summary of make test-cluster: which entries of differences.yaml nothing needs any more."""

import pytest
from tests.cluster.compare import SEEN, known_differences


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.stats.get("passed", [])
    if not SEEN or not any("test_workloads" in report.nodeid for report in passed):
        return  # a part of the suite says nothing about the rest
    reasons = {known.reason for known in known_differences()} - {known.reason for known in SEEN}
    unseen = [known for known in known_differences() if known not in SEEN and known.reason not in reasons]
    for reason in sorted(reasons):
        terminalreporter.write_line(f"differences.yaml: not seen any more: {reason}")
    for known in unseen:
        terminalreporter.write_line(f"differences.yaml: not seen: {known.step} {known.path}")
