"""A live copy of a collection: list, then watch, and never a lost deletion.

list (paged) -> watch with bookmarks -> resume from the last resourceVersion -> on 410, or when events come out of
their order, list again and tell handlers the difference, deletions included. Once an hour it lists in any case: an
event that a server or a proxy lost without a trace is made up for. Failures wait with jittered exponential back-off,
which success resets. The cache is what the server last said; it may be late, so whoever acts on it must be able to
act twice.
"""

import asyncio
import logging
import random
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from flyball import clock
from flyball.errors import FlyballError, KubeApiError, UpstreamError
from flyball.kube.client import KubeClient, Meta, ObjectList, WatchEvent
from flyball.kube.kinds import Resource
from flyball.memory import give_back

log = logging.getLogger(__name__)

T = TypeVar("T")
Key = tuple[str, str]

#: ``(type, old, new)``: ADDED (None, new), MODIFIED (old, new), DELETED (the last state known, None).
Handler = Callable[[str, Any, Any], None]

BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 30.0
WATCH_MIN_S = 1.0  # a stream that ends sooner, with nothing in it, is a failure
WATCH_TIMEOUT_S = 300
IDLE_TIMEOUT_S = 120.0
LARGE_LIST_ITEMS = 1_000
RELIST_S = 3600.0


class _OutOfOrderError(UpstreamError):
    """An event older than one that came before it: what lies between them may be lost."""


