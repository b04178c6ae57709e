"""The status of HPAs and Governors: written when it says something new, and read back before the watch brings it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from flyball.autoscaler.gather import ClockLike
from flyball.autoscaler.pods import Key
from flyball.autoscaler.subjects import Subject
from flyball.errors import KubeApiError
from flyball.kube import KubeClient, Resource
from flyball.scaling import Condition, Decision, Event, Outcome, next_status, same_status

FIGURES_EVERY_S = 5.0  # how often the status of a Governor of profile fast follows the figures alone

Object = dict[str, Any]


class Statuses:
    """Writes statuses.

    Args:
        cached: the object of a key as the watch last brought it.
        tell: emits an event on an object.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: ClockLike,
        cached: Callable[[Key], Object | None],
        tell: Callable[[Object, str, Event], Awaitable[None]],
    ) -> None:
        self._client, self._clock, self._cached, self._tell = client, clock, cached, tell
        self._written: dict[Key, tuple[str, Object]] = {}  # (the cached version that it supersedes, object)
        self._figures_s: dict[Key, float] = {}

    def current(self, key: Key) -> Object | None:
        """The object as last seen, or as last written by us when the watch has not brought that back yet."""
        cached = self._cached(key)
        written = self._written.get(key)
        if cached is None or written is None:
            return cached
        if _version(cached) == written[0]:
            return written[1]
        del self._written[key]
        return cached

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._written.pop(key, None)
        self._figures_s.pop(key, None)

    async def write(
        self,
        key: Key,
        subject: Subject,
        decision: Decision,
        outcome: Outcome | None,
        conditions: tuple[Condition, ...],
        selector: str = "",
    ) -> None:
        """The status after a decision; ``selector``: of the target's pods.

        Raises:
            FlyballError: it cannot be written.
        """
        now = self._clock.rfc3339(self._clock.now_ms())
        resource, obj = subject.resource, subject.obj
        base = _version(obj)
        for attempt in range(2):
            status = next_status(obj, decision, outcome, conditions, now)
            if subject.governor is not None:
                _stamp(status, obj, conditions)
                if selector:
                    status["selector"] = selector  # by which those who scrape find the pods
            if same_status(obj.get("status") or {}, status) or self._can_wait(key, subject, status):
                return
            try:
                body = {**typed(resource, obj), "status": status}
                written = await self._client.update(resource, body, key[0], "status")
            except KubeApiError as error:
                if error.code == 404:
                    return
                if error.code == 409 and attempt == 0:
                    obj = await self._client.get(resource, str(obj["metadata"]["name"]), key[0])
                    base = ""
                    continue
                await self._tell(obj, key[1], Event("Warning", "FailedUpdateStatus", str(error)))
                raise
            cached = self._cached(key)
            if cached is not None and _version(cached) != _version(written):
                self._written[key] = (_version(cached) if base == "" else self._base(key, base), written)
            return

    def _can_wait(self, key: Key, subject: Subject, new: Object) -> bool:
        """Whether only figures moved, of a Governor that is evaluated often and was told of a moment ago."""
        fast = subject.governor is not None and subject.governor.profile == "fast"
        if not fast or _gist(subject.obj.get("status") or {}) != _gist(new):
            return False
        now_s = self._clock.monotonic_s()
        if now_s < self._figures_s.get(key, -1e18) + FIGURES_EVERY_S:
            return True
        self._figures_s[key] = now_s
        return False

    def _base(self, key: Key, base: str) -> str:
        """The cached version that our write supersedes."""
        known = self._written.get(key)
        if known is not None and _version(known[1]) == base:
            return known[0]
        return base


def _stamp(status: Object, obj: Mapping[str, Any], told: Iterable[Condition]) -> None:
    """By which generation of the spec the status and each condition that was told now are; an HPA's have no such."""
    generation = (obj.get("metadata") or {}).get("generation")
    if generation is None:
        return
    status["observedGeneration"] = generation
    types = {condition.type for condition in told}
    for condition in status["conditions"]:
        if condition["type"] in types:
            condition["observedGeneration"] = generation


def _version(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("resourceVersion", ""))


def _gist(status: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a status its readers must know at once."""
    conditions = sorted((c["type"], c["status"], c.get("reason", "")) for c in status.get("conditions") or [])
    fields = ("currentReplicas", "desiredReplicas", "selector", "observedGeneration")
    return (conditions, *(status.get(field) for field in fields))


def typed(resource: Resource, obj: Object) -> Object:
    """Items of a list carry no kind of their own."""
    return {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
