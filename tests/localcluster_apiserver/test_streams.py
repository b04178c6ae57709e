"""exec and port-forward: a client's WebSocket through the API server to a node, with real programs and sockets."""

import asyncio
import contextlib
import json
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from tests.localcluster_apiserver.support import PODS, Client, pod

from flyball.http.client import client_tls
from flyball.http.server import ServerTLS, serve
from flyball.localcluster import ApiServer, pki, spdy
from flyball.localcluster.node.container import Container
from flyball.localcluster.node.httpapi import NodeApi
from flyball.localcluster.spdy import DICTIONARY, FIN, Data, Decoder, Encoder, Opened, Pinged

BIND = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "flyball"}}
Frames = list[tuple[int, int, bytes]]


class Worker:
    """What the node's HTTP API asks of a pod that runs."""

    name, namespace, uid, ip = "a", "default", "u-1", "127.0.0.1"

    def __init__(self, directory: Path) -> None:
        self.pod: dict[str, Any] = {}
        self.container = Container(self, {"name": "c", "image": "python"}, directory, init=False)  # type: ignore[arg-type]
        self.container.process = SimpleNamespace(running=True)  # type: ignore[assignment]

    def base_environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "GREETING": "hello"}

    def find(self, name: str) -> Container | None:
        return self.container if name == "c" else None


async def knows(_token: str) -> bool:
    return False


