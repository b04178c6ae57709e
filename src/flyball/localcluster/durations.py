"""Series that several parts of the cluster have: how long things took, and what a client asked the API server."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

REQUEST_BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


def exponential(first: float, factor: float, count: int) -> tuple[float, ...]:
    """Bounds, each ``factor`` times the one before."""
    return tuple(first * factor**step for step in range(count))


class Durations:
    """Durations in buckets, by the values of labels.

    Args:
        bounds_s: upper bounds, rising; what is longer is counted beyond them.
    """

    __slots__ = ("_bounds_s", "_found", "_labels", "_words")

    def __init__(self, bounds_s: Sequence[float], labels: Sequence[str] = ()) -> None:
        self._bounds_s, self._labels = bounds_s, tuple(labels)
        self._words = [*map(repr, map(float, bounds_s)), "+Inf"]
        self._found: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, duration_s: float, values: Sequence[str] = ()) -> None:
        """
        Args:
            values: of the labels.
        """
        key = tuple(values)
        held = self._found.get(key)
        if held is None:
            held = self._found[key] = ([0] * len(self._words), [0.0])
        held[0][bisect_left(self._bounds_s, duration_s)] += 1
        held[1][0] += duration_s

    def add_to(self, family: HistogramMetricFamily, before: Sequence[str] = ()) -> None:
        """
        Args:
            before: values of labels that the family has before these.
        """
        for values, (counts, total_s) in list(self._found.items()):
            buckets = list(zip(self._words, map(float, accumulate(counts)), strict=True))
            family.add_metric((*before, *values), buckets, total_s[0])

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """Nothing observed is no series."""
        found = HistogramMetricFamily(name, text, labels=self._labels)
        self.add_to(found)
        return found


class ClientSeries:
    """What a client asked the API server, under client-go's names.

    Args:
        host: of the server, with its port.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._requests: Counter[tuple[str, str]] = Counter()
        self._durations = Durations(REQUEST_BUCKETS_S, ("verb", "host"))

    def answered(self, method: str, code: str, duration_s: float) -> None:
        """For ``KubeClient.on_answer``."""
        self._requests[method, code] += 1
        self._durations.observe(duration_s, (method, self._host))

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("rest_client_requests", "Requests by answer.", labels=("code", "host", "method"))
        for (method, code), count in list(self._requests.items()):
            requests.add_metric((code, self._host, method), count)
        yield requests
        yield self._durations.family("rest_client_request_duration_seconds", "How long answers took to begin.")


class Series(Collector):
    """A page of ``/metrics``: families from functions, and the figures of this process.

    Args:
        sources: each gives families at every scrape.
    """

    def __init__(self, *sources: Callable[[], Iterable[Metric]]) -> None:
        self._sources = sources
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        for source in self._sources:
            yield from source()

    def describe(self) -> list[Metric]:
        """Nothing: names are not checked, so nothing is gathered for it."""
        return []

    def exposition(self) -> bytes:
        """The page in the text format."""
        return generate_latest(self._registry)
