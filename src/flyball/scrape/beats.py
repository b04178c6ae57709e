"""When scrapes begin: at common moments, so that those of one moment are sent, parsed and stored in one go.

That costs about half of what as many single wake-ups do: what one scrape brought into the processor's caches, the next
finds there.
"""

import asyncio
import math

from flyball import clock
from flyball.scrape.precedence import Precedence

#: A moment is at least so far from the next ...
BEAT_MIN_MS = 50
#: ... and at most so far, ...
BEAT_MAX_MS = 800
#: ... in between such that about so many scrapes begin at each: a few milliseconds of work.
TOGETHER = 64


class Beats:
    """Shared by the targets of a manager, on one event loop."""

    def __init__(self) -> None:
        self.beat_ms = BEAT_MIN_MS
        self.precedence = Precedence()
        self._waiting: dict[int, list[asyncio.Future[bool]]] = {}

    def tune(self, scrapes_per_s: float) -> None:
        """So many scrapes there are from now on."""
        self.beat_ms = BEAT_MIN_MS
        while self.beat_ms < BEAT_MAX_MS and scrapes_per_s * self.beat_ms * 2 <= TOGETHER * 1000:
            self.beat_ms *= 2

    def next_ms(self, spread: int, interval_ms: int, now_ms: int) -> int:
        """The next moment, from now on, of a target that has its own ``spread`` in its interval. When the beat changes,
        it moves by less than a beat."""
        phase_ms = spread % max(1, interval_ms // BEAT_MIN_MS) * BEAT_MIN_MS
        beat_ms = self.beat_ms
        while beat_ms > BEAT_MIN_MS and beat_ms * 4 > interval_ms:
            beat_ms //= 2
        phase_ms -= phase_ms % beat_ms
        return now_ms + (phase_ms - now_ms) % interval_ms

    def wait(self, due_ms: int) -> "asyncio.Future[bool]":
        """Done with True at that moment; with whatever else its owner settles it before."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        others = self._waiting.get(due_ms)
        if others is None:
            self._waiting[due_ms] = [waiting]
            loop.call_later((due_ms - clock.now_ms()) / 1000, self._strike, due_ms)
            self.precedence.due_s = min(self.precedence.due_s, due_ms / 1000)
        else:
            others.append(waiting)
        return waiting

    def _strike(self, due_ms: int) -> None:
        woken = self._waiting.pop(due_ms)
        self.precedence.due_s = min(self._waiting, default=math.inf) / 1000
        self.precedence.begin(len(woken), self.beat_ms / 2000)  # queries keep half of the time
        for waiting in woken:
            settle(waiting, True)


def settle(waiting: "asyncio.Future[bool]", result: bool) -> None:
    """Ends the waiting unless it has ended."""
    if not waiting.done():
        waiting.set_result(result)
