"""The garbage collector: what has lost all its owners goes; finalizers of foreground and orphan deletion are served."""

import asyncio
import logging
from collections import OrderedDict
from functools import partial
from typing import Any

import msgspec

from flyball.errors import FlyballError, KubeApiError
from flyball.kube import Informer, KubeClient, Resource
from flyball.kube.kinds import CRDS, EVENTS
from flyball.localcluster.workloads.controller import Controller

log = logging.getLogger(__name__)

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
ABSENT_MAX = 10_000
DISCOVERY_RETRY_S = 1.0

Node = tuple[Resource, str, str]  # resource, namespace, name


class Owner(msgspec.Struct, rename="camel"):
    """An owner reference."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class OwnedMeta(msgspec.Struct, rename="camel"):
    """The metadata that ownership is about."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    owner_references: list[Owner] | None = None
    finalizers: list[str] | None = None
    deletion_timestamp: str | None = None


class Owned(msgspec.Struct):
    """Any object, seen as a node of the ownership graph."""

    metadata: OwnedMeta = msgspec.field(default_factory=OwnedMeta)


def without_owners(owners: list[Owner], gone: set[str]) -> list[dict[str, Any]]:
    """Owner references without those whose uid is gone, as the API writes them."""
    kept = [owner for owner in owners if owner.uid not in gone]
    return [{k: v for k, v in msgspec.to_builtins(owner).items() if v not in (None, "")} for owner in kept]


def is_collectable(owners: list[Owner], absent: set[str], waiting: set[str]) -> bool:
    """Whether an object has owners and none that keeps it alive.

    Args:
        absent: uids of owners that do not exist.
        waiting: uids of owners in foreground deletion, which wait for their dependents to go.
    """
    return bool(owners) and all(owner.uid in absent or owner.uid in waiting for owner in owners)


