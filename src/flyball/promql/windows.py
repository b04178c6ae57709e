"""Windows: what a range vector is at every step.

A window of step k holds the samples with starts[k] < t <= ends[k] (left-open, as Prometheus 3). Rows, times and
counts are those of time columns ("targets" p): series that were scraped together share them. Tables over series and
steps lie step by step in memory, as the rows of a frame do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import Codes, Floats, Frame, Histograms, Mask, Times, has_histogram, is_absent, is_stale
from flyball.model.labels import Labels
from flyball.promql.stopping import Stop

Index = NDArray[np.int64]

#: Series from which on it pays to look at their windows alone, and the rows at the windows' edges up to which it does.
_LOOKED_AT_MIN, _EDGES_MAX = 256, 8
#: Series of a target from which on its rows are copied as runs.
_RUN_MIN = 8


@dataclass(slots=True, eq=False)
class Windows:
    """Samples of one frame, and each step's window into them.

    Attributes:
        values: [R, n]; times: [R, p] ms; target: [n] the column of ``times`` of each series.
        lo, hi: [p, T]; window k is rows lo <= r < hi.
        starts, ends: [T] ms.
        histograms, starts_ms: [R, n] as in a frame, or None.
        width: series of each target, when all have as many, one target behind the other; else 0.
        holed: series numbers, and their own windows: they lack samples where others have some, and what is said
            of them here is arbitrary. None when every row of a window holds a sample.
        stop: what is looked at within long loops.
        memo: what a function remembers of the values, for all parts of these windows.
    """

    labels: tuple[Labels, ...]
    values: Floats
    times: Times
    target: Codes
    lo: Index
    hi: Index
    starts: Times
    ends: Times
    histograms: Histograms | None = None
    starts_ms: Times | None = None
    width: int = 0
    holed: "tuple[Index, Windows] | None" = None
    stop: Stop | None = None
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.labels), self.starts.size

    def check_stopped(self) -> None:
        """
        Raises:
            QueryLimitError: nobody waits for the result any more.
        """
        if self.stop is not None:
            self.stop.check()

    # --- from targets to series

    def spread(self, table: NDArray[Any]) -> NDArray[Any]:
        """[p, T] of targets as [n, T] of series."""
        if table.shape[0] == 1 or self.width == 1:
            return np.broadcast_to(table, self.shape)
        if self.width:
            return np.repeat(table.T, self.width, axis=1).T
        return np.asarray(table.T[:, self.target].T)

    def spread_last(self, table: NDArray[Any]) -> NDArray[Any]:
        """[..., p] of targets as [..., n] of series."""
        if table.shape[-1] == 1 or self.width == 1:
            return table
        return np.repeat(table, self.width, axis=-1) if self.width else table[..., self.target]

    def full(self, mask: NDArray[Any]) -> Mask:
        """A mask of targets, [n, T]."""
        if mask.all():
            return np.ones(self.shape, bool) if self.starts.size == 1 else np.broadcast_to(np.True_, self.shape)
        return self.spread(mask)

    def scaled(self, table: Floats, factor: Floats) -> Floats:
        """A table [n, T] times a factor of targets [p, T]."""
        if self.width > 1 and table.flags.f_contiguous:
            steps, targets = self.starts.size, factor.shape[0]
            product = table.T.reshape(steps, targets, self.width) * factor.T[:, :, None]
            return np.asarray(product.reshape(steps, -1).T)
        return np.asarray(table * self.spread(factor))

    def count(self) -> Index:
        """Samples in each window, [p, T]."""
        return self.hi - self.lo

    def counts(self) -> Index:
        """Samples in each window, [n, T]."""
        return self.spread(self.count())

    def time(self, rows: Index) -> Floats:
        """Times in ms as floats, [p, T], of row numbers [p, T]."""
        if self.times.shape[0] == 0:
            return np.zeros(rows.shape)
        rows = _within(rows, self.times)
        return np.asarray(self.times[rows, np.arange(rows.shape[0])[:, None]], np.float64)

    # --- values

    def take(self, rows: Index, table: Floats | None = None) -> Floats:
        """[n, T] values at row numbers [p, T]; numbers out of range give arbitrary values."""
        source = self.values if table is None else table
        n, steps = self.shape
        if source.shape[0] == 0:
            return np.zeros((steps, n)).T
        rows = _within(rows, source)
        if rows.shape[0] == 1:
            return np.asarray(source[rows[0]].T)
        if self.width >= _RUN_MIN:
            runs = source.reshape(source.shape[0], -1, self.width)
            return np.asarray(runs[rows.T, np.arange(rows.shape[0])].reshape(steps, n).T)
        return _few_rows(source, self.spread(rows))

    def take_histograms(self, rows: Index) -> Histograms | None:
        """As ``take``, of the histograms; None when there are none."""
        if self.histograms is None:
            return None
        if self.histograms.shape[0] == 0:
            return np.full(self.shape, None, object)
        rows = self.spread(_within(rows, self.histograms))
        table: Histograms = self.histograms[rows, np.arange(self.shape[0])[:, None]]
        return table

    def positions(self) -> Iterator[tuple[Floats, Mask, Index]]:
        """Values [n, T] at the first, second... position of every window, where there is one; rows [p, T]."""
        longest = int(self.count().max(initial=0))
        for k in range(longest):
            self.check_stopped()
            rows = self.lo + k
            yield self.take(rows), self.full(rows < self.hi), rows

    # --- parts

    def steps(self, first: int, last: int) -> "Windows":
        """The windows of some steps."""
        return replace(
            self,
            lo=self.lo[:, first:last],
            hi=self.hi[:, first:last],
            starts=self.starts[first:last],
            ends=self.ends[first:last],
            holed=None if self.holed is None else (self.holed[0], self.holed[1].steps(first, last)),
        )

    def series(self, columns: Index) -> "Windows":
        """The windows of some series."""
        return replace(
            self,
            labels=tuple([self.labels[i] for i in columns.tolist()]),
            values=self.values[:, columns],
            target=self.target[columns],
            histograms=None if self.histograms is None else self.histograms[:, columns],
            starts_ms=None if self.starts_ms is None else self.starts_ms[:, columns],
            width=0,
            holed=None,
            memo={},
        )._own_targets()

    def _own_targets(self) -> "Windows":
        """With the targets alone that have series here."""
        if self.target.size == self.times.shape[1] and (np.diff(self.target) == 1).all():
            return replace(self, width=1)
        used = np.unique(self.target)
        w = self
        if used.size < self.times.shape[1]:
            w = replace(
                self,
                times=self.times[:, used],
                target=np.searchsorted(used, self.target).astype(np.int32),
                lo=self.lo[used],
                hi=self.hi[used],
            )
        return replace(w, width=width_of(w.target, w.times.shape[1]))

    def applied(self, function: "Callable[[Windows], tuple[NDArray[Any], ...]]") -> tuple[NDArray[Any], ...]:
        """The tables [n, T] that a function gives, those of the holed series from their own windows."""
        tables = function(self)
        if self.holed is None:
            return tables
        columns, own = self.holed
        found = []
        for table, part in zip(tables, function(own), strict=True):
            if not table.flags.writeable or table.shape != self.shape:
                table = np.array(np.broadcast_to(table, self.shape), order="F")
            table[columns] = part
            found.append(table)
        return tuple(found)


def _within(rows: Index, table: NDArray[Any]) -> Index:
    inside: Index = np.minimum(np.maximum(rows, 0), table.shape[0] - 1)
    return inside


def width_of(target: Codes, targets: int) -> int:
    if targets == 1:
        return target.size
    width, rest = divmod(target.size, max(1, targets))
    return width if not rest and (target == np.repeat(np.arange(targets), width)).all() else 0


def _few_rows(source: Floats, rows: Index) -> Floats:
    """Values at row numbers [n, T]. At one step most series are on the same row or its neighbour, so whole rows
    are copied and the others mended."""
    steps = rows.shape[1]
    out = np.empty((steps, source.shape[1]), source.dtype)
    by_step = np.ascontiguousarray(rows.T)
    low, high = by_step.min(axis=1).tolist(), by_step.max(axis=1).tolist()
    for k in range(steps):
        if high[k] - low[k] > 4:
            out[k] = source[by_step[k], np.arange(source.shape[1])]
            continue
        out[k] = source[low[k]]
        for row in range(low[k] + 1, high[k] + 1):
            np.copyto(out[k], source[row], where=by_step[k] == row)
    return out.T


def cut(
    frame: Frame,
    starts: Times,
    ends: Times,
    *,
    keep_stale: bool = False,
    floats_only: bool = False,
    apart: bool = False,
    stop: Stop | None = None,
) -> Windows:
    """The windows of a frame.

    Args:
        keep_stale: staleness markers are samples (for instant selectors).
        floats_only: native histograms are not.
        apart: series without a sample in some row are ``holed``; else all series move up to be without holes.
    """
    times, target = frame.times_ms, frame.target
    used = np.unique(target) if times.shape[1] > 1 and target.size < times.shape[1] * _RUN_MIN else None
    if used is not None and used.size < times.shape[1]:
        times, target = times[:, used], np.searchsorted(used, target).astype(np.int32)
    times = np.maximum.accumulate(times, axis=0) if times.shape[0] else times
    histograms = None if floats_only else frame.histograms
    lo, hi = _bounds(times, starts, ends)
    w = Windows(
        frame.labels,
        frame.values,
        times,
        target,
        lo,
        hi,
        starts,
        ends,
        histograms,
        frame.starts_ms,
        width_of(target, times.shape[1]),
        stop=stop,
    )
    columns, hole = _holes(frame, w, keep_stale, floats_only)
    if not columns.size:
        return w
    if apart and columns.size < len(frame.labels):
        return replace(w, holed=(columns, _without(w.series(columns), hole)))
    everywhere = np.zeros(frame.values.shape, bool)
    everywhere[:, columns] = hole
    return _without(w, everywhere)


def _holes(frame: Frame, w: Windows, keep_stale: bool, floats_only: bool) -> tuple[Index, Mask]:
    """The series that have rows without a sample among those of their windows, and where, [R, c]."""
    suspects = np.flatnonzero(_with_nan(frame.values, w))
    if floats_only and frame.histograms is not None:
        suspects = np.arange(len(frame.labels))
    if not suspects.size:
        return suspects, np.zeros((len(frame.values), 0), bool)
    packed = np.ascontiguousarray(frame.values[:, suspects])
    hole = is_absent(packed)
    if not keep_stale:
        hole |= is_stale(packed)
    if floats_only and frame.histograms is not None:
        hole |= has_histogram(frame.histograms)
    if hole.any():  # the last row is mostly being filled, and then later than all windows of some
        row, own = np.arange(len(hole))[:, None], w.target[suspects]
        hole &= (row >= w.lo.min(axis=1)[own]) & (row < w.hi.max(axis=1)[own])
    there = hole.any(axis=0)
    return suspects[there], hole[:, there]


def _with_nan(values: Floats, w: Windows) -> Mask:
    """Which series have NaN in their windows, or at least may have where there are few."""
    rows, edges = slice(None), list[int]()
    if values.shape[1] >= _LOOKED_AT_MIN and w.starts.size:
        first, behind = w.lo.min(axis=1), w.hi.max(axis=1)
        low, high = int(first.max()), int(behind.min())
        around = [*range(int(first.min()), low), *range(high, int(behind.max()))]
        if low < high and len(around) <= _EDGES_MAX:
            rows, edges = slice(low, high), around
    found: Mask = np.isnan(values[rows].sum(axis=0))
    for row in edges:  # is in the windows of some targets only
        found |= np.isnan(values[row]) & ((first <= row) & (row < behind))[w.target]
    return found


def _bounds(times: Times, starts: Times, ends: Times) -> tuple[Index, Index]:
    """The first row of each window and the first one behind it, [p, T]. Windows of steps often begin where others
    end, so that each edge is looked up once."""
    if ends.size == 1:
        return rows_up_to(times, starts), rows_up_to(times, ends)
    edges, at = np.unique(np.concatenate([starts, ends]), return_inverse=True)
    rows = rows_up_to(times, edges)

    def picked(index: Index) -> Index:
        follows = index.size > 0 and index[-1] - index[0] == index.size - 1 and (np.diff(index) == 1).all()
        return rows[:, index[0] : index[-1] + 1] if follows else rows[:, index]

    return picked(at[: starts.size]), picked(at[starts.size :])


def rows_up_to(times: Times, edges: Times) -> Index:
    """How many rows of each target lie at or before each edge, [p, T]; times ascend within a target."""
    rows, targets = times.shape
    if targets == 1:
        return np.searchsorted(np.ascontiguousarray(times[:, 0]), edges, side="right")[None, :]
    if rows == 0:
        return np.zeros((targets, edges.size), np.int64)
    # Rows are scrape rounds: at one edge nearly all targets are at the same row, and few rows are in doubt.
    sure = np.searchsorted(np.maximum.accumulate(times.max(axis=1)), edges, side="right")
    maybe = np.searchsorted(np.minimum.accumulate(times.min(axis=1)[::-1])[::-1], edges, side="right")
    if int((maybe - sure).sum()) <= 16 * edges.size:
        found = np.repeat(sure[:, None], targets, axis=1)
        for k, (first, last) in enumerate(zip(sure.tolist(), maybe.tolist(), strict=True)):
            for row in range(first, last):
                found[k] += times[row] <= edges[k]
        return found.T
    # One search for all targets: their times follow each other, moved apart by more than their span.
    # Outside the windows a time only has to stay outside: clipped, the far marks of a store's unused cells
    # cannot overflow.
    base, top = int(edges.min()), int(edges.max()) + 1
    apart = np.arange(targets, dtype=np.int64)[:, None] * (top - base + 1) - base
    flat = (np.clip(times, base, top).T + apart).ravel()
    first_of = np.arange(targets, dtype=np.int64)[:, None] * rows
    upto: Index = np.searchsorted(flat, (edges + apart).ravel(), side="right").reshape(targets, -1) - first_of
    return upto


def _without(w: Windows, hole: Mask) -> Windows:
    """Without some cells: the samples of every series move up."""
    n = len(w.labels)
    valid = ~hole
    before = np.zeros((w.values.shape[0] + 1, n), np.int64)
    np.cumsum(valid, axis=0, out=before[1:])
    rows, columns = np.nonzero(valid)
    to = before[rows, columns]
    height = int(before[-1].max(initial=0))
    dense = np.zeros((height, n))
    dense[to, columns] = w.values[rows, columns]
    stamps = np.zeros((height, n), np.int64)
    stamps[to, columns] = w.times[rows, w.target[columns]]
    histograms = starts_ms = None
    if w.histograms is not None:
        histograms = np.full((height, n), None, object)
        histograms[to, columns] = w.histograms[rows, columns]
    if w.starts_ms is not None:
        starts_ms = np.zeros((height, n), np.int64)
        starts_ms[to, columns] = w.starts_ms[rows, columns]
    index = np.arange(n)[:, None]
    return replace(
        w,
        values=dense,
        times=stamps,
        target=np.arange(n, dtype=np.int32),
        lo=before[w.spread(w.lo), index],
        hi=before[w.spread(w.hi), index],
        histograms=histograms,
        starts_ms=starts_ms,
        width=1,
        memo={},
    )
