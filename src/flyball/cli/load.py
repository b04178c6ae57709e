"""What ``flyball replay`` and ``flyball tune`` share: where load comes from, what it runs on, the bars of progress."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import duration
from flyball.errors import ConfigError

if TYPE_CHECKING:
    from flyball.replay.traces import Trace
    from flyball.replay.workload import Workload

Told = Callable[[str, float], None]
_DAY_MS = 86_400_000


def load_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that ``load_of`` and ``workload_of`` read."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--trace", type=click.Path(path_type=Path), help="Load from a CSV file."),
    click.option("--column", default="", help="The file's column of values.  [default: count or value]"),
    click.option("--time-column", default="", help="The file's column of times.  [default: period, timestamp or time]"),
    click.option("--rate", is_flag=True, help="The file has rates a second, not counts up to the next row."),
    click.option("--prometheus", metavar="URL", help="Load from a server of the Prometheus API."),
    click.option("--prometheus-token-file", type=click.Path(), default="", help="The server's bearer token."),
    click.option(
        "--store",
        type=click.Path(file_okay=False, path_type=Path),
        help="Load from a store's files: flyball up keeps its own in ~/.local/share/flyball/data.",
    ),
    click.option("--query", metavar="EXPR", help="PromQL of the load: one series, in units a second."),
    click.option("--step", callback=duration, default="15s", show_default=True, help="Between points of the query."),
    click.option("--from", "begin", default="", help="Cut before this time (ISO 8601).  [default of a URL: a day ago]"),
    click.option("--to", "end", default="", help="Cut from this time on.  [default of a URL: now]"),
    click.option("--compress", type=click.FloatRange(1, 1000), default=1.0, help="Run time so many times as fast."),
    click.option("--capacity", type=click.FloatRange(min=1e-9), required=True, help="Units a second of a full pod."),
    click.option(
        "--busy", type=click.FloatRange(0.01, 1), default=0.7, show_default=True, help="Share a pod should carry."
    ),
    click.option("--startup", type=click.IntRange(1, 3600), default=30, show_default=True, help="Seconds until ready."),
    click.option(
        "--saturation", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Highest utilization."
    ),
    click.option(
        "--period", type=click.IntRange(1, 600), default=15, show_default=True, help="Beat of profile parity, s."
    ),
]


def load_of(given: dict[str, Any], told: Told | None) -> "Trace":
    """The load that is asked for.

    Raises:
        FlyballError: none or several sources, or one that cannot be read.
    """
    sources = [name for name in ("trace", "prometheus", "store") if given[name]]
    if len(sources) != 1:
        raise ConfigError(
            f"{' and '.join(f'--{name}' for name in sources) or 'no load'}: name one of --trace FILE, "
            "--prometheus URL and --store DIR"
        )
    if given["trace"]:
        from flyball.replay.traces import read_trace

        return read_trace(
            given["trace"],
            column=given["column"],
            time_column=given["time_column"],
            per_second=given["rate"],
            compress=given["compress"],
            begin=given["begin"],
            end=given["end"],
        )
    return _recorded(given, None if told is None else lambda share: told("load", share))


def _recorded(given: dict[str, Any], progress: Callable[[float], None] | None) -> "Trace":
    from flyball.replay.recorded import read_prometheus, read_store
    from flyball.replay.traces import seconds_of

    if not given["query"]:
        raise ConfigError("say what the load is, as with --query 'sum(rate(http_requests_total[1m]))'")
    step_s = given["step"] // 1000
    if step_s < 1:
        raise ConfigError("--step: at least 1s")
    start_ms, end_ms = (
        int(seconds_of(given[name], option) * 1000) if given[name] else None
        for name, option in (("begin", "--from"), ("end", "--to"))
    )
    if given["store"]:
        return read_store(
            given["store"], given["query"], start_ms, end_ms, step_s, compress=given["compress"], progress=progress
        )
    import asyncio

    from flyball import clock

    end_ms = clock.now_ms() if end_ms is None else end_ms
    start_ms = end_ms - _DAY_MS if start_ms is None else start_ms
    token = given["prometheus_token_file"]
    work = read_prometheus(
        given["prometheus"], given["query"], start_ms, end_ms, step_s,
        bearer_file=token, compress=given["compress"], progress=progress,
    )  # fmt: skip
    return asyncio.run(work)


def workload_of(given: dict[str, Any]) -> "Workload":
    """What the load runs on."""
    from flyball.replay.workload import Workload

    return Workload(given["capacity"], given["busy"], given["startup"], given["saturation"])


@contextlib.contextmanager
def progress_bars(*, silent: bool = False) -> Iterator[Told | None]:
    """A function (name, share) that draws a bar for each name on a terminal; None elsewhere and when ``silent``."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def told(name: str, share: float) -> None:
            task = tasks[name] if name in tasks else tasks.setdefault(name, progress.add_task(name, total=1.0))
            progress.update(task, completed=share)

        yield told