class Backoff:
    """Exponential delays with full upward jitter: d, 2d, 4d ... up to the maximum, each times 1 to 2."""

    def __init__(self, min_s: float, max_s: float, rng: random.Random) -> None:
        self._min_s, self._max_s, self._rng = min_s, max_s, rng
        self._failures = 0

    def next_s(self) -> float:
        """The delay before the next try, in seconds."""
        base_s = min(self._max_s, self._min_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return base_s * (1.0 + self._rng.random())

    def reset(self) -> None:
        """The last try succeeded."""
        self._failures = 0


def _is_later(version: str, than: str) -> bool:
    """Versions of one resource may be compared as numbers (KEP-5504); others are taken as they come."""
    return int(version) > int(than) if version.isdigit() and than.isdigit() else True


def _version_refused(exc: KubeApiError) -> bool:
    """Whether asking again with the same resourceVersion is in vain: a client error, or a version from the future."""
    if exc.code in (401, 403, 429):
        return False
    causes = exc.details.get("causes") or []
    too_large = isinstance(causes, list) and any(
        isinstance(cause, dict) and cause.get("reason") == "ResourceVersionTooLarge" for cause in causes
    )
    return exc.code < 500 or too_large


class Informer(Generic[T]):
    """A cache of one collection, kept current while ``run`` runs.

    Attributes:
        cache: the objects by (namespace, name); namespace is ``""`` for cluster-scoped ones. Read-only for others.

    Args:
        type: a msgspec struct of the fields to keep; None keeps whole objects as dicts.
        rng: spreads back-off and watch time-outs.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        type: type[T] | None = None,  # noqa: A002
        *,
        rng: random.Random | None = None,
        backoff_min_s: float = BACKOFF_MIN_S,
        backoff_max_s: float = BACKOFF_MAX_S,
        watch_min_s: float = WATCH_MIN_S,
        watch_timeout_s: int = WATCH_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        relist_s: float = RELIST_S,
    ) -> None:
        self.resource = resource
        self.cache: dict[Key, T] = {}
        self._metas: dict[Key, Meta] = {}
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._type: Any = type if type is not None else dict
        self._rng = rng or random.Random()
        self._backoff = Backoff(backoff_min_s, backoff_max_s, self._rng)
        self._watch_min_s = watch_min_s
        self._watch_timeout_s = watch_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._relist_s = relist_s
        self._relist_at_s = 0.0
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._version = ""
        self._last_error = ""
        self._counts = dict.fromkeys(
            (
                *("lists", "watches", "events", "bookmarks", "tombstones"),
                *("expired", "disordered", "failures", "handler_errors"),
            ),
            0,
        )

    @property
    def has_synced(self) -> bool:
        """Whether the first list is in the cache."""
        return self._synced.is_set()

    @property
    def resource_version(self) -> str:
        """The newest version seen, by list, event or bookmark; ``""`` before the first list."""
        return self._version

    def add_handler(self, handler: Handler) -> None:
        """Call ``handler`` with every change from now on, after an ADDED for each object in the cache.

        It must not block. When it raises, that is logged and the others are called all the same.
        """
        self._handlers.append(handler)
        for obj in list(self.cache.values()):
            self._call(handler, "ADDED", None, obj)

    async def wait_synced(self) -> None:
        """Return once the first list is in the cache and its handlers have been called."""
        await self._synced.wait()

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, the cache's size and the last failure."""
        return {
            "resource": str(self.resource),
            "objects": len(self.cache),
            "synced": self.has_synced,
            "resource_version": self._version,
            "last_error": self._last_error,
            **self._counts,
        }

    async def run(self) -> None:
        """Keep the cache current until cancelled."""
        listed = False
        while True:
            try:
                if not listed:
                    await self._list()
                    listed = True
                await self._watch()
                listed = False
            except FlyballError as exc:
                expired = isinstance(exc, KubeApiError) and exc.code == 410
                disordered = isinstance(exc, _OutOfOrderError)
                self._counts["expired"] += expired
                self._counts["disordered"] += disordered
                if expired or disordered:
                    # Only a list tells what happened since. Without back-off at first, but a server that says 410 to
                    # a version it just gave must not be hammered.
                    fresh, listed = listed, False
                    if fresh and self._progressed:
                        continue
                if isinstance(exc, KubeApiError) and _version_refused(exc):
                    listed = False
                await self._failed(exc)

    async def _list(self) -> None:
        self._counts["lists"] += 1
        found = await self._client.list_objects(
            self.resource, self._namespace, self._label_selector, self._field_selector, type=self._type
        )
        self._progressed = False
        self._replace(found)
        self._version = found.resource_version
        self._relist_at_s = clock.monotonic_s() + self._relist_s * self._rng.uniform(0.8, 1.2)
        if len(found.items) >= LARGE_LIST_ITEMS:
            del found
            give_back()  # its pages took several times what is kept of them
        self._synced.set()

    _progressed = False  # whether the watch has carried anything since the last list

    async def _watch(self) -> None:
        """Watch, and watch again whenever the server ends the stream, until something fails or a list is due."""
        while (left_s := self._relist_at_s - clock.monotonic_s()) > 0:
            self._counts["watches"] += 1
            began_s, got = clock.monotonic_s(), 0
            # Spread, so that a thousand informers do not come back in the same second.
            timeout_s = min(left_s, self._watch_timeout_s * (1.0 + self._rng.random()))
            stream = self._client.watch(
                self.resource,
                self._namespace,
                self._label_selector,
                self._field_selector,
                resource_version=self._version,
                timeout_s=max(1, round(timeout_s)),
                idle_timeout_s=self._idle_timeout_s,
                type=self._type,
            )
            try:
                async for event in stream:
                    got += 1
                    self._apply(event)
                    self._progressed = True
                    self._backoff.reset()
            finally:
                await stream.aclose()
            if clock.monotonic_s() - began_s >= self._watch_min_s:
                self._progressed = True
                self._backoff.reset()
            elif got:
                await asyncio.sleep(self._watch_min_s * self._rng.uniform(0.5, 1.0))
            else:
                await asyncio.sleep(self._backoff.next_s())

    async def _failed(self, exc: FlyballError) -> None:
        self._counts["failures"] += 1
        delay_s = self._backoff.next_s()
        retry_after_s = getattr(exc, "retry_after_s", None)
        if retry_after_s is not None:
            delay_s = max(delay_s, retry_after_s)
        if str(exc) != self._last_error:  # a server that is away for an hour is one line, not a thousand
            log.warning("informer_failed resource=%s retry_in_s=%.1f error=%s", self.resource, delay_s, exc)
        self._last_error = str(exc)
        await asyncio.sleep(delay_s)

    def _replace(self, found: ObjectList[T]) -> None:
        fresh = {(meta.namespace, meta.name) for meta in found.metas}
        for key in [key for key in self.cache if key not in fresh]:
            self._counts["tombstones"] += 1
            self._remove(key)
        for meta, obj in zip(found.metas, found.items, strict=True):
            self._put(meta, obj)

    def _apply(self, event: WatchEvent[T]) -> None:
        version, kind = event.meta.resource_version, event.type
        key = (event.meta.namespace, event.meta.name)
        self._counts["bookmarks" if kind == "BOOKMARK" else "events"] += 1
        if not _is_later(version, self._version):
            known = self._metas.get(key)
            if kind == "BOOKMARK" or (kind != "DELETED" and known == event.meta):
                return  # it says nothing new
            raise _OutOfOrderError(f"{self.resource}: an event of version {version} came after {self._version}")
        if kind == "DELETED":
            if key in self.cache and event.object is not None:
                self.cache[key] = event.object  # the state in which it was deleted
            self._remove(key)
        elif event.object is not None:
            self._put(event.meta, event.object)
        self._version = version or self._version

    def _put(self, meta: Meta, obj: T) -> None:
        meta.namespace, meta.name = key = sys.intern(meta.namespace), sys.intern(meta.name)
        known = self._metas.get(key)
        if known is not None and known.uid != meta.uid:
            # The name was taken over while we were not looking: that is a deletion and a new object.
            self._counts["tombstones"] += 1
            self._remove(key)
            known = None
        if known is not None and known.resource_version == meta.resource_version:
            return
        old = self.cache.get(key)
        self.cache[key], self._metas[key] = obj, meta
        self._emit("ADDED" if known is None else "MODIFIED", old, obj)

    def _remove(self, key: Key) -> None:
        self._metas.pop(key, None)
        old = self.cache.pop(key, None)
        if old is not None:
            self._emit("DELETED", old, None)

    def _emit(self, change: str, old: T | None, new: T | None) -> None:
        for handler in tuple(self._handlers):
            self._call(handler, change, old, new)

    def _call(self, handler: Handler, change: str, old: T | None, new: T | None) -> None:
        try:
            handler(change, old, new)
        except Exception:
            self._counts["handler_errors"] += 1
            log.exception("informer_handler_failed resource=%s change=%s", self.resource, change)
