"""Which objects a selector takes, from a live copy of their metadata: no LIST per request."""

import asyncio
import sys
from collections.abc import Iterator

import msgspec

from flyball.errors import UpstreamError
from flyball.kube import Informer, KubeClient, Resource
from flyball.model.selectors import Selector

SYNC_WAIT_S = 10.0
KINDS_MAX = 50
SELECTIONS_MAX = 20_000
LABELS_SPARE_MAX = 1_000
PHASES_MAX = 50


class ObjectMeta(msgspec.Struct, gc=False):
    """What the adapter keeps of an object's metadata."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class Status(msgspec.Struct, gc=False):
    """What the adapter keeps of a status."""

    phase: str = ""


class MetaObject(msgspec.Struct, gc=False):  # no cycles, so there is nothing to collect
    """An object, its metadata and phase only: full pod specs would be most of the memory."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    status: Status | None = None


class Collection:
    """The objects of one kind, by namespace ("" for cluster-scoped ones)."""

    def __init__(self, client: KubeClient, resource: Resource) -> None:
        self._informer: Informer[MetaObject] = Informer(client, resource, type=MetaObject)
        self._informer.add_handler(self.apply)
        self._spaces: dict[str, dict[str, MetaObject]] = {}
        self._selections: dict[tuple[str, Selector], list[str]] = {}
        self._statuses: dict[str, Status] = {}
        self._labels: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    async def run(self) -> None:
        await self._informer.run()

    @property
    def has_synced(self) -> bool:
        return self._informer.has_synced

    async def wait_synced(self) -> None:
        """Returns once the first list is here.

        Raises:
            UpstreamError: it does not come.
        """
        if not self.has_synced:
            try:
                async with asyncio.timeout(SYNC_WAIT_S):
                    await self._informer.wait_synced()
            except TimeoutError as exc:
                error = self._informer.statistics()["last_error"] or "no answer"
                raise UpstreamError(f"unable to list matching resources: {self._informer.resource}: {error}") from exc

    def apply(self, _change: str, old: MetaObject | None, new: MetaObject | None) -> None:
        """A change of one object."""
        current = new or old
        assert current is not None
        meta = current.metadata
        if new is not None:
            self._share(new)
        space = self._spaces.setdefault(meta.namespace, {})
        if new is None:
            space.pop(meta.name, None)
        else:
            space[meta.name] = new
        if old is None or new is None or old.metadata.labels != new.metadata.labels:
            for key in [key for key in self._selections if key[0] == meta.namespace]:
                del self._selections[key]

    def _share(self, item: MetaObject) -> None:
        """Equal texts and labels once in memory: the pods of a workload have most of them in common."""
        meta = item.metadata
        meta.name, meta.namespace = sys.intern(meta.name), sys.intern(meta.namespace)
        if item.status is not None and len(self._statuses) <= PHASES_MAX:
            item.status = self._statuses.setdefault(item.status.phase, item.status)
        if meta.labels:
            key = tuple(meta.labels.items())
            if len(self._labels) > LABELS_SPARE_MAX + 2 * len(self._informer.cache):
                self._labels.clear()  # most are of objects that are gone; the others are only shared less
            meta.labels = self._labels.setdefault(key, meta.labels)

    def of(self, namespace: str | None = None) -> Iterator[MetaObject]:
        """The objects of a namespace; None is all."""
        if namespace is not None:
            yield from self._spaces.get(namespace, {}).values()
        else:
            for space in self._spaces.values():
                yield from space.values()

    def names(self, namespace: str, selector: Selector) -> list[str]:
        """The sorted names that a selector takes in a namespace."""
        key = (namespace, selector)
        found = self._selections.get(key)
        if found is None:
            found = sorted(
                name
                for name, item in self._spaces.get(namespace, {}).items()
                if selector.matches(item.metadata.labels or {})
            )
            if len(self._selections) >= SELECTIONS_MAX:
                self._selections.clear()
            self._selections[key] = found
        return found

    def __len__(self) -> int:
        return sum(map(len, self._spaces.values()))


class Objects:
    """A collection for each kind that somebody asked for; it starts with the first question."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._collections: dict[Resource, Collection] = {}
        self._tasks: dict[Resource, asyncio.Task[None]] = {}
        self._running = False

    def collection(self, resource: Resource) -> Collection:
        """The live collection of a kind.

        Raises:
            UpstreamError: too many kinds are followed already.
        """
        found = self._collections.get(resource)
        if found is None:
            if len(self._collections) >= KINDS_MAX:
                raise UpstreamError(f"metrics of more than {KINDS_MAX} kinds are asked for; {resource} is one too many")
            found = self._collections[resource] = Collection(self._client, resource)
        if self._running:
            self._follow(resource)
        return found

    def start(self) -> None:
        """Follows the kinds asked for, and from now on each at its first question."""
        self._running = True
        for resource in self._collections:
            self._follow(resource)

    def _follow(self, resource: Resource) -> None:
        if resource not in self._tasks:
            task = asyncio.create_task(self._collections[resource].run(), name=f"adapter {resource}")
            self._tasks[resource] = task

    async def close(self) -> None:
        """Ends what runs."""
        self._running = False
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    def statistics(self) -> dict[str, int]:
        """Objects known, by resource."""
        return {str(resource): len(found) for resource, found in self._collections.items()}
