"""What the replayed load runs on: pods that are all alike."""

import msgspec
import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


class Workload(msgspec.Struct, frozen=True):
    """``capacity``: load units a second of one pod at 100 % of its request; ``busy``: the share of it at which a pod
    should run, from which demand is counted; ``startup_s``: from the write until ready; ``saturation``: the
    utilization that cannot be exceeded, so that demand above it is hidden; ``window_s`` and ``age_s``: over which and
    how long ago a metric was measured; ``initial``: replicas at the start, 0 for as many as demand needs."""

    capacity: float
    busy: float = 0.7
    startup_s: int = 30
    saturation: float = 2.0
    window_s: int = 15
    age_s: int = 5
    initial: int = 0

    def demand(self, rate: NDArray[np.float64]) -> Counts:
        """The fewest pods that keep each at or below ``busy``, one count a second."""
        return np.asarray(np.ceil(rate / (self.capacity * self.busy) - 1e-9), np.float64).astype(np.int64)

    def start(self, rate: NDArray[np.float64]) -> int:
        """Replicas at the first second."""
        return self.initial or max(1, int(self.demand(rate[:1])[0]))

    def supply(self, desired: Counts) -> Counts:
        """Ready pods a second: a start takes ``startup_s``; a stop is immediate and ends starting pods first."""
        padded = np.concatenate([np.full(self.startup_s, desired[0]), desired])
        return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, self.startup_s + 1).min(axis=1))

    def assumptions(self) -> tuple[str, ...]:
        """What a reader of the result must know."""
        return (
            f"a pod serves {self.capacity:g} units/s at 100 % and is ready {self.startup_s} s after the write",
            f"demand is the fewest pods at or below {self.busy:.0%}",
            f"pods show at most {self.saturation:.0%}: load beyond that is demand that their metrics hide, though the "
            "scores count it",
            "requests that find no free pod are not kept for later",
        )


def latency_factors(rate: NDArray[np.float64], pods: Counts, capacity: float) -> NDArray[np.float64]:
    """Mean response time in units of the service time, each pod an M/M/1 queue: 1 / (1 - utilization), inf from 1."""
    free = 1 - rate / (np.maximum(1, pods) * capacity)
    return np.asarray(np.divide(1.0, free, out=np.full(len(free), np.inf), where=free > 0))
