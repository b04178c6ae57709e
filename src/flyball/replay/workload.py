"""What the replayed load runs on: pods that are all alike."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from flyball.scaling.elasticity import AT_ONCE

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
        changes = np.flatnonzero(desired[1:] != desired[:-1]) + 1
        starts = np.concatenate([[0], changes])
        # the least of the runs within the start-up time changes only where a run begins, and where one is that long ago
        edges = np.unique(np.concatenate([starts, changes + self.startup_s]))
        edges = edges[edges < len(desired)]
        first = np.maximum(np.searchsorted(starts, edges - self.startup_s, "right") - 1, 0)
        end = np.searchsorted(starts, edges, "right")
        runs = np.append(desired[starts], np.iinfo(desired.dtype).max)
        least = np.minimum.reduceat(runs, np.stack([first, end], axis=1).ravel())[::2]
        return np.asarray(np.repeat(least, np.diff(edges, append=len(desired))))

    def assumptions(self) -> tuple[str, ...]:
        """What a reader of the result must know."""
        return (
            f"a pod serves {self.capacity:g} units/s at 100 % and is ready {self.startup_s} s after the write",
            f"demand is the fewest pods at or below {self.busy:.0%}",
            f"pods show at most {self.saturation:.0%}: load beyond that is demand that their metrics hide, though the "
            "scores count it",
            "requests that find no free pod are not kept for later",
        )


def latency(rate: NDArray[np.float64], pods: Counts, capacity: float) -> tuple[float, float]:
    """(mean response time in units of the service time, percent of the seconds at or above capacity, which have none).

    Each pod is an M/M/1 queue, 1 / (1 - utilization); a second counts by its load. NaN without any load.
    """
    waited = served = 0.0
    full = 0
    for begin in range(0, len(rate), AT_ONCE):
        load = rate[begin : begin + AT_ONCE]
        most = np.maximum(pods[begin : begin + AT_ONCE], 1) * capacity
        free = most - load
        if float(free.min()) <= 0:
            some = free > 0
            full += len(load) - int(np.count_nonzero(some))
            load, most, free = load[some], most[some], free[some]
        served += float(load.sum())
        waited += float((load * most / free).sum())
    return waited / served if served else math.nan, 100 * full / len(rate)
