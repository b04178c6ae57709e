"""``flyball replay``: policies tried on recorded load."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import output_option
from flyball.errors import ConfigError

if TYPE_CHECKING:
    from flyball.replay.backtest import Result
    from flyball.replay.traces import Trace
    from flyball.replay.workload import Workload


@click.command(
    "replay",
    epilog="Example: flyball replay hpa.yaml governor.yaml --trace requests.csv --capacity 24 --html report.html",
)
@click.argument("policies", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--trace", "trace_path", type=click.Path(path_type=Path), required=True, help="A CSV file of load.")
@click.option("--column", default="", help="The trace's column of values.  [default: count or value]")
@click.option("--time-column", default="", help="The trace's column of times.  [default: period, timestamp or time]")
@click.option("--from", "begin", default="", help="Cut before this time (ISO 8601).")
@click.option("--to", "end", default="", help="Cut from this time on.")
@click.option("--compress", type=click.FloatRange(1, 1000), default=1.0, help="Run time so many times as fast.")
@click.option("--capacity", type=click.FloatRange(min=1e-9), required=True, help="Units a second of one pod at 100 %.")
@click.option(
    "--busy", type=click.FloatRange(0.01, 1), default=0.7, show_default=True, help="Share a pod should carry."
)
@click.option("--startup", type=click.IntRange(1, 3600), default=30, show_default=True, help="Seconds until ready.")
@click.option(
    "--saturation", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Highest utilization."
)
@click.option("--period", type=click.IntRange(1, 600), default=15, show_default=True, help="Beat of profile parity, s.")
@click.option("--peer", "peer_names", multiple=True, help="Compare with knative or oracle (repeatable).")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write a report with plots.")
@output_option
def command(
    policies: tuple[Path, ...],
    trace_path: Path,
    column: str,
    time_column: str,
    begin: str,
    end: str,
    compress: float,
    capacity: float,
    busy: float,
    startup: int,
    saturation: float,
    period: int,
    peer_names: tuple[str, ...],
    html_path: Path | None,
    output: str,
) -> None:
    """Drive HPAs and Governors over recorded load and score how supply follows demand."""
    from flyball.replay.backtest import backtest, peers, read_policies
    from flyball.replay.traces import read_trace
    from flyball.replay.workload import Workload

    tried = [*read_policies(policies), *peers(peer_names)]
    if not tried:
        raise ConfigError("nothing to try; name a manifest with an HPA or a Governor, or --peer knative")
    trace = read_trace(trace_path, column=column, time_column=time_column, compress=compress, begin=begin, end=end)
    workload = Workload(capacity, busy, startup, saturation)
    with progress_bars(output) as told:
        results = backtest(tried, trace, workload, period_s=period, progress=told)
    if html_path is not None:
        from flyball.replay.report import html_report

        try:
            html_path.write_text(html_report(results, trace, workload))
        except OSError as error:
            raise ConfigError(f"{html_path} cannot be written: {error}; name another file with --html") from error
    if output == "json":
        click.echo(json.dumps([_plain(result) for result in results], indent=2))
        return
    _print(results, trace, workload)


def _plain(result: "Result") -> dict[str, Any]:
    import msgspec

    scores: dict[str, Any] = msgspec.to_builtins(result.scores)
    return {"policy": result.policy, **scores, "latency": result.latency, "saturated": result.saturated}


def progress_bars(output: str) -> Any:
    """A context of a function (name, share) that draws a bar on a terminal and is None elsewhere."""
    import contextlib
    import sys

    if output == "json" or not sys.stderr.isatty():
        return contextlib.nullcontext(None)
    from rich.console import Console
    from rich.progress import Progress

    @contextlib.contextmanager
    def bars() -> Any:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            tasks: dict[str, Any] = {}

            def told(name: str, share: float) -> None:
                task = tasks[name] if name in tasks else tasks.setdefault(name, progress.add_task(name, total=1.0))
                progress.update(task, completed=share)

            yield told

    return bars()


def _print(results: "list[Result]", trace: "Trace", workload: "Workload") -> None:
    from rich.console import Console
    from rich.table import Table

    from flyball.cli.plot import plot
    from flyball.replay.report import COLUMNS, thinned

    table = Table(box=None)
    table.add_column("policy")
    for name, _, _ in COLUMNS:
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(result.policy, *(show(result) for _, _, show in COLUMNS))
    console = Console()
    console.print(table)
    demand = workload.demand(trace.rate)
    width = max(40, min(160, console.width - 12))
    for result in results:
        click.echo(f"\n{result.policy}: supply and demand")
        lines = []
        for values in (demand, result.supply):
            shown = thinned(values, 2 * width).tolist()
            step_ms = len(trace) * 1000 / len(shown) * trace.compress
            lines.append([(trace.start_ms + int(at * step_ms), float(value)) for at, value in enumerate(shown)])
        click.echo("\n".join(plot(lines, width, 8)))
    click.echo("\nAssumed: " + "; ".join((*workload.assumptions(), *trace.notes)))
