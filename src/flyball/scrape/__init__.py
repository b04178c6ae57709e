"""Fetching targets: one loop a target, into the store."""

from flyball.scrape.exemplars import ExemplarStore
from flyball.scrape.manager import ScrapeManager
from flyball.scrape.targets import Target, build_targets

__all__ = ["ExemplarStore", "ScrapeManager", "Target", "build_targets"]
