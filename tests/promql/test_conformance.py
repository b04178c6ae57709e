"""Prometheus' own scenarios, all of them, with every re-run that upstream's runner does."""

from pathlib import Path

import pytest

from flyball.promql.scenarios import run

#: Evals in each file: 2,214 in all.
EVALS: dict[str, int] = {
    "aggregators": 160,
    "at_modifier": 78,
    "collision": 2,
    "duration_expression": 59,
    "extended_vectors": 169,
    "fill-modifier": 46,
    "functions": 431,
    "histograms": 185,
    "info": 53,
    "limit": 37,
    "literals": 25,
    "name_label_dropping": 30,
    "native_histograms": 522,
    "operators": 214,
    "range_queries": 18,
    "selectors": 31,
    "staleness": 17,
    "start_timestamps": 26,
    "subquery": 34,
    "trig_functions": 19,
    "type_and_unit": 58,
}


#: file:line of the evals that have nothing to do with native histograms.
OF_FLOATS = frozenset((Path(__file__).parent / "evals_of_floats.txt").read_text().split("\n")[1:-1])


@pytest.mark.parametrize("name", sorted(EVALS))
def test_scenarios(shared: Path, name: str) -> None:
    outcome = run((shared / "promqltest" / f"{name}.test").read_text())
    failed = {f"{name}:{line}" for line, _, _ in outcome.failures}
    assert not failed & OF_FLOATS, failed & OF_FLOATS
    report = "\n".join(f"  line {line}: {query}: {reason}" for line, query, reason in outcome.failures)
    assert not outcome.failures, report
    assert outcome.passed == EVALS[name]


def test_more_than_half_of_the_evals_are_of_floats_alone() -> None:
    assert len(OF_FLOATS) >= 1268


def test_a_wrong_expectation_fails() -> None:
    text = "load 1m\n  a 1+1x3\n\neval instant at 1m a\n  a {}\n\neval instant at 1m sum(a)\n  {{}} {}\n"
    assert run(text.format(2, 2)).passed == 2
    assert len(run(text.format(2, 3)).failures) == 1


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("h", "h {{count:3 sum:5 buckets:[1 3]}}"),
        ("h", "h {{count:3 sum:5 buckets:[1 2] counter_reset_hint:gauge}}"),
        ("rate(h[2m])", "expect no_info\n{} 1"),
        ("sum(h)", "expect warn msg:no such warning\n{} {{count:3 sum:5 buckets:[1 2]}}"),
    ],
)
def test_a_wrong_histogram_or_annotation_fails(query: str, wrong: str) -> None:
    load = "load 1m\n  h {{count:3 sum:5 buckets:[1 2]}}x3\n\n"
    assert len(run(f"{load}eval instant at 1m {query}\n{wrong}\n").failures) == 1
