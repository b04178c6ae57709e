"""Clients that know no WebSocket: exec, attach and port-forward over a connection upgraded to SPDY/3.1.

The application is served a WebSocket all the same. A port-forward's frames are those that the WebSocket carries, so
they pass as they are; the streams of exec and attach become the channels of ``v5.channel.k8s.io``.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

from flyball.localcluster import spdy

FORWARD_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHANNEL_PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
CHANNELS = {"stdin": 0, "stdout": 1, "stderr": 2, "error": 3, "resize": 4}
CLOSE = 255
READ_AHEAD = 64  # messages that the application has not taken yet, before reading pauses

App = Callable[[Any, Any, Any], Awaitable[None]]


class _Dialect(Protocol):
    """How messages of the application's WebSocket stand for bytes of the connection."""

    def incoming(self, data: bytes) -> Iterator[bytes]: ...

    def outgoing(self, message: bytes) -> bytes: ...

    def answers(self) -> bytes:
        """What the client is told at once."""

    def ending(self) -> bytes: ...


class _Frames:
    """A port-forward: the same frames on both sides."""

    def incoming(self, data: bytes) -> Iterator[bytes]:
        yield data

    def outgoing(self, message: bytes) -> bytes:
        return message

    def answers(self) -> bytes:
        return b""

    def ending(self) -> bytes:
        return b""


class Channels:
    """Exec and attach: a stream for each channel."""

    def __init__(self) -> None:
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._streams: dict[int, int] = {}  # channel -> stream
        self._channels: dict[int, int] = {}
        self._early: dict[int, bytes] = {}  # by channel, what came before the client opened its stream
        self._answers = bytearray()

    def incoming(self, data: bytes) -> Iterator[bytes]:
        """The messages that these bytes complete.

        Raises:
            ProtocolError: they are no SPDY/3.1.
        """
        for event in self._decoder.feed(data):
            if isinstance(event, spdy.Opened):
                self._open(event)
            elif isinstance(event, spdy.Pinged):
                self._answers += event.frame
            elif isinstance(event, spdy.Data) and event.stream in self._channels:
                channel = self._channels[event.stream]
                if event.data:
                    yield bytes((channel,)) + event.data
                if event.fin and channel == CHANNELS["stdin"]:
                    yield bytes((CLOSE, channel))

    def _open(self, opened: spdy.Opened) -> None:
        channel = CHANNELS.get(opened.headers.get("streamtype", ""))
        self._answers += self._encoder.reply(opened.stream)
        if channel is not None:
            self._streams[channel], self._channels[opened.stream] = opened.stream, channel
            if channel in self._early:
                self._answers += spdy.Encoder.data(opened.stream, self._early.pop(channel))

    def outgoing(self, message: bytes) -> bytes:
        channel, data = message[0], message[1:]
        if channel not in self._streams:
            self._early[channel] = self._early.get(channel, b"") + data
            return b""
        return spdy.Encoder.data(self._streams[channel], data)

    def answers(self) -> bytes:
        said, self._answers = bytes(self._answers), bytearray()
        return said

    def ending(self) -> bytes:
        outputs = (self._streams[number] for name, number in CHANNELS.items() if number in self._streams)
        return b"".join(spdy.Encoder.data(stream, b"", fin=True) for stream in outputs)


class SpdyTunnel(asyncio.Protocol):
    """One upgraded connection, served to ``app`` as a WebSocket."""

    def __init__(self, app: App, scope: dict[str, Any], transport: asyncio.Transport) -> None:
        self._transport = transport
        forwards = scope["path"].endswith("/portforward")
        self._dialect: _Dialect = _Frames() if forwards else Channels()
        self._spoken = "portforward.k8s.io" if forwards else "v4.channel.k8s.io"
        subprotocols = [FORWARD_PROTOCOL] if forwards else CHANNEL_PROTOCOLS
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._messages.put_nowait({"type": "websocket.connect"})
        self._writable = asyncio.Event()
        self._writable.set()
        self._status = b""
        scope = {**scope, "type": "websocket", "scheme": "wss", "subprotocols": subprotocols}
        self._task = asyncio.get_running_loop().create_task(self._serve(app, scope), name="spdy tunnel")

    async def _serve(self, app: App, scope: dict[str, Any]) -> None:
        try:
            with contextlib.suppress(ConnectionResetError):
                await app(scope, self._receive, self._send)
        finally:
            self._transport.close()

    # -- the connection ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._dialect.incoming(data):
                self._messages.put_nowait({"type": "websocket.receive", "bytes": message})
        except spdy.ProtocolError:
            self._transport.abort()
            return
        self._transport.write(self._dialect.answers())
        if self._messages.qsize() > READ_AHEAD:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._messages.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- the application -----------------------------------------------------------------------------------------

    async def _receive(self) -> dict[str, Any]:
        message = await self._messages.get()
        if self._messages.empty() and not self._transport.is_closing():
            self._transport.resume_reading()
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if self._transport.is_closing():
            raise ConnectionResetError("the client went away")
        if kind == "websocket.accept":
            head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            self._transport.write(f"{head}X-Stream-Protocol-Version: {self._spoken}\r\n\r\n".encode())
        elif kind == "websocket.send":
            self._transport.write(self._dialect.outgoing(message["bytes"]))
            await self._writable.wait()
        elif kind == "websocket.close":
            self._transport.write(self._dialect.ending())
        elif kind == "websocket.http.response.start":
            self._status = f"HTTP/1.1 {message['status']} Refused\r\nContent-Type: application/json\r\n".encode()
        elif kind == "websocket.http.response.body":
            body = message["body"]
            self._transport.write(self._status + b"Content-Length: %d\r\n\r\n" % len(body) + body)
