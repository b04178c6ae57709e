"""Exemplars: the last so many of all series, in memory, as Prometheus keeps them."""

from collections import deque
from collections.abc import Sequence

from flyball.model.labels import Labels, Matcher

_Exemplar = tuple[Labels, float, int]


class ExemplarStore:
    """A ring over all series. Written by the event loop, read by it too.

    Args:
        size_max: exemplars kept; the oldest make room.
    """

    def __init__(self, size_max: int = 100_000) -> None:
        self.size_max = size_max
        self._series: dict[Labels, deque[_Exemplar]] = {}
        self._order: deque[Labels] = deque()

    def add(self, series: Labels, labels: Labels, value: float, time_ms: int) -> None:
        """One exemplar; one that is not newer than the series' last is the same one scraped again."""
        kept = self._series.get(series)
        if kept is None:
            kept = self._series[series] = deque()
        elif kept and (time_ms <= kept[-1][2] or (labels, value) == kept[-1][:2]):
            return
        kept.append((labels, value, time_ms))
        self._order.append(series)
        if len(self._order) > self.size_max:
            oldest = self._order.popleft()
            self._series[oldest].popleft()
            if not self._series[oldest]:
                del self._series[oldest]

    def select(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> list[tuple[Labels, list[_Exemplar]]]:
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
