"""``flyball promql``."""

from pathlib import Path

import click


@click.group("promql", epilog="Example: flyball promql test aggregators.test")
def command() -> None:
    """Work with PromQL expressions."""


@command.command("test", epilog="Example: flyball promql test ../shared/promqltest/*.test")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def test(files: tuple[Path, ...]) -> None:
    """Run files in Prometheus' scenario language (load, eval, expect).

    Every eval is re-run as upstream's own runner does: with @ its time at other times, and as a step of a range
    query. Prints a line for each eval that fails; ends with 1 when there are any.
    """
    from flyball.promql.scenarios import run

    passed = failed = 0
    for file in files:
        outcome = run(file.read_text())
        passed += outcome.passed
        failed += len(outcome.failures)
        for line, query, reason in outcome.failures:
            click.echo(f"{file}:{line}: {query}: {' '.join(reason.split())}")
    click.echo(f"{passed} passed, {failed} failed")
    if failed:
        raise SystemExit(1)


@command.command("format", epilog="Example: flyball promql format 'sum(rate(http_requests_total[5m]))by(pod)'")
@click.argument("expression")
def format_(expression: str) -> None:
    """Print an expression in its plain form."""
    from flyball.promql import Features, parse

    everything = Features(experimental_functions=True, extended_range_selectors=True, binop_fill_modifiers=True)
    click.echo(str(parse(expression, everything)))
