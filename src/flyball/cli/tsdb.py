"""``flyball tsdb``: looking into a store's files, getting samples out of them and into them."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import data_dir_option, output_option
from flyball.errors import ConfigError

if TYPE_CHECKING:
    from flyball.model.frames import Frame
    from flyball.model.labels import Labels, Matcher
    from flyball.store import Database

_WINDOW_MS = 2 * 3_600_000


@click.group("tsdb", epilog="Example: flyball tsdb analyze")
def command() -> None:
    """Look into a store, export it, import into it. All but import work beside a running server."""


def _store_option(function: Any) -> Any:
    function = click.option(
        "--storage",
        type=click.Path(file_okay=False, path_type=Path),
        help="A store's directory, such as flyball server's --storage.tsdb.path.  [default: that of flyball up]",
    )(function)
    return data_dir_option(function)


def _selection_options(function: Any) -> Any:
    for option in (
        click.option("--match", "selectors", multiple=True, help="A selector; may be repeated.  [default: everything]"),
        click.option("--start", default="", help="Unix seconds or RFC 3339.  [default: the oldest sample]"),
        click.option("--end", default="", help="Unix seconds or RFC 3339.  [default: the newest sample]"),
    ):
        function = option(function)
    return function


def _open(data_dir: Path, storage: Path | None, *, read_only: bool = True) -> "Database":
    from flyball.store import Database

    return Database(storage or data_dir / "data", read_only=read_only)


@command.command("list", epilog="Example: flyball tsdb list")
@_store_option
@output_option
def list_(data_dir: Path, storage: Path | None, output: str) -> None:
    """List the blocks: times, series, samples and bytes."""
    from flyball import clock

    database = _open(data_dir, storage)
    rows = [
        {
            "block": block.path.name,
            "min_time": clock.rfc3339(block.min_ms),
            "max_time": clock.rfc3339(block.max_ms),
            "series": block.series_count,
            "samples": block.samples,
            "bytes": block.size,
            "bytes_per_sample": round(block.size / block.samples, 3),
            "deletions": len(block.tombstones),
        }
        for block in database.blocks
    ]
    _print_rows(rows, output)


@command.command("analyze", epilog="Example: flyball tsdb analyze --limit 10")
@_store_option
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Lines of each list.")
@output_option
def analyze(data_dir: Path, storage: Path | None, limit: int, output: str) -> None:
    """Show what makes the store large: cardinality by metric, label and pair, churn, bytes per sample."""
    database = _open(data_dir, storage)
    everything = database.series([()], -(1 << 62), 1 << 62)
    metrics: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    values: dict[str, set[str]] = {}
    for labels in everything:
        for name, value in labels:
            values.setdefault(name, set()).add(value)
            if name == "__name__":
                metrics[value] += 1
            else:
                pairs[f"{name}={value}"] += 1
    blocks = database.blocks
    samples, size = sum(block.samples for block in blocks), sum(block.size for block in blocks)
    living = database.head.statistics()["series"]
    found: dict[str, Any] = {
        "series": len(everything),
        "series_in_head": living,
        "series_ended": len(everything) - living,
        "blocks": len(blocks),
        "samples_in_blocks": samples,
        "bytes_in_blocks": size,
        "bytes_per_sample": round(size / samples, 3) if samples else None,
        "series_by_metric": dict(metrics.most_common(limit)),
        "series_by_label_pair": dict(pairs.most_common(limit)),
        "values_by_label": dict(Counter({name: len(some) for name, some in values.items()}).most_common(limit)),
    }
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            click.echo(f"\n{name.replace('_', ' ')}:")
            for key, count in value.items():
                click.echo(f"  {count:>10}  {key}")
        else:
            click.echo(f"{name.replace('_', ' '):<20} {'-' if value is None else value}")


@command.command("dump", epilog="Example: flyball tsdb dump --match 'up{job=\"web\"}' > up.om")
@_store_option
@_selection_options
def dump(data_dir: Path, storage: Path | None, selectors: tuple[str, ...], start: str, end: str) -> None:
    """Print samples as OpenMetrics, which flyball tsdb import and promtool read. Staleness markers are left out."""
    from flyball.model.labels import METRIC_NAME, Matcher, MatchType

    database = _open(data_dir, storage)
    sets = _matcher_sets(selectors)
    for name in database.label_values(METRIC_NAME, sets):  # OpenMetrics keeps families together, and series in them
        here = [(Matcher(MatchType.EQUAL, METRIC_NAME, name), *matchers) for matchers in sets]
        for frame in _frames(database, here, *_span(database, start, end)):
            for labels, times, values in _series(frame):
                text = _openmetrics(dict(labels))
                for at_ms, value in zip(times, values, strict=True):
                    sys.stdout.write(f"{text} {_number(value)} {at_ms / 1000:.3f}\n")
    sys.stdout.write("# EOF\n")


@command.command("export", epilog="Example: flyball tsdb export metrics.parquet --match http_requests_total")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@_store_option
@_selection_options
def export(path: Path, data_dir: Path, storage: Path | None, selectors: tuple[str, ...], start: str, end: str) -> None:
    """Write samples to a Parquet file: time, value, and a column for each label. pandas and DuckDB read it."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("export needs pyarrow; run: pip install 'flyball[parquet]'") from None

    database = _open(data_dir, storage)
    sets = _matcher_sets(selectors)
    names = database.label_names(sets)
    if not names:
        raise ConfigError("no series matches; see flyball tsdb analyze for what there is")
    text = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(
        [("timestamp", pa.timestamp("ms", tz="UTC")), ("value", pa.float64()), *((name, text) for name in names)]
    )
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        start_ms, end_ms = _span(database, start, end)
        for window in range(start_ms, end_ms + 1, _WINDOW_MS):
            for frame in _frames(database, sets, window, min(window + _WINDOW_MS - 1, end_ms)):
                table = _table(frame, names, schema)
                rows += table.num_rows
                writer.write_table(table)
    click.echo(f"{rows} samples in {path}")


