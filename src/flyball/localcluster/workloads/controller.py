"""What every controller shares: informers, indexes over them, and the loop that reconciles keys."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from flyball.errors import FlyballError, KubeApiError
from flyball.kube import Informer, KubeClient, Resource
from flyball.localcluster.workloads.objects import controller_uid
from flyball.localcluster.workloads.queue import WorkQueue

log = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str]


def key_of(obj: Object) -> Key:
    """(namespace, name), the key of informers' caches."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def by_controller(obj: Object) -> list[str]:
    """The word of an index by the controlling owner's uid."""
    uid = controller_uid(obj)
    return [uid] if uid else []


def orphans_by_namespace(obj: Object) -> list[str]:
    """The word of an index of what nobody controls."""
    return [] if controller_uid(obj) else by_namespace(obj)


def by_namespace(obj: Object) -> list[str]:
    """The word of an index by namespace."""
    return [obj["metadata"]["namespace"]]


class Informers:
    """One informer a resource, shared by all controllers."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._informers: dict[Resource, Informer[Object]] = {}
        self._indexes: dict[tuple[Resource, Callable[[Object], Iterable[str]]], Index] = {}

    def of(self, resource: Resource) -> Informer[Object]:
        """The informer of a resource; asked for before ``run``."""
        if resource not in self._informers:
            self._informers[resource] = Informer(self._client, resource)
        return self._informers[resource]

    def index(self, resource: Resource, words_of: Callable[[Object], Iterable[str]]) -> "Index":
        """The index of a resource's objects by some words, shared by all who ask for the same; before ``run``."""
        found = self._indexes.get((resource, words_of))
        if found is None:
            found = self._indexes[resource, words_of] = Index(self.of(resource), words_of)
        return found

    async def run(self) -> None:
        """Keep all caches current until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource, informer in self._informers.items():
                group.create_task(informer.run(), name=f"informer {resource}")

    async def wait_synced(self) -> None:
        """Return once every cache has its first list."""
        for informer in self._informers.values():
            await informer.wait_synced()

    def statistics(self) -> list[dict[str, Any]]:
        """Each informer's."""
        return [informer.statistics() for informer in self._informers.values()]


class Index:
    """The objects of an informer by any number of words each, kept by its events."""

    def __init__(self, informer: Informer[Object], words_of: Callable[[Object], Iterable[str]]) -> None:
        self._words_of = words_of
        self._found: dict[str, dict[Key, Object]] = {}
        informer.add_handler(self._changed)

    def get(self, word: str) -> list[Object]:
        """The objects filed under a word, oldest first."""
        return list(self._found.get(word, {}).values())

    def count(self, word: str) -> int:
        """How many objects are filed under a word."""
        return len(self._found.get(word, ()))

    def _changed(self, _change: str, old: Object | None, new: Object | None) -> None:
        stale = set(self._words_of(old)) if old is not None else set()
        fresh = set(self._words_of(new)) if new is not None else set()
        for word in stale - fresh:
            assert old is not None
            filed = self._found.get(word, {})
            filed.pop(key_of(old), None)
            if not filed:
                self._found.pop(word, None)
        for word in fresh:
            assert new is not None
            self._found.setdefault(word, {})[key_of(new)] = new


class Written:
    """What our own writes returned, until the cache is as new: a plan on a stale object would act twice."""

    def __init__(self, informer: Informer[Object]) -> None:
        self._cache = informer.cache
        self._newer: dict[Key, Object] = {}
        informer.add_handler(self._changed)

    def remember(self, obj: Object) -> Object:
        """An answer of the server."""
        cached = self._cache.get(key_of(obj))
        if cached is None or not _is_as_new(cached, obj):
            self._newer[key_of(obj)] = obj
        return obj

    def newest(self, obj: Object) -> Object:
        """The object, or what we have written of it since."""
        written = self._newer.get(key_of(obj))
        return obj if written is None or _is_as_new(obj, written) else written

    def ahead(self) -> list[Object]:
        """All that the cache does not show yet."""
        return list(self._newer.values())

    def _changed(self, change: str, old: Object | None, new: Object | None) -> None:
        seen = new or old or {}
        written = self._newer.get(key_of(seen))
        if written is not None and (change == "DELETED" or _is_as_new(seen, written)):
            del self._newer[key_of(seen)]


def _is_as_new(cached: Object, written: Object) -> bool:
    same_uid = cached["metadata"].get("uid") == written["metadata"].get("uid")
    return not same_uid or _version(cached) >= _version(written)


def _version(obj: Object) -> int:
    """Resource versions of one resource may be compared as numbers (KEP-5504)."""
    try:
        return int(obj["metadata"].get("resourceVersion") or 0)
    except ValueError:
        return 0


class Controller:
    """A loop that brings keys to their desired state; a failing key waits alone."""

    name = "controller"
    workers = 4

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self.queue: WorkQueue[Any] = WorkQueue()
        self._reconciled = self._failed = 0

    async def reconcile(self, key: Any) -> None:
        """Bring one key to its desired state; raising means to try again later."""
        raise NotImplementedError

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.workers):
                    group.create_task(self._work(), name=f"{self.name} {number}")
        finally:
            self.queue.close()

    def statistics(self) -> dict[str, Any]:
        """Counts since the start."""
        return {
            "controller": self.name,
            "reconciled": self._reconciled,
            "failed": self._failed,
            **self.queue.statistics(),
        }

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self.reconcile(key)
            except Exception as exc:  # one bad object must not stop the others
                self._failed += 1
                delay_s = self.queue.retry(key)
                if isinstance(exc, KubeApiError) and exc.code == 409:
                    pass  # our view was stale: the next one will tell
                elif isinstance(exc, FlyballError):
                    log.warning(
                        "reconcile_failed controller=%s key=%s retry_in_s=%.2f error=%s", self.name, key, delay_s, exc
                    )
                else:
                    log.exception("reconcile_failed controller=%s key=%s", self.name, key)
            else:
                self._reconciled += 1
                self.queue.forget(key)
            finally:
                self.queue.done(key)
