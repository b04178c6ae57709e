"""The operator's own series, under the names that prometheus-operator's alerts ask for."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_CONTROLLERS = {"Prometheus": "prometheus", "Alertmanager": "alertmanager"}


class Telemetry(Collector):
    """Reads ``Operator.statistics`` at each scrape."""

    def __init__(self, statistics: Callable[[], Mapping[str, Any]]) -> None:
        self._statistics = statistics
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def app(self) -> Starlette:
        """``/metrics`` and ``/healthz``."""

        def metrics(_: Request) -> Response:
            return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4; charset=utf-8")

        return Starlette(
            routes=[Route("/metrics", metrics), Route("/healthz", lambda _: PlainTextResponse('{"status":"up"}'))]
        )

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        now = self._statistics()
        yield _by_controller(GaugeMetricFamily, "ready", "Whether every kind was listed.", float(now["synced"]))
        for name, text, key in (
            ("reconcile_operations", "Times that everything was generated anew.", "reconciliations"),
            ("reconcile_errors", "Times that the API server did not take it.", "failures"),
            ("status_update_operations", "Writes of a status.", "status_writes"),
            ("list_operations", "Lists of a kind.", "lists"),
            ("watch_operations", "Watches of a kind.", "watches"),
            ("watch_operations_failed", "Lists and watches that failed.", "watch_failures"),
        ):
            yield _by_controller(CounterMetricFamily, name, text, float(now[key]))
        syncs = GaugeMetricFamily(
            "prometheus_operator_syncs", "Objects by the end of their last sync.", labels=("controller", "status")
        )
        managed = GaugeMetricFamily(
            "prometheus_operator_managed_resources",
            "Objects by kind, and whether they are in force.",
            labels=("controller", "resource", "state"),
        )
        for kind, controller in _CONTROLLERS.items():
            refused = now["objects_refused"].get(kind, 0)
            syncs.add_metric((controller, "ok"), now["objects"].get(kind, 0) - refused)
            syncs.add_metric((controller, "failed"), refused)
        for kind, count in now["objects"].items():
            refused = now["objects_refused"].get(kind, 0)
            controller = "alertmanager" if kind.startswith("Alertmanager") else "prometheus"
            managed.add_metric((controller, kind, "selected"), count - refused - now["objects_unselected"].get(kind, 0))
            managed.add_metric((controller, kind, "rejected"), refused)
        yield syncs
        yield managed


def _by_controller(family: type[GaugeMetricFamily | CounterMetricFamily], name: str, text: str, value: float) -> Metric:
    found = family(f"prometheus_operator_{name}", text, labels=("controller",))
    found.add_metric(("prometheus",), value)  # one loop serves all kinds
    return found
