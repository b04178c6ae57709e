"""Leader election: one leader at a time, whatever stops."""

import asyncio
import copy
from typing import Any, cast

import pytest

from flyball import clock as wall_clock
from flyball.errors import ConfigError, KubeApiError, UpstreamError
from flyball.kube import KubeClient
from flyball.kube.leases import LeaderElection


class Clock:
    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    rfc3339_micro = staticmethod(wall_clock.rfc3339_micro)


class Server:
    """One Lease with optimistic concurrency."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False

    async def get(self, *_: Any) -> dict[str, Any]:
        if self.down:
            raise UpstreamError("connection refused")
        if self.lease is None:
            raise KubeApiError(404, "NotFound", "no lease")
        return copy.deepcopy(self.lease)

    async def create(self, _: Any, body: dict[str, Any], *__: Any) -> dict[str, Any]:
        if self.lease is not None:
            raise KubeApiError(409, "AlreadyExists", "exists")
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        return self.lease

    async def update(self, _: Any, body: dict[str, Any], *__: Any) -> dict[str, Any]:
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            raise KubeApiError(409, "Conflict", "changed")
        self.lease = {**copy.deepcopy(body), "metadata": {**body["metadata"], "resourceVersion": str(int(version) + 1)}}
        return self.lease


def candidate(server: Server, name: str, clock: Clock) -> LeaderElection:
    return LeaderElection(cast(KubeClient, server), "ns", "flyball", name, clock=clock)


def attempt(*candidates: LeaderElection) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(c._attempt() for c in candidates))

    asyncio.run(all_of_them())


def test_the_first_leads_and_renews() -> None:
    server, clock = Server(), Clock()
    a, b = candidate(server, "a", clock), candidate(server, "b", clock)
    attempt(a)
    attempt(b)
    assert a.leads() and not b.leads() and a.term == 0
    for _ in range(20):
        clock.ms += 2000
        attempt(a)
        attempt(b)
    assert a.leads() and not b.leads()
    assert server.lease is not None and server.lease["spec"]["leaseTransitions"] == 0


def test_a_leader_that_cannot_renew_ends_before_another_begins() -> None:
    server, clock = Server(), Clock()
    a, b = candidate(server, "a", clock), candidate(server, "b", clock)
    attempt(a)
    attempt(b)
    both = neither = 0
    for _ in range(200):  # a is stopped
        clock.ms += 100
        attempt(b)
        both += a.leads() and b.leads()
        neither += not a.leads() and not b.leads()
    assert both == 0 and neither > 0
    assert b.leads() and b.term == 1
    attempt(a)  # resumed
    assert not a.leads()


def test_of_two_that_try_at_once_one_leads() -> None:
    server, clock = Server(), Clock()
    gone, a, b = (candidate(server, name, clock) for name in ("gone", "a", "b"))
    attempt(gone)
    attempt(a, b)
    clock.ms += 16_000
    attempt(a, b)
    assert a.leads() != b.leads()


def test_without_the_server_leadership_ends_at_the_deadline() -> None:
    server, clock = Server(), Clock()
    a = candidate(server, "a", clock)
    attempt(a)
    server.down = True
    clock.ms += 9_900
    attempt(a)
    assert a.leads() and a.statistics()["last_error"] == "connection refused"
    clock.ms += 200
    assert not a.leads()


def test_a_leader_that_ends_gives_the_lease_back() -> None:
    async def test() -> None:
        server, clock = Server(), Clock()
        a, b = candidate(server, "a", clock), candidate(server, "b", clock)
        task = asyncio.create_task(a.run())
        while not a.leads():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not a.leads()
        await b._attempt()
        assert b.leads() and b.term == 1

    asyncio.run(test())


def test_deadlines_must_leave_room() -> None:
    with pytest.raises(ConfigError, match="need retry 2 < renew deadline 20 < lease 15"):
        LeaderElection(cast(KubeClient, Server()), "ns", "n", "a", renew_deadline_s=20, retry_s=2, lease_s=15)
