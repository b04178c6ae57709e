"""Exemplars: the last so many of all series, in memory and in the log, as Prometheus keeps them."""

from collections import deque
from collections.abc import Sequence

from flyball.model.labels import Labels, Matcher

#: (series, the exemplar's own labels, value, time in ms).
Exemplar = tuple[Labels, Labels, float, int]
_Kept = tuple[Labels, float, int]


class Exemplars:
    """A ring over all series. Written by the event loop, read by it too.

    Args:
        size_max: exemplars kept; the oldest make room.
    """

    def __init__(self, size_max: int = 100_000) -> None:
        self.size_max = size_max
        self._series: dict[Labels, deque[_Kept]] = {}
        self._order: deque[Labels] = deque()

    def fresh(self, found: Sequence[Exemplar]) -> list[Exemplar]:
        """Those that are newer than their series' last; the others are the same ones scraped again."""
        fresh = []
        last: dict[Labels, _Kept] = {}
        for series, labels, value, time_ms in found:
            kept = self._series.get(series)
            before = last.get(series) or (kept[-1] if kept else None)
            if before is None or (time_ms > before[2] and (labels, value) != before[:2]):
                fresh.append((series, labels, value, time_ms))
                last[series] = (labels, value, time_ms)
        return fresh

    def add(self, found: Sequence[Exemplar]) -> None:
        """Keeps exemplars that are ``fresh``."""
        for series, labels, value, time_ms in found:
            self._series.setdefault(series, deque()).append((labels, value, time_ms))
            self._order.append(series)
            if len(self._order) > self.size_max:
                oldest = self._order.popleft()
                self._series[oldest].popleft()
                if not self._series[oldest]:
                    del self._series[oldest]

    def select(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> list[tuple[Labels, list[_Kept]]]:
        """(series, its exemplars with start <= t <= end) of series that match any of the sets, sorted."""
        found = []
        for series, kept in self._series.items():
            by_name = dict(series)
            if any(all(m.matches(by_name.get(m.name, "")) for m in matchers) for matchers in matcher_sets):
                inside = [exemplar for exemplar in kept if start_ms <= exemplar[2] <= end_ms]
                if inside:
                    found.append((series, inside))
        return sorted(found)

    def statistics(self) -> dict[str, int]:
        """Sizes."""
        return {"series": len(self._series), "exemplars": len(self._order)}
