"""Scrapes go before queries.

A thread that computes has the interpreter until it is made to give it away; where there is more work than processors
that takes tens of milliseconds, and the scrapes of one moment need it a hundred times. So queries ask every few
milliseconds of their own work whether scrapes are due, and let them.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable

from flyball import clock

#: Scrapes under way of which none lands for so long wait for their targets: queries go on.
QUIET_S = 0.01
#: What a query leaves to scrapes that are due and have not begun.
_AWAITED_S = 0.002
#: Scrapes later than that are not awaited: the clock jumped.
_LATE_MAX_S = 1.0
#: A query that has computed for less is no obstacle.
SHORT_S = 0.005


class Precedence:
    """Of the scrapes of one event loop over the threads of queries.

    Attributes:
        due_s: when the next scrapes begin, wall-clock time.
    """

    def __init__(self) -> None:
        self.due_s = math.inf
        self._over = threading.Event()
        self._over.set()
        self._until_s = 0.0
        self._left = self._left_before = 0

    def begin(self, scrapes: int, most_s: float) -> None:
        """So many scrapes begin, on the event loop. They go first until all have landed or none does any more, and for
        ``most_s`` at most."""
        self._until_s = clock.monotonic_s() + most_s
        self._left = self._left_before = scrapes
        self._over.clear()
        asyncio.get_running_loop().call_later(QUIET_S, self._look, self._until_s)

    def landed(self) -> None:
        """One of them is done."""
        self._left -= 1
        if self._left == 0:
            self._over.set()

    def _look(self, until_s: float) -> None:
        if self._over.is_set() or until_s != self._until_s:  # others have begun
            return
        if self._left == self._left_before or clock.monotonic_s() > until_s:
            self._over.set()
            return
        self._left_before = self._left
        asyncio.get_running_loop().call_later(QUIET_S, self._look, until_s)

    def give_way(self) -> None:
        """Waits, in a thread of a query, while scrapes are due or under way."""
        if self._over.is_set():
            if not 0 <= clock.now_ms() / 1000 - self.due_s < _LATE_MAX_S:
                return
            time.sleep(_AWAITED_S)
        self._over.wait(max(0.0, self._until_s - clock.monotonic_s()))

    def for_query(self) -> Callable[[], None]:
        """``give_way`` for one query: not while it is a short one."""
        begun_s: float | None = None

        def give_way() -> None:
            nonlocal begun_s
            computed_s = time.thread_time()
            if begun_s is None:
                begun_s = computed_s
            elif computed_s - begun_s >= SHORT_S:
                self.give_way()

        return give_way
