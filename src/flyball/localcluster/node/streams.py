"""The node's WebSockets: commands in a container (exec) and connections to a pod's ports (port-forward).

Exec speaks ``v5.channel.k8s.io`` and ``v4``: the first byte of a message names its channel. Port-forward is SPDY/3.1 in
the messages of ``SPDY/3.1+portforward.k8s.io``.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import struct
import termios
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from flyball.localcluster import spdy
from flyball.localcluster.node import images
from flyball.localcluster.node.container import Container

EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
FORWARD_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
READ_BYTES = 1 << 16
CONNECT_TIMEOUT_S = 10.0
STREAMS_MAX = 1000  # of one port-forward

# Gives the command a terminal of its own: the first one that a session's leader opens is its controlling terminal.
_ON_TERMINAL = 'terminal=$1; shift; exec "$@" <"$terminal" >"$terminal" 2>&1'

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def failure(message: str, reason: str = "InternalError", code: int = 500, **details: Any) -> dict[str, Any]:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**status, "message": message, "reason": reason, "code": code, **({"details": details} if details else {})}


def outcome(code: int) -> dict[str, Any]:
    """How a command ended, as kubectl reads its exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    exit_code = code if code > 0 else 128 - code
    return failure(
        f"command terminated with non-zero exit code: exit status {exit_code}",
        "NonZeroExitCode",
        causes=[{"reason": "ExitCode", "message": str(exit_code)}],
    )


async def execute(
    container: Container, command: Sequence[str], wanted: Mapping[str, bool], receive: Receive, send: Send
) -> None:
    """Runs a command for one client. ``wanted`` says which of stdin, stdout, stderr and tty it asked for."""

    async def write(channel: int, data: bytes) -> None:
        await send({"type": "websocket.send", "bytes": bytes((channel,)) + data})

    try:
        argv, env, cwd = container.prepare(command)
        if wanted.get("tty"):
            session: _Pipes = await _on_terminal(argv, env, cwd)
        else:
            session = await _on_pipes(argv, env, cwd, wanted.get("stdin", False))
    except (images.NotRunnableError, OSError) as exc:
        text = f"failed to exec in container {container.name}: {exc}"
        await write(ERROR, json.dumps(failure(text)).encode())
        await send({"type": "websocket.close", "code": 1000})
        return

    async def pump(reader: asyncio.StreamReader, channel: int) -> None:
        with contextlib.suppress(OSError):  # a terminal without a program reads as an error
            while data := await reader.read(READ_BYTES):
                await write(channel, data)

    async def obey() -> None:
        while (message := await receive())["type"] == "websocket.receive":
            data = message.get("bytes") or b""
            if data[:1] == bytes((STDIN,)):
                await session.write(data[1:])
            elif data[:1] == bytes((RESIZE,)):
                session.resize(data[1:])
            elif data == bytes((CLOSE, STDIN)):
                session.end_input()
        session.kill()  # the client is gone

    obeying = asyncio.create_task(obey())
    try:
        await asyncio.gather(*(pump(reader, channel) for reader, channel in session.outputs))
        code = await session.process.wait()
        await write(ERROR, json.dumps(outcome(code)).encode())
        await send({"type": "websocket.close", "code": 1000})
    finally:
        obeying.cancel()
        session.kill()


