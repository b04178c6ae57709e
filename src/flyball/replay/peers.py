"""Other autoscalers to compare with, by their published algorithms.

Knative's is that of its default decider (serving/pkg/autoscaler, read at 98e5ef90aa70): 1 s buckets, a stable window
of 60 s and a panic window of 6 s, evaluated every 2 s.
"""

import math

import numpy as np
from numpy.typing import NDArray

from flyball.replay.traces import Trace
from flyball.replay.workload import Workload

Counts = NDArray[np.int64]

_TICK_S, _STABLE_S, _PANIC_S = 2, 60, 6
_PANIC_THRESHOLD, _MAX_UP, _MAX_DOWN = 2.0, 1000.0, 2.0
_LOOK_AHEAD_S = 60


def run_knative(trace: Trace, workload: Workload) -> Counts:
    """Desired replicas a second of Knative's algorithm, its target the load at which a pod is busy enough."""
    target = workload.capacity * workload.busy
    totals = np.concatenate([[0.0], np.cumsum(trace.rate)])
    desired = np.empty(len(trace), np.int64)
    current = workload.start(trace.rate)
    starting: list[tuple[int, int]] = []  # (ready at, how many), oldest first
    panic_since: int | None = None
    most_in_panic = 0
    for at_s in range(len(trace)):
        if at_s and at_s % _TICK_S == 0:
            starting = [(ready_s, count) for ready_s, count in starting if ready_s > at_s]
            ready = max(1, current - sum(count for _, count in starting))
            stable = (totals[at_s] - totals[max(0, at_s - _STABLE_S)]) / min(at_s, _STABLE_S)
            panic = (totals[at_s] - totals[max(0, at_s - _PANIC_S)]) / min(at_s, _PANIC_S)
            up, down = math.ceil(_MAX_UP * ready), math.floor(ready / _MAX_DOWN)
            wanted_stable = min(max(math.ceil(stable / target), down), up)
            wanted_panic = min(max(math.ceil(panic / target), down), up)
            if math.ceil(panic / target) / ready >= _PANIC_THRESHOLD:
                panic_since = at_s
            elif panic_since is not None and panic_since + _STABLE_S < at_s:
                panic_since, most_in_panic = None, 0
            wanted = wanted_stable
            if panic_since is not None:
                most_in_panic = max(most_in_panic, wanted_stable, wanted_panic)
                wanted = most_in_panic
            wanted = max(1, wanted)
            if wanted > current:
                starting.append((at_s + workload.startup_s, wanted - current))
            removed = current - wanted
            while removed > 0 and starting:  # starting pods end first
                ready_s, count = starting.pop()
                if count > removed:
                    starting.append((ready_s, count - removed))
                removed -= count
            current = wanted
        desired[at_s] = current
    return desired


def run_oracle(trace: Trace, workload: Workload) -> Counts:
    """Perfect foresight: the largest demand of the next minute."""
    demand = workload.demand(trace.rate)
    padded = np.concatenate([demand, np.full(_LOOK_AHEAD_S, demand[-1])])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, _LOOK_AHEAD_S + 1).max(axis=1))
