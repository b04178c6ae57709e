"""Tells the owner of an HPA why its metric is missing: an Event that names the link that broke.

The HPA controller says that it got no metric; only the adapter knows whether no rule gives it, a rule's series are
gone, or the metric server does not answer.
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import msgspec

from flyball.adapter.registry import Registry
from flyball.errors import FlyballError
from flyball.kube import EventRecorder, Informer, KubeClient
from flyball.kube.kinds import HPAS_V2
from flyball.metricrules import GroupResource, RestMapper
from flyball.metricrules.resources import NAMESPACES, PODS

log = logging.getLogger(__name__)

CHECK_S = 15.0
PATIENCE = 2  # checks that must agree: a metric may just be appearing


class _Hpa(msgspec.Struct):
    metadata: dict[str, Any] = {}
    spec: dict[str, Any] = {}


def problems(registry: Registry, mapper: RestMapper, namespace: str, spec: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the custom and external metrics of one HPA's spec."""
    for metric in spec.get("metrics") or []:
        kind = metric.get("type")
        if kind == "External":
            name = str(((metric.get("external") or {}).get("metric") or {}).get("name", ""))
            found = registry.external(name, namespace)
            if found is None:
                yield f'no external rule gives "{name}"; add one, or see flyball adapter explain'
            else:
                yield from _rule_problem(registry, name, found.rule.where)
        elif kind in ("Pods", "Object"):
            section = metric.get("pods" if kind == "Pods" else "object") or {}
            name = str((section.get("metric") or {}).get("name", ""))
            resource = PODS if kind == "Pods" else _described(section.get("describedObject") or {}, mapper)
            if resource is None:
                yield f"the API server serves no {(section.get('describedObject') or {}).get('kind')}"
                continue
            custom = registry.custom(resource, resource != NAMESPACES, name, namespace)
            custom = custom or registry.custom(resource, False, name, namespace)
            if custom is None:
                near = sorted({str(item.resource) for item in registry.custom_metrics() if item.name == name})
                hint = f"; it is one of {', '.join(near)}" if near else "; no rule gives a metric of this name"
                yield f'no rule gives "{name}" for {resource}{hint}'
            else:
                yield from _rule_problem(registry, name, custom.rule.where)


def _described(target: dict[str, Any], mapper: RestMapper) -> GroupResource | None:
    group = str(target.get("apiVersion", "v1")).rpartition("/")[0]
    kind = mapper.find(group, str(target.get("kind", "")).lower())
    return kind.group_resource if kind is not None else None


def _rule_problem(registry: Registry, name: str, where: str) -> Iterator[str]:
    for document in registry.documents():
        if document["rule"] == where:
            if document["error"]:
                yield f'the metric "{name}" is of {where}, which fails: {document["error"]}'
            elif document.get("seriesMatched") == 0:
                yield f'the metric "{name}" is of {where}, whose series are gone'


class Owners:
    """Checks every HPA now and then, and writes an Event when what is wrong with it changes."""

    def __init__(self, client: KubeClient, registry: Registry, mapper: Any) -> None:
        self._registry, self._mapper = registry, mapper
        self._recorder = EventRecorder(client, "flyball-adapter")
        self._informer: Informer[_Hpa] = Informer(client, HPAS_V2, type=_Hpa)
        self._seen: dict[tuple[str, str], tuple[tuple[str, ...], int]] = {}

    async def run(self, every_s: float = CHECK_S) -> None:
        """Checks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="adapter hpas")
            while True:
                await asyncio.sleep(every_s)
                if self._registry.relists:
                    await self.check()

    async def check(self) -> None:
        """One round over all HPAs."""
        for key in [key for key in self._seen if key not in self._informer.cache]:
            del self._seen[key]
        for key, hpa in list(self._informer.cache.items()):
            found = tuple(problems(self._registry, self._mapper(), key[0], hpa.spec))
            before, times = self._seen.get(key, ((), PATIENCE))
            times = times + 1 if found == before else 1
            self._seen[key] = (found, times)
            if found and times == PATIENCE:
                await self._tell(hpa, "; ".join(found))

    async def _tell(self, hpa: _Hpa, message: str) -> None:
        obj = {"apiVersion": HPAS_V2.api_version, "kind": HPAS_V2.kind, "metadata": hpa.metadata}
        try:
            await self._recorder.event(obj, "Warning", "MetricMissing", message[:1000])
        except FlyballError as exc:
            log.info("adapter_event_failed error=%s", exc)
