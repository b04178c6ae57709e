"""Targets from Kubernetes objects, in Prometheus' ``__meta_kubernetes_*`` words."""

from flyball.discovery.configs import ScrapeConfigs
from flyball.discovery.defaults import default_scrape_configs
from flyball.discovery.kubernetes import KubernetesDiscovery
from flyball.discovery.roles import GROUPS_OF_ROLE, sanitised

__all__ = ["GROUPS_OF_ROLE", "KubernetesDiscovery", "ScrapeConfigs", "default_scrape_configs", "sanitised"]
