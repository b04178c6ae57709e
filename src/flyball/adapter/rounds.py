"""When a question that comes in rounds comes next: every HPA is looked at once in each period of its controller."""

import math
from dataclasses import dataclass

#: Who asks less often waits for the answer.
PERIOD_MAX_S = 120.0


@dataclass(slots=True)
class Rounds:
    """Learns the period of one question from when it is asked; times in s.

    A round begins after a pause. Where there is none, everybody asks all the time.

    Attributes:
        ttl_s: how long an answer serves: who asks within it is of the same round.
    """

    ttl_s: float
    _began_s: float = -math.inf
    _last_s: float = -math.inf
    _renewed_s: float = -math.inf
    _period_s: float = 0.0

    @property
    def lead_s(self) -> float:
        """How long before a round its answer is asked for: it serves a round that is somewhat early or late."""
        return 0.3 * self.ttl_s

    @property
    def serves_s(self) -> float:
        """How long after the beginning of a round its answer serves: a round that takes long is one round all the same.
        At most twice as long as any answer, and half of the period: the next round has its own."""
        return max(self.ttl_s, min(2 * self.ttl_s, self._period_s / 2))

    def asked(self, now_s: float) -> float | None:
        """Told of each asking; the time at which the next round is expected, at the first of a round that is regular.

        The first period that is seen is trusted; one unlike that before it is not. Who asks without a pause is told
        when the answer is over.
        """
        paused = now_s - self._last_s >= self.ttl_s / 2
        self._last_s = now_s
        if not paused:
            if now_s - self._renewed_s < (2 if self._period_s else 1) * self.ttl_s:
                return None
            self._renewed_s = now_s
            return now_s + self.ttl_s
        passed_s = now_s - self._began_s
        if passed_s < self.ttl_s:
            return None
        before_s, self._period_s = self._period_s, passed_s
        self._began_s = self._renewed_s = now_s
        if passed_s > PERIOD_MAX_S:
            self._period_s = 0.0
            return None
        regular = not before_s or abs(passed_s - before_s) <= self.ttl_s - self.lead_s
        return now_s + passed_s if regular else None
