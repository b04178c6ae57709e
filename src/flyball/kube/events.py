"""Events: what a component tells a reader of ``kubectl describe``."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube.client import KubeClient
from flyball.kube.kinds import EVENTS

log = logging.getLogger(__name__)

REMEMBERED_MAX = 4096
MESSAGE_MAX = 1024
REPEAT_WINDOW_MS = 600_000  # a repeat after this long is news again

_Key = tuple[str, ...]


@dataclass(slots=True)
class _Told:
    name: str
    namespace: str
    count: int
    last_ms: int


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
    """Writes events and counts repeats instead of writing them again. It never raises and never waits to retry."""

    def __init__(self, client: KubeClient, component: str, host: str = "") -> None:
        self._client = client
        self._component = component
        self._host = host
        self._told: OrderedDict[_Key, _Told] = OrderedDict()
        self._serial = 0
        self._written = self._repeated = self._lost = 0

    def statistics(self) -> dict[str, int]:
        """Counts since the start."""
        return {
            "events_written": self._written,
            "events_repeated": self._repeated,
            "events_lost": self._lost,
            "events_remembered": len(self._told),
        }

    async def event(
        self,
        obj: Mapping[str, Any],
        type: Literal["Normal", "Warning"],  # noqa: A002
        reason: str,
        message: str,
    ) -> None:
        """Tell of something that happened to ``obj``, an object or a reference in object form."""
        try:
            await self._record(reference(obj), type, reason, message[:MESSAGE_MAX])
        except FlyballError as exc:
            self._lost += 1
            log.warning("event_lost component=%s reason=%s error=%s", self._component, reason, exc)

    async def _record(self, involved: dict[str, str], kind: str, reason: str, message: str) -> None:
        now_ms = clock.now_ms()
        who = (involved.get(field, "") for field in ("apiVersion", "kind", "namespace", "name", "uid"))
        key = (*who, kind, reason, message)
        told = self._told.get(key)
        if told is not None and now_ms - told.last_ms < REPEAT_WINDOW_MS:
            told.count, told.last_ms = told.count + 1, now_ms
            self._told.move_to_end(key)
            change = {"count": told.count, "lastTimestamp": clock.rfc3339(now_ms)}
            try:
                await self._client.patch(EVENTS, told.name, change, told.namespace)
                self._repeated += 1
                return
            except KubeApiError as exc:
                if exc.code != 404:
                    raise  # a forgotten event (its time to live is over) is written anew
        self._serial += 1
        namespace = involved.get("namespace") or "default"
        name = f"{involved.get('name', 'unknown')}.{now_ms:x}{self._serial & 0xFFFF:04x}"
        stamp = clock.rfc3339(now_ms)
        source = {"component": self._component} | ({"host": self._host} if self._host else {})
        # Remembered first, so that a repeat told while this one is on its way does not become a second event.
        self._told[key] = _Told(name, namespace, 1, now_ms)
        while len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)
        try:
            await self._client.create(
                EVENTS,
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": name, "namespace": namespace},
                    "involvedObject": involved,
                    "type": kind,
                    "reason": reason,
                    "message": message,
                    "source": source,
                    "firstTimestamp": stamp,
                    "lastTimestamp": stamp,
                    "count": 1,
                    "eventTime": None,
                    "reportingComponent": self._component,
                    "reportingInstance": self._host,
                },
                namespace,
            )
        except FlyballError:
            self._told.pop(key, None)
            raise
        self._written += 1
