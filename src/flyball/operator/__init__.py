"""monitoring.coreos.com objects into scrape configuration."""

from flyball.operator.controller import Operator
from flyball.operator.translate import Secrets, translate_pod_monitor, translate_service_monitor

__all__ = [
    "Operator",
    "Secrets",
    "translate_pod_monitor",
    "translate_service_monitor",
]
