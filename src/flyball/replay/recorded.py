"""Recorded load from a PromQL expression: of any server of the Prometheus API, or of a store's directory.

The expression gives one series, the load in units a second; a point that is absent or NaN is a gap, never zero.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flyball.clock import rfc3339
from flyball.errors import ConfigError
from flyball.model.labels import Labels
from flyball.promql import Expr, Matrix, Options, evaluate, parse
from flyball.replay.traces import Trace, joined
from flyball.sources import HttpSource
from flyball.store import Database

Floats = NDArray[np.float64]

STEP_S = 15
_STEPS_AT_ONCE = 2_000  # Prometheus gives at most 11,000
_SAMPLES_MAX = 50_000_000


async def read_prometheus(
    url: str,
    expr: str,
    start_ms: int,
    end_ms: int,
    step_s: int = STEP_S,
    *,
    bearer_file: str = "",
    compress: float = 1.0,
    progress: Callable[[float], None] | None = None,
) -> Trace:
    """The load that a server recorded.

    Raises:
        ConfigError: no load, or several series.
        QueryError: the server refused the expression.
        UpstreamError: it does not answer.
    """
    source = HttpSource(url, bearer_file=bearer_file, timeout_s=120)
    parts = _Parts(expr, url)
    try:
        for part_start_ms, part_end_ms, share in _stretches(start_ms, end_ms, step_s):
            for points in await source.query_range(expr, part_start_ms, part_end_ms, step_s * 1000):
                parts.add(points[0].labels, [point.t_ms for point in points], [point.value for point in points])
            if progress is not None:
                progress(share)
    finally:
        await source.close()
    return parts.trace(start_ms, end_ms, step_s, compress)


def read_store(
    directory: Path,
    expr: str,
    start_ms: int | None = None,
    end_ms: int | None = None,
    step_s: int = STEP_S,
    *,
    compress: float = 1.0,
    progress: Callable[[float], None] | None = None,
) -> Trace:
    """The load that a store's files hold, by default all of it; a process that writes there is not disturbed.

    Raises:
        ConfigError: no load, or several series.
        QueryError: the expression cannot be evaluated.
        StoreError: the directory is no store.
    """
    parsed: Expr = parse(expr)
    database = Database(directory, read_only=True)
    span = database.span_ms()
    if span is None:
        inside = f"; {directory / 'data'} may be meant" if (directory / "data").is_dir() else ""
        raise ConfigError(f"{directory} holds no samples{inside} (--store)")
    start_ms = span[0] if start_ms is None else start_ms
    end_ms = span[1] if end_ms is None else end_ms
    parts = _Parts(expr, f"{directory} (samples from {rfc3339(span[0])} to {rfc3339(span[1])})")
    for part_start_ms, part_end_ms, share in _stretches(start_ms, end_ms, step_s):
        options = Options(samples_max=_SAMPLES_MAX)
        value = evaluate(parsed, database, part_start_ms, part_end_ms, step_s * 1000, options=options)
        assert isinstance(value, Matrix)  # of a range
        for labels, values, present in zip(value.labels, value.values, value.present(), strict=True):
            parts.add(labels, value.times_ms[present], values[present])
        if progress is not None:
            progress(share)
    return parts.trace(start_ms, end_ms, step_s, compress)


def _stretches(start_ms: int, end_ms: int, step_s: int) -> Iterator[tuple[int, int, float]]:
    """(start, end, share that is done after it); the points of all are those of one range."""
    if end_ms <= start_ms:
        raise ConfigError(
            f"the range ends at {rfc3339(end_ms)}, not after its start {rfc3339(start_ms)} (--from, --to)"
        )
    wide_ms = _STEPS_AT_ONCE * step_s * 1000
    for at_ms in range(start_ms, end_ms + 1, wide_ms):
        until_ms = min(end_ms, at_ms + wide_ms - step_s * 1000)
        yield at_ms, until_ms, (until_ms - start_ms) / (end_ms - start_ms)


class _Parts:
    """The points of one series, stretch by stretch."""

    def __init__(self, expr: str, where: str) -> None:
        self._expr, self._where = expr, where
        self._times: list[Floats] = [np.zeros(0)]
        self._values: list[Floats] = [np.zeros(0)]
        self._labels: Labels | None = None

    def add(self, labels: Labels, times_ms: ArrayLike, values: ArrayLike) -> None:
        if self._labels is not None and labels != self._labels:
            two = f"{dict(self._labels)} and {dict(labels)}"
            raise ConfigError(f"{self._expr} gives several series, as {two}; make it one, as with sum(...) (--query)")
        self._labels = labels
        self._times.append(np.asarray(times_ms, np.float64) / 1000)
        self._values.append(np.asarray(values, np.float64))

    def trace(self, start_ms: int, end_ms: int, step_s: int, compress: float) -> Trace:
        times_s, values = np.concatenate(self._times), np.concatenate(self._values)
        known = ~np.isnan(values)
        times_s, values = times_s[known], values[known]
        if len(times_s) < 2:
            raise ConfigError(
                f"{self._where}: {self._expr} has {len(times_s)} points from {rfc3339(start_ms)} to {rfc3339(end_ms)}; "
                "check the names in --query, and --from and --to"
            )
        wrong = np.flatnonzero(~np.isfinite(values) | (values < 0))
        if len(wrong):
            at = int(wrong[0])
            raise ConfigError(
                f"{self._expr} is {values[at]:g} at {rfc3339(int(times_s[at] * 1000))}; a load is finite and not "
                "negative: ask for a rate, as with sum(rate(http_requests_total[1m])) (--query)"
            )
        notes = (f"{self._expr} is the load in units a second, asked every {step_s} s",)
        return joined(self._expr, times_s, values, step_s, compress, notes)
