"""promtool's own unit-test files (``promtool/`` is upstream's test data, Apache-2.0) through ``flyball test rules``."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from flyball.cli import main

PROMTOOL = Path(__file__).parent / "promtool"
GOOD = (
    "unittest",
    "long-period",
    "start-time-test",
    "negative-offset-test",
    "at-modifier-test",
    "no-test-group-interval",
)
BAD = {
    "failing": "Failing alert test: alertname: AlwaysFiring, time: 5m",
    "bad-input-series": "parse error",
    "bad-promql": "many-to-many matching not allowed",
    "bad-rules-error-test": "rule: joined, time: 0s, err: ",
    "bad-rules-syntax-test": 'bad-rules-syntax.yml: group "bad-syntax", rule 1, "x": could not parse expression',
}


def run(name: str, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["test", "rules", str(PROMTOOL / f"{name}.yml"), *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("name", GOOD)
def test_files_that_pass(name: str) -> None:
    assert run(name) == (0, f"Unit Testing: {PROMTOOL / name}.yml\n  SUCCESS\n")


@pytest.mark.parametrize("name", BAD)
def test_files_that_fail_say_where(name: str) -> None:
    code, output = run(name)
    assert code == 1 and BAD[name] in output and "FAILED" in output


@pytest.mark.parametrize(
    ("name", "only", "passes"),
    [
        ("rules_run", "correct", True),
        ("rules_run", "wrong", False),
        ("rules_run_fuzzy", "correct", True),
        ("rules_run_fuzzy", "wrong", False),
        ("rules_run_no_fuzzy", "correct", False),
    ],
)
def test_only_the_named_tests_run(name: str, only: str, passes: bool) -> None:
    code, output = run(name, "--run", only)
    assert (code == 0) is passes, output


def test_fields_that_are_not_known_are_an_error_unless_they_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text("groups: [{name: g, owner: me, rules: [{record: a, expr: vector(1)}]}]")
    test = tmp_path / "test.yml"
    test.write_text(
        "rule_files: [rules.yml]\n"
        "tests: [{promql_expr_test: [{expr: a, eval_time: 1m, exp_samples: [{labels: a, value: 1}]}]}]"
    )
    for flags, code in (((), 1), (("--ignore-unknown-fields",), 0)):
        assert CliRunner().invoke(main, ["test", "rules", *flags, str(test)]).exit_code == code


def test_check_rules_names_what_is_wrong_and_what_is_double(tmp_path: Path) -> None:
    def check(text: str) -> tuple[int, str]:
        (tmp_path / "r.yml").write_text(text)
        result = CliRunner().invoke(main, ["check", "rules", str(tmp_path / "r.yml")])
        return result.exit_code, result.output

    one = "{record: a, expr: up, labels: {b: c}}"
    code, output = check("groups: [{name: g, rules: [" + one + "]}]")
    assert code == 0 and "OK, 1 rule groups, 1 rules" in output
    code, output = check("groups: [{name: g, rules: [" + one + ", " + one + "]}]")
    assert code == 3 and "a {b=c}: is there more than once" in output
    code, output = check("groups: [{name: g, rules: [{record: a}]}]")
    assert code == 1 and "FAILED" in output and "field 'expr' must be set" in output
