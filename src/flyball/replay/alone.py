"""One policy over the whole trace, many instants at a time.

While nothing is written the size stays, so a stretch of instants can be decided at once as if there were no write; the
first one in it ends the stretch, and what comes after is decided anew. The same numbers as tick by tick, sooner.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import Spec
from flyball.scaling.batch import (
    PER_POD,
    TOTAL_PER_POD,
    BatchHistory,
    BatchRules,
    BatchSeen,
    batch_spec,
    decide_batch,
    recommend,
)
from flyball.scaling.types import MAX_INT32, MIN_INT32

Counts = NDArray[np.int64]

_REQUEST = 1000  # milli-units of each pod
_SHORTEST, _LONGEST = 8, 512  # instants at a time


def run_alone(
    spec: Spec, trace: Trace, workload: Workload, period_s: int, progress: Callable[[float], None] | None = None
) -> Counts:
    """Desired replicas a second."""
    run = _Alone(spec, trace.rate, workload, period_s)
    at, stretch = 0, 64
    while at < run.ticks:
        stretch = min(stretch, run.ticks - at)
        taken = run.advance(at, stretch)
        stretch = max(_SHORTEST, min(_LONGEST, 2 * taken))
        at += taken
        if progress is not None:
            progress(at / run.ticks)
    return np.asarray(np.repeat(run.desired, period_s)[: len(trace)])


class _Alone:
    """State by tick; row 0 of what is remembered is the seed that a controller puts at first sight."""

    def __init__(self, spec: Spec, rate: NDArray[np.float64], workload: Workload, period_s: int) -> None:
        self.spec, self.rate, self.workload, self.period_s = batch_spec([spec]), rate, workload, period_s
        self.ticks = -(-len(rate) // period_s)
        self.current = workload.start(rate)
        self.starting: list[tuple[int, int]] = []  # (ready at, how many), oldest first
        settle = workload.window_s + workload.age_s
        self.settle_s = settle if spec.metrics[0].type.endswith("Resource") else 0
        # zeros in front, so that a window at the beginning is as long as any other
        self._lead = workload.window_s + workload.age_s
        self.busy = np.zeros(self._lead + self.ticks * period_s)
        self.total = np.concatenate([[0.0], np.cumsum(rate)])
        self.desired = np.zeros(self.ticks, np.int64)
        self._rows = {
            "lowest": self._within(int(self.spec.up.window_ms[0]), strict=True),
            "highest": self._within(int(self.spec.down.window_ms[0]), strict=bool(self.spec.behaved[0])),
        }
        self._pad = max(self._rows.values()) + 1
        self.recommended = np.full(self._pad + self.ticks + 1, -1, np.int64)
        self.recommended[self._pad] = self.current
        self.net = np.zeros(self.ticks + 1, np.int64)  # cumulated changes before each tick: raised less lowered

    def _within(self, window_ms: int, strict: bool) -> int:
        period_ms = self.period_s * 1000
        return max(0, -(-window_ms // period_ms) - 1) if strict else window_ms // period_ms

    def advance(self, at: int, count: int) -> int:
        """Decide up to ``count`` instants from tick ``at``; how many held, the first write among them."""
        times_s = (at + np.arange(count)) * self.period_s
        self._measure(at, count)
        seen = self._seen(times_s)
        recommended = recommend(self.spec, seen)
        decision = decide_batch(self.spec, seen, self._history(at, count, recommended), recommended)
        moved = np.flatnonzero(decision.desired != self.current)
        taken = count if not len(moved) else int(moved[0]) + 1
        first = self._pad + 1 + at
        self.recommended[first : first + taken] = decision.recommended[:taken]
        self.desired[at : at + taken] = decision.desired[:taken]
        self.net[at + 1 : at + 1 + taken] = self.net[at]
        if len(moved):
            change = int(decision.desired[taken - 1]) - self.current
            if self.spec.behaved[0]:
                self.net[at + taken] += change
            self._apply(int(times_s[taken - 1]), change)
            self.current += change
        return taken

    def _measure(self, at: int, count: int) -> None:
        """The utilization of each second from tick ``at`` on, as if nothing were written.

        Those before it are told anew, for the newest write was made at their beginning.
        """
        begin_s, end_s = max(0, at - 1) * self.period_s, min(len(self.rate), (at + count) * self.period_s)
        ready = np.full(end_s - begin_s, self.current, np.int64)
        for ready_s, pods in self.starting:
            ready[: max(0, ready_s - begin_s)] -= pods
        busy = self.rate[begin_s:end_s] / (np.maximum(ready, 1) * self.workload.capacity)
        self.busy[self._lead + begin_s : self._lead + end_s] = np.minimum(busy, self.workload.saturation)
        longest_s = self.workload.startup_s + self.workload.window_s + self.workload.age_s
        self.starting = [entry for entry in self.starting if entry[0] + longest_s > begin_s]

    def _seen(self, times_s: Counts) -> BatchSeen:
        workload, spec = self.workload, self.spec
        current = np.full(len(times_s), self.current, np.int64)
        counted = current.copy()
        for ready_s, pods in self.starting:
            counted -= np.where(ready_s + self.settle_s > times_s, pods, 0)
        window, lead = workload.window_s, self._lead
        first = int(times_s[0]) + lead - workload.age_s - window
        last = int(times_s[-1]) + lead - workload.age_s
        part = self.busy[max(0, first) : last]
        step = self.period_s
        # second by second in the order of time, as one column's mean is
        summed = np.zeros(len(times_s))
        for second in range(window):
            summed = summed + part[second::step][: len(times_s)]
        known = np.clip(times_s - workload.age_s, 0, window)
        busy = summed / np.maximum(known, 1)
        end_s = np.maximum(1, times_s - workload.age_s)
        start_s = np.maximum(0, end_s - window)
        total = (self.total[end_s] - self.total[start_s]) / (end_s - start_s)
        usage = np.where(
            spec.kind >= TOTAL_PER_POD,
            (total * 1000).astype(np.int64),
            np.where(spec.kind == PER_POD, busy * workload.capacity * 1000, busy * _REQUEST).astype(np.int64) * counted,
        )
        shape = (spec.kind.shape[0], len(times_s))
        return BatchSeen(
            current, current, counted, current - counted, np.zeros_like(current),
            usage, np.full(shape, _REQUEST), np.ones(shape, bool),
        )  # fmt: skip

    def _history(self, at: int, count: int, recommended: Counts) -> BatchHistory:
        end = self._pad + 1 + at
        past = np.concatenate([self.recommended[end - self._pad : end], recommended[:-1]])
        return BatchHistory(
            self._window(past, self._rows["lowest"], count, np.minimum, MAX_INT32),
            self._window(past, self._rows["highest"], count, np.maximum, MIN_INT32),
            self._starts(self.spec.up, at, count),
            self._starts(self.spec.down, at, count),
        )

    def _window(self, past: Counts, rows: int, count: int, how: Any, neutral: int) -> Counts:
        if not rows:
            return np.full(count, neutral, np.int64)
        part = np.where(past < 0, neutral, past)[self._pad - rows :]
        return np.asarray(how.reduce(sliding_window_view(part, rows), axis=1)[:count])

    def _starts(self, rules: BatchRules, at: int, count: int) -> Counts:
        starts = np.empty((rules.period_ms.shape[0], count), np.int64)
        for row, (period_ms,) in enumerate(rules.period_ms.tolist()):
            oldest = np.clip(at + np.arange(count) - self._within(period_ms, strict=True), 0, at)
            starts[row] = self.current - (self.net[at] - self.net[oldest])
        return starts

    def _apply(self, at_s: int, change: int) -> None:
        if change > 0:
            self.starting.append((at_s + self.workload.startup_s, change))
        remaining = -change
        while remaining > 0 and self.starting:
            ready_s, pods = self.starting.pop()
            if pods > remaining:
                self.starting.append((ready_s, pods - remaining))
            remaining -= pods
