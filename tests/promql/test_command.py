"""``flyball promql`` from the command line."""

from pathlib import Path

from click.testing import CliRunner

from flyball.cli.promql import command

SCENARIO = "load 1m\n  a 1+1x3\n\neval instant at 1m a\n  a {}\n\neval instant at 1m sum(a)\n  {{}} 2\n"


def test_a_failing_eval_is_one_line_and_the_exit_code_is_one(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.test", tmp_path / "bad.test"
    good.write_text(SCENARIO.format(2))
    bad.write_text(SCENARIO.format(3))
    result = CliRunner().invoke(command, ["test", str(good), str(bad)])
    *failures, summary = result.output.splitlines()
    assert result.exit_code == 1 and summary == "3 passed, 1 failed"
    assert len(failures) == 1 and failures[0].startswith(f"{bad}:4: a: ") and "expected 3.0" in failures[0]
    assert CliRunner().invoke(command, ["test", str(good)]).exit_code == 0


def test_format_prints_the_plain_form() -> None:
    result = CliRunner().invoke(command, ["format", "sum(rate(a{b='c'}[300s]))by(pod)"])
    assert result.output == 'sum by (pod) (rate(a{b="c"}[5m]))\n'
