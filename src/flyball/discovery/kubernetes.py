"""Keeps target groups of Kubernetes' objects current; every job shares the same informers."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flyball.discovery import roles
from flyball.errors import ConfigError
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

    Objects of all namespaces are watched once for all jobs. ``run`` may be called again, after it ended, with
    other jobs; informers that ran stay, so nothing is listed twice.
    """

    def __init__(self, client: KubeClient, *, own_namespace: str = "default", settle_s: float = SETTLE_S) -> None:
        self._client, self._own_namespace, self._settle_s = client, own_namespace, settle_s
        self._informers: dict[Resource, Informer[dict[str, Any]]] = {}
        self._tasks: dict[Resource, asyncio.Task[None]] = {}
        self._dirty: set[tuple[str, str, str]] = set()  # (role, namespace, name)
        self._wake = asyncio.Event()
        self._users: dict[tuple[str, _Key], set[_Key]] = {}  # (role, pod) -> endpoints that name it
        self._updates = 0

    def statistics(self) -> dict[str, Any]:
        """Objects held and updates sent."""
        return {
            "updates": self._updates,
            "objects": {str(resource): len(informer.cache) for resource, informer in self._informers.items()},
        }

    async def close(self) -> None:
        """Ends the informers."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._informers.clear()

    async def run(self, configs: Iterable[ScrapeConfig], on_groups: OnGroups) -> None:
        """Calls ``on_groups`` with a job's groups once they are known and after every change, until cancelled.

        Raises:
            ConfigError: a section asks for what is not supported.
        """
        jobs = [config for config in configs if config.kubernetes_sd_configs]
        sections = [
            _Section(config.job_name, i, sd) for config in jobs for i, sd in enumerate(config.kubernetes_sd_configs)
        ]
        for section in sections:
            section.check()
        needed = {
            resource for section in sections for resource in (_MAIN[section.sd.role], *_ALSO.get(section.sd.role, ()))
        }
        if any(section.sd.attach_node for section in sections):
            needed.add(NODES)
        if any(section.sd.attach_namespace for section in sections):
            needed.add(NAMESPACES)
        for resource in sorted(needed, key=str):
            self._start(resource)
        await asyncio.gather(*(self._informers[resource].wait_synced() for resource in needed))
        await self._loop(sections, on_groups)

    def _start(self, resource: Resource) -> None:
        if resource not in self._informers:
            informer: Informer[dict[str, Any]] = Informer(self._client, resource)
            informer.add_handler(lambda _change, old, new: self._changed(resource, new or old))
            self._informers[resource] = informer
            self._tasks[resource] = asyncio.create_task(informer.run(), name=f"discovery {resource}")

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

    async def _loop(self, sections: list["_Section"], on_groups: OnGroups) -> None:
        jobs: dict[str, list[_Section]] = {}
        for section in sections:
            jobs.setdefault(section.job, []).append(section)
        self._dirty = {("*", "", "")}
        first = True
        while True:
            dirty, self._dirty = self._dirty, set()
            self._wake.clear()
            everything = ("*", "", "") in dirty
            for job, parts in jobs.items():
                changed = first
                for section in parts:
                    for key in self._keys(section.sd.role) if everything else _of_role(dirty, section.sd.role):
                        changed |= self._update(section, key)
                    if everything:
                        gone = section.groups.keys() - set(self._keys(section.sd.role))
                        for key in gone:
                            changed |= self._update(section, key)
                if changed:
                    self._updates += 1
                    on_groups(job, [group for section in parts for group in section.groups.values()])
            first = False
            await self._wake.wait()
            await asyncio.sleep(self._settle_s)

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
