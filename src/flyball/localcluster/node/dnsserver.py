"""The cluster's DNS server: answers for the cluster, and passes every other query on to the machine's own servers."""

import asyncio
import contextlib
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.localcluster.node.dnsrecords import Records, respond

if TYPE_CHECKING:
    import dns.message

PORT = UPSTREAM_PORT = 53
UPSTREAM_TIMEOUT_S = 2.0
QUERIES_MAX = 500  # at once; what comes above is dropped, and asked again by its resolver
TCP_IDLE_S = 10.0
UDP_MAX_BYTES = 1232
RESOLV_CONF = Path("/etc/resolv.conf")


def address_of(data_dir: Path, port_offset: int) -> str:
    """127.11.0.10; another one for another embedded cluster on this machine (it must have another offset)."""
    # Where other clusters' other Services begin, see ``admission.first_host``.
    third = zlib.crc32(str(data_dir).encode()) % 250 + 4 if port_offset else 0
    return f"127.11.{third}.10"


class DnsServer:
    """Listens on one address, over UDP and TCP.

    Args:
        records: the records in force.
    """

    def __init__(self, records: Callable[[], Records]) -> None:
        self._records = records
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self.queries = self.forwarded = self.dropped = self.failures = 0

    async def listen(self, host: str, port: int = PORT) -> None:
        """Serves from now on.

        Raises:
            OSError: the port is taken, or not allowed to an ordinary user.
        """
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve_stream, host, port, family=socket.AF_INET)
        try:
            taken = self._server.sockets[0].getsockname()[1]
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._received), (host, taken))
        except OSError:
            self._server.close()
            raise
        self._transport = transport

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        for part in (self._server, self._transport):
            if part is not None:
                part.close()
        for task in self._tasks:
            task.cancel()

    def statistics(self) -> dict[str, int]:
        names = ("queries", "forwarded", "dropped", "failures")
        return {name: getattr(self, name) for name in names}

    # -- queries -------------------------------------------------------------------------------------------------

    def _received(self, data: bytes, peer: Any) -> None:
        if len(self._tasks) >= QUERIES_MAX:
            self.dropped += 1
            return
        task = asyncio.create_task(self._serve_datagram(data, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_datagram(self, data: bytes, peer: Any) -> None:
        answer = await self._answer(data, stream=False)
        if answer and self._transport is not None:
            self._transport.sendto(answer, peer)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            while True:
                async with asyncio.timeout(TCP_IDLE_S):
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                    data = await reader.readexactly(size)
                answer = await self._answer(data, stream=True)
                if not answer:
                    break
                writer.write(struct.pack(">H", len(answer)) + answer)
                await writer.drain()
        writer.close()

    async def _answer(self, data: bytes, stream: bool) -> bytes:
        """The answer's bytes; none to what is no query."""
        self.queries += 1
        try:
            response = respond(data, self._records())
        except ValueError:
            return b""
        if response is None:
            return await self._from_elsewhere(data, stream) or _refused(data)
        await self._follow_alias(response, stream)
        return _packed(response, stream)

    async def _follow_alias(self, response: "dns.message.Message", stream: bool) -> None:
        """A stub resolver asks no further: what an alias stands for is in the same answer."""
        import dns.exception
        import dns.message
        import dns.rdatatype

        question = response.question[0]
        last = response.answer[-1] if response.answer else None
        if last is None or last.rdtype != dns.rdatatype.CNAME or question.rdtype == dns.rdatatype.CNAME:
            return
        query = dns.message.make_query(last[0].target, question.rdtype)
        found = await self._answer(query.to_wire(), stream)
        with contextlib.suppress(dns.exception.DNSException):
            response.answer.extend(dns.message.from_wire(found).answer)

    async def _from_elsewhere(self, data: bytes, stream: bool) -> bytes:
        """The answer of the first of the machine's servers that gives one."""
        self.forwarded += 1
        for upstream in nameservers():
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(UPSTREAM_TIMEOUT_S):
                    return await (_ask_stream if stream else _ask_datagram)(upstream, data)
        self.failures += 1
        return b""


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Any], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, addr)


def host_resolver() -> str:
    """The machine's resolv.conf, as it is now: a laptop changes networks."""
    with contextlib.suppress(OSError):
        return RESOLV_CONF.read_text()
    return ""


def nameservers() -> list[str]:
    """The machine's own."""
    lines = [line.split() for line in host_resolver().splitlines()]
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


async def _ask_datagram(upstream: str, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()

    def received(answer: bytes, _peer: Any) -> None:
        if answer[:2] == data[:2] and not answered.done():
            answered.set_result(answer)

    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(received), remote_addr=(upstream, UPSTREAM_PORT)
    )
    try:
        transport.sendto(data)
        return await answered
    finally:
        transport.close()


async def _ask_stream(upstream: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(upstream, UPSTREAM_PORT)
    try:
        writer.write(struct.pack(">H", len(data)) + data)
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        return await reader.readexactly(size)
    finally:
        writer.close()


def _refused(data: bytes) -> bytes:
    """Says that nobody could be asked."""
    import dns.message
    import dns.rcode

    response = dns.message.make_response(dns.message.from_wire(data), recursion_available=True)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response.to_wire()


def _packed(response: "dns.message.Message", stream: bool) -> bytes:
    """In bytes; what is too long for a datagram is cut, and asked again over TCP."""
    import dns.exception
    import dns.flags

    limit = 65535 if stream else max(512, min(response.request_payload or 512, UDP_MAX_BYTES))
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.flags |= dns.flags.TC
        for section in (response.answer, response.authority, response.additional):
            section.clear()
        return response.to_wire()
