"""Policies tried on one trace side by side."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from flyball.errors import ConfigError
from flyball.replay.engine import SEASONS_S, foreseen, load_of_a_pod, run_fast, shape_for
from flyball.replay.peers import run_knative, run_oracle
from flyball.replay.policies import Policy
from flyball.replay.stretches import run_parity
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload, latency
from flyball.scaling.elasticity import Demand, Scores, speedup
from flyball.scaling.forecast import FIT_DAYS, FIT_EVERY, LEVELS_PER_DAY, Shape
from flyball.scaling.forecasts import needs
from flyball.scaling.governor import Governor
from flyball.scaling.schedule import scheduled_bounds
from flyball.scaling.types import LINEAR

Counts = NDArray[np.int64]
Progress = Callable[[str, float], None]

_PEERS = {"knative": run_knative, "oracle": run_oracle}
_BOUNDS_EVERY_S = 60


class Result(msgspec.Struct, frozen=True):
    """One policy's run; arrays hold one count a second. ``speedup``: beside a constant size; ``latency``: mean
    response time in service times, over the seconds that are not saturated; ``saturated``: percent of the seconds
    that are."""

    policy: str
    desired: Counts
    supply: Counts
    scores: Scores
    speedup: float
    latency: float
    saturated: float


def peers(names: Sequence[str]) -> list[Policy]:
    """Other algorithms to compare with.

    Raises:
        ConfigError: an unknown name.
    """
    for name in names:
        if name not in _PEERS:
            raise ConfigError(f'peer "{name}" is unknown; use {" or ".join(_PEERS)}')
    return [Policy(name, peer=name) for name in names]


def backtest(
    policies: Sequence[Policy],
    trace: Trace,
    workload: Workload,
    *,
    period_s: int = 15,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Every policy over the whole trace; those of profile parity side by side. Results are made as they are asked for,
    for the counts of many policies are large."""
    demand = Demand(workload.demand(trace.rate))
    still = _static(demand)

    def told(name: str) -> Callable[[float], None] | None:
        return None if progress is None else lambda share: progress(name, share)

    governors = [policy.governor for policy in policies if policy.governor and policy.governor.profile == "parity"]
    rows = run_parity(
        [governor.spec for governor in governors],
        trace,
        workload,
        period_s,
        progress=told("parity"),
        bounds=[_bounds(governor, trace) for governor in governors],
        floors=[_forecast_floor(governor, trace, workload) for governor in governors],
    )
    for policy in policies:
        governor = policy.governor
        if governor is not None and governor.profile == "parity":
            yield _result(policy.name, next(rows), demand, still, trace, workload)
            continue
        if progress is not None:
            progress(policy.name, 0.0)
        if governor is None:
            desired = _PEERS[policy.peer](trace, workload)
        else:
            desired = run_fast(
                trace,
                workload,
                spec=governor.spec,
                bounds=_bounds(governor, trace) if governor.schedule else None,
                shape=_shape(governor, trace, workload),
                ceiling=_ceiling(governor),
            )
        if progress is not None:
            progress(policy.name, 1.0)
        yield _result(policy.name, desired, demand, still, trace, workload)


def notes(policies: Sequence[Policy], trace: Trace, workload: Workload, period_s: int) -> tuple[str, ...]:
    """What a reader of the results must know: how load became metrics, what was hidden, what could not be modelled."""
    governors = [(policy.name, policy.governor) for policy in policies if policy.governor is not None]
    metrics = [metric for _, governor in governors for metric in governor.spec.metrics]
    found = [*workload.assumptions()]
    if any(governor.profile == "parity" for _, governor in governors):
        found.append(
            f"profile parity decides every {period_s} s on metrics of the {workload.window_s} s that ended "
            f"{workload.age_s} s ago; profile fast each second on that second's"
        )
    if any(metric.target.average_utilization is not None for metric in metrics):
        found.append("what a resource metric shows is in proportion to the load")
    if any(metric.type == "Pods" for metric in metrics):
        found.append("a Pods metric is the load that a pod serves, in the trace's units")
    if any(metric.type in ("Object", "External") for metric in metrics):
        found.append("an Object or External metric is the whole load, in the trace's units, whatever is saturated")
    if any(policy.peer for policy in policies):
        found.append("peers see the whole load, whatever is saturated")
    longest_h = SEASONS_S[0] / 3600 / trace.compress
    for name, governor in governors:
        if governor.forecast is not None and len(trace) < 2 * SEASONS_S[0] / trace.compress:
            found.append(
                f"the forecast of {name} has {len(trace) / 3600:.1f} h of history and learns a day only from two of "
                f"{longest_h:g} h each: it knows little but the trend; give it a longer trace"
            )
        if governor.forecast is not None and governor.forecast.model != LINEAR:
            every_h = longest_h / LEVELS_PER_DAY * FIT_EVERY
            found.append(
                f"{governor.forecast.model} of {name} is fitted every {every_h:g} h of the trace, once it has seen "
                f"{FIT_DAYS * longest_h:g} h of it, and each fit is there at once; where it errs more, {LINEAR} counts"
            )
        if governor.override is not None or governor.pause:
            found.append(f"the override or pause of {name} is left out")
    return (*found, *trace.notes)


def _static(demand: Demand) -> Scores:
    """Of the mean demand all the time, which the elastic speed-up compares with."""
    constant = np.full(len(demand), max(1, round(demand.total / len(demand))))
    return demand.scores(constant, constant)


def _result(name: str, desired: Counts, demand: Demand, still: Scores, trace: Trace, workload: Workload) -> Result:
    supply = workload.supply(desired)
    found = demand.scores(supply, desired)
    return Result(name, desired, supply, found, speedup(found, still), *latency(trace.rate, supply, workload.capacity))


def _bounds(governor: Governor, trace: Trace) -> NDArray[np.int64]:
    """(minimum, maximum) in force in each minute of the trace, [minutes, 2]."""
    low, high = governor.spec.min_replicas, governor.spec.max_replicas
    minutes = -(-len(trace) // _BOUNDS_EVERY_S)
    if not governor.schedule:
        return np.tile(np.array([[low, high]], np.int64), (minutes, 1))
    found = []
    for minute in range(minutes):
        at_ms = trace.start_ms + int(minute * _BOUNDS_EVERY_S * 1000 * trace.compress)
        bounds = scheduled_bounds(governor.schedule, low, high, at_ms)
        found.append((bounds.minimum, bounds.maximum))
    return np.array(found, np.int64)


def _shape(governor: Governor, trace: Trace, workload: Workload) -> Shape | None:
    if governor.forecast is None:
        return None
    settings = governor.forecast
    return shape_for(trace, settings.startup_s if settings.declared else workload.startup_s, settings.model)


def _ceiling(governor: Governor) -> float:
    highest = governor.forecast.maximum if governor.forecast is not None else None
    return float(highest or governor.spec.max_replicas)


def _forecast_floor(governor: Governor, trace: Trace, workload: Workload) -> NDArray[np.int64] | None:
    shape = _shape(governor, trace, workload)
    if shape is None:
        return None
    demand = trace.rate / load_of_a_pod(governor.spec, workload)
    asked = needs(np.zeros_like(demand), foreseen(demand, shape), _ceiling(governor))
    return np.ceil(asked).astype(np.int64)