def run_with_node(tmp_path: Path, steps: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        pki.ensure(tmp_path, 0)
        manager: Any = SimpleNamespace(find=lambda namespace, name: worker if name == "a" else None)
        worker = Worker(tmp_path)
        directory = tmp_path / "pki"
        tls = ServerTLS(directory / "node.crt", directory / "node.key")
        node = await serve(NodeApi(manager, directory / "token", dict, knows), port=0, tls=tls)
        server = ApiServer(tmp_path, port_offset=node.port - 10250, port=0)
        await server.start()
        connector = aiohttp.TCPConnector(ssl=client_tls(ca_file=directory / "ca.crt"))
        async with aiohttp.ClientSession(connector=connector) as session:
            api = Client(session, f"https://127.0.0.1:{server.port}", pki.token(tmp_path))
            await api("POST", PODS, pod("a"))
            await api("POST", f"{PODS}/a/binding", BIND)
            try:
                await steps(api)
            finally:
                await server.close()
                await node.close()

    asyncio.run(asyncio.wait_for(main(), 60))


@contextlib.asynccontextmanager
async def connected(api: Client, path: str, protocol: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {api.token}"}
    async with api.session.ws_connect(api.base + path, protocols=[protocol], headers=headers) as socket:
        assert socket.protocol == protocol
        yield socket


async def output_of(socket: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    channels: dict[int, bytes] = {}
    async for message in socket:
        channels[message.data[0]] = channels.get(message.data[0], b"") + message.data[1:]
    return channels


async def execute(api: Client, *command: str, stdin: bytes | None = None, tty: bool = False) -> dict[int, bytes]:
    query = "&".join(f"command={word}" for word in command) + "&stdout=true&stderr=true"
    query += f"&tty={str(tty).lower()}&stdin={str(stdin is not None).lower()}"
    async with connected(api, f"{PODS}/a/exec?{query}", "v5.channel.k8s.io") as socket:
        if stdin is not None:
            await socket.send_bytes(b"\x00" + stdin)
            await socket.send_bytes(b"\xff\x00")
        return await output_of(socket)


def test_commands_run_beside_the_container_and_tell_how_they_ended(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        out = await execute(api, "sh", "-c", "echo%20$GREETING;echo%20oh>%262;exit%203")
        status = json.loads(out.pop(3))
        assert out == {1: b"hello\n", 2: b"oh\n"}
        assert (status["reason"], status["details"]["causes"]) == (
            "NonZeroExitCode",
            [{"reason": "ExitCode", "message": "3"}],
        )
        out = await execute(api, "cat", stdin=b"x" * 100_000)
        assert out[1] == b"x" * 100_000 and json.loads(out[3])["status"] == "Success"
        out = await execute(api, "sh", "-c", "tty%20>/dev/null%20%26%26%20echo%20yes", tty=True)
        assert out[1] == b"yes\r\n" and 2 not in out
        out = await execute(api, "no-such-program")
        assert "no-such-program" in json.loads(out[3])["message"]

    run_with_node(tmp_path, steps)


def test_a_client_that_leaves_ends_its_command(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        mark = tmp_path / "mark"
        script = f"trap%20''%20HUP;echo%20$$>{mark};while%20:;do%20sleep%200.1;done"
        async with connected(api, f"{PODS}/a/exec?command=sh&command=-c&command={script}", "v4.channel.k8s.io"):
            while not (mark.exists() and mark.read_text()):
                await asyncio.sleep(0.01)
        process = Path("/proc") / mark.read_text().strip()
        while process.exists():
            await asyncio.sleep(0.01)

    run_with_node(tmp_path, steps)


def test_what_cannot_be_reached_is_refused_with_a_status(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        for path, code in (
            (f"{PODS}/none/exec?command=ls", 404),
            (f"{PODS}/a/exec", 400),
            (f"{PODS}/a/exec?command=ls&container=x", 400),
            (f"{PODS}/a/attach?container=x", 400),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with connected(api, path, "v5.channel.k8s.io"):
                    pass
            assert refused.value.status == code, path
        status, body = await api("POST", f"{PODS}/a/exec?command=ls")
        assert status == 400 and "WebSocket" in body["message"]
        api.token, token = "wrong", api.token
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(api, f"{PODS}/a/exec?command=ls", "v5.channel.k8s.io"):
                pass
        assert refused.value.status == 401
        api.token = token

    run_with_node(tmp_path, steps)


class SpdyClient:
    """The client's side of a port-forward, or of a connection upgraded to SPDY."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._buffer = b""
        self._received: dict[int, bytes] = {}
        self._ended: set[int] = set()

    async def open(self, stream: int, kind: str, port: int, request: str = "0") -> None:
        headers = {"streamtype": kind, "port": str(port), "requestid": request}
        block = struct.pack(">I", len(headers))
        for pair in headers.items():
            for text in pair:
                block += struct.pack(">I", len(text)) + text.encode()
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        head = struct.pack(">IIII", 0x80030001, 10 + len(packed), stream, 0) + b"\x00\x00"
        await self._socket.send_bytes(head + packed)

    async def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        frame = Encoder.data(stream, data, fin)
        await self._socket.send_bytes(frame[:5])  # frames may be cut anywhere
        await self._socket.send_bytes(frame[5:])

    async def read_all(self, stream: int) -> bytes:
        while stream not in self._ended:
            self._buffer += (await self._socket.receive()).data
            while len(self._buffer) >= 8:
                first, second = struct.unpack_from(">II", self._buffer)
                size = second & 0xFFFFFF
                if len(self._buffer) < 8 + size:
                    break
                if not first & 0x80000000:
                    self._received[first] = self._received.get(first, b"") + self._buffer[8 : 8 + size]
                    if second >> 24 & FIN:
                        self._ended.add(first)
                self._buffer = self._buffer[8 + size :]
        return self._received.pop(stream, b"")


def test_connections_are_forwarded_to_the_pod(tmp_path: Path) -> None:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + (await reader.read()))
        writer.write_eof()
        await writer.drain()
        writer.close()

    async def steps(api: Client) -> None:
        target = await asyncio.start_server(serve_one, "127.0.0.1", 0)
        port = target.sockets[0].getsockname()[1]
        async with connected(api, f"{PODS}/a/portforward", "SPDY/3.1+portforward.k8s.io") as socket:
            client = SpdyClient(socket)
            big = bytes(range(256)) * 2000
            for number, text in enumerate((b"one", big)):
                data, error, request = 4 * number + 3, 4 * number + 1, str(number)
                await client.open(error, "error", port, request)
                await client.send(error, b"", fin=True)
                await client.open(data, "data", port, request)
                await client.send(data, text)
                await client.send(data, b"", fin=True)
                assert await client.read_all(data) == b"got " + text
                assert await client.read_all(error) == b""
            target.close()
            await target.wait_closed()
            await client.open(21, "error", port, "9")
            await client.open(23, "data", port, "9")
            assert b"connect: connection refused" in await client.read_all(21)

    run_with_node(tmp_path, steps)


def test_spdy_frames_are_read_however_they_are_cut() -> None:
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2, "the dictionary of the specification"
    deflate = zlib.compressobj(zdict=DICTIONARY)
    block = struct.pack(">I", 1) + b"".join(struct.pack(">I", len(w)) + w for w in (b"Port", b"80"))
    packed = deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)
    stream = (
        struct.pack(">III", 0x80030001, 10 + len(packed), 5)
        + b"\x00" * 6
        + packed
        + struct.pack(">III", 0x80030006, 4, 1)
        + struct.pack(">IIII", 0x80030009, 8, 5, 9)
        + Encoder.data(5, b"abc", fin=True)
    )
    whole = Decoder().feed(stream)
    assert whole == [Opened(5, {"port": "80"}), Pinged(struct.pack(">III", 0x80030006, 4, 1)), Data(5, b"abc", True)]
    piecewise = Decoder()
    assert [event for at in range(len(stream)) for event in piecewise.feed(stream[at : at + 1])] == whole
    with pytest.raises(spdy.ProtocolError, match="version 2"):
        Decoder().feed(struct.pack(">II", 0x80020001, 0))


class Upgraded:
    """A connection that a request has asked to speak SPDY from now on; ``head`` is the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader, self.writer, self.head = reader, writer, head

    @classmethod
    async def ask(cls, api: Client, path: str, tls: Any) -> "Upgraded":
        port = int(api.base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1")
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {api.token}"]
        lines += ["Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"]
        lines += [f"X-Stream-Protocol-Version: {version}" for version in ("v4.channel.k8s.io", "v3.channel.k8s.io")]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return cls(reader, writer, (await reader.readuntil(b"\r\n\r\n")).decode())

    async def send_bytes(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> Any:
        data = await self.reader.read(1 << 16)
        assert data, "the connection has ended"
        return SimpleNamespace(data=data)


def test_a_client_that_knows_no_websocket_is_served_over_spdy(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        tls = client_tls(ca_file=tmp_path / "pki" / "ca.crt")
        query = "command=sh&command=-c&command=cat;echo%20oh>%262;exit%203&stdin=true&stdout=true&stderr=true"
        raw = await Upgraded.ask(api, f"{PODS}/a/exec?{query}", tls)
        assert raw.head.startswith("HTTP/1.1 101 ") and "X-Stream-Protocol-Version: v4.channel.k8s.io" in raw.head
        client, streams = SpdyClient(raw), {"error": 1, "stdin": 3, "stdout": 5, "stderr": 7}
        for kind, stream in streams.items():
            await client.open(stream, kind, 0)
        big = bytes(range(256)) * 2000
        await client.send(streams["stdin"], big)
        await client.send(streams["stdin"], b"", fin=True)
        assert await client.read_all(streams["stdout"]) == big
        assert await client.read_all(streams["stderr"]) == b"oh\n"
        status = json.loads(await client.read_all(streams["error"]))
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        raw.writer.close()
        # What a WebSocket would be refused, it is, too; and rubbish ends it.
        refused = await Upgraded.ask(api, f"{PODS}/none/exec?command=ls", tls)
        assert refused.head.startswith("HTTP/1.1 404 ")
        broken = await Upgraded.ask(api, f"{PODS}/a/exec?command=cat&stdin=true", tls)
        await broken.send_bytes(b"\x80\x09" + b"\xff" * 100)
        with contextlib.suppress(OSError):
            assert await broken.reader.read() == b""

    run_with_node(tmp_path, steps)