@command.command("import", epilog="Example: flyball tsdb import old.om --storage /var/lib/flyball")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_store_option
def import_(path: Path, data_dir: Path, storage: Path | None) -> None:
    """Take samples of the past from an OpenMetrics file, each with its time. The store must not be in use."""
    import numpy as np

    from flyball.exposition import NO_TIME, Format, parse, parse_series
    from flyball.model.labels import labels_of

    exposition = parse(path.read_bytes(), Format.OPENMETRICS)
    times = exposition.times_ms
    if times is None or (times == NO_TIME).any():
        raise ConfigError(f"{path}: a sample has no time; write it behind the value, in seconds")
    by_text: dict[tuple[bytes, str], list[int]] = {}
    for index, key in enumerate(zip(exposition.series, exposition.types, strict=True)):
        by_text.setdefault(key, []).append(index)
    found = []
    for (text, type_), indices in by_text.items():
        at, order = np.unique(times[indices], return_index=True)
        found.append((labels_of(parse_series(text, type_)), (at, exposition.values[indices][order])))
    database = _open(data_dir, storage, read_only=False)
    blocks = database.backfill(found)
    database.close()
    click.echo(f"{sum(block.samples for block in blocks)} samples of {len(found)} series in {len(blocks)} blocks")


def _matcher_sets(selectors: tuple[str, ...]) -> "list[tuple[Matcher, ...]]":
    from flyball.promql import parse_selector

    return [parse_selector(text) for text in selectors] or [()]


def _span(database: "Database", start: str, end: str) -> tuple[int, int]:
    """The times asked for, by default those of the oldest and the newest sample."""
    from flyball.web.parameters import parse_time_ms

    oldest_ms, newest_ms = database.span_ms() or (0, -1)
    try:
        start_ms = parse_time_ms(start) if start else oldest_ms
        end_ms = parse_time_ms(end) if end else newest_ms
    except ValueError as exc:
        raise ConfigError(f"--start, --end: {exc}; write Unix seconds or RFC 3339") from None
    return start_ms, end_ms


def _frames(
    database: "Database", matcher_sets: "list[tuple[Matcher, ...]]", start_ms: int, end_ms: int
) -> "Iterator[Frame]":
    """What is selected with start <= t <= end, each series once."""
    seen: set[Labels] = set()
    for matchers in matcher_sets:
        for frame in database.select(matchers, start_ms - 1, end_ms):
            yield _cut(frame, seen, start_ms - 1, end_ms)
            seen.update(frame.labels)


def _cut(frame: "Frame", seen: "set[Labels]", start_ms: int, end_ms: int) -> "Frame":
    """The frame without samples outside of start < t <= end, and without series that another selector found."""
    import numpy as np

    from flyball.model.frames import ABSENT_BITS, Frame

    bits = np.array(frame.values, order="C").view(np.uint64)
    outside = (frame.times_ms <= start_ms) | (frame.times_ms > end_ms)
    bits[outside[:, frame.target]] = ABSENT_BITS
    bits[:, [labels in seen for labels in frame.labels]] = ABSENT_BITS
    return Frame(frame.labels, frame.times_ms, frame.target, bits.view(np.float64))


def _series(frame: "Frame") -> "Iterator[tuple[Any, list[int], list[float]]]":
    from flyball.model.frames import is_absent, is_stale

    present = ~(is_absent(frame.values) | is_stale(frame.values))
    for column, labels in enumerate(frame.labels):
        rows = present[:, column]
        yield labels, frame.times_ms[rows, frame.target[column]].tolist(), frame.values[rows, column].tolist()


def _table(frame: "Frame", names: list[str], schema: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    from flyball.model.frames import is_absent, is_stale

    columns, rows = np.nonzero(~(is_absent(frame.values) | is_stale(frame.values)).T)
    arrays = [
        pa.array(frame.times_ms[rows, frame.target[columns]], pa.timestamp("ms", tz="UTC")),
        pa.array(frame.values[rows, columns]),
    ]
    sets = [dict(labels) for labels in frame.labels]
    for name in names:
        codes: dict[str | None, int] = {}
        column_codes = np.array([codes.setdefault(one.get(name), len(codes)) for one in sets], np.int32)
        null = codes.get(None, -1)
        indices = pa.array(column_codes[columns], mask=column_codes[columns] == null)
        arrays.append(pa.DictionaryArray.from_arrays(indices, pa.array(["" if v is None else v for v in codes])))
    return pa.table(arrays, schema=schema)


def _openmetrics(labels: dict[str, str]) -> str:
    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'

    def plain(name: str) -> bool:
        return name.isascii() and name.replace(":", "_").isidentifier()

    metric = labels.pop("__name__")
    pairs = [f"{name if plain(name) else quoted(name)}={quoted(value)}" for name, value in labels.items()]
    if not plain(metric):
        return "{" + ",".join([quoted(metric), *pairs]) + "}"
    return metric + ("{" + ",".join(pairs) + "}" if pairs else "")


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value) or repr(value)


def _print_rows(rows: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("there are no blocks yet; samples are sealed when they are half an hour old")
        return
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    for row in ({name: name for name in widths}, *rows):
        click.echo("  ".join(str(row[name]).ljust(width) for name, width in widths.items()).rstrip())
