"""``flyball replay``: policies tried on recorded load."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.load import load_of, load_options, progress_bars, workload_of
from flyball.cli.options import output_option
from flyball.errors import ConfigError

if TYPE_CHECKING:
    from flyball.replay.backtest import Result
    from flyball.replay.traces import Trace
    from flyball.replay.workload import Workload

_MEASURE, _COLUMN = 46, 12  # characters


@click.command(
    "replay",
    epilog="Example: flyball replay hpa.yaml governor.yaml --trace requests.csv --capacity 24 --html report.html",
)
@click.argument("policies", nargs=-1, type=click.Path(exists=True, path_type=Path))
@load_options
@click.option("--peer", "peer_names", multiple=True, help="Compare with knative or oracle (repeatable).")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write a report with plots.")
@output_option
def command(
    policies: tuple[Path, ...], peer_names: tuple[str, ...], html_path: Path | None, output: str, **given: Any
) -> None:
    """Drive HPAs and Governors over recorded load and score how supply follows demand.

    The load comes from a CSV file (--trace), a server of the Prometheus API (--prometheus URL --query EXPR) or a
    store's files (--store DIR --query EXPR).
    """
    from flyball.replay.backtest import backtest, notes, peers
    from flyball.replay.policies import read_policies

    tried = [*read_policies(policies), *peers(peer_names)]
    if not tried:
        raise ConfigError("nothing to try; name a manifest with an HPA or a Governor, or --peer knative")
    workload = workload_of(given)
    with progress_bars(silent=output == "json") as told:
        trace = load_of(given, told)
        results = list(backtest(tried, trace, workload, period_s=given["period"], progress=told))
    assumed = notes(tried, trace, workload, given["period"])
    if html_path is not None:
        from flyball.replay.report import html_report

        try:
            html_path.write_text(html_report(results, trace, workload, assumed))
        except OSError as error:
            raise ConfigError(f"{html_path} cannot be written: {error}; name another file with --html") from error
    if output == "json":
        click.echo(json.dumps({"policies": [_plain(result) for result in results], "assumed": assumed}, indent=2))
        return
    _print(results, trace, workload)
    click.echo("\nAssumed:\n" + "\n".join(f"  {note}" for note in assumed))
    if html_path is not None:
        click.echo(f"\nwrote {html_path}")


def _plain(result: "Result") -> dict[str, Any]:
    import msgspec

    scores: dict[str, Any] = msgspec.to_builtins(result.scores)
    figures = {"speedup": result.speedup, "latency": result.latency, "saturated": result.saturated}
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {"policy": result.policy, **scores, **finite}


def _print(results: "list[Result]", trace: "Trace", workload: "Workload") -> None:
    import shutil

    from flyball.cli.plot import plot
    from flyball.replay.report import COLUMNS, thinned

    width = shutil.get_terminal_size((100, 24)).columns
    beside = max(1, (width - _MEASURE) // _COLUMN)
    for first in range(0, len(results), beside):
        some = results[first : first + beside]
        wide = max(_COLUMN, *(len(result.policy) + 2 for result in some))
        click.echo(" " * _MEASURE + "".join(f"{result.policy:>{wide}}" for result in some))
        for name, about, value, form, _ in COLUMNS:
            label = f"{name}: {about}"
            click.echo(f"{label:<{_MEASURE}}" + "".join(f"{value(result):>{wide}{form}}" for result in some))
        click.echo()
    demand = workload.demand(trace.rate)
    across = max(40, min(160, width - 12))
    top = int(max(demand.max(), *(result.supply.max() for result in results)))
    for result in results:
        click.echo(f"{result.policy}: supply and demand, replicas")
        lines = []
        for values in (demand, result.supply):
            shown = thinned(values, 2 * across).tolist()
            step_ms = len(trace) * 1000 / len(shown) * trace.compress
            lines.append([(trace.start_ms + int(at * step_ms), float(value)) for at, value in enumerate(shown)])
        click.echo("\n".join(plot(lines, across, 8, low=0.0, high=float(top))) + "\n")
