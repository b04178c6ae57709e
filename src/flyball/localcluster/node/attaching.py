"""A client joined to a running container (attach): its output from now on, and its input where the manifest has one."""

import asyncio
import contextlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyball.localcluster.node import containerlogs
from flyball.localcluster.node.container import Container
from flyball.localcluster.node.streams import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, Receive, Send, outcome


async def attach(
    container: Container, running: Callable[[], bool], with_input: bool, receive: Receive, send: Send
) -> None:
    """Serves one client until the container ends or the client goes.

    Args:
        running: whether more output may come.
        with_input: whether the client sends input.
    """
    base = container.directory / str(container.attempt)
    socket = base.with_suffix(".sock")  # where the container has an input, its shim shows what it says at once
    writer: asyncio.StreamWriter | None = None

    async def write(channel: int, data: bytes) -> None:
        await send({"type": "websocket.send", "bytes": bytes((channel,)) + data})

    async def overhear(channel: int, stream: str) -> None:
        options = containerlogs.LogOptions(follow=True, tail_lines=0, stream=stream)
        async for chunk in containerlogs.read(base.with_suffix(".log"), options, running):
            await write(channel, chunk)

    async def relay(reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (size,) = struct.unpack("=I", await reader.readexactly(4))
                await send({"type": "websocket.send", "bytes": await reader.readexactly(size)})

    async def obey() -> None:
        while (message := await receive())["type"] == "websocket.receive":
            text = _for_shim(message.get("bytes") or b"", with_input)
            if writer is not None and text:
                writer.write(struct.pack("=I", len(text)) + text)
                with contextlib.suppress(OSError):  # the container has ended
                    await writer.drain()

    if socket.exists():
        reader, writer = await _connect(socket)
        shown = [relay(reader)]
    else:
        shown = [overhear(STDOUT, "stdout"), overhear(STDERR, "stderr")]
    showing = asyncio.gather(*shown)
    obeying = asyncio.create_task(obey())
    try:
        both: list[asyncio.Future[Any]] = [showing, obeying]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if showing.done():
            await write(ERROR, json.dumps(outcome(0)).encode())
            await send({"type": "websocket.close", "code": 1000})
    finally:
        showing.cancel()
        obeying.cancel()
        await asyncio.gather(showing, obeying, return_exceptions=True)
        if writer is not None:
            writer.close()


def _for_shim(message: bytes, with_input: bool) -> bytes:
    """What the shim is told of a client's message: input, the terminal's size as the kernel has it, the input's end."""
    if message == bytes((CLOSE, STDIN)):
        return message[:1]
    if message[:1] == bytes((RESIZE,)):
        with contextlib.suppress(ValueError, KeyError, TypeError, struct.error):
            asked = json.loads(message[1:])
            return message[:1] + struct.pack("HHHH", asked["Height"], asked["Width"], 0, 0)
        return b""
    return message if message[:1] == bytes((STDIN,)) and len(message) > 1 and with_input else b""


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Through the open directory: a socket's path has 108 bytes at most."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
