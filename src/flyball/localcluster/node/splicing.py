"""Connections spread over the ready endpoints of a Service, spliced byte for byte."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, cast

CONNECT_TIMEOUT_S = 5.0


class Holding(Protocol):
    """Decides whether connections may wait for a first endpoint."""

    def holds(self, service: tuple[str, str]) -> bool: ...

    async def wait(self, service: tuple[str, str], ready: asyncio.Event) -> None: ...


class Backends:
    """The ready endpoints of one Service port. A connection goes to the least busy one, in turn among equals.

    ``holding``: asked when there is none, with the namespace and name of ``service``.
    """

    def __init__(self, service: tuple[str, str] = ("", ""), holding: Holding | None = None) -> None:
        self._service, self._holding = service, holding
        self._ready = asyncio.Event()
        self.addresses: list[tuple[str, int]] = []
        self.active: dict[tuple[str, int], int] = {}
        self.withdrawn: set[str] = set()
        self.connections = 0
        self.refused = 0
        self._turn = 0

    def set(self, addresses: list[tuple[str, int]]) -> None:
        self.addresses = addresses
        hosts = {host for host, _ in addresses}
        self.withdrawn &= hosts
        (self._ready.set if addresses else self._ready.clear)()

    def holds(self) -> bool:
        """Whether a connection may wait for a first endpoint."""
        return self._holding is not None and not self._ready.is_set() and self._holding.holds(self._service)

    async def wait(self) -> list[tuple[str, int]]:
        """``order()``, as soon as it names one or the wait has been too long."""
        if self._holding is not None:
            await self._holding.wait(self._service, self._ready)
        return self.order()

    def order(self) -> list[tuple[str, int]]:
        """The backends in the order in which a new connection tries them."""
        usable = [one for one in self.addresses if one[0] not in self.withdrawn]
        if not usable:
            return []
        self._turn = (self._turn + 1) % len(usable)
        rotated = usable[self._turn :] + usable[: self._turn]
        return sorted(rotated, key=lambda one: self.active.get(one, 0))

    def opened(self, one: tuple[str, int]) -> None:
        self.connections += 1
        self.active[one] = self.active.get(one, 0) + 1

    def closed(self, one: tuple[str, int]) -> None:
        left = self.active.get(one, 1) - 1
        if left > 0:
            self.active[one] = left
        else:
            self.active.pop(one, None)


class _Side(asyncio.Protocol):
    """One end of a spliced connection; what arrives is written to the other end, no faster than it takes it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.early = b""  # what came before the other end was there; uvloop may read once despite a pause
        self.no_more = False  # the peer will send nothing further
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
            return
        self.early += data
        if self.transport is not None:
            self.transport.pause_reading()

    def splice(self, other: "_Side") -> None:
        """Joins both ends; what this one received early goes over first."""
        self.other, other.other = other, self
        assert other.transport is not None
        if self.early:
            other.transport.write(self.early)
            self.early = b""
        if self.no_more:
            self.eof_received()

    def eof_received(self) -> bool:
        self.no_more = True
        if self.other is None or self.other.transport is None:
            return True
        if self.other.no_more:
            self.other.transport.close()
            return False
        if not self.other.transport.is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                self.other.transport.write_eof()
        return True  # the other direction stays open

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        other = self.other.transport if self.other is not None else None
        if other is not None and not other.is_closing():
            if exc is None:
                other.close()
            else:
                reset(other)


class _Upstream(_Side):
    def __init__(self, on_lost: Callable[[], None]) -> None:
        super().__init__()
        self._on_lost = on_lost

    def itself(self) -> "_Upstream":
        """The protocol factory of its one connection."""
        return self

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()


class Downstream(_Side):
    """A client's connection: not read until a backend is connected."""

    def __init__(self, backends: Backends, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        super().__init__()
        self.backends = backends
        self._spawn = spawn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        order = self.backends.order()
        if not order and not self.backends.holds():
            self.backends.refused += 1
            reset(self.transport)
            return
        self.transport.pause_reading()
        self._spawn(self._connect(order))

    async def _connect(self, order: list[tuple[str, int]]) -> None:
        loop = asyncio.get_running_loop()
        assert self.transport is not None
        for one in order or await self.backends.wait():
            self.backends.opened(one)
            upstream = _Upstream(partial(self.backends.closed, one))
            try:
                await asyncio.wait_for(loop.create_connection(upstream.itself, *one), CONNECT_TIMEOUT_S)
            except (OSError, TimeoutError):
                if upstream.transport is None:
                    self.backends.closed(one)
                continue  # nothing was sent yet, so another pod may serve it
            assert upstream.transport is not None
            if self.ended or self.transport.is_closing():
                upstream.transport.abort()
                return
            self.splice(upstream)
            with contextlib.suppress(RuntimeError):
                self.transport.resume_reading()
            return
        self.backends.refused += 1
        reset(self.transport)


def reset(transport: asyncio.Transport) -> None:
    """Ends a connection so that the peer sees a reset at once, not an empty answer."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
