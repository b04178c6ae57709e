"""The autoscaler's own metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Telemetry:
    """Counters and gauges on a registry of the caller's, or on one of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.evaluations = Counter(
            "flyball_autoscaler_evaluations_total", "HPA evaluations by end", ["result"], registry=self.registry
        )
        self.seconds = Histogram(
            "flyball_autoscaler_evaluation_seconds",
            "Duration of an HPA evaluation, reads included",
            registry=self.registry,
        )
        self.scales = Counter(
            "flyball_autoscaler_scale_writes_total", "Scale writes by end", ["result"], registry=self.registry
        )
        self.wakes = Counter("flyball_autoscaler_wakes_total", "Evaluations brought forward", registry=self.registry)
        self.read_failures = Counter(
            "flyball_autoscaler_metric_failures_total", "Metric reads that failed", ["type"], registry=self.registry
        )
        self.hpas = Gauge("flyball_autoscaler_hpas", "HPAs known", registry=self.registry)
        self.governors = Gauge("flyball_autoscaler_governors", "Governors known", registry=self.registry)
        self.running = Gauge("flyball_autoscaler_running_evaluations", "Evaluations under way", registry=self.registry)
        self.late = Gauge(
            "flyball_autoscaler_lateness_seconds", "How late the newest evaluation began", registry=self.registry
        )
        self.limit = Gauge(
            "flyball_autoscaler_concurrency_limit", "Evaluations allowed at once", registry=self.registry
        )
