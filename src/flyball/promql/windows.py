"""Windows: what a range vector is at every step.

A window of step k holds the samples with starts[k] < t <= ends[k] (left-open, as Prometheus 3).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import Codes, Floats, Frame, Histograms, Mask, Times, has_histogram, is_absent, is_stale
from flyball.model.labels import Labels

Index = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Windows:
    """Samples of one frame without holes, and each step's window into them.

    Attributes:
        values: [R, n]; times: [R, p] ms; target: [n] the column of ``times`` of each series.
        lo, hi: [n, T], or [1, T] when all series share them; window k is rows lo <= r < hi.
        starts, ends: [T] ms.
        histograms, starts_ms: [R, n] as in a frame, or None.
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

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.labels), self.starts.size

    def take(self, rows: Index, table: Floats | None = None) -> Floats:
        """[n, T] values at row numbers [n or 1, T]; numbers out of range give arbitrary values."""
        source = self.values if table is None else table
        if source.shape[0] == 0:
            return np.zeros(self.shape)
        rows = np.clip(rows, 0, source.shape[0] - 1)
        if rows.shape[0] == 1:
            return np.asarray(source[rows[0]].T)
        return np.asarray(source[rows, np.arange(source.shape[1])[:, None]])

    def take_histograms(self, rows: Index) -> Histograms | None:
        """As ``take``, of the histograms; None when there are none."""
        if self.histograms is None:
            return None
        if self.histograms.shape[0] == 0:
            return np.full(self.shape, None, object)
        rows = np.broadcast_to(np.clip(rows, 0, self.histograms.shape[0] - 1), self.shape)
        table: Histograms = self.histograms[rows, np.arange(self.shape[0])[:, None]]
        return table

    def time(self, rows: Index) -> Floats:
        """Times in ms as floats, [n, T] or [1, T]."""
        if self.times.shape[0] == 0:
            return np.zeros((1, self.starts.size))
        rows = np.clip(rows, 0, self.times.shape[0] - 1)
        if rows.shape[0] == 1 and self.times.shape[1] == 1:
            return np.asarray(self.times[rows[0], 0][None, :], np.float64)
        return np.asarray(self.times[rows, self.target[:, None]], np.float64)

    def count(self) -> Index:
        """Samples in each window, [n or 1, T]."""
        return self.hi - self.lo

    def full(self, mask: Mask) -> Mask:
        return np.broadcast_to(mask, self.shape)

    def counts(self) -> Index:
        """Samples in each window, [n, T]."""
        return np.broadcast_to(self.count(), self.shape)

    def positions(self) -> Iterator[tuple[Floats, Mask, Index]]:
        """Values [n, T] at the first, second... position of every window, where there is one."""
        longest = int(self.count().max(initial=0))
        for k in range(longest):
            rows = self.lo + k
            yield self.take(rows), self.full(rows < self.hi), rows

    def steps(self, first: int, last: int) -> "Windows":
        """The windows of some steps."""
        return replace(
            self,
            lo=self.lo[:, first:last],
            hi=self.hi[:, first:last],
            starts=self.starts[first:last],
            ends=self.ends[first:last],
        )


def cut(frame: Frame, starts: Times, ends: Times, *, keep_stale: bool = False, floats_only: bool = False) -> Windows:
    """The windows of a frame.

    Args:
        keep_stale: staleness markers are samples (for instant selectors).
        floats_only: native histograms are not.
    """
    times = np.maximum.accumulate(frame.times_ms, axis=0) if frame.times_ms.shape[0] else frame.times_ms
    lo, hi = _bounds(times, frame.target, starts, ends)
    histograms = None if floats_only else frame.histograms
    windows = Windows(
        frame.labels, frame.values, times, frame.target, lo, hi, starts, ends, histograms, frame.starts_ms
    )
    hole = None
    if np.isnan(frame.values).any():
        packed = np.ascontiguousarray(frame.values)
        hole = is_absent(packed)
        if not keep_stale:
            hole |= is_stale(packed)
    if floats_only and frame.histograms is not None:
        is_histogram = has_histogram(frame.histograms)
        hole = is_histogram if hole is None else hole | is_histogram
    return windows if hole is None or not hole.any() else _without(windows, hole)


def _bounds(times: Times, target: Codes, starts: Times, ends: Times) -> tuple[Index, Index]:
    """The first row of each window and the first one behind it, [n or 1, T]."""
    targets = times.shape[1]
    if targets == 1:
        column = np.ascontiguousarray(times[:, 0])
        return (
            np.searchsorted(column, starts, side="right")[None, :],
            np.searchsorted(column, ends, side="right")[None, :],
        )
    # One search for all targets: their times follow each other, moved apart by more than their span.
    # Outside the windows a time only has to stay outside: clipped, the far marks of a store's unused cells
    # cannot overflow.
    base, top = int(starts.min()), int(ends.max()) + 1
    apart = np.arange(targets, dtype=np.int64)[:, None] * (top - base + 1) - base
    flat = (np.clip(times, base, top).T + apart).ravel()
    first = np.arange(targets, dtype=np.int64)[:, None] * times.shape[0]
    lo = np.searchsorted(flat, (starts + apart).ravel(), side="right").reshape(targets, -1) - first
    hi = np.searchsorted(flat, (ends + apart).ravel(), side="right").reshape(targets, -1) - first
    return lo[target], hi[target]


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
        lo=before[np.broadcast_to(w.lo, w.shape), index],
        hi=before[np.broadcast_to(w.hi, w.shape), index],
        histograms=histograms,
        starts_ms=starts_ms,
    )
