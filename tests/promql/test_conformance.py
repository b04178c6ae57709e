"""Prometheus' own scenarios. The counts below may only grow.

What fails, fails for features that Prometheus calls experimental, or that need its native histograms.
"""

from pathlib import Path

import pytest

from flyball.promql.scenarios import run

#: Evals that passed, by file; and the files of which nothing may fail.
PASSED: dict[str, int] = {
    "aggregators": 123,
    "at_modifier": 78,
    "collision": 2,
    "duration_expression": 8,
    "extended_vectors": 30,
    "fill-modifier": 1,
    "functions": 269,
    "histograms": 87,
    "info": 1,
    "literals": 25,
    "name_label_dropping": 30,
    "native_histograms": 3,
    "operators": 142,
    "range_queries": 16,
    "selectors": 31,
    "staleness": 17,
    "start_timestamps": 2,
    "subquery": 32,
    "trig_functions": 19,
    "type_and_unit": 43,
}
WHOLE = frozenset(
    {
        "at_modifier",
        "collision",
        "literals",
        "name_label_dropping",
        "operators",
        "range_queries",
        "selectors",
        "staleness",
        "subquery",
        "trig_functions",
    }
)


@pytest.mark.parametrize("name", sorted(PASSED))
def test_scenarios(shared: Path, name: str) -> None:
    outcome = run((shared / "promqltest" / f"{name}.test").read_text())
    report = "\n".join(f"  line {line}: {query}: {reason}" for line, query, reason in outcome.failures)
    assert outcome.passed >= PASSED[name], f"{outcome.passed} passed; failed:\n{report}"
    if name in WHOLE:
        assert not outcome.failures, report
    if name in ("aggregators", "functions", "histograms"):
        assert all("is experimental" in reason for _, _, reason in outcome.failures), report


def test_a_wrong_expectation_fails() -> None:
    text = "load 1m\n  a 1+1x3\n\neval instant at 1m a\n  a {}\n\neval instant at 1m sum(a)\n  {{}} {}\n"
    assert run(text.format(2, 2)).passed == 2
    assert len(run(text.format(2, 3)).failures) == 1
