"""Answers kept by key for a short time; a key's question is asked once at a time, however many wait for it."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flyball import clock

T = TypeVar("T")

ENTRIES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class _Known(Generic[T]):
    """An answer. Until ``fresh_until_s`` it need not be renewed, until ``serves_until_s`` it is given."""

    fresh_until_s: float
    serves_until_s: float
    answer: T


class Remembered(Generic[T]):
    """A cache with single flight. A failure is never kept, and is given to all who wait.

    Args:
        ttl_s: how long an answer is used again.
        grace_s: how much longer it is kept for ``expired``.
    """

    def __init__(self, ttl_s: Callable[[T], float], entries_max: int = ENTRIES_MAX, grace_s: float = 0.0) -> None:
        self._ttl_s, self._entries_max, self._grace_s = ttl_s, entries_max, grace_s
        self._known: OrderedDict[Hashable, _Known[T]] = OrderedDict()
        self._asking: dict[Hashable, asyncio.Task[T]] = {}
        self.asked = self.answered = 0

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]], *, serves_s: float = 0.0) -> T:
        """The answer of ``ask``, or the one it gave a moment ago.

        Args:
            serves_s: a new answer serves for so long, if that is longer than usual.
        """
        known = self._known.get(key)
        if known is not None and clock.monotonic_s() < known.serves_until_s:
            self.answered += 1
            return known.answer
        task = self._asking.get(key)
        if task is None:
            task = self._ask(key, ask, clock.monotonic_s() + serves_s)
        else:
            self.answered += 1
        return await asyncio.shield(task)  # one caller's cancellation is not the others'

    def renew(
        self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]], until_s: float, *, serves_s: float = 0.0
    ) -> None:
        """Asks anew, ahead of who will, unless the answer that is known is fresh until then. A failure is forgotten.

        Args:
            serves_s: the new answer serves for so long from ``until_s``.
        """
        known = self._known.get(key)
        if key not in self._asking and (known is None or known.fresh_until_s < until_s):
            task = self._ask(key, ask, until_s + serves_s if serves_s else 0.0)
            task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _ask(
        self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]], serves_until_s: float
    ) -> "asyncio.Task[T]":
        self.asked += 1
        task = asyncio.create_task(self._keep(key, ask, serves_until_s), name="remembered")
        self._asking[key] = task

        def done(task: "asyncio.Task[T]") -> None:
            if self._asking.get(key) is task:
                del self._asking[key]

        task.add_done_callback(done)
        return task

    async def _keep(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]], serves_until_s: float) -> T:
        found = await ask()
        if self._asking.get(key) is not asyncio.current_task():
            return found  # it was forgotten meanwhile: the answer is of before that
        del self._asking[key]
        now_s = clock.monotonic_s()
        fresh_until_s = now_s + self._ttl_s(found)
        self._known[key] = _Known(fresh_until_s, max(fresh_until_s, serves_until_s), found)
        self._known.move_to_end(key)
        # The oldest first: an answer may be large, and is not kept for nothing.
        while len(self._known) > self._entries_max or self._oldest().serves_until_s + self._grace_s < now_s:
            self._known.popitem(last=False)
        return found

    def _oldest(self) -> _Known[T]:
        return next(iter(self._known.values()))

    def expired(self, key: Hashable) -> T | None:
        """What was known about a key until at most the grace ago."""
        known = self._known.get(key)
        return (
            known.answer if known is not None and clock.monotonic_s() < known.serves_until_s + self._grace_s else None
        )

    def forget(self) -> None:
        """Drops every answer, and each that is still on its way: who waits for that gets it, and nobody else."""
        self._known.clear()
        self._asking.clear()

    def __len__(self) -> int:
        return len(self._known)
