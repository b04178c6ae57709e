"""UDP to the ready endpoints of a Service: each client keeps its endpoint while it talks."""

import asyncio
import socket
from collections import OrderedDict
from typing import Any, cast

from flyball import clock
from flyball.localcluster.node.splicing import Backends

IDLE_S = 60.0  # a client that was silent for so long is a new one
CLIENTS_MAX = 1024  # the one that was silent for longest is forgotten for a new one
DATAGRAM_BYTES_MAX = 65_535
Address = tuple[str, int]


class _Client:
    """One client's socket to its endpoint."""

    def __init__(self, endpoint: Address) -> None:
        self.endpoint = endpoint
        self.heard_s = 0.0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(endpoint)


class Forwarder(asyncio.DatagramProtocol):
    """The listener of one UDP port of a Service."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._clients: OrderedDict[Address, _Client] = OrderedDict()
        self._transport: asyncio.DatagramTransport | None = None
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def clients(self) -> int:
        """How many are remembered."""
        return len(self._clients)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is no subclass of it

    def datagram_received(self, data: bytes, address: Any) -> None:
        client = self._clients.get(address)
        if client is not None and not self._is_usable(client.endpoint):
            self._forget(address)
            client = None
        if client is None:
            client = self._welcome(address)
            if client is None:
                return  # as on any network: what nobody takes is lost
        client.heard_s = clock.monotonic_s()
        self._clients.move_to_end(address)
        try:
            client.socket.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self._forget(address)

    def _is_usable(self, endpoint: Address) -> bool:
        return endpoint in self._backends.addresses and endpoint[0] not in self._backends.withdrawn

    def _welcome(self, address: Address) -> _Client | None:
        endpoint = next(iter(self._backends.order()), None)
        if endpoint is None:
            self._backends.refused += 1
            return None
        try:
            client = _Client(endpoint)
        except OSError:
            return None
        if len(self._clients) >= CLIENTS_MAX:
            self._forget(next(iter(self._clients)))
        self._clients[address] = client
        self._backends.opened(endpoint)
        loop = asyncio.get_running_loop()
        loop.add_reader(client.socket.fileno(), self._answered, address, client)
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_S, self._forget_silent)
        return client

    def _answered(self, address: Address, client: _Client) -> None:
        try:
            data = client.socket.recv(DATAGRAM_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._forget(address)
            return
        client.heard_s = clock.monotonic_s()
        if self._transport is not None:
            self._transport.sendto(data, address)

    def _forget_silent(self) -> None:
        now_s = clock.monotonic_s()
        for address, client in list(self._clients.items()):
            if now_s - client.heard_s >= IDLE_S:
                self._forget(address)
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(IDLE_S, self._forget_silent) if self._clients else None

    def _forget(self, address: Address) -> None:
        client = self._clients.pop(address, None)
        if client is not None:
            asyncio.get_running_loop().remove_reader(client.socket.fileno())
            client.socket.close()
            self._backends.closed(client.endpoint)

    def close(self) -> None:
        """Ends it with all that it remembers."""
        for address in list(self._clients):
            self._forget(address)
        if self._sweep is not None:
            self._sweep.cancel()
        if self._transport is not None:
            self._transport.close()
