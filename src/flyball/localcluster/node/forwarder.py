"""What the image ``flyball/forwarder`` runs: passes connections on, byte for byte.

Run as ``python -I -S forwarder.py LISTEN_HOST:PORT=HOST:PORT ...``. Pods that users look for under a name of their
own, as ``prometheus-k8s-0``, show the embedded engines this way. Of the standard library alone: one lives in every such
pod.
"""

import asyncio
import contextlib
import signal
import sys

PIECE_BYTES = 64 << 10


async def forward(listen: str, target: str) -> asyncio.Server:
    """Serves ``listen`` from now on."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            host, _, port = target.rpartition(":")
            there = await asyncio.open_connection(host, int(port))
            with contextlib.closing(there[1]):
                await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    host, _, port = listen.rpartition(":")
    return await asyncio.start_server(connected, host, int(port))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies until the end, and passes the end on."""
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def main(pairs: list[str]) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    for pair in pairs:
        listen, _, target = pair.partition("=")
        await forward(listen, target)
        print(f"forwarding {listen} to {target}", flush=True)
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
