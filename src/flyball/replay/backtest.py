"""Policies from manifests, tried on one trace side by side."""

import difflib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from flyball.errors import ConfigError
from flyball.kube.applying import read_manifests
from flyball.kube.kinds import GOVERNORS
from flyball.replay.engine import SEASONS_S, run_fast, run_parity, shape_for
from flyball.replay.peers import run_knative, run_oracle
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload, latency_factor
from flyball.scaling import spec_from_hpa
from flyball.scaling.elasticity import Scores, scores
from flyball.scaling.forecast import Shape
from flyball.scaling.forecasts import forecasts, needs
from flyball.scaling.governor import Governor, governor_from_object
from flyball.scaling.schedule import scheduled_bounds

Counts = NDArray[np.int64]
Progress = Callable[[str, float], None]

_PEERS = {"knative": run_knative, "oracle": run_oracle}
_BOUNDS_EVERY_S = 60
_HPA_FIELDS = {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"}
_GOVERNOR_FIELDS = {"profile", "schedule", "forecast", "fallback", "override", "pause", "shadow"}


class Policy(msgspec.Struct, frozen=True):
    """What is tried: an HPA is a Governor of profile parity; a peer is an algorithm by name."""

    name: str
    governor: Governor | None = None
    peer: str = ""


class Result(msgspec.Struct, frozen=True):
    """One policy's run; arrays hold one count a second. ``latency``: mean response time in service times, over the
    seconds that are not saturated; ``saturated``: percent of the seconds that are."""

    policy: str
    desired: Counts
    supply: Counts
    scores: Scores
    latency: float
    saturated: float


def read_policies(paths: Sequence[Path]) -> list[Policy]:
    """The HPAs and Governors of manifests, in order.

    Raises:
        ConfigError: a manifest cannot be read, or holds neither.
    """
    found: list[Policy] = []
    for path in paths:
        before = len(found)
        for where, obj in read_manifests(path):
            if isinstance(obj, ConfigError):
                raise obj
            if obj.get("kind") in ("HorizontalPodAutoscaler", GOVERNORS.kind):
                try:
                    found.append(_policy(obj, {policy.name for policy in found}, path))
                except ConfigError as error:
                    raise ConfigError(f"{where}: {error}") from error
        if len(found) == before:
            raise ConfigError(f"{path} holds no HorizontalPodAutoscaler (autoscaling/v2) and no Governor to try")
    return found


def _policy(obj: dict[str, Any], taken: set[str], path: Path) -> Policy:
    name = str(obj["metadata"]["name"])
    fields = _HPA_FIELDS | (_GOVERNOR_FIELDS if obj["kind"] == GOVERNORS.kind else set())
    for field in (obj.get("spec") or {}).keys() - fields:
        near = difflib.get_close_matches(field, fields, 1)
        raise ConfigError(f'{name}: unknown field "spec.{field}"' + (f"; spec.{near[0]} is meant?" if near else ""))
    if name in taken:
        name = f"{path.stem}/{name}"
    if obj["kind"] == GOVERNORS.kind:
        return Policy(name, governor_from_object(obj))
    if obj.get("apiVersion") != "autoscaling/v2":
        raise ConfigError(f"HPA {name} is {obj.get('apiVersion')}; write it as autoscaling/v2 (kubectl convert)")
    return Policy(name, Governor(spec_from_hpa(obj)))


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
) -> list[Result]:
    """Every policy over the whole trace; those of profile parity side by side."""
    desired: dict[int, Counts] = {}
    parity = [at for at, policy in enumerate(policies) if policy.governor and policy.governor.profile == "parity"]

    def told(name: str) -> Callable[[float], None] | None:
        return None if progress is None else lambda share: progress(name, share)

    if parity:
        governors = [policy.governor for at, policy in enumerate(policies) if at in parity and policy.governor]
        rows = run_parity(
            [governor.spec for governor in governors],
            trace,
            workload,
            period_s,
            progress=told("parity"),
            bounds=[_bounds(governor, trace) for governor in governors],
            floors=[_forecast_floor(governor, trace, workload) for governor in governors],
        )
        desired.update(zip(parity, rows, strict=True))
    for at, policy in enumerate(policies):
        if policy.peer:
            desired[at] = _PEERS[policy.peer](trace, workload)
        elif policy.governor is not None and at not in desired:
            governor = policy.governor
            desired[at] = run_fast(
                trace,
                workload,
                spec=governor.spec,
                bounds=_bounds(governor, trace) if governor.schedule else None,
                shape=_shape(governor, trace, workload),
                ceiling=_ceiling(governor),
            )
    demand = workload.demand(trace.rate)
    return [_result(policy, desired[at], demand, trace, workload) for at, policy in enumerate(policies)]


def _result(policy: Policy, desired: Counts, demand: Counts, trace: Trace, workload: Workload) -> Result:
    supply = workload.supply(desired)
    factors = np.array(
        [
            latency_factor(float(load), int(pods), workload.capacity)
            for load, pods in zip(trace.rate[::10], supply[::10], strict=True)
        ]
    )
    finite = np.isfinite(factors)
    weights = trace.rate[::10][finite]
    latency = float(np.average(factors[finite], weights=weights)) if weights.sum() else math.nan
    return Result(policy.name, desired, supply, scores(demand, supply, desired), latency, 100 * float(np.mean(~finite)))


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
    if not governor.forecast.declared:
        return shape_for(trace, workload)
    return Shape(governor.forecast.startup_s, tuple(season / trace.compress for season in SEASONS_S))


def _ceiling(governor: Governor) -> float:
    highest = governor.forecast.maximum if governor.forecast is not None else None
    return float(highest or governor.spec.max_replicas)


def _forecast_floor(governor: Governor, trace: Trace, workload: Workload) -> NDArray[np.int64] | None:
    shape = _shape(governor, trace, workload)
    if shape is None:
        return None
    demand = trace.rate / (workload.capacity * workload.busy)
    asked = needs(np.zeros_like(demand), forecasts(demand, shape), _ceiling(governor))
    return np.ceil(asked).astype(np.int64)
