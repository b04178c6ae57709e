"""A policy of profile fast over a whole trace, as its pods would report the load of each second."""

from collections.abc import Callable
from functools import partial

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import History, Spec
from flyball.scaling.decide import event_periods
from flyball.scaling.forecast import Shape
from flyball.scaling.forecasts import Forecasts, forecasts, needs, sizes
from flyball.scaling.normalize import limited, remember_event
from flyball.scaling.types import LINEAR, MAX_INT32

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
SEASONS_S = (86_400.0, 604_800.0)


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
        known = None if shape is None else foreseen(demand, shape, distort)
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


def foreseen(demand: Floats, shape: Shape, distort: Callable[[Floats], Floats] | None = None) -> Forecasts:
    """The forecasts of a demand by the shape's model."""
    if not shape.heavy:
        return forecasts(demand, shape, distort)
    from flyball.scaling.holtwinters import fit  # with its extra

    return forecasts(demand, shape, distort, fit)


def shape_for(trace: Trace, lead_s: float, model: str = LINEAR) -> Shape:
    """Of a forecast so far ahead; a compressed trace has shorter days."""
    return Shape(lead_s, tuple(season / trace.compress for season in SEASONS_S), model)
