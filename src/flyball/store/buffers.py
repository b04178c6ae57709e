"""Series that are not scrape-shaped: rule results, pushed samples, samples with times of their own."""

import numpy as np

from flyball.model.frames import Floats, Times
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.store.index import Entry

_CAPACITY_MIN = 8
#: The histograms of a series without any.
_NONE: dict[int, Histogram] = {}


class SeriesBuffer:
    """Times and values of one series, ascending. ``view`` is replaced as a whole, so a reader sees whole samples.

    ``histograms`` holds the samples that are native histograms by time; their values are the counts.
    """

    __slots__ = ("_capacity", "_times", "_values", "entry", "histograms", "labels", "number", "view")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.entry: Entry | None = None
        self.number = 0  # in the write-ahead log
        self.histograms: dict[int, Histogram] = _NONE
        self._capacity = _CAPACITY_MIN
        self._times: Times = np.empty(_CAPACITY_MIN, np.int64)
        self._values: Floats = np.empty(_CAPACITY_MIN, np.float64)
        self.view: tuple[Times, Floats, int] = (self._times, self._values, 0)

    @property
    def nbytes(self) -> int:
        return 16 * self._capacity

    def last_ms(self) -> int | None:
        times, _, count = self.view
        return int(times[count - 1]) if count else None

    def first_ms(self) -> int | None:
        times, _, count = self.view
        return int(times[0]) if count else None

    def add_histogram(self, at_ms: int, histogram: Histogram) -> None:
        """What the sample at this time is; comes before ``append`` or ``insert``, so that no reader misses it."""
        if self.histograms is _NONE:
            self.histograms = {}
        self.histograms[at_ms] = histogram

    def _tidy(self) -> None:
        if self.histograms:
            kept = set(self.view[0][: self.view[2]].tolist())
            self.histograms = {at: found for at, found in self.histograms.items() if at in kept}

    def append(self, at_ms: int, value: float, horizon_ms: int) -> int:
        """Appends a sample later than all others; returns by how many bytes the buffer grew. Samples before the
        horizon may be dropped."""
        count = self.view[2]
        grown = 0
        if count == self._capacity:
            grown = self._rebuild(horizon_ms)
            count = self.view[2]
        self._times[count] = at_ms
        self._values[count] = value
        self.view = (self._times, self._values, count + 1)
        return grown

    def insert(self, at_ms: int, value: float) -> int | None:
        """Puts a late sample in its place; returns the growth in bytes, or None when there is one at this time."""
        times, values, count = self.view
        place = int(np.searchsorted(times[:count], at_ms))
        if place < count and times[place] == at_ms:
            return None
        before = self.nbytes
        self._times = np.insert(times[:count], place, at_ms)
        self._values = np.insert(values[:count], place, value)
        self._capacity = count + 1
        self.view = (self._times, self._values, count + 1)
        return self.nbytes - before

    def delete(self, start_ms: int, end_ms: int) -> None:
        """Takes the samples with start <= t <= end out."""
        times, values, count = self.view
        kept = (times[:count] < start_ms) | (times[:count] > end_ms)
        self._times, self._values = times[:count][kept], values[:count][kept]
        self._capacity = len(self._times)
        self.view = (self._times, self._values, len(self._times))
        self._tidy()

    def drop(self, times_ms: Times) -> int:
        """Lets go of the samples at these times; returns the growth in bytes."""
        times, values, count = self.view
        before = self.nbytes
        kept = ~np.isin(times[:count], times_ms)
        self._times, self._values = times[:count][kept], values[:count][kept]
        self._capacity = len(self._times)
        self.view = (self._times, self._values, len(self._times))
        self._tidy()
        return self.nbytes - before

    def _rebuild(self, horizon_ms: int) -> int:
        times, values, count = self.view
        first = int(np.searchsorted(times[:count], horizon_ms))
        kept = count - first
        before = self.nbytes
        self._capacity = max(_CAPACITY_MIN, kept + kept // 2 + 1)
        self._times, self._values = np.empty(self._capacity, np.int64), np.empty(self._capacity, np.float64)
        self._times[:kept], self._values[:kept] = times[first:count], values[first:count]
        self.view = (self._times, self._values, kept)
        if first:
            self._tidy()
        return self.nbytes - before
