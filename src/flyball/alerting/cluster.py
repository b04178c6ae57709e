"""Replicas: each knows the others, what they know, and how many of them tell before it.

Every second each replica asks each other for the digest of what it knows; where digests differ the two exchange all.
What changes is told to all at once. The replicas that answer are put in order by name: the first tells at once, the
second ``peer_timeout`` later, unless the notification log then says that it was told. Cut off from the others, a
replica is the first: what is told twice is told at least once.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball import clock
from flyball.alerting.documents import entry_document, read_entry_document, read_silence_document, silence_document
from flyball.alerting.notificationlog import Entry
from flyball.alerting.service import Alertmanager
from flyball.alerting.silences import Silence
from flyball.errors import FlyballError

log = logging.getLogger(__name__)

PEERS_MAX = 64

#: Sends a message to an address and returns the answer. Raises UpstreamError, or another FlyballError.
Exchange = Callable[[str, Mapping[str, Any]], Awaitable[Any]]

#: The addresses that one of ``--cluster.peer`` stands for.
Resolve = Callable[[str], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Attributes:
    name: of this replica; unique.
    address: where the others reach this one.
    peers: addresses to begin with; this one's own may be among them.
    forget_after_s: a replica that was not reached for so long is no longer one.
    """

    name: str
    address: str
    peers: tuple[str, ...] = ()
    peer_timeout_s: float = 15.0
    probe_interval_s: float = 1.0
    settle_timeout_s: float = 60.0
    forget_after_s: float = 6 * 3600.0


@dataclass(slots=True)
class Member:
    """Another replica."""

    address: str
    name: str = ""
    alive: bool = False
    seen_s: float = 0.0


class Cluster:
    """The peers of one Alertmanager."""

    def __init__(
        self,
        alertmanager: Alertmanager,
        settings: ClusterSettings,
        exchange: Exchange,
        resolve: Resolve,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self.settings = settings
        self._alertmanager, self._exchange, self._resolve = alertmanager, exchange, resolve
        self._now_ms, self._monotonic_s = now_ms, monotonic_s
        self._gauges = alertmanager.metrics.of_replicas()
        self._members: dict[str, Member] = {}
        self._own = {settings.address}
        self._settled = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()

    # -- what alerting sees

    @property
    def wait_s(self) -> float:
        return self.position * self.settings.peer_timeout_s

    @property
    def position(self) -> int:
        """How many replicas tell before this one."""
        return sum(member.name < self.settings.name for member in self.members() if member.alive)

    def members(self) -> list[Member]:
        """The others, by name."""
        return sorted((one for one in self._members.values() if one.name), key=lambda one: one.name)

    @property
    def status(self) -> str:
        return "ready" if self._settled.is_set() else "settling"

    async def wait_settled(self) -> None:
        await self._settled.wait()

    def changed(self, silences: Sequence[Silence], entries: Sequence[Entry]) -> None:
        message = self._message(silences, entries)
        for member in self._members.values():
            if member.alive:
                task = asyncio.get_running_loop().create_task(self._tell(member, message), name="gossip")
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    # -- what the others see

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Takes what another replica says; the answer has what was asked for.

        Raises:
            FlyballError, LookupError, TypeError, ValueError: the message is not one.
        """
        self._hear(message, str(message["address"]))
        if message.get("ask") == "all":
            return self._message(self._alertmanager.silences, self._alertmanager.log)
        return self._message() | {"digest": self._digest()}

    # -- asking the others

    async def run(self) -> None:
        """Keeps in touch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle_at_last(), name="cluster settle time-out")
            while True:
                await self._round()
                self._settled.set()
                await asyncio.sleep(self.settings.probe_interval_s)

    async def _settle_at_last(self) -> None:
        await asyncio.sleep(self.settings.settle_timeout_s)
        self._settled.set()

    async def _round(self) -> None:
        for peer in self.settings.peers:
            for address in await self._resolved(peer):
                if address not in self._own and len(self._members) < PEERS_MAX:
                    self._members.setdefault(address, Member(address))
        await asyncio.gather(*(self._probe(member) for member in list(self._members.values())))
        self._forget()
        alive = [member.alive for member in self.members()]
        for gauge, value in zip(self._gauges, (1 + sum(alive), len(alive) - sum(alive), self.position), strict=True):
            gauge.set(value)

    async def _resolved(self, peer: str) -> Sequence[str]:
        try:
            return await self._resolve(peer)
        except (FlyballError, OSError):
            return ()

    async def _probe(self, member: Member) -> None:
        try:
            answer = await self._exchange(member.address, self._message() | {"digest": self._digest()})
            if answer["name"] == self.settings.name:
                self._own.add(member.address)
                self._members.pop(member.address, None)
                return
            self._hear(answer, member.address)
            if answer["digest"] != self._digest():
                mine = self._message(self._alertmanager.silences, self._alertmanager.log)
                self._hear(await self._exchange(member.address, mine | {"ask": "all"}), member.address)
        except (FlyballError, OSError, LookupError, TypeError, ValueError) as exc:
            if member.alive:
                log.warning("peer_not_reached name=%s address=%s error=%s", member.name, member.address, exc)
            member.alive = False

    async def _tell(self, member: Member, message: Mapping[str, Any]) -> None:
        try:
            await self._exchange(member.address, message)
        except (FlyballError, OSError) as exc:
            log.info("peer_not_told name=%s error=%s", member.name, exc)  # the next probe sees that digests differ

    def _hear(self, message: Mapping[str, Any], address: str) -> None:
        """Takes a message of another replica."""
        name = str(message["name"])
        if name == self.settings.name:
            return
        for other in [one for one in self._members.values() if one.name == name and one.address != address]:
            del self._members[other.address]  # it came back at another address
        member = self._members.setdefault(address, Member(address))
        if not member.alive:
            log.info("peer_reached name=%s address=%s", name, address)
        member.name, member.alive, member.seen_s = name, True, self._monotonic_s()
        for known in message.get("members") or ():
            is_new = known["name"] not in {self.settings.name, *(one.name for one in self._members.values())}
            if is_new and known["address"] not in self._own and len(self._members) < PEERS_MAX:
                self._members.setdefault(str(known["address"]), Member(str(known["address"])))
        silences = [read_silence_document(one) for one in message.get("silences") or ()]
        entries = [read_entry_document(one) for one in message.get("entries") or ()]
        if silences or entries:
            self._alertmanager.heard(silences, entries)

    def _forget(self) -> None:
        now_s = self._monotonic_s()
        for address, member in list(self._members.items()):
            if not member.seen_s:
                member.seen_s = now_s
            if not member.alive and now_s - member.seen_s > self.settings.forget_after_s:
                del self._members[address]

    def _message(self, silences: Iterable[Silence] = (), entries: Iterable[Entry] = ()) -> dict[str, Any]:
        return {
            "name": self.settings.name,
            "address": self.settings.address,
            "members": [{"name": one.name, "address": one.address} for one in self.members() if one.alive],
            "silences": [silence_document(one) for one in silences],
            "entries": [entry_document(one) for one in entries],
        }

    def _digest(self) -> str:
        """Of what has not expired, so that replicas that forget at different times agree."""
        now_ms, known = self._now_ms(), self._alertmanager
        lines = [f"{one.id} {one.updated_ms}" for one in known.silences.kept(now_ms)]
        lines += [f"{one.key} {one.at_ms}" for one in known.log if one.expires_ms > now_ms]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
