"""A program ends when it is told to, and fails with the part that fails."""

import asyncio
import os
import signal

import pytest

from flyball.stopping import told_to_stop, until_stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_the_parts_running(number: int) -> None:
    async def main() -> None:
        part = asyncio.create_task(asyncio.Event().wait())
        stopping = told_to_stop()
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        async with asyncio.timeout(10):
            await until_stopped(stopping, [part])
        assert stopping.is_set() and not part.done()
        part.cancel()

    asyncio.run(main())


def test_a_part_that_fails_fails_it() -> None:
    async def fails() -> None:
        raise ValueError("the part")

    async def main() -> None:
        part = asyncio.create_task(fails())
        with pytest.raises(ValueError, match="the part"):
            await until_stopped(asyncio.Event(), [part])
        assert len(asyncio.all_tasks()) <= 2, "only this one and what waited, which is cancelled"

    asyncio.run(main())
