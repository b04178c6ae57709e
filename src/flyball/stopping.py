"""How long a program runs: until it is told to stop, or a part of it ends that should not."""

import asyncio
import signal
from collections.abc import Iterable
from typing import Any


def told_to_stop() -> asyncio.Event:
    """Set by SIGTERM and SIGINT; needs a running event loop."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


async def until_stopped(stopping: asyncio.Event, parts: Iterable[asyncio.Task[Any]]) -> None:
    """Returns when it is set, or a part has ended; the parts are the caller's to cancel.

    Raises:
        Exception: what a part failed with.
    """
    stopped = asyncio.get_running_loop().create_task(stopping.wait(), name="stopping")
    try:
        done, _ = await asyncio.wait({stopped, *parts}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    for task in done - {stopped}:
        task.result()