class _Pipes:
    """A command on pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None and process.stderr is not None
        self.outputs = [(process.stdout, STDOUT), (process.stderr, STDERR)]

    async def write(self, data: bytes) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.write(data)
                await self.process.stdin.drain()

    def end_input(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def resize(self, size: bytes) -> None:
        """Pipes have none."""

    def kill(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)


async def _on_pipes(argv: Sequence[str], env: Mapping[str, str], cwd: str, stdin: bool) -> _Pipes:
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    return _Pipes(
        await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=pipe if stdin else nothing,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
    )


class _Terminal(_Pipes):
    """A command on a terminal of its own: one output, and a size."""

    def __init__(
        self, process: asyncio.subprocess.Process, master: int, slave: int, reader: asyncio.StreamReader, transport: Any
    ) -> None:
        self.process = process
        self.outputs = [(reader, STDOUT)]
        self._master = master
        self._transport = transport
        # Our own end is held until the program is over, so that the output cannot end before it has begun.
        self._holding = asyncio.create_task(self._hold(slave))

    async def _hold(self, slave: int) -> None:
        try:
            await self.process.wait()
        finally:
            os.close(slave)

    async def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data and self._master >= 0:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_writer(self._master, ready.set_result, None)
                try:
                    await ready
                finally:
                    loop.remove_writer(self._master)
            except OSError:
                return

    def end_input(self) -> None:
        if self._master >= 0:
            with contextlib.suppress(OSError):
                os.write(self._master, b"\x04")  # what a terminal's end of input is

    def resize(self, size: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError, struct.error, OSError):
            asked = json.loads(size)
            packed = struct.pack("HHHH", asked["Height"], asked["Width"], 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, packed)

    def kill(self) -> None:
        super().kill()
        if self._master >= 0:
            self._transport.close()
            os.close(self._master)
            self._master = -1


async def _on_terminal(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> _Terminal:
    master, slave = os.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            _ON_TERMINAL,
            "sh",
            os.ttyname(slave),
            *argv,
            env={"TERM": "xterm", **env},
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(master), "rb", 0)
        )
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    os.set_blocking(master, False)
    return _Terminal(process, master, slave, reader, transport)


class Forwarding:
    """One port-forward: pairs of streams (data and error) to connections of the pod."""

    def __init__(self, pod: str, host: str, send: Send) -> None:
        self._pod, self._host, self._send = pod, host, send
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._requests: dict[str, dict[str, int]] = {}
        self._inputs: dict[int, asyncio.Queue[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, receive: Receive) -> None:
        try:
            while (message := await receive())["type"] == "websocket.receive":
                for event in self._decoder.feed(message.get("bytes") or b""):
                    await self._obey(event)
        except spdy.ProtocolError:
            await self._send({"type": "websocket.close", "code": 1002})
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _obey(self, event: spdy.Event) -> None:
        if isinstance(event, spdy.Opened):
            await self._open(event)
        elif isinstance(event, spdy.Data):
            queue = self._inputs.get(event.stream)
            if queue is not None:
                if event.data:
                    await queue.put(event.data)
                if event.fin:
                    await queue.put(b"")
        elif isinstance(event, spdy.Reset):
            queue = self._inputs.pop(event.stream, None)
            if queue is not None:
                await queue.put(b"")
        else:
            await self._write(event.frame)

    async def _write(self, frame: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": frame})

    async def _open(self, opened: spdy.Opened) -> None:
        kind, request = opened.headers.get("streamtype", ""), opened.headers.get("requestid", "")
        await self._write(self._encoder.reply(opened.stream))
        pair = self._requests.setdefault(request, {})
        pair[kind] = opened.stream
        if kind == "data":
            self._inputs[opened.stream] = asyncio.Queue(64)
        if {"data", "error"} <= pair.keys() and len(self._tasks) < STREAMS_MAX:
            del self._requests[request]
            task = asyncio.create_task(self._connect(opened.headers.get("port", ""), pair["data"], pair["error"]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, port: str, data: int, error: int) -> None:
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(self._host, int(port), limit=READ_BYTES * 4), CONNECT_TIMEOUT_S
            )
        except (OSError, ValueError, TimeoutError) as exc:
            errno = exc.errno if isinstance(exc, OSError) else None
            why = os.strerror(errno).lower() if errno else str(exc) or "no answer in time"
            text = (
                f"error forwarding port {port} to pod {self._pod}: failed to connect to {self._host}:{port}: "
                f"dial tcp4 {self._host}:{port}: connect: {why}"
            )
            await self._write(spdy.Encoder.data(error, text.encode(), fin=True))
            await self._write(spdy.Encoder.data(data, b"", fin=True))
            self._inputs.pop(data, None)
            return
        queue = self._inputs[data]

        async def from_client() -> None:
            with contextlib.suppress(OSError):
                while piece := await queue.get():
                    writer.write(piece)
                    await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()

        sending = asyncio.create_task(from_client())
        try:
            with contextlib.suppress(OSError):
                while piece := await reader.read(READ_BYTES):
                    await self._write(spdy.Encoder.data(data, piece))
            await self._write(spdy.Encoder.data(data, b"", fin=True))
            await self._write(spdy.Encoder.data(error, b"", fin=True))
        finally:
            self._inputs.pop(data, None)
            while not queue.empty():  # whoever waits for room in it goes on
                queue.get_nowait()
            sending.cancel()
            writer.close()
