"""monitoring.coreos.com objects into scrape configuration, and the jobs that every cluster has."""

from flyball.operator.controller import Operator
from flyball.operator.defaults import default_scrape_configs
from flyball.operator.translate import Secrets, translate_pod_monitor, translate_service_monitor

__all__ = [
    "Operator",
    "Secrets",
    "default_scrape_configs",
    "translate_pod_monitor",
    "translate_service_monitor",
]
