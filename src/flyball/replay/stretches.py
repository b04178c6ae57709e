"""Policies of profile parity over a whole trace: many policies, and for each of them many instants, at a time.

While nothing is written a size stays, so a stretch of instants can be decided at once as if there were no write; the
first write in it ends the policy's stretch, and what comes after is decided anew. The same numbers as tick by tick,
sooner. Arrays are [policies, instants] or [policies, seconds]; each policy is at an instant of its own.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import Spec
from flyball.scaling.batch import (
    PER_POD,
    TOTAL_PER_POD,
    BatchHistory,
    BatchSeen,
    BatchSpec,
    batch_spec,
    decide_batch,
    recommend,
)
from flyball.scaling.types import MAX_INT32, MIN_INT32

Counts = NDArray[np.int64]
Progress = Callable[[float], None]  # the share that is done

_TOGETHER = 128  # policies; their arrays stay in the processor's cache
_REQUEST = 1000  # milli-units of each pod
_SHORTEST, _LONGEST = 8, 512  # instants at a time
_REPORT_EVERY = 64  # stretches
_MINUTE_S = 60


def run_parity(
    specs: list[Spec],
    trace: Trace,
    workload: Workload,
    period_s: int = 15,
    *,
    progress: Progress | None = None,
    bounds: "list[Counts] | None" = None,
    floors: "list[Counts | None] | None" = None,
) -> Iterator[Counts]:
    """Desired replicas a second of each spec in turn, evaluated every ``period_s``; made as they are asked for.

    ``bounds``: (minimum, maximum) in each minute of each spec, where a calendar moves them; ``floors``: what a
    forecast asks for in each second.
    """
    for first in range(0, len(specs), _TOGETHER):
        part = slice(first, first + _TOGETHER)
        share = len(specs[part]) / len(specs)
        told = None if progress is None else _part_of(progress, first / len(specs), share)
        run = _Run(specs[part], trace.rate, workload, period_s)
        run.plan(None if bounds is None else bounds[part], None if floors is None else floors[part])
        run.go(told)
        for runs in run.changes:
            at, sizes = np.array(runs).T
            seconds = np.diff(at, append=run.ticks) * period_s
            yield np.repeat(sizes, seconds)[: len(trace)]


def _part_of(progress: Progress, before: float, share: float) -> Progress:
    return lambda done: progress(before + share * done)


class _Run:
    """Policies under way. What is remembered of a policy ends at its instant; ``live`` are those not at the end."""

    def __init__(self, specs: list[Spec], rate: NDArray[np.float64], workload: Workload, period_s: int) -> None:
        self.workload, self.period_s, count = workload, period_s, len(specs)
        self.ticks = -(-len(rate) // period_s)
        self.specs = batch_spec(specs)
        self.spec = self.specs.over_times()
        self.live = np.arange(count)
        self.at = np.zeros(count, np.int64)
        self.current = np.full(count, workload.start(rate), np.int64)
        self.changes = [[(0, int(size))] for size in self.current]  # (tick, replicas from then on) of each policy
        # a load before the beginning and behind the end, so that every stretch is as long as any other
        self._lead = period_s
        self.rate = np.concatenate([np.zeros(period_s), rate, np.zeros((_LONGEST + 2) * period_s)])
        self.total = np.concatenate([[0.0], np.cumsum(self.rate[period_s:])])
        # a cpu value counts once a whole window was measured of the ready pod (groupPods)
        settle_s = workload.window_s + workload.age_s
        of_resource = [spec.metrics[0].type.endswith("Resource") for spec in specs]
        self.settle_s = np.where(of_resource, settle_s, 0)
        self.remembered_s = settle_s
        self.busy = np.zeros((count, settle_s))  # of the seconds before the last instant's
        slots = (workload.startup_s + settle_s) // period_s + 2
        self.ready_s = np.full((count, slots), -(1 << 40))  # of starting pods, the newest last
        self.starting = np.zeros((count, slots), np.int64)
        self.lowest_rows = self._within(self.specs.up.window_ms, strict=True)
        strict, loose = (self._within(self.specs.down.window_ms, strict=one) for one in (True, False))
        self.highest_rows = np.where(self.specs.behaved, strict, loose)
        self._pad = int(max(self.lowest_rows.max(), self.highest_rows.max())) + 1
        self.recommended = np.full((count, self._pad), -1, np.int64)  # of the instants before
        self.recommended[:, -1] = self.current  # as a controller does at its first sight of an HPA
        rules = {"up": self.specs.up, "down": self.specs.down}
        self._periods = {side: self._within(one.period_ms, strict=True) for side, one in rules.items()}
        most = int(max(rows.max() for rows in self._periods.values()))
        self.net = np.zeros((count, most + 1), np.int64)  # raised less lowered before each instant, up to this one
        self._bounds: Counts | None = None
        self._floors: Counts | None = None

    def _within(self, window_ms: Counts, *, strict: bool) -> Counts:
        """How many past instants (the newest is one period ago) lie within a window that ends now."""
        period_ms = self.period_s * 1000
        return np.maximum(0, -(-window_ms // period_ms) - 1) if strict else window_ms // period_ms

    def plan(self, bounds: "list[Counts] | None", floors: "list[Counts | None] | None") -> None:
        """Calendar bounds and forecast floors; constant bounds cost nothing."""
        if bounds and any((minutes != minutes[0]).any() for minutes in bounds):
            self._bounds = np.stack(bounds)  # [policies, minutes, 2]
        if floors and any(floor is not None for floor in floors):
            self._floors = np.zeros((len(floors), self.ticks), np.int64)
            for at, floor in enumerate(floors):
                if floor is not None:
                    self._floors[at] = floor[:: self.period_s]

    def go(self, progress: Progress | None) -> None:
        """To the end of the trace."""
        stretch, steps = 64, 0
        while len(self.live):
            taken = self._advance(stretch)
            stretch = int(np.clip(2 * taken, _SHORTEST, _LONGEST))
            steps += 1
            if progress is not None and steps % _REPORT_EVERY == 0:
                progress(float(self.at.mean()) / self.ticks)

    def _advance(self, count: int) -> int:
        """Decide up to ``count`` instants of each live policy; how many held on average, a write among them."""
        live, at, current = self.live, self.at[self.live], self.current[self.live]
        ticks = at[:, None] + np.arange(count)
        busy = self._measured(live, at, current, count)
        spec = self._spec_at(ticks)
        seen = self._seen(spec, ticks, current, busy)
        recommended = recommend(spec, seen)
        decision = decide_batch(spec, seen, self._history(live, current, recommended), recommended)
        desired = decision.desired
        if self._floors is not None:
            floor = self._floors[live[:, None], np.minimum(ticks, self.ticks - 1)]
            desired = np.maximum(desired, np.minimum(floor, spec.maximum))
        left = self.ticks - at
        moves = (desired != current[:, None]) & (np.arange(count) < left[:, None])
        moved = moves.any(axis=1)
        taken = np.where(moved, moves.argmax(axis=1) + 1, np.minimum(count, left))
        change = np.where(moved, desired[np.arange(len(live)), taken - 1] - current, 0)
        self._remember(live, taken, change, decision.recommended, busy)
        self._apply(live, (at + taken - 1) * self.period_s, change)
        self.at[live], self.current[live] = at + taken, current + change
        for policy in live[moved]:
            self._note(int(policy))
        if (self.at[live] >= self.ticks).any():
            self.live = live[self.at[live] < self.ticks]
            self.spec = self.specs.of(self.live).over_times()
        return int(taken.mean())

    def _note(self, policy: int) -> None:
        tick, size = int(self.at[policy]) - 1, int(self.current[policy])
        if self.changes[policy][-1][0] == tick:  # only at the very beginning
            self.changes[policy].pop()
        self.changes[policy].append((tick, size))

    def _spec_at(self, ticks: Counts) -> BatchSpec:
        if self._bounds is None:
            return self.spec
        minutes = np.minimum(ticks * self.period_s // _MINUTE_S, self._bounds.shape[1] - 1)
        low, high = np.moveaxis(self._bounds[self.live[:, None], minutes], 2, 0)
        return self.spec.bounded(low, high)

    def _measured(self, live: Counts, at: Counts, current: Counts, count: int) -> NDArray[np.float64]:
        """The utilization of each second as if nothing were written, after what is remembered.

        The seconds before the first instant are told anew, for the newest write was made at their beginning.
        """
        begin_s = (at - 1) * self.period_s
        seconds = np.arange((count + 1) * self.period_s)
        capacity = self.workload.capacity
        busy = self.rate[begin_s[:, None] + (seconds + self._lead)]
        young = slice(0, self.workload.startup_s)  # a write that is older has its pods
        now_s = begin_s[:, None] + seconds[young]
        ready = np.repeat(current[:, None], now_s.shape[1], axis=1)
        for slot in range(self.starting.shape[1]):
            pods, ready_s = self.starting[live, slot], self.ready_s[live, slot]
            if (pods * (ready_s > begin_s)).any():
                ready -= np.where(now_s < ready_s[:, None], pods[:, None], 0)
        busy[:, young] /= np.maximum(ready, 1) * capacity
        busy[:, self.workload.startup_s :] /= np.maximum(current, 1)[:, None] * capacity
        np.minimum(busy, self.workload.saturation, out=busy)
        return np.concatenate([self.busy[live], busy], axis=1)

    def _seen(self, spec: BatchSpec, ticks: Counts, current: Counts, busy: NDArray[np.float64]) -> BatchSeen:
        workload, step, count = self.workload, self.period_s, ticks.shape[1]
        times_s = ticks * step
        replicas = np.broadcast_to(current[:, None], times_s.shape)
        counted = replicas.copy()
        until_s = self.ready_s[self.live] + self.settle_s[self.live][:, None]
        few = slice(0, (workload.startup_s + self.remembered_s) // step + 1)  # later all of them count
        for slot in range(self.starting.shape[1]):
            pods = self.starting[self.live, slot]
            if (pods * (until_s[:, slot] > times_s[:, 0])).any():
                counted[:, few] -= np.where(until_s[:, slot, None] > times_s[:, few], pods[:, None], 0)
        # second by second in the order of time
        summed = np.zeros(times_s.shape)
        for second in range(workload.window_s):
            summed += busy[:, step + second :: step][:, :count]
        summed /= np.clip(times_s - workload.age_s, 1, workload.window_s)
        usage = np.where(spec.kind == PER_POD, summed * workload.capacity * 1000, summed * _REQUEST).astype(np.int64)
        usage *= counted
        if (spec.kind >= TOTAL_PER_POD).any():
            end_s = np.maximum(1, times_s - workload.age_s)
            start_s = np.maximum(0, end_s - workload.window_s)
            total = (self.total[end_s] - self.total[start_s]) / (end_s - start_s)
            usage = np.where(spec.kind >= TOTAL_PER_POD, (total * 1000).astype(np.int64), usage)
        every = (spec.kind.shape[0], 1, 1)
        return BatchSeen(
            replicas, replicas, counted, replicas - counted, np.zeros((1, 1), np.int64),
            usage, np.full(every, _REQUEST), np.ones(every, bool),
        )  # fmt: skip

    def _history(self, live: Counts, current: Counts, recommended: Counts) -> BatchHistory:
        past = np.concatenate([self.recommended[live], recommended[:, :-1]], axis=1)
        return BatchHistory(
            self._window(past, self.lowest_rows[live], np.minimum, MAX_INT32),
            self._window(past, self.highest_rows[live], np.maximum, MIN_INT32),
            self._starts("up", live, current, recommended.shape[1]),
            self._starts("down", live, current, recommended.shape[1]),
        )

    def _window(self, past: Counts, rows: Counts, how: np.ufunc, neutral: int) -> Counts:
        """The least or largest of each policy's ``rows`` before each instant; -1 marks one that does not count."""
        count = past.shape[1] - self._pad + 1
        found = np.full((len(past), count), neutral, np.int64)
        known = np.where(past < 0, neutral, past)
        for wanted in np.unique(rows[rows > 0]).tolist():
            these = rows == wanted
            part, span = known[these, self._pad - wanted :], 1
            while 2 * span <= wanted:
                part, span = how(part[:, :-span], part[:, span:]), 2 * span
            found[these] = how(part[:, :count], part[:, wanted - span :][:, :count])
        return found

    def _starts(self, side: str, live: Counts, current: Counts, count: int) -> Counts:
        """Replicas at the start of each policy's period."""
        rows, net = self._periods[side][:, live], self.net[live]
        starts = np.empty((len(rows), len(live), count), np.int64)
        starts[:] = current[:, None]
        few = min(count, int(rows.max()))  # later the whole period is without a write
        if few and (net != net[:, -1:]).any():
            for row, within in enumerate(rows):
                then = net.shape[1] - 1 + np.minimum(0, np.arange(few) - within[:, None])
                starts[row, :, :few] -= net[:, -1:] - np.take_along_axis(net, then, axis=1)
        return starts

    def _remember(
        self, live: Counts, taken: Counts, change: Counts, recommended: Counts, busy: NDArray[np.float64]
    ) -> None:
        def newest(line: NDArray[Any], first: Counts, width: int) -> NDArray[Any]:
            return np.take_along_axis(line, first[:, None] + np.arange(width), axis=1)

        line = np.concatenate([self.recommended[live], recommended], axis=1)
        self.recommended[live] = newest(line, taken, self._pad)
        net = self.net[live]
        net = np.take_along_axis(net, np.minimum(taken[:, None] + np.arange(net.shape[1]), net.shape[1] - 1), axis=1)
        net[:, -1] += np.where(self.specs.behaved[live], change, 0)
        self.net[live] = net
        self.busy[live] = newest(busy, taken * self.period_s, self.remembered_s)

    def _apply(self, live: Counts, at_s: Counts, change: Counts) -> None:
        starting, ready_s = self.starting[live], self.ready_s[live]
        more = change > 0
        starting[more] = np.roll(starting[more], -1, axis=1)
        ready_s[more] = np.roll(ready_s[more], -1, axis=1)
        starting[more, -1], ready_s[more, -1] = change[more], at_s[more] + self.workload.startup_s
        remaining = np.maximum(-change, 0)
        for slot in reversed(range(starting.shape[1])):  # starting pods end first
            ended = np.minimum(starting[:, slot], remaining)
            starting[:, slot] -= ended
            remaining -= ended
        self.starting[live], self.ready_s[live] = starting, ready_s
