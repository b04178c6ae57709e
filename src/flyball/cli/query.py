"""``flyball query``: PromQL against any server that speaks the Prometheus API."""

import asyncio
import json
import sys
from typing import Any

import click

from flyball.errors import ConfigError, QueryError, UpstreamError

_PLOT_WIDTH, _PLOT_HEIGHT = 100, 16


@click.command(
    "query", epilog="Example: flyball query 'sum by (pod) (rate(http_requests_total[1m]))' --last 15m -o plot"
)
@click.argument("expression")
@click.option("--url", default="http://127.0.0.1:9090", show_default=True, help="The server.")
@click.option("--time", "at", default="", help="When to evaluate: Unix seconds or RFC 3339.  [default: now]")
@click.option("--last", default="", metavar="DURATION", help="A range that ends now, such as 15m.")
@click.option("--start", default="", help="Where a range begins.")
@click.option("--end", default="", help="Where a range ends.  [default: now]")
@click.option("--step", default="", metavar="DURATION", help="Between points of a range.  [default: a 100th of it]")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many series; 0: all.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "plot"]), default="table", show_default=True)
def command(
    expression: str, url: str, at: str, last: str, start: str, end: str, step: str, limit: int, output: str
) -> None:
    """Evaluate a PromQL expression at one time, or over a range with --last or --start."""
    ranged = bool(last or start)
    form = {"query": expression} | ({"limit": str(limit)} if limit else {})
    if ranged:
        form |= _range(last, start, end, step)
    elif at:
        form["time"] = at
    answer = asyncio.run(_ask(url, "query_range" if ranged else "query", form))
    for kind in ("warnings", "infos"):
        for text in answer.get(kind, []):
            click.echo(f"{kind[:-1]}: {text}", err=True)
    data = answer["data"]
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    elif output == "plot":
        if data["resultType"] != "matrix":
            raise ConfigError("only a range can be plotted; add --last 15m, or a range in the expression")
        _plot(data["result"])
    else:
        _table(data)


def _range(last: str, start: str, end: str, step: str) -> dict[str, str]:
    from flyball import clock
    from flyball.model.durations import parse_duration_ms
    from flyball.web.parameters import parse_time_ms

    try:
        end_ms = parse_time_ms(end) if end else clock.now_ms()
        start_ms = parse_time_ms(start) if start else end_ms - parse_duration_ms(last)
        step_ms = parse_duration_ms(step) if step else max(1000, (end_ms - start_ms) // 100)
    except ValueError as exc:
        raise ConfigError(f"--start, --end: {exc}; write Unix seconds or RFC 3339") from None
    return {"start": f"{start_ms / 1000:.3f}", "end": f"{end_ms / 1000:.3f}", "step": f"{step_ms / 1000:g}"}


async def _ask(url: str, path: str, form: dict[str, str]) -> dict[str, Any]:
    import aiohttp

    from flyball.http.client import new_session, read_capped

    address = f"{url.rstrip('/')}/api/v1/{path}"
    try:
        async with new_session(timeout_s=150) as session, session.post(address, data=form) as response:
            body = await read_capped(response, 1 << 30, address)
        answer: dict[str, Any] = json.loads(body)
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise UpstreamError(f"{address}: {exc or type(exc).__name__}; is a server running there? (--url)") from exc
    except ValueError as exc:
        raise UpstreamError(f"{address} is not a Prometheus API: {exc}") from exc
    if answer.get("status") != "success":
        raise QueryError(f"{answer.get('errorType', 'error')}: {answer.get('error', 'no reason was given')}")
    return answer


def series_name(metric: dict[str, str]) -> str:
    """``name{label="value"}``."""
    labels = ", ".join(f"{name}={json.dumps(text)}" for name, text in metric.items() if name != "__name__")
    return metric.get("__name__", "") + (f"{{{labels}}}" if labels or "__name__" not in metric else "")


def _rows(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(series, value, time)."""
    kind, result = data["resultType"], data["result"]
    if kind in ("scalar", "string"):
        return [(kind, result[1], str(result[0]))]
    rows = []
    for series in result:
        name = series_name(series["metric"])
        points = series.get("values") or [series["value"]] if "value" in series or "values" in series else []
        rows += [(name, value, str(at)) for at, value in points]
        histograms = series.get("histograms") or ([series["histogram"]] if "histogram" in series else [])
        rows += [(name, f"count {found['count']}, sum {found['sum']}", str(at)) for at, found in histograms]
    return rows


def _table(data: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = _rows(data)
    if not rows:
        click.echo("no series", err=True)
        return
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    table = Table("series", "value", "time", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _plot(result: list[dict[str, Any]]) -> None:
    import shutil

    from flyball.cli.plot import plot

    width = min(_PLOT_WIDTH, shutil.get_terminal_size((_PLOT_WIDTH + 20, 24)).columns - 20)
    if not result:
        click.echo("no series", err=True)
        return
    for series in result[:10]:
        click.echo(series_name(series["metric"]))
        line = [(round(float(at) * 1000), float(value)) for at, value in series.get("values", [])]
        for row in plot([line], max(20, width), _PLOT_HEIGHT if len(result) == 1 else _PLOT_HEIGHT // 3):
            click.echo(row)
    if len(result) > 10:
        click.echo(f"{len(result) - 10} more series are not shown; aggregate them, or see -o table", err=True)
