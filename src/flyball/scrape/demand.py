"""What the autoscaler wants to know soon: the targets behind Governors of profile fast are scraped more often.

Demand comes through the Kubernetes API alone: a Governor's status names the selector of its target's pods. A scrape
that lands there is told by the Governor's name, without a value.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import Gauge

from flyball.errors import QueryError
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import GOVERNORS
from flyball.model.selectors import Selector, parse_selector
from flyball.scrape.manager import ScrapeManager
from flyball.scrape.targets import Target

BUDGET = 1_000  # scrapes a second of all targets behind Governors
FASTEST_MS = 1_000
_COUNT_EVERY_S = 5.0
_META = "__meta_kubernetes_"
_LABEL = f"{_META}pod_label_"
_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_]")

_DEMANDED = Gauge("flyball_scrape_demanded_targets", "Targets behind Governors of profile fast.")
_INTERVAL = Gauge("flyball_scrape_demanded_interval_seconds", "Their interval; above 1 the budget is reached.")

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one Governor wants scraped: the pods that ``selector`` takes, and nodes where it reads cpu or memory."""

    namespace: str
    selector: Selector
    resources: bool

    def covers(self, labels: Mapping[str, str]) -> bool:
        if f"{_META}pod_name" not in labels:
            return self.resources and f"{_META}node_name" in labels
        pod = {name.removeprefix(_LABEL): value for name, value in labels.items() if name.startswith(_LABEL)}
        return labels.get(f"{_META}namespace") == self.namespace and self.selector.matches(pod)


class Demand:
    """Watches Governors, shortens the intervals of the targets behind them and says when a scrape of one landed.

    ``woken(namespace, name)`` is called with the Governor's. With more targets than ``budget`` the interval grows, up
    to each job's own.
    """

    def __init__(
        self, client: KubeClient, manager: ScrapeManager, woken: Callable[[str, str], None], budget: int = BUDGET
    ) -> None:
        self._manager, self._woken, self._budget = manager, woken, budget
        self._governors: Informer[dict[str, Any]] = Informer(client, GOVERNORS)
        self._governors.add_handler(self._changed)
        self._wanted: dict[Key, _Wanted] = {}
        self._behind: dict[object, list[Key]] = {}  # by the target's key
        self._interval_ms = FASTEST_MS

    async def run(self) -> None:
        """Until cancelled."""
        self._manager.add_listener(self._landed)
        self._manager.set_interval(self.interval_ms)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._governors.run(), name="governors")
            while True:
                await asyncio.sleep(_COUNT_EVERY_S)
                self.count()

    def interval_ms(self, target: Target) -> int | None:
        """How often a target is to be scraped; None where its job's own interval will do."""
        return min(self._interval_ms, target.interval_ms) if self._governors_of(target) else None

    def count(self) -> None:
        """Keep all demanded targets within the budget: as many seconds between scrapes as that takes."""
        before, self._behind = self._behind, {}
        demanded = sum(bool(self._governors_of(target)) for target in self._manager.running())
        interval_ms = max(FASTEST_MS, math.ceil(demanded / self._budget) * 1000)
        _DEMANDED.set(demanded)
        _INTERVAL.set(interval_ms / 1000)
        if interval_ms != self._interval_ms or self._behind != before:
            self._interval_ms = interval_ms
            self._manager.set_interval(self.interval_ms)

    def _changed(self, change: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        obj = new or old
        if obj is None:
            return
        key = (str(obj["metadata"].get("namespace", "")), str(obj["metadata"]["name"]))
        wanted = None if new is None or change == "DELETED" else _wanted(new)
        if self._wanted.get(key) == wanted:
            return
        if wanted is None:
            del self._wanted[key]
        else:
            self._wanted[key] = wanted
        self._behind.clear()
        self._manager.set_interval(self.interval_ms)

    def _landed(self, target: Target, _at_ms: int) -> None:
        for namespace, name in self._governors_of(target):
            self._woken(namespace, name)

    def _governors_of(self, target: Target) -> list[Key]:
        found = self._behind.get(target.key)
        if found is None:
            found = [key for key, wanted in self._wanted.items() if wanted.covers(target.discovered)]
            self._behind[target.key] = found
        return found


def _wanted(governor: Mapping[str, Any]) -> _Wanted | None:
    spec, text = governor.get("spec") or {}, (governor.get("status") or {}).get("selector")
    if spec.get("profile") != "fast" or spec.get("pause") or not text:
        return None
    try:
        selector = parse_selector(str(text))
    except QueryError:
        return None
    # discovery writes label names with underscores for all that is no letter or digit
    asked = tuple(replace(one, key=_NOT_A_NAME.sub("_", one.key)) for one in selector.requirements)
    resources = any(metric.get("type") in ("Resource", "ContainerResource") for metric in spec.get("metrics") or [])
    return _Wanted(str(governor["metadata"].get("namespace", "")), replace(selector, requirements=asked), resources)
