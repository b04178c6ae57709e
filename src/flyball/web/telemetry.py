"""The server's own series that are more than a count: quantiles of late, and facts about the server that answers."""

from collections import deque
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flyball import __version__, clock
from flyball.web.instance import Instance

PROMETHEUS_VERSION = "3.14.0"
_QUANTILES = (0.5, 0.9, 0.99)
_LATE_S = 600.0
_KEPT_MAX = 2_000


class RecentDurations(Collector):
    """A summary whose quantiles are those of the last ten minutes, or of the last 2,000 where there are more.

    Args:
        label: the name of its one label.
    """

    def __init__(self, name: str, text: str, label: str) -> None:
        self._name, self._text, self._label = name, text, label
        self._recent: dict[str, deque[tuple[float, float]]] = {}
        self._totals: dict[str, tuple[int, float]] = {}
        REGISTRY.register(self)

    def observe(self, value: str, duration_s: float, now_s: float) -> None:
        """
        Args:
            value: of the label.
            now_s: monotonic.
        """
        count, total_s = self._totals.get(value, (0, 0.0))
        self._totals[value] = count + 1, total_s + duration_s
        self._recent.setdefault(value, deque(maxlen=_KEPT_MAX)).append((now_s, duration_s))

    def collect(self) -> Iterator[Metric]:
        family = Metric(self._name, self._text, "summary")
        oldest_s = clock.monotonic_s() - _LATE_S
        for value, (count, total_s) in list(self._totals.items()):
            labels = {self._label: value}
            late = sorted(duration_s for at_s, duration_s in list(self._recent[value]) if at_s >= oldest_s)
            for quantile in _QUANTILES:
                found = late[min(len(late) - 1, int(quantile * len(late)))] if late else float("nan")
                family.add_sample(self._name, {**labels, "quantile": str(quantile)}, found)
            family.add_sample(f"{self._name}_sum", labels, total_s)
            family.add_sample(f"{self._name}_count", labels, count)
        yield family

    def describe(self) -> list[Metric]:
        """Its name, so that another one is refused."""
        return [Metric(self._name, self._text, "summary")]


class _Server(Collector):
    """What is true of the server that was made last; of none there is nothing to say."""

    instance: Instance | None = None

    def collect(self) -> Iterator[Metric]:
        instance = self.instance
        if instance is None:
            return
        build = GaugeMetricFamily(
            "prometheus_build_info", "The version that is spoken, and ours.", labels=("version", "revision")
        )
        build.add_metric((PROMETHEUS_VERSION, f"flyball-{__version__}"), 1)
        yield build
        yield GaugeMetricFamily("prometheus_ready", "Whether it answers queries.", value=float(instance.ready()))
        worked, at_ms = instance.last_reload()
        yield GaugeMetricFamily(
            "prometheus_config_last_reload_successful", "Whether the configuration was taken.", value=float(worked)
        )
        if at_ms:
            yield GaugeMetricFamily(
                "prometheus_config_last_reload_success_timestamp_seconds", "When it was.", value=at_ms / 1000
            )
        yield GaugeMetricFamily(
            "prometheus_notifications_alertmanagers_discovered",
            "Alertmanagers that alerts are sent to.",
            value=len(instance.alertmanagers()),
        )

    def describe(self) -> list[Metric]:
        """Nothing: names are not checked at registration."""
        return []


SERVER = _Server()
REGISTRY.register(SERVER)
