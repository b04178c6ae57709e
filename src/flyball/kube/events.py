"""Events: what a component tells a reader of ``kubectl describe``."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube.client import KubeClient
from flyball.kube.kinds import EVENTS

log = logging.getLogger(__name__)

REMEMBERED_MAX = 4096
MESSAGE_MAX = 1024
SIMILAR_MAX = 10  # events of one reason about one object; from this one on they are combined
SIMILAR_WINDOW_MS = 600_000  # the next one after this long is news again
BURST_MAX = 25  # events of one type about one object
REFILL_MS = 300_000  # after the burst, one in this time

Type = Literal["Normal", "Warning"]
_Key = tuple[str, ...]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Recent(Generic[K, V]):
    """The values of the last REMEMBERED_MAX keys asked for."""

    def __init__(self, make: Callable[[], V]) -> None:
        self._make = make
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def at(self, key: K) -> V:
        """The key's value, a new one when it is not remembered."""
        if key not in self._values:
            self._values[key] = self._make()
        self._values.move_to_end(key)
        if len(self._values) > REMEMBERED_MAX:
            self._values.popitem(last=False)
        return self._values[key]


@dataclass(slots=True)
class _Similar:
    messages: set[str] = field(default_factory=set)
    last_ms: int = 0


@dataclass(slots=True)
class _Bucket:
    left: float = BURST_MAX
    last_ms: int = 0


@dataclass(slots=True)
class Told:
    """One event on the server: how often it was seen, and when first. Without a name it is not written yet."""

    name: str = ""
    count: int = 0
    first_ms: int = 0


class Correlator:
    """Which events are one, and which are too many. Pure.

    Source: client-go tools/record/events_cache.go, EventCorrelator with its defaults.
    """

    def __init__(self) -> None:
        self._similar: _Recent[_Key, _Similar] = _Recent(_Similar)
        self._buckets: _Recent[_Key, _Bucket] = _Recent(_Bucket)
        self._told: _Recent[_Key, Told] = _Recent(Told)

    def __len__(self) -> int:
        return len(self._told)

    def observe(self, who: _Key, kind: str, reason: str, message: str, now_ms: int) -> tuple[Told, str, bool]:
        """What is told of already, the message to tell, and whether there is room to tell it.

        Args:
            who: what the event is about.
        """
        similar = self._similar.at((*who, kind, reason))
        if now_ms - similar.last_ms > SIMILAR_WINDOW_MS:
            similar.messages.clear()
        similar.messages.add(message)
        similar.last_ms = now_ms
        if len(similar.messages) < SIMILAR_MAX:
            told = self._told.at((*who, kind, reason, message))
        else:
            similar.messages.pop()
            told = self._told.at((*who, kind, reason))
            message = f"(combined from similar events): {message}"
        told.count += 1
        told.first_ms = told.first_ms or now_ms
        return told, message, self._may_tell((*who, kind), now_ms)

    def _may_tell(self, key: _Key, now_ms: int) -> bool:
        bucket = self._buckets.at(key)
        bucket.left = min(BURST_MAX, bucket.left + (now_ms - bucket.last_ms) / REFILL_MS)
        bucket.last_ms = now_ms
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True


def reference(obj: Mapping[str, Any]) -> dict[str, str]:
    """The ObjectReference to an object; empty fields left out."""
    metadata = obj.get("metadata") or {}
    found = {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "namespace": metadata.get("namespace"),
        "name": metadata.get("name"),
        "uid": metadata.get("uid"),
        "resourceVersion": metadata.get("resourceVersion"),
    }
    return {key: str(value) for key, value in found.items() if value}


class EventRecorder:
    """Writes events, counts repeats instead of writing them again, and leaves out what nobody could read.

    It never raises and never waits to retry.
    """

    def __init__(self, client: KubeClient, component: str, host: str = "") -> None:
        self._client = client
        self._component = component
        self._host = host
        self._correlator = Correlator()
        self._serial = 0
        self._written = self._repeated = self._dropped = self._lost = 0

    def statistics(self) -> dict[str, int]:
        """Counts since the start."""
        return {
            "events_written": self._written,
            "events_repeated": self._repeated,
            "events_dropped": self._dropped,
            "events_lost": self._lost,
            "events_remembered": len(self._correlator),
        }

    async def event(self, obj: Mapping[str, Any], type: Type, reason: str, message: str) -> None:  # noqa: A002
        """Tell of something that happened to ``obj``, an object or a reference in object form."""
        involved, now_ms = reference(obj), clock.now_ms()
        who = tuple(involved.get(field, "") for field in ("apiVersion", "kind", "namespace", "name", "uid"))
        told, message, room = self._correlator.observe(who, type, reason, message[:MESSAGE_MAX], now_ms)
        if not room:
            self._dropped += 1
            return
        try:
            if not told.name or not await self._repeat(involved, told, message, now_ms):
                await self._write(involved, told, type, reason, message, now_ms)
        except FlyballError as exc:
            self._lost += 1
            log.warning("event_lost component=%s reason=%s error=%s", self._component, reason, exc)

    async def _repeat(self, involved: dict[str, str], told: Told, message: str, now_ms: int) -> bool:
        """Count one more; False when the server has forgotten the event, or does not know it yet."""
        change = {"count": told.count, "lastTimestamp": clock.rfc3339(now_ms), "message": message}
        try:
            await self._client.patch(EVENTS, told.name, change, _namespace(involved))
        except KubeApiError as exc:
            if exc.code != 404:
                raise
            return False
        self._repeated += 1
        return True

    async def _write(
        self, involved: dict[str, str], told: Told, kind: Type, reason: str, message: str, now_ms: int
    ) -> None:
        if not told.name:  # named first, so that a repeat told while this one is on its way is not a second event
            self._serial += 1
            told.name = f"{involved.get('name', 'unknown')}.{now_ms:x}{self._serial & 0xFFFF:04x}"
        source = {"component": self._component} | ({"host": self._host} if self._host else {})
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": told.name, "namespace": _namespace(involved)},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": source,
            "firstTimestamp": clock.rfc3339(told.first_ms),
            "lastTimestamp": clock.rfc3339(now_ms),
            "count": told.count,
            "eventTime": None,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        try:
            await self._client.create(EVENTS, body, _namespace(involved))
        except KubeApiError as exc:
            if exc.code != 409:  # 409: written by the one told of at the same time
                raise
        self._written += 1


def _namespace(involved: Mapping[str, str]) -> str:
    return involved.get("namespace") or "default"
