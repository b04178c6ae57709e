"""In CI a skipped test needs a reason that tests/skips.txt lists."""

import os
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says how busy the machine is, not whether it holds.
hypothesis.settings.register_profile("flyball", deadline=None)
hypothesis.settings.load_profile("flyball")

LISTED = tuple(
    line for line in (Path(__file__).parent / "skips.txt").read_text().splitlines() if line and not line.startswith("#")
)
_unlisted: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(LISTED):
            _unlisted.append(f"{report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _unlisted and os.environ.get("CI") and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _unlisted:
        terminalreporter.write_line(f"skipped for a reason that tests/skips.txt does not list: {line}", red=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data: $FLYBALL_SHARED, or ../shared beside the project."""
    root = Path(os.environ.get("FLYBALL_SHARED") or Path(__file__).parents[2] / "shared")
    if not root.is_dir():
        pytest.skip("shared data not found (set FLYBALL_SHARED)")
    return root
