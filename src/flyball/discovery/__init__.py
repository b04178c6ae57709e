"""Targets from Kubernetes objects, files, HTTP endpoints and DNS, in Prometheus' ``__meta_*`` words."""

from flyball.discovery.configs import ScrapeConfigs
from flyball.discovery.defaults import default_scrape_configs
from flyball.discovery.kubernetes import KubernetesDiscovery
from flyball.discovery.manager import Discovery
from flyball.discovery.roles import GROUPS_OF_ROLE, sanitised

__all__ = ["GROUPS_OF_ROLE", "Discovery", "KubernetesDiscovery", "ScrapeConfigs", "default_scrape_configs", "sanitised"]
