"""Fetching targets: one loop a target, into the store."""

from flyball.scrape.demand import Demand
from flyball.scrape.manager import ScrapeManager
from flyball.scrape.targets import Target, build_targets
from flyball.scrape.waking import Waker

__all__ = ["Demand", "ScrapeManager", "Target", "Waker", "build_targets"]
