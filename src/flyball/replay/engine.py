"""Drives the arithmetic of ``scaling`` over recorded load.

Parity policies run side by side, one column each, tick by tick through ``decide_batch``; a fast policy runs alone,
second by second through ``scaling.fast``. Both see the load as the workload's pods would report it.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from flyball.replay.alone import run_alone
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import History, Spec
from flyball.scaling.batch import (
    PER_POD,
    TOTAL_PER_POD,
    BatchHistory,
    BatchRules,
    BatchSeen,
    batch_spec,
    decide_batch,
)
from flyball.scaling.decide import event_periods
from flyball.scaling.forecast import Shape
from flyball.scaling.forecasts import forecasts, needs, sizes
from flyball.scaling.normalize import limited, remember_event
from flyball.scaling.types import MAX_INT32

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Progress = Callable[[float], None]  # the share that is done

_REQUEST = 1000  # milli-units of each pod
_REPORT_EVERY = 256  # ticks
_ALONE_UP_TO = 48  # policies; above it columns are the quicker way
SEASONS_S = (86_400.0, 604_800.0)


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
    moving = any(floor is not None for floor in floors or []) or any(
        (minutes != minutes[0]).any() for minutes in bounds or []
    )
    if len(specs) <= _ALONE_UP_TO and not moving:
        for at, spec in enumerate(specs):
            told = None if progress is None else _part_of(progress, at, len(specs))
            yield run_alone(spec, trace, workload, period_s, told)
        return
    for by_tick in run_columns(specs, trace, workload, period_s, progress=progress, bounds=bounds, floors=floors):
        yield np.repeat(by_tick, period_s)[: len(trace)].astype(np.int64)


def run_columns(
    specs: list[Spec],
    trace: Trace,
    workload: Workload,
    period_s: int = 15,
    *,
    progress: Progress | None = None,
    bounds: "list[Counts] | None" = None,
    floors: "list[Counts | None] | None" = None,
) -> NDArray[np.int32]:
    """Desired replicas at each tick, [len(specs), ticks], int32: every policy takes each tick together."""
    run = _Columns(specs, trace.rate, workload, period_s)
    run.plan(bounds, floors)
    desired = np.empty((-(-len(trace) // period_s), len(specs)), np.int32)
    for tick in range(len(desired)):
        desired[tick] = run.step(tick * period_s)
        if progress is not None and tick % _REPORT_EVERY == 0:
            progress(tick / len(desired))
    return desired.T


def _part_of(progress: Progress, part: int, parts: int) -> Progress:
    return lambda share: progress((part + share) / parts)


class _Columns:
    """The state of many policies that see the same load and are evaluated at the same instants."""

    def __init__(self, specs: list[Spec], rate: Floats, workload: Workload, period_s: int) -> None:
        self.spec, self.rate, self.workload, self.period_s = batch_spec(specs), rate, workload, period_s
        count = len(specs)
        self.total = np.concatenate([[0.0], np.cumsum(rate)])
        self.current = np.full(count, workload.start(rate), np.int64)
        # a cpu value counts once a whole window was measured of the ready pod (groupPods)
        settle = workload.window_s + workload.age_s
        self.settle_s = np.array([settle if spec.metrics[0].type.endswith("Resource") else 0 for spec in specs])
        self.starting: deque[tuple[int, Counts]] = deque()  # (ready at, how many), oldest first
        self.busy = _Tail(workload.window_s + workload.age_s + period_s, count, np.float64)
        longest = max(int(self.spec.up.window_ms.max()), int(self.spec.down.window_ms.max())) // 1000
        self.recommended = _Tail(longest // period_s + 2, count, np.int64)
        periods = max(int(self.spec.up.period_ms.max()), int(self.spec.down.period_ms.max())) // 1000
        self.net = _Tail(periods // period_s + 2, count, np.int64)  # raised less lowered, of those with behavior
        up_rows = _rows_within(self.spec.up.window_ms, period_s, strict=True)
        strictly = _rows_within(self.spec.down.window_ms, period_s, strict=True)
        loosely = _rows_within(self.spec.down.window_ms, period_s, strict=False)
        self._up_rows, self._down_rows = _groups(up_rows), _groups(np.where(self.spec.behaved, strictly, loosely))
        self._period_rows = {
            id(rules): _groups(_rows_within(rules.period_ms, period_s, strict=True))
            for rules in (self.spec.up, self.spec.down)
        }
        self.recommended.push(self.current)  # as a controller does at its first sight of an HPA

        self._bounds: Counts | None = None
        self._floors: list[tuple[int, Counts]] = []

    def plan(self, bounds: "list[Counts] | None", floors: "list[Counts | None] | None") -> None:
        """Calendar bounds and forecast floors; constant bounds cost nothing."""
        if bounds and any((minutes != minutes[0]).any() for minutes in bounds):
            self._bounds = np.stack(bounds, axis=2)  # [minutes, 2, specs]
        self._floors = [(at, floor) for at, floor in enumerate(floors or []) if floor is not None]

    def step(self, at_s: int) -> Counts:
        """Evaluate at one instant; the sizes from now on."""
        self._measure(at_s)
        if self._bounds is not None:
            self.spec.minimum[:], self.spec.maximum[:] = self._bounds[at_s // 60]
        history = BatchHistory(
            self.recommended.least(self._up_rows),
            self.recommended.largest(self._down_rows),
            self._starts(self.spec.up),
            self._starts(self.spec.down),
        )
        decision = decide_batch(self.spec, self._seen(at_s), history)
        desired = decision.desired
        for at, floor in self._floors:
            desired[at] = max(desired[at], min(floor[at_s], self.spec.maximum[at]))
        change = desired - self.current
        known = decision.recommended >= 0
        # where there is no recommendation the row must not count: neutral to both the least and the largest
        self.recommended.push(np.where(known, decision.recommended, -1))
        self.net.push(np.where(self.spec.behaved, change, 0))
        if change.any():
            self._apply(at_s, change)
            self.current = desired
        return self.current

    def _measure(self, at_s: int) -> None:
        """The utilization of each second since the last instant."""
        begin_s = max(0, at_s - self.period_s)
        rate = self.rate[begin_s:at_s]
        if not len(rate):
            return
        ready = np.repeat(self.current[None, :], len(rate), axis=0)
        for ready_s, count in self.starting:
            ready[: max(0, ready_s - begin_s)] -= count
        busy = rate[:, None] / (np.maximum(ready, 1) * self.workload.capacity)
        self.busy.extend(np.minimum(busy, self.workload.saturation))
        longest_s = self.workload.startup_s + self.workload.window_s + self.workload.age_s
        while self.starting and self.starting[0][0] + longest_s <= at_s:
            self.starting.popleft()

    def _seen(self, at_s: int) -> BatchSeen:
        workload, spec, current = self.workload, self.spec, self.current
        counted = current.copy()
        for ready_s, count in self.starting:
            counted -= np.where(ready_s + self.settle_s > at_s, count, 0)
        busy = self.busy.mean(workload.window_s, workload.age_s)
        end_s = max(1, at_s - workload.age_s)
        start_s = max(0, end_s - workload.window_s)
        total = float(self.total[end_s] - self.total[start_s]) / (end_s - start_s)
        usage = np.where(
            spec.kind >= TOTAL_PER_POD,
            int(total * 1000),
            np.where(spec.kind == PER_POD, busy * workload.capacity * 1000, busy * _REQUEST).astype(np.int64) * counted,
        )
        return BatchSeen(
            current, current, counted, current - counted, np.zeros_like(current),
            usage, np.full_like(spec.kind, _REQUEST), np.ones(spec.kind.shape, bool),
        )  # fmt: skip

    def _starts(self, rules: BatchRules) -> Counts:
        rows, shape = self._period_rows[id(rules)], rules.period_ms.shape
        return self.current - self.net.sums(rows, shape)

    def _apply(self, at_s: int, change: Counts) -> None:
        self.starting.append((at_s + self.workload.startup_s, np.maximum(change, 0)))
        remaining = np.maximum(-change, 0)
        for _, count in reversed(self.starting):
            taken = np.minimum(count, remaining)
            count -= taken
            remaining -= taken
            if not remaining.any():
                break


def _rows_within(window_ms: Counts, period_s: int, *, strict: bool) -> Counts:
    """How many past ticks (the newest is one period ago) lie within a window that ends now."""
    if strict:
        return np.maximum(0, -(-window_ms // (period_s * 1000)) - 1)
    return window_ms // (period_s * 1000)


class _Tail:
    """The newest rows of a growing table, contiguous, so that a window is a slice."""

    def __init__(self, keep: int, columns: int, dtype: type) -> None:
        self._keep = max(1, keep)
        self._rows: NDArray[Any] = np.zeros((8 * self._keep + 64, columns), dtype)
        self._end = 0

    def push(self, row: NDArray[np.int64]) -> None:
        self.extend(row[None, :])

    def extend(self, rows: NDArray[np.int64] | NDArray[np.float64]) -> None:
        if self._end + len(rows) > len(self._rows):
            kept = self._rows[self._end - self._keep : self._end].copy()
            self._rows[: self._keep] = kept
            self._end = self._keep
        self._rows[self._end : self._end + len(rows)] = rows
        self._end += len(rows)

    def mean(self, window: int, age: int) -> Floats:
        """Over ``window`` rows, the newest ``age`` left out; zero before there are any."""
        end = max(0, self._end - age)
        rows = self._rows[max(0, end - window) : end]
        return rows.mean(axis=0) if len(rows) else np.zeros(self._rows.shape[1])

    def least(self, rows: "Groups") -> Counts:
        """The least of each column's newest rows, MAX_INT32 without any; -1 marks a row that does not count."""
        result = np.full(self._rows.shape[1], MAX_INT32, np.int64)
        for wanted, where, since in rows:
            part = self._rows[max(0, self._end - wanted) : max(0, self._end - since)]
            found = np.where(part < 0, MAX_INT32, part).min(axis=0, initial=MAX_INT32)
            np.minimum(result, found, out=result, where=where)
        return result

    def largest(self, rows: "Groups") -> Counts:
        """The largest of each column's newest rows, -1 without any that counts."""
        result = np.full(self._rows.shape[1], -1, np.int64)
        for wanted, where, since in rows:
            part = self._rows[max(0, self._end - wanted) : max(0, self._end - since)]
            np.maximum(result, part.max(axis=0, initial=-1), out=result, where=where)
        return result

    def sums(self, rows: "Groups", shape: tuple[int, ...]) -> Counts:
        """The sums of each column's newest rows [k, n]."""
        result = np.zeros(shape, np.int64)
        for wanted, where, since in rows:
            part = self._rows[max(0, self._end - wanted) : max(0, self._end - since)]
            np.add(result, part.sum(axis=0), out=result, where=where)
        return result


