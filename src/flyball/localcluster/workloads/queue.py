"""A work queue of keys: a key waits once however often it is added, and is never worked on twice at once."""

import asyncio
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from flyball import clock
from flyball.localcluster.durations import Durations, exponential

K = TypeVar("K", bound=Hashable)

RETRY_MIN_S = 0.02
RETRY_MAX_S = 60.0
GATHERED_FROM = 50  # objects
GATHERED_S = 2e-4  # for each of them: many times what a look at it costs
BUCKETS_S = exponential(1e-8, 10, 10)


class WorkQueue(Generic[K]):
    """Keys to reconcile, with delays and a back-off for each key.

    A key added while it is being worked on is handed out again after ``done``.

    Attributes:
        waited, worked: how long keys waited, and how long the work on them took.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._ready: deque[K] = deque()
        self._dirty: dict[K, float] = {}  # since when
        self._processing: dict[K, float] = {}
        self.waited, self.worked = Durations(BUCKETS_S), Durations(BUCKETS_S)
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self._rng = rng or random.Random()
        self._added = self._retried = 0

    def __len__(self) -> int:
        return len(self._ready)

    def statistics(self) -> dict[str, int]:
        """Counts since the start and what waits now."""
        return {
            "queue_ready": len(self._ready),
            "queue_delayed": len(self._timers),
            "queue_added": self._added,
            "queue_retried": self._retried,
        }

    def under_way_s(self) -> list[float]:
        """How long each key that is worked on has taken by now."""
        now_s = clock.monotonic_s()
        return [now_s - began_s for began_s in self._processing.values()]

    def add(self, key: K) -> None:
        """Work on the key as soon as may be."""
        if key in self._dirty:
            return
        self._added += 1
        self._dirty[key] = clock.monotonic_s()
        if key not in self._processing:
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: K, delay_s: float) -> None:
        """Work on the key no later than ``delay_s`` from now; the earliest of several delays counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay_s:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(max(0.0, delay_s), self._due, key)

    def add_gathered(self, key: K, count: int) -> None:
        """Work on the key, which takes a look at ``count`` objects: changes of many are gathered for one look."""
        if count > GATHERED_FROM:
            self.add_after(key, count * GATHERED_S)
        else:
            self.add(key)

    def retry(self, key: K) -> float:
        """Work on the key again after its back-off; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._retried += 1
        delay_s = min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(failures, 32)) * (1.0 + 0.2 * self._rng.random())
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """The key was worked on with success: its back-off starts anew."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; call ``done`` with it afterwards."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        now_s = clock.monotonic_s()
        self.waited.observe(now_s - self._dirty.pop(key, now_s))
        self._processing[key] = now_s
        return key

    def done(self, key: K) -> None:
        """The work on the key has ended, well or not."""
        now_s = clock.monotonic_s()
        self.worked.observe(now_s - self._processing.pop(key, now_s))
        if key in self._dirty:
            self._ready.append(key)
            self._wake.set()

    def close(self) -> None:
        """Drop all delays."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
