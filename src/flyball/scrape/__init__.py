"""Fetching targets: one loop a target, into the store."""

from flyball.scrape.manager import ScrapeManager
from flyball.scrape.targets import Target, build_targets

__all__ = ["ScrapeManager", "Target", "build_targets"]