class GarbageCollector(Controller):
    """Watches every kind that can be deleted; new kinds join when their CustomResourceDefinition does."""

    name = "garbage-collector"

    def __init__(self, client: KubeClient) -> None:
        super().__init__(client)
        self._nodes: dict[str, tuple[Node, Owned]] = {}  # by uid
        self._dependents: dict[str, set[str]] = {}  # owner uid -> dependents' uids
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._known: dict[tuple[str, str], Resource] = {}
        self._watched: dict[tuple[str, str], Resource] = {}
        self._changed = asyncio.Event()
        self._crds: Informer[dict[str, Any]] = Informer(client, CRDS)
        self._crds.add_handler(lambda *_: self._changed.set())
        self._collected = 0

    def statistics(self) -> dict[str, Any]:
        """Counts since the start."""
        return {
            **super().statistics(),
            "kinds": len(self._watched),
            "objects": len(self._nodes),
            "collected": self._collected,
        }

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().run(), name=f"{self.name} workers")
            group.create_task(self._crds.run(), name=f"{self.name} definitions")
            group.create_task(self._discover_forever(group), name=f"{self.name} discovery")

    async def _discover_forever(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._changed.clear()
            complete = await self._discover(group)
            try:
                async with asyncio.timeout(None if complete else DISCOVERY_RETRY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(0.2)  # a bundle brings many definitions; look once

    async def _discover(self, group: asyncio.TaskGroup) -> bool:
        try:
            versions = await self.client.group_versions()
        except FlyballError as exc:
            log.info("discovery_failed controller=%s error=%s", self.name, exc)
            return False
        complete = True
        for version in versions:
            try:
                offered = await self.client.resources(version)
            except FlyballError as exc:  # an aggregated API whose backend is away
                log.info("discovery_failed controller=%s group_version=%s error=%s", self.name, version, exc)
                complete = complete and isinstance(exc, KubeApiError) and exc.code in (404, 503)
                continue
            for resource, verbs in offered:
                self._known[(resource.api_version, resource.kind)] = resource
                place = (resource.group, resource.plural)
                if place in self._watched or resource == EVENTS or not {"list", "watch", "delete"} <= verbs:
                    continue
                if resource.group == "events.k8s.io":
                    continue
                self._watched[place] = resource
                informer = Informer(self.client, resource, type=Owned)
                informer.add_handler(partial(self._on_object, resource))
                group.create_task(informer.run(), name=f"{self.name} {resource}")
        return complete

    def _on_object(self, resource: Resource, _change: str, old: Owned | None, new: Owned | None) -> None:
        for owner in (old.metadata.owner_references or []) if old else []:
            self._dependents.get(owner.uid, set()).discard(old.metadata.uid if old else "")
        if new is None:
            if old is not None:
                self._removed(old)
            return
        metadata = new.metadata
        self._nodes[metadata.uid] = ((resource, metadata.namespace, metadata.name), new)
        self._absent.pop(metadata.uid, None)
        unknown = False
        for owner in metadata.owner_references or []:
            self._dependents.setdefault(owner.uid, set()).add(metadata.uid)
            holder = self._nodes.get(owner.uid)
            unknown = unknown or holder is None or holder[1].metadata.deletion_timestamp is not None
        waiting = metadata.deletion_timestamp and {FOREGROUND, ORPHAN} & set(metadata.finalizers or ())
        if unknown or waiting:
            self.queue.add(metadata.uid)

    def _removed(self, old: Owned) -> None:
        uid = old.metadata.uid
        self._nodes.pop(uid, None)
        self._absent[uid] = None
        while len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)
        for dependent in self._dependents.pop(uid, set()):
            self.queue.add(dependent)
        for owner in old.metadata.owner_references or []:
            holder = self._nodes.get(owner.uid)
            if holder is not None and holder[1].metadata.deletion_timestamp:
                self.queue.add(owner.uid)

    async def reconcile(self, key: str) -> None:
        """Look at one object: serve its finalizers, or collect it."""
        found = self._nodes.get(key)
        if found is None:
            return
        node, obj = found
        metadata = obj.metadata
        finalizers = set(metadata.finalizers or ())
        if metadata.deletion_timestamp:
            if ORPHAN in finalizers:
                await self._orphan_dependents(key)
                await self._finish(node, metadata, ORPHAN)
            elif FOREGROUND in finalizers and not await self._delete_dependents(key):
                await self._finish(node, metadata, FOREGROUND)
            return
        owners = metadata.owner_references or []
        absent = {owner.uid for owner in owners if await self._is_absent(owner, node[1])}
        waiting = {owner.uid for owner in owners if self._waits_for_dependents(owner.uid)}
        if is_collectable(owners, absent, waiting):
            # Foreground goes on downwards, so that the owner waits for the dependents' dependents too.
            deep = bool(waiting) and bool(self._dependents.get(key))
            await self._delete(node, metadata.uid, foreground=deep)
        elif absent:
            kept = without_owners(owners, absent)
            await self._patch(node, {"metadata": {"uid": metadata.uid, "ownerReferences": kept}})

    async def _is_absent(self, owner: Owner, namespace: str) -> bool:
        if owner.uid in self._absent:
            return True
        if owner.uid in self._nodes:
            return False
        resource = self._known.get((owner.api_version, owner.kind))
        if resource is None:
            return False  # a kind we cannot ask about: never guess that an owner is gone
        try:
            live = await self.client.get(resource, owner.name, namespace or None, type=Owned)
        except KubeApiError as exc:
            if exc.code != 404:
                raise
            return True
        return live.metadata.uid != owner.uid

    def _waits_for_dependents(self, uid: str) -> bool:
        holder = self._nodes.get(uid)
        if holder is None or not holder[1].metadata.deletion_timestamp:
            return False
        return FOREGROUND in (holder[1].metadata.finalizers or ())

    async def _delete_dependents(self, uid: str) -> bool:
        """Delete what the object owns; whether any of it still blocks the deletion."""
        blocked = False
        for dependent in sorted(self._dependents.get(uid, set())):
            found = self._nodes.get(dependent)
            if found is None:
                continue
            references = found[1].metadata.owner_references or []
            blocked = blocked or any(item.uid == uid and item.block_owner_deletion for item in references)
            self.queue.add(dependent)
        return blocked

    async def _orphan_dependents(self, uid: str) -> None:
        for dependent in sorted(self._dependents.get(uid, set())):
            found = self._nodes.get(dependent)
            if found is not None:
                metadata = found[1].metadata
                kept = without_owners(metadata.owner_references or [], {uid})
                await self._patch(found[0], {"metadata": {"uid": metadata.uid, "ownerReferences": kept}})

    async def _finish(self, node: Node, metadata: OwnedMeta, finalizer: str) -> None:
        kept = [name for name in metadata.finalizers or [] if name != finalizer]
        await self._patch(node, {"metadata": {"uid": metadata.uid, "finalizers": kept}})

    async def _patch(self, node: Node, change: dict[str, Any]) -> None:
        resource, namespace, name = node
        try:
            await self.client.patch(resource, name, change, namespace or None)
        except KubeApiError as exc:
            if exc.code != 404:
                raise

    async def _delete(self, node: Node, uid: str, *, foreground: bool) -> None:
        resource, namespace, name = node
        try:
            await self.client.delete(
                resource, name, namespace or None, "Foreground" if foreground else "Background", uid=uid
            )
            self._collected += 1
        except KubeApiError as exc:
            if exc.code not in (404, 409):
                raise
