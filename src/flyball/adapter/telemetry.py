"""The adapter's own metrics, read from its statistics when somebody asks."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from flyball.adapter.service import Adapter
from flyball.clock import parse_rfc3339_ms

_COUNTERS = {
    "queries": "Queries asked of the metric sources",
    "shared_queries": "Queries for all objects asked of the metric sources",
    "shared_answers": "Requests answered from a query for all objects that somebody else had asked",
    "shared_fallbacks": "Queries for all objects that were refused and asked one by one",
    "stale_values_dropped": "Values left out because their newest sample was too old",
    "not_finite_dropped": "Values left out because they were NaN or infinite",
    "relists": "Listings of series",
    "early_relists": "Listings brought forward by a request for an unknown metric",
    "config_reloads": "Configurations taken",
}
_GAUGES = {
    "custom_metrics": "Custom metrics known",
    "external_metrics": "External metrics known",
    "rule_errors": "Rules whose last listing failed",
    "query_bytes_max": "Length of the longest query asked",
}


class Telemetry:
    """Counters of requests, and what the adapter's statistics say."""

    def __init__(self, adapter: Adapter) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "flyball_adapter_requests_total",
            "Requests by API group and status",
            ["group", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "flyball_adapter_request_seconds", "Duration of a request", ["group"], registry=self.registry
        )
        self.registry.register(_FromStatistics(adapter))

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)


class _FromStatistics(Collector):
    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def collect(self) -> Iterator[Any]:
        statistics = self._adapter.statistics()
        for name, about in _COUNTERS.items():
            counter = CounterMetricFamily(f"flyball_adapter_{name}", about)
            counter.add_metric([], float(statistics[name]))
            yield counter
        for name, about in _GAUGES.items():
            gauge = GaugeMetricFamily(f"flyball_adapter_{name}", about)
            gauge.add_metric([], float(statistics[name]))
            yield gauge
        series = GaugeMetricFamily("flyball_adapter_rule_series", "Series that a rule matches", labels=["rule"])
        good = GaugeMetricFamily(
            "flyball_adapter_rule_last_good_timestamp_seconds", "When a rule was last listed", labels=["rule"]
        )
        failing = GaugeMetricFamily(
            "flyball_adapter_rule_failing", "1 when a rule is refused or its last listing failed", labels=["rule"]
        )
        for document in self._adapter.registry.documents():
            rule = [document["rule"]]
            failing.add_metric(rule, float(bool(document["error"])))
            if "seriesMatched" in document:
                series.add_metric(rule, float(document["seriesMatched"]))
            if document.get("lastGood"):
                good.add_metric(rule, parse_rfc3339_ms(document["lastGood"]) / 1000)
        yield from (series, good, failing)
