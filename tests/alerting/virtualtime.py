"""An event loop whose time passes only while nothing can run: scenarios of hours take milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
EPOCH_MS = 1_900_000_000_000


class _Selector(selectors.SelectSelector):
    """Instead of waiting, moves the loop's time on."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout:
            self.now_s += timeout
        assert found or timeout is not None, "nothing left to wait for"
        return found


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """``time()`` begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """``asyncio.run`` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def now_ms() -> int:
    """The running loop's time as a clock's."""
    return EPOCH_MS + round(asyncio.get_running_loop().time() * 1000)
