"""A kept-alive HTTP/1.1 connection to one target, on httptools and a bare protocol.

A scrape is one GET of a small page, thousands of times a minute: a general client spends several times what the
page costs. What a target sends is bounded while it arrives: headers, compressed bytes, time.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

from flyball.errors import ScrapeError, ScrapeLimitError
from flyball.scrape.encodings import Decoder, decoder

#: All headers of an answer may be this large.
_HEADERS_MAX = 64 * 1024
#: A body above this size is large.
LARGE_BYTES = 1 << 20
LARGE_AT_ONCE = 2
#: The event loop reads its sockets once within this time.
_LAST_READ_S = 0.001


class ConnectionLostError(ScrapeError):
    """The connection ended before the answer was complete.

    Attributes:
        unused: nothing of an answer had arrived; on a kept-alive connection the request may be sent again.
    """

    def __init__(self, message: str, *, unused: bool) -> None:
        super().__init__(message)
        self.unused = unused


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer; header names in lower case, the body without its Content-Encoding."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class LargeBodies:
    """Lets only a few bodies at a time grow large; the others wait unread, where the kernel holds their sender back."""

    def __init__(self, at_once: int = LARGE_AT_ONCE) -> None:
        self._free = at_once
        self._waiting: deque[_Protocol] = deque()

    def enter(self, body: "_Protocol") -> bool:
        """Whether the body may grow now; otherwise ``body.go_on()`` is called when it may."""
        if self._free:
            self._free -= 1
            return True
        self._waiting.append(body)
        return False

    def leave(self) -> None:
        """A body that had entered is done."""
        self._free += 1
        while self._free and self._waiting:
            if self._waiting.popleft().go_on():
                self._free -= 1

    def forget(self, body: "_Protocol") -> None:
        """A body that waits is done."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(body)


_LARGE_BODIES = LargeBodies()