Groups = list[tuple[int, NDArray[np.bool_] | bool, int]]


def _groups(rows: Counts) -> Groups:
    """(number of rows, which elements want as many at least, the next smaller number): rows are looked at once."""
    numbers = [0, *(wanted for wanted in np.unique(rows).tolist() if wanted)]
    wide = [(wanted, rows >= wanted, since) for since, wanted in itertools.pairwise(numbers)]
    return [(wanted, where if not where.all() else True, since) for wanted, where, since in wide]


def run_fast(
    trace: Trace,
    workload: Workload,
    *,
    spec: Spec | None = None,
    bounds: Counts | None = None,
    shape: Shape | None = None,
    ceiling: float = float(MAX_INT32),
    distort: Callable[[Floats], Floats] | None = None,
) -> Counts:
    """Desired replicas a second of profile ``fast``, which sees each second's load.

    ``spec``: its bounds and behavior, without one 1 and no end; ``bounds``: (minimum, maximum) in each minute,
    [minutes, 2], in their place. ``shape``: of the forecast, None without one, which may ask for ``ceiling``
    replicas; ``distort``: see ``forecasts``.
    """
    low: Counts | int = 1 if spec is None else spec.min_replicas
    high: Counts | int = MAX_INT32 if spec is None else spec.max_replicas
    if bounds is not None:
        low, high = (np.repeat(bounds[:, side], 60)[: len(trace)] for side in (0, 1))
    first = int(np.clip(workload.start(trace.rate), np.atleast_1d(low)[0], np.atleast_1d(high)[0]))
    hold_s, limited_by = workload.startup_s, None
    if spec is not None and spec.behavior is not None:
        hold_s, limited_by = max(hold_s, spec.behavior.down.window_s), partial(_Policies, spec)
    divisor = workload.capacity * workload.busy if spec is None else load_of_a_pod(spec, workload)
    hides = spec is not None and not all(metric.type in ("Object", "External") for metric in spec.metrics)
    load = trace.rate
    while True:
        demand = load / divisor
        known = None if shape is None else forecasts(demand, shape, distort)
        need = needs(demand, known, ceiling)
        limit = None if limited_by is None else limited_by()  # with no writes behind it
        desired = sizes(need, hold_s, first, low, high, foreseen=known is not None, limit=limit)
        if not hides:
            return desired
        # what saturated pods report hides the rest; the first second that was seen otherwise is settled each time
        ready = np.concatenate([desired[:1], workload.supply(desired)[:-1]])
        shown = np.minimum(trace.rate, ready * (workload.capacity * workload.saturation))
        if np.array_equal(shown, load):
            return desired
        load = shown


