"""Leader election by a Lease, as client-go does it (tools/leaderelection): one leader, told apart by time alone.

A candidate takes the lease when it has watched it unchanged for a whole lease duration by its own clock; clocks need
not agree. The holder stops acting ``renew_deadline_s`` after its last renewal was *sent*, which is before anyone else
may take over, so that a process that was stopped and resumed writes nothing: ask ``leads`` right before each write.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from flyball import clock as wall_clock
from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.kube.client import KubeClient
from flyball.kube.kinds import LEASES

log = logging.getLogger(__name__)


class ClockLike(Protocol):
    """flyball.clock, or a test's own."""

    def now_ms(self) -> int: ...

    def monotonic_s(self) -> float: ...

    def rfc3339_micro(self, at_ms: int) -> str: ...


class LeaderElection:
    """One candidate for one Lease.

    Args:
        identity: of this candidate; must differ from every other's.
        lease_s: how long others wait after the last change that they saw.
        renew_deadline_s: how long the holder acts after its last renewal; less than ``lease_s``.
        retry_s: between attempts.

    Raises:
        ConfigError: the deadlines leave no room between a holder's end and the next one's begin.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        lease_s: float = 15.0,
        renew_deadline_s: float = 10.0,
        retry_s: float = 2.0,
        clock: ClockLike = wall_clock,
        on_change: Callable[[bool], None] = lambda _: None,
    ) -> None:
        if not 0 < retry_s < renew_deadline_s < lease_s:
            raise ConfigError(
                f"leader election: need retry {retry_s} < renew deadline {renew_deadline_s} < lease {lease_s} seconds"
            )
        self._client, self._namespace, self._name, self.identity = client, namespace, name, identity
        self._lease_s, self._deadline_s, self._retry_s = lease_s, renew_deadline_s, retry_s
        self._clock, self._on_change = clock, on_change
        self._held_until_s = float("-inf")
        self._seen: tuple[str, str, int] | None = None  # holder, renewTime, transitions
        self._seen_s = 0.0
        self._was_leader = False
        self._last_error = ""
        self.term = -1

    def leads(self) -> bool:
        """Whether this one may act now. Cheap; ask right before each write."""
        return self._clock.monotonic_s() < self._held_until_s

    def statistics(self) -> dict[str, Any]:
        """Who leads, as far as this one knows."""
        holder = self._seen[0] if self._seen else ""
        return {
            "identity": self.identity,
            "leads": self.leads(),
            "holder": holder,
            "term": self.term,
            "last_error": self._last_error,
        }

    async def run(self) -> None:
        """Try for the lease, and keep it, until cancelled; then give it back at once."""
        try:
            while True:
                await self._attempt()
                leads = self.leads()
                if leads != self._was_leader:
                    self._was_leader = leads
                    log.info(
                        "leader_changed lease=%s/%s leads=%s term=%d", self._namespace, self._name, leads, self.term
                    )
                    self._on_change(leads)
                await asyncio.sleep(self._retry_s)
        finally:
            held, self._held_until_s = self.leads(), float("-inf")
            if held:
                await self._release()

    async def _attempt(self) -> None:
        began_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._retry_s):
                held = await self._acquire()
            self._last_error = ""
        except KubeApiError as error:
            if error.code != 409:  # another one was first
                self._failed(error)
            return
        except (FlyballError, TimeoutError) as error:
            self._failed(error)
            return
        # counted from before the request, for that is the earliest the server can have dated it
        self._held_until_s = began_s + self._deadline_s if held else float("-inf")

    def _failed(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._last_error:
            log.warning("lease_failed lease=%s/%s error=%s", self._namespace, self._name, text)
        self._last_error = text

    async def _acquire(self) -> bool:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except KubeApiError as error:
            if error.code != 404:
                raise
            meta = {"name": self._name, "namespace": self._namespace}
            lease = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta, "spec": self._spec({}, 0)}
            await self._client.create(LEASES, lease, self._namespace)
            self.term = 0
            return True
        spec = lease.get("spec") or {}
        holder, transitions = str(spec.get("holderIdentity") or ""), int(spec.get("leaseTransitions") or 0)
        seen = (holder, str(spec.get("renewTime") or ""), transitions)
        now_s = self._clock.monotonic_s()
        if seen != self._seen:
            self._seen, self._seen_s = seen, now_s
        mine = holder == self.identity
        wait_s = max(self._lease_s, float(spec.get("leaseDurationSeconds") or 0))
        if not mine and holder and now_s < self._seen_s + wait_s:
            return False
        if not mine:
            transitions += 1
        # the version makes two candidates' writes collide
        await self._client.update(
            LEASES, {**lease, "spec": self._spec(spec if mine else {}, transitions)}, self._namespace
        )
        self.term = transitions
        return True

    def _spec(self, old: dict[str, Any], transitions: int) -> dict[str, Any]:
        now = self._clock.rfc3339_micro(self._clock.now_ms())
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._lease_s)),
            "acquireTime": old.get("acquireTime") or now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    async def _release(self) -> None:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.update(LEASES, {**lease, "spec": spec}, self._namespace)
        except FlyballError as error:
            self._failed(error)