class _Protocol(asyncio.Protocol):
    """One request at a time; httptools calls the ``on_*`` methods."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.reusable = True
        self._parser: httptools.HttpResponseParser | None = None
        self._done: asyncio.Future[Answer] | None = None
        self._size_max = 0
        self._large = ""
        self._begin()

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._reason = b""
        self._body: list[bytes] = []
        self._decoder: Decoder | None = None
        self._size = 0
        self._started = False

    def send(self, request: bytes, size_max: int) -> "asyncio.Future[Answer]":
        assert self.transport is not None
        self._begin()
        self._size_max = size_max
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._done

    def connection_made(self, transport: Any) -> None:  # uvloop's are no asyncio.Transport
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._done is None or self._done.done():
            self.abort()  # bytes that nobody asked for
            return
        self._started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as exc:
            self._fail(exc.__context__ if isinstance(exc.__context__, ScrapeError) else ScrapeError(str(exc)))
        except httptools.HttpParserUpgrade:
            self._fail(ScrapeError("the server changed the protocol"))
        except httptools.HttpParserError as exc:
            self._fail(ScrapeError(f"the answer is not HTTP: {exc}"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._settle()
        done, parser = self._done, self._parser
        if done is None or done.done() or parser is None:
            return
        no_length = self._headers and "content-length" not in self._headers and "transfer-encoding" not in self._headers
        if self._started and no_length and exc is None:
            try:
                self.on_message_complete()  # the end of the connection is the end of such a body
            except ScrapeError as broken:
                done.set_exception(broken)
            return
        said = f": {exc}" if exc is not None else ""
        done.set_exception(ConnectionLostError(f"the connection was closed early{said}", unused=not self._started))

    def _fail(self, exc: Exception) -> None:
        # Its traceback would keep the frames above alive, and with them the chunk that was too large.
        exc = exc.with_traceback(None)
        exc.__context__ = exc.__cause__ = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc)
        self.abort()

    def expire(self) -> None:
        """The answer's time is over. What has arrived by now counts, if it is this process that was late to read it."""
        asyncio.get_running_loop().call_later(_LAST_READ_S, self._expired, self._done)

    def _expired(self, asked: "asyncio.Future[Answer] | None") -> None:
        if asked is self._done and asked is not None and not asked.done():
            self._fail(TimeoutError())

    def abort(self) -> None:
        self.closed = True
        self._body = []
        self._settle()
        if self.transport is not None:
            self.transport.abort()

    # What httptools calls.

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _HEADERS_MAX:
            raise ScrapeError(f"the headers are larger than the limit of {_HEADERS_MAX} bytes")
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._size_max:
            raise self._too_large()
        self._decoder = decoder(self._headers.get("content-encoding", ""))

    def on_body(self, chunk: bytes) -> None:
        for piece in (chunk,) if self._decoder is None else self._decoder.feed(chunk):
            self._size += len(piece)
            if self._size > self._size_max:
                raise self._too_large()
            self._body.append(piece)
        if self._size > LARGE_BYTES and not self._large and self.transport is not None:
            if _LARGE_BODIES.enter(self):
                self._large = "inside"
            else:
                self._large = "waiting"
                self.transport.pause_reading()

    def go_on(self) -> bool:
        """Reading goes on; False when nobody waits for this body any more."""
        if self.closed or self._large != "waiting" or self.transport is None:
            return False
        self._large = "inside"
        self.transport.resume_reading()
        return True

    def _settle(self) -> None:
        """Gives back the place among the large bodies."""
        if self._large == "inside":
            _LARGE_BODIES.leave()
        elif self._large == "waiting":
            _LARGE_BODIES.forget(self)
        self._large = ""

    def _too_large(self) -> ScrapeError:
        text = f"the body is larger than the limit of {self._size_max} bytes; raise body_size_limit"
        return ScrapeLimitError("body_size_limit", text)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._done is None or self._done.done():
            return
        if self._decoder is not None:
            self._decoder.finish()
        self.reusable = self._parser.should_keep_alive()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        if self._large == "waiting" and self.transport is not None:
            self.transport.resume_reading()
        self._settle()
        reason = self._reason.decode("latin-1")
        self._done.set_result(Answer(self._parser.get_status_code(), reason, self._headers, body))


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A proxy that passes a connection on; ``request`` is what asks it to."""

    host: str
    port: int
    request: bytes

    async def open(self) -> socket.socket:
        """A socket whose other end is the place that was asked for.

        Raises:
            ScrapeError: the proxy refused.
            OSError: it cannot be reached.
        """
        loop = asyncio.get_running_loop()
        (family, kind, protocol, _, address), *_ = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, self.request)
            head = b""
            while b"\r\n\r\n" not in head:  # what lies behind it speaks only when it is spoken to
                chunk = await loop.sock_recv(sock, 4096)
                head += chunk
                if not chunk or len(head) > _HEADERS_MAX:
                    raise ScrapeError(f"the proxy {self.host}:{self.port} gave no answer to CONNECT")
            said = head.partition(b"\r\n")[0].decode("latin-1")
            if said.split(" ")[1:2] != ["200"]:
                raise ScrapeError(f"the proxy {self.host}:{self.port} refused the connection: {said}")
        except BaseException:
            sock.close()
            raise
        return sock


class Connection:
    """Requests to one scheme, host and port. ``tls`` is None for http; ``tunnel`` leads there."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, server_name: str = "", tunnel: Tunnel | None = None
    ) -> None:
        self._host, self._port, self._tls, self._tunnel = host, port, tls, tunnel
        self._server_name = server_name or host
        self._protocol: _Protocol | None = None

    async def get(self, request: bytes, size_max: int, deadline_s: float) -> Answer:
        """The answer to one request.

        Args:
            deadline_s: by the loop's time.

        Raises:
            ScrapeError: no connection, not HTTP, or larger than ``size_max`` bytes.
            OSError: the target cannot be reached.
            TimeoutError: the deadline has passed.
        """
        protocol = self._protocol
        if protocol is not None and not protocol.closed and protocol.reusable:
            try:
                return await self._asked(protocol, request, size_max, deadline_s)
            except ConnectionLostError as exc:
                if not exc.unused:  # the target had begun to answer: its fault
                    raise
        async with asyncio.timeout_at(deadline_s):
            protocol = await self._connect()
        return await self._asked(protocol, request, size_max, deadline_s)

    async def _asked(self, protocol: _Protocol, request: bytes, size_max: int, deadline_s: float) -> Answer:
        timer = asyncio.get_running_loop().call_at(deadline_s, protocol.expire)
        try:
            answer = await protocol.send(request, size_max)
        except BaseException:  # a time-out too: what still comes belongs to nobody
            self.close()
            raise
        finally:
            timer.cancel()
        if not protocol.reusable:
            self.close()
        return answer

    async def _connect(self) -> _Protocol:
        self.close()
        loop, name = asyncio.get_running_loop(), self._server_name if self._tls is not None else None
        if self._tunnel is not None:
            sock = await self._tunnel.open()
            _, protocol = await loop.create_connection(_Protocol, sock=sock, ssl=self._tls, server_hostname=name)
        else:
            _, protocol = await loop.create_connection(
                _Protocol, self._host, self._port, ssl=self._tls, server_hostname=name
            )
        self._protocol = protocol
        return protocol

    def close(self) -> None:
        if self._protocol is not None:
            self._protocol.abort()
            self._protocol = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads."""

    scheme: str
    host: str
    port: int
    authority: str
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port


def place_of(url: str) -> Place:
    """The parts of an http or https URL.

    Raises:
        ScrapeError: it is neither.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ScrapeError(f'"{url}" is not a URL: {exc}') from exc
    if parts.scheme not in ("http", "https") or not parts.hostname or any(char <= " " for char in url):
        raise ScrapeError(f'"{url}" is not an http or https URL')
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = port if port is not None else {"http": 80, "https": 443}[parts.scheme]
    return Place(parts.scheme, parts.hostname, port, parts.netloc.rpartition("@")[2], path)


def write_request(place: Place, headers: Mapping[str, str], *, whole: bool = False) -> bytes:
    """A GET; names and values must have no line breaks.

    Args:
        whole: to a proxy, which is told the whole URL.
    """
    path = f"{place.scheme}://{place.authority}{place.path}" if whole else place.path
    return _request(f"GET {path} HTTP/1.1", place.authority, headers)


def write_connect(place: Place, headers: Mapping[str, str]) -> bytes:
    """What asks a proxy to pass a connection on."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    return _request(f"CONNECT {host}:{place.port} HTTP/1.1", f"{host}:{place.port}", headers)


def _request(first: str, host: str, headers: Mapping[str, str]) -> bytes:
    lines = [first, f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    text = "\r\n".join(lines)
    if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1:
        raise ScrapeError("a header of the request has a line break; mend authorization or http_headers")
    return f"{text}\r\n\r\n".encode("utf-8", "surrogateescape")
