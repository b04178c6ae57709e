"""Keeps target groups of Kubernetes' objects current; every job shares the same informers."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flyball.discovery import roles
from flyball.errors import ConfigError, FlyballError
from flyball.kube import Informer, KubeClient, Resource
from flyball.kube.kinds import ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, NODES, PODS, SERVICES
from flyball.model.scrapeconfigs import KubernetesSD, ScrapeConfig, TargetGroup
from flyball.model.selectors import Selector, parse_selector

log = logging.getLogger(__name__)

#: ``(job name, groups)``: every group of the job that is not empty, sources prefixed by the section's index.
OnGroups = Callable[[str, list[TargetGroup]], None]

_MAIN: Mapping[str, Resource] = {
    "node": NODES,
    "pod": PODS,
    "service": SERVICES,
    "endpoints": ENDPOINTS,
    "endpointslice": ENDPOINT_SLICES,
}
_ALSO: Mapping[str, tuple[Resource, ...]] = {"endpoints": (SERVICES, PODS), "endpointslice": (SERVICES, PODS)}
SETTLE_S = 0.1  # a burst of changes is one update

_Key = tuple[str, str]


class KubernetesDiscovery:
    """Discovers the targets of ``kubernetes_sd_configs`` in the cluster of ``client``.

    Objects of all namespaces are watched once for all jobs; informers stay when jobs change.
    """

    def __init__(self, client: KubeClient, *, own_namespace: str = "default", settle_s: float = SETTLE_S) -> None:
        self._client, self._own_namespace, self._settle_s = client, own_namespace, settle_s
        self._informers: dict[Resource, Informer[dict[str, Any]]] = {}
        self._tasks: dict[Resource, asyncio.Task[None]] = {}
        self._dirty: set[tuple[str, str, str]] = set()  # (role, namespace, name)
        self._wake = asyncio.Event()
        self._users: dict[tuple[str, _Key], set[_Key]] = {}  # (role, pod) -> endpoints that name it
        self._updates = 0
        self._sections: list[_Section] = []
        self._generation = 0
        self._waiters: list[asyncio.Task[None]] = []

    def statistics(self) -> dict[str, Any]:
        """Objects held and updates sent."""
        return {
            "updates": self._updates,
            "objects": {str(resource): len(informer.cache) for resource, informer in self._informers.items()},
        }

    async def close(self) -> None:
        """Ends the informers."""
        tasks = [*self._tasks.values(), *self._waiters]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._waiters.clear()
        self._informers.clear()

    def set_configs(self, configs: Iterable[ScrapeConfig]) -> None:
        """The jobs to discover from now on; also while ``run`` runs. A section that is not supported is logged."""
        sections = []
        for config in configs:
            for index, sd in enumerate(config.kubernetes_sd_configs):
                section = _Section(config.job_name, index, sd)
                try:
                    section.check()
                except FlyballError as exc:
                    log.warning("discovery_refused error=%s", exc)
                    continue
                sections.append(section)
        self._sections = sections
        self._generation += 1
        self._wake.set()

    async def run(self, on_groups: OnGroups) -> None:
        """Calls ``on_groups`` with a job's groups once they are known and after every change, until cancelled."""
        generation = -1
        jobs: dict[str, list[_Section]] = {}
        try:
            while True:
                fresh = generation != self._generation
                if fresh:
                    generation = self._generation
                    jobs = {}
                    for section in self._sections:
                        jobs.setdefault(section.job, []).append(section)
                        self._needs(section.sd)
                self._wake.clear()
                self._step(jobs, on_groups, fresh)
                await self._wake.wait()
                await asyncio.sleep(self._settle_s)
        finally:
            await self.close()

    def _needs(self, sd: KubernetesSD) -> None:
        for resource in (_MAIN[sd.role], *_ALSO.get(sd.role, ())):
            self._start(resource)
        if sd.attach_node:
            self._start(NODES)
        if sd.attach_namespace:
            self._start(NAMESPACES)

    def _start(self, resource: Resource) -> None:
        if resource not in self._informers:
            informer: Informer[dict[str, Any]] = Informer(self._client, resource)
            informer.add_handler(lambda _change, old, new: self._changed(resource, new or old))
            self._informers[resource] = informer
            self._tasks[resource] = asyncio.create_task(informer.run(), name=f"discovery {resource}")
            waiter = asyncio.create_task(informer.wait_synced(), name=f"discovery {resource} synced")
            waiter.add_done_callback(lambda _: self._wake.set())
            self._waiters.append(waiter)

    def _changed(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        metadata = obj.get("metadata") or {}
        key = (str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
        for role, main in _MAIN.items():
            if main == resource:
                self._dirty.add((role, *key))
        if resource == PODS:
            for role in _ALSO:
                self._dirty.update((role, *user) for user in self._users.get((role, key), ()))
        elif resource == SERVICES:
            self._dirty.add(("endpoints", *key))
            for space, name in self._users.get(("endpointslice of", key), ()):
                self._dirty.add(("endpointslice", space, name))
        elif resource in (NODES, NAMESPACES):
            self._dirty.add(("*", "", ""))
        self._wake.set()

    def _synced(self, sd: KubernetesSD) -> bool:
        resources = (_MAIN[sd.role], *_ALSO.get(sd.role, ()))
        return all(self._informers[resource].has_synced for resource in resources)

    def _step(self, jobs: Mapping[str, list["_Section"]], on_groups: OnGroups, fresh: bool) -> None:
        dirty, self._dirty = self._dirty, set()
        everything = fresh or ("*", "", "") in dirty
        for job, parts in jobs.items():
            if not all(self._synced(section.sd) for section in parts):
                self._dirty |= dirty | {("*", "", "")}  # a part of the targets would look like the rest had gone
                continue
            changed = False
            for section in parts:
                keys: Iterable[_Key] = _of_role(dirty, section.sd.role)
                if everything:
                    keys = {*self._keys(section.sd.role), *section.groups}
                for key in sorted(keys):
                    changed |= self._update(section, key)
                changed |= not section.told
                section.told = True
            if changed:
                self._updates += 1
                on_groups(job, [group for section in parts for group in section.groups.values()])

    def _keys(self, role: str) -> list[_Key]:
        return sorted(self._informers[_MAIN[role]].cache)

    def _update(self, section: "_Section", key: _Key) -> bool:
        obj = self._informers[_MAIN[section.sd.role]].cache.get(key)
        group = None
        if obj is not None and section.takes(obj, self._own_namespace):
            group = self._group(section, key, obj)
        old = section.groups.get(key)
        if group is None or not group.targets:
            section.groups.pop(key, None)
            return old is not None
        section.groups[key] = group
        return old != group

    def _group(self, section: "_Section", key: _Key, obj: Mapping[str, Any]) -> TargetGroup:
        role = section.sd.role
        if role == "node":
            group = roles.node_group(obj)
        elif role == "pod":
            group = roles.pod_group(obj)
        elif role == "service":
            group = roles.service_group(obj)
        elif role == "endpoints":
            group = roles.endpoints_group(obj, self._service, lambda ns, name: self._pod(role, key, ns, name))
        else:
            service = ((obj.get("metadata") or {}).get("labels") or {}).get("kubernetes.io/service-name")
            if service:
                self._users.setdefault(("endpointslice of", (key[0], service)), set()).add(key)
            group = roles.endpoint_slice_group(obj, self._service, lambda ns, name: self._pod(role, key, ns, name))
        labels, targets = dict(group.labels), group.targets
        if section.sd.attach_namespace and key[0]:
            labels |= self._attached(NAMESPACES, key[0], "namespace")
        if section.sd.attach_node and role in ("pod", "endpoints", "endpointslice"):
            if role == "pod":
                labels |= self._attached(NODES, str((obj.get("spec") or {}).get("nodeName") or ""), "node")
            else:
                targets = tuple({**target, **self._attached(NODES, _node_of(target), "node")} for target in targets)
        source = group.source if section.index == 0 else f"{section.index}/{group.source}"
        return TargetGroup(source, labels, targets)

    def _attached(self, resource: Resource, name: str, role: str) -> dict[str, str]:
        obj = self._informers[resource].cache.get(("", name))
        if obj is None:
            return {}
        own = {"__meta_kubernetes_node_name": name} if role == "node" else {}
        return own | roles.object_labels(obj, role)

    def _service(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self._informers[SERVICES].cache.get((namespace, name))

    def _pod(self, role: str, user: _Key, namespace: str, name: str) -> Mapping[str, Any] | None:
        self._users.setdefault((role, (namespace, name)), set()).add(user)
        return self._informers[PODS].cache.get((namespace, name))


def _of_role(dirty: set[tuple[str, str, str]], role: str) -> list[_Key]:
    return [(space, name) for kind, space, name in dirty if kind == role]


def _node_of(target: Mapping[str, str]) -> str:
    for name in ("pod_node_name", "endpointslice_endpoint_node_name", "endpoint_node_name"):
        if target.get(f"__meta_kubernetes_{name}"):
            return target[f"__meta_kubernetes_{name}"]
    return ""


class _Section:
    """One ``kubernetes_sd_configs`` entry of a job and its groups."""

    def __init__(self, job: str, index: int, sd: KubernetesSD) -> None:
        self.job, self.index, self.sd = job, index, sd
        self.groups: dict[_Key, TargetGroup] = {}
        self.told = False
        self._selectors: list[Selector] = []
        self._fields: list[tuple[str, str]] = []

    def check(self) -> None:
        where = f"job {self.job}: kubernetes_sd_configs[{self.index}]"
        if self.sd.role not in _MAIN:
            raise ConfigError(f'{where}: the role "{self.sd.role}" is not supported; use one of {", ".join(_MAIN)}')
        for selector in self.sd.selectors:
            if selector.role != self.sd.role:
                continue
            self._selectors.append(parse_selector(selector.label))
            for term in filter(None, selector.field.split(",")):
                name, equals, value = term.replace("==", "=").partition("=")
                if not equals or name not in _FIELDS:
                    raise ConfigError(
                        f'{where}: the field selector "{term}" is not supported; use {", ".join(_FIELDS)}'
                    )
                self._fields.append((name, value))

    def takes(self, obj: Mapping[str, Any], own_namespace: str) -> bool:
        metadata = obj.get("metadata") or {}
        spaces = {*self.sd.namespaces, *((own_namespace,) if self.sd.own_namespace else ())}
        if spaces and self.sd.role != "node" and metadata.get("namespace") not in spaces:
            return False
        labels = metadata.get("labels") or {}
        return all(selector.matches(labels) for selector in self._selectors) and all(
            _field(obj, name) == value for name, value in self._fields
        )


_FIELDS = ("metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "spec.type")


def _field(obj: Mapping[str, Any], path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = (value or {}).get(part)
    return "" if value is None else str(value)