def load_of_a_pod(spec: Spec, workload: Workload) -> float:
    """The load at which a pod meets its target: of several metrics the one that asks for the most pods.

    A metric that is no resource is the load itself, in its units.
    """
    loads = []
    for metric in spec.metrics:
        target = metric.target
        if target.average_utilization is not None:
            loads.append(workload.capacity * target.average_utilization / 100)
        else:
            loads.append((target.average_value or target.value or 1000) / 1000)
    return min(loads)


class _Policies:
    """The user's rate policies over a run: what they allow of each write, and what was written before it."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._history = spec, History()
        self._periods_s = event_periods(spec) or (0, 0)

    def __call__(self, at_s: int, current: int, wanted: int) -> int:
        desired, _, _ = limited(self._spec, current, wanted, self._history, at_s * 1000)
        change, (up_s, down_s) = desired - current, self._periods_s
        if change > 0:
            self._history = replace(self._history, ups=remember_event(self._history.ups, change, up_s, at_s * 1000))
        elif change < 0:
            downs = remember_event(self._history.downs, -change, down_s, at_s * 1000)
            self._history = replace(self._history, downs=downs)
        return desired


def shape_for(trace: Trace, workload: Workload) -> Shape:
    """Of the forecast whose lead is the start-up time; a compressed trace has shorter days."""
    return Shape(workload.startup_s, tuple(season / trace.compress for season in SEASONS_S))
