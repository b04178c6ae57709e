"""Alerting's own metrics, under Alertmanager's names, in a registry of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FAILURE_REASONS = ("clientError", "serverError", "contextCanceled", "contextDeadlineExceeded", "other")
SUPPRESSIONS = ("silence", "inhibition", "mute_time_interval", "active_time_interval")


class Metrics:
    """One set for each Alertmanager of a process."""

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"alertmanager_{name}", about, labels, registry=registry)

        gauge = self._gauge
        gauge("build_info", "Always 1, with the version.", "version").labels(version).set(1)
        self.received = counter("alerts_received", "Alerts that were posted.", "status", "version")
        self.invalid = counter("alerts_invalid", "Alerts that were posted and are not valid.", "version")
        for status in ("firing", "resolved"):
            self.received.labels(status, "v2")
        self.invalid.labels("v2")
        self.alerts = gauge("alerts", "Alerts that have not ended, by state.", "state")
        self.groups = gauge("dispatcher_aggregation_groups", "Groups of alerts.")
        self.groups_refused = counter("dispatcher_aggregation_group_limit_reached", "Alerts beyond that limit.")
        self.silences = gauge("silences", "Silences by state.", "state")
        self.log_entries = gauge("nflog_entries", "Entries of the notification log.")
        self.suppressed = counter("notifications_suppressed", "Alerts that were not told of, by reason.", "reason")
        for reason in SUPPRESSIONS:
            self.suppressed.labels(reason)
        self.notifications = counter("notifications", "Notifications that were begun.", "integration")
        self.failed = counter("notifications_failed", "Notifications that did not arrive.", "integration", "reason")
        self.requests = counter("notification_requests", "Attempts to deliver.", "integration")
        self.requests_failed = counter("notification_requests_failed", "Attempts that failed.", "integration")
        self.latency = Histogram(
            "alertmanager_notification_latency_seconds",
            "How long an attempt takes.",
            ["integration"],
            buckets=(1, 5, 10, 15, 20),
            registry=registry,
        )
        self.receivers = gauge("receivers", "Receivers of the configuration.")
        self.integrations = gauge("integrations", "Integrations of the configuration.")
        self.config_hash = gauge("config_hash", "A hash of the configuration in force.")
        self.config_ok = gauge("config_last_reload_successful", "Whether the last configuration was taken.")
        self.config_at = gauge("config_last_reload_success_timestamp_seconds", "When the one in force was taken.")

    def of_replicas(self) -> tuple[Gauge, Gauge, Gauge]:
        """Members, failed peers and the own position; without replicas there are none, so that no rule compares them
        with a number of pods."""
        return (
            self._gauge("cluster_members", "Replicas that are reached, this one among them."),
            self._gauge("cluster_failed_peers", "Replicas that are not reached."),
            self._gauge("peer_position", "How many replicas tell before this one."),
        )

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"alertmanager_{name}", about, labels, registry=self.registry)

    def known(self, kinds: set[str]) -> None:
        """Counters of kinds that are configured begin at zero."""
        for kind in kinds:
            for one in (self.notifications, self.requests, self.requests_failed, self.latency):
                one.labels(kind)
            for reason in FAILURE_REASONS:
                self.failed.labels(kind, reason)
