"""Answers kept by key for a short time; a key's question is asked once at a time, however many wait for it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from flyball import clock

T = TypeVar("T")

ENTRIES_MAX = 20_000


class Remembered(Generic[T]):
    """A cache with single flight. A failure is never kept, and is given to all who wait.

    Args:
        ttl_s: how long an answer is used again.
        grace_s: how much longer it is kept for ``expired``.
    """

    def __init__(self, ttl_s: Callable[[T], float], entries_max: int = ENTRIES_MAX, grace_s: float = 0.0) -> None:
        self._ttl_s, self._entries_max, self._grace_s = ttl_s, entries_max, grace_s
        self._known: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._asking: dict[Hashable, asyncio.Task[T]] = {}
        self.asked = self.answered = 0

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer of ``ask``, or the one it gave a moment ago."""
        known = self._known.get(key)
        if known is not None and clock.monotonic_s() < known[0]:
            self.answered += 1
            return known[1]
        task = self._asking.get(key)
        if task is None:
            task = self._ask(key, ask)
        else:
            self.answered += 1
        return await asyncio.shield(task)  # one caller's cancellation is not the others'

    def renew(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]], until_s: float) -> None:
        """Asks anew, ahead of who will, unless the answer that is known serves until then. A failure is forgotten."""
        known = self._known.get(key)
        if key not in self._asking and (known is None or known[0] < until_s):
            self._ask(key, ask).add_done_callback(lambda task: task.cancelled() or task.exception())

    def _ask(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> "asyncio.Task[T]":
        self.asked += 1
        task = asyncio.create_task(self._keep(key, ask()), name="remembered")
        self._asking[key] = task
        task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _keep(self, key: Hashable, answer: Awaitable[T]) -> T:
        found = await answer
        now_s = clock.monotonic_s()
        self._known[key] = (now_s + self._ttl_s(found), found)
        self._known.move_to_end(key)
        # The oldest first: an answer may be large, and is not kept for nothing.
        while len(self._known) > self._entries_max or next(iter(self._known.values()))[0] + self._grace_s < now_s:
            self._known.popitem(last=False)
        return found

    def expired(self, key: Hashable) -> T | None:
        """What was known about a key until at most the grace ago."""
        known = self._known.get(key)
        return known[1] if known is not None and clock.monotonic_s() < known[0] + self._grace_s else None

    def forget(self) -> None:
        """Drops every answer."""
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)
