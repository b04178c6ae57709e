"""Which HPA or Governor is due next."""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Callable

from flyball.autoscaler.gather import ClockLike
from flyball.autoscaler.pods import Key

WAKE_SPACING_S = 0.1  # between two evaluations of one key that it was woken for


class BeatQueue:
    """When each key is due, on its own beat of ``period_s(key)``; one key is never out twice at once."""

    def __init__(self, period_s: Callable[[Key], float], clock: ClockLike) -> None:
        self._period_s, self._clock = period_s, clock
        self._due: dict[Key, float] = {}
        self._begun: dict[Key, float] = {}
        self._woken: dict[Key, float] = {}  # when it was due for the last wake
        self._out: dict[Key, float | None] = {}  # value: due again at, when asked for meanwhile
        self._removed: set[Key] = set()  # while out
        self._heap: list[tuple[float, int, Key]] = []
        self._serial = itertools.count()
        self._changed = asyncio.Event()

    def add(self, key: Key) -> None:
        """Due now."""
        self._removed.discard(key)
        self._schedule(key, self._clock.monotonic_s())

    def wake(self, key: Key) -> bool:
        """Due now, if known, and not too soon after it was woken last."""
        if key in self._removed or (key not in self._due and key not in self._out):
            return False
        now_s = self._clock.monotonic_s()
        if self._woken.get(key, now_s) > now_s:
            return True  # that wake is still to come
        self._woken[key] = max(now_s, self._woken.get(key, -1e18) + WAKE_SPACING_S)
        self._schedule(key, self._woken[key])
        return True

    def remove(self, key: Key) -> None:
        """Never due again."""
        self._due.pop(key, None)
        self._begun.pop(key, None)
        self._woken.pop(key, None)
        if key in self._out:
            self._out[key] = None
            self._removed.add(key)

    async def next(self) -> tuple[Key, float]:
        """The key that is due first, once it is, and how late that is in seconds."""
        while True:
            self._changed.clear()
            now_s = self._clock.monotonic_s()
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            if self._heap and self._heap[0][0] <= now_s:
                due_s, _, key = heapq.heappop(self._heap)
                del self._due[key]
                self._out[key] = None
                self._begun[key] = now_s
                return key, now_s - due_s
            wait_s = self._heap[0][0] - now_s if self._heap else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    def done(self, key: Key) -> None:
        """It has been seen to; due again one period after it began."""
        asked_s = self._out.pop(key)
        if key in self._removed:
            self._removed.discard(key)
            return
        next_s = self._begun.get(key, self._clock.monotonic_s()) + self._period_s(key)
        self._schedule(key, next_s if asked_s is None else min(asked_s, next_s))

    def _schedule(self, key: Key, due_s: float) -> None:
        if key in self._out:
            asked_s = self._out[key]
            self._out[key] = due_s if asked_s is None else min(asked_s, due_s)
            return
        known_s = self._due.get(key)
        if known_s is None or due_s < known_s:
            self._due[key] = due_s
            heapq.heappush(self._heap, (due_s, next(self._serial), key))
            self._changed.set()
