"""The arithmetic of ``decide`` over arrays: one element a policy, or one a policy and time.

For replay, where thousands of policies meet millions of instants. It computes what ``decide`` computes, number for
number (a property test holds the two equal), for homogeneous pods and without the words: no conditions, events or
reasons. All arrays have the shape [n] or [k, n] (k: metrics, or policies of a behavior), or with an axis of times
behind [n, times] and [k, n, times]; counts are int64.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flyball.scaling.metrics import tolerances_of
from flyball.scaling.normalize import period_start
from flyball.scaling.types import MAX_INT32, MIN_INT32, History, Metric, Recommendation, Rules, Settings, Spec

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_Columns = TypeVar("_Columns", bound="BatchSpec | BatchRules")

# what a target is measured against
PER_POD, UTILIZATION, TOTAL_PER_POD, TOTAL = range(4)
_MAX, _MIN, _DISABLED = range(3)
_SELECT = {"Max": _MAX, "Min": _MIN, "Disabled": _DISABLED}


@dataclass(frozen=True, slots=True)
class BatchRules:
    """One side of behavior; a policy that a spec does not have has ``period_ms`` 0."""

    select: Ints
    pods: Ints  # [k, n], the value of a Pods policy
    percent: Floats  # [k, n], the value of a Percent policy
    is_percent: Bools  # [k, n]
    period_ms: Ints  # [k, n]
    window_ms: Ints


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Specs as columns. Metrics that a spec does not have have ``target`` 0."""

    kind: Ints  # [k, n]
    target: Ints  # [k, n], milli-units or percent
    tolerance_down: Floats
    tolerance_up: Floats
    absolute: Bools
    minimum: Ints
    maximum: Ints
    behaved: Bools
    up: BatchRules
    down: BatchRules

    def __len__(self) -> int:
        return int(self.minimum.shape[0])

    def over_times(self) -> "BatchSpec":
        """With an axis for times behind that of the policies: decisions are then [n, times]."""
        return _each(self, lambda column: column[..., None])

    def of(self, which: Ints) -> "BatchSpec":
        """Those policies alone."""
        return _each(self, lambda column: column[..., which])

    def bounded(self, minimum: Ints, maximum: Ints) -> "BatchSpec":
        """With other bounds."""
        return replace(self, minimum=minimum, maximum=maximum)


def _each(columns: _Columns, change: Callable[[NDArray[Any]], NDArray[Any]]) -> _Columns:
    """With every array changed, those of the rules inside among them."""
    values = {field.name: getattr(columns, field.name) for field in fields(columns)}
    changed: Any = {name: change(v) if isinstance(v, np.ndarray) else _each(v, change) for name, v in values.items()}
    return replace(columns, **changed)


@dataclass(frozen=True, slots=True)
class BatchSeen:
    """What was seen. ``usage``: the sum over the ready pods of a per-pod metric, or the total; ``valid`` False where
    a metric could not be read. ``request``: of each pod, for utilization. Milli-units."""

    spec_replicas: Ints
    status_replicas: Ints
    ready: Ints
    unready: Ints
    missing: Ints
    usage: Ints  # [k, n]
    request: Ints  # [k, n]
    valid: Bools  # [k, n]


@dataclass(frozen=True, slots=True)
class BatchHistory:
    """The digest of the histories that one instant needs.

    ``lowest`` and ``highest``: of the recommendations within the up and the down window (MAX_INT32 and MIN_INT32
    when there are none); ``*_start``: replicas at the start of each policy's period.
    """

    lowest: Ints
    highest: Ints
    up_start: Ints  # [k, n]
    down_start: Ints  # [k, n]


@dataclass(frozen=True, slots=True)
class BatchDecision:
    """``recommended`` is -1 where no metric gave one or scaling down was not safe."""

    recommended: Ints
    stabilized: Ints
    desired: Ints


def batch_spec(specs: "list[Spec]") -> BatchSpec:
    """Specs as columns."""
    bands = [tolerances_of(spec) for spec in specs]
    rules = [spec.behavior for spec in specs]
    most = max(len(spec.metrics) for spec in specs)
    return BatchSpec(
        kind=_table([[_kind(metric) for metric in spec.metrics] for spec in specs], most, np.int64),
        target=_table([[_target(metric) for metric in spec.metrics] for spec in specs], most, np.int64),
        tolerance_down=np.array([band.down for band in bands]),
        tolerance_up=np.array([band.up for band in bands]),
        absolute=np.array([band.absolute for band in bands]),
        minimum=np.array([spec.min_replicas for spec in specs], np.int64),
        maximum=np.array([spec.max_replicas for spec in specs], np.int64),
        behaved=np.array([behavior is not None for behavior in rules]),
        up=_batch_rules([None if behavior is None else behavior.up for behavior in rules], [0 for _ in specs]),
        down=_batch_rules(
            [None if behavior is None else behavior.down for behavior in rules],
            [_stabilization(spec.settings) for spec in specs],
        ),
    )


def _stabilization(settings: Settings) -> int:
    return settings.downscale_stabilization_s * 1000


def _batch_rules(rules: "list[Rules | None]", windows_ms: list[int]) -> BatchRules:
    most = max(1, max(len(rule.policies) if rule else 0 for rule in rules))
    given = [rule.policies if rule else () for rule in rules]
    return BatchRules(
        select=np.array([_SELECT[rule.select] if rule else _MAX for rule in rules], np.int64),
        pods=_table([[p.value for p in policies] for policies in given], most, np.int64),
        percent=_table([[float(p.value) for p in policies] for policies in given], most, np.float64),
        is_percent=_table([[p.type == "Percent" for p in policies] for policies in given], most, np.bool_),
        period_ms=_table([[p.period_s * 1000 for p in policies] for policies in given], most, np.int64),
        window_ms=np.array(
            [rule.window_s * 1000 if rule else window for rule, window in zip(rules, windows_ms, strict=True)], np.int64
        ),
    )


def _table(rows: list[list[Any]], most: int, dtype: Any) -> NDArray[Any]:
    table = np.zeros((most, len(rows)), dtype)
    for at, row in enumerate(rows):
        table[: len(row), at] = row
    return table


def _kind(metric: Metric) -> int:
    if metric.type in ("Object", "External"):
        return TOTAL_PER_POD if metric.target.average_value is not None else TOTAL
    return PER_POD if metric.target.average_value is not None else UTILIZATION


def _target(metric: Metric) -> int:
    target = metric.target
    wanted = (target.average_value, target.average_utilization, target.average_value, target.value)[_kind(metric)]
    return wanted or 0


def decide_batch(
    spec: BatchSpec, seen: BatchSeen, history: BatchHistory, recommended: Ints | None = None
) -> BatchDecision:
    """``decide`` for each element: bounds, proposals, stabilization, rate limits.

    The caller keeps the history; a recommendation of -1 is not to be remembered. An element at 0 replicas stays there.
    A spec of one element goes with any number of observations. ``recommended``: as ``recommend`` gave it, if known.
    """
    current = seen.spec_replicas
    recommended = recommend(spec, seen) if recommended is None else recommended
    stabilized = np.where(
        spec.behaved,
        np.minimum(
            np.maximum(current, np.minimum(recommended, history.lowest)), np.maximum(recommended, history.highest)
        ),
        np.maximum(recommended, history.highest),
    )
    desired = np.where(
        spec.behaved,
        _limit_with_behavior(spec, current, stabilized, history),
        _limit_without_behavior(spec, current, stabilized),
    )
    failed = recommended < 0
    desired = np.where(failed, current, desired)
    # outside the bounds nothing else is asked
    outside = (current > spec.maximum) | (current < spec.minimum)
    desired = np.where(outside, np.clip(current, spec.minimum, spec.maximum), desired)
    idle = current == 0
    silent = outside | idle | failed
    return BatchDecision(
        np.where(silent, -1, recommended), np.where(silent, current, stabilized), np.where(idle, 0, desired)
    )


def recommend(spec: BatchSpec, seen: BatchSeen) -> Ints:
    """The replicas that the metrics ask for, before any clamp; -1 where they cannot say."""
    best = np.full(seen.spec_replicas.shape, -1, np.int64)
    invalid, count = np.zeros_like(best), np.zeros_like(best)
    for at in range(spec.kind.shape[0]):
        has = spec.target[at] > 0
        proposal, valid = _proposal(spec, seen, at)
        valid &= has & seen.valid[at]
        count += has
        invalid += has & ~valid
        best = np.where(valid, np.maximum(best, proposal), best)
    unsafe = (invalid > 0) & (best < seen.spec_replicas)
    return np.where((invalid >= count) | unsafe, -1, best)


def _proposal(spec: BatchSpec, seen: BatchSeen, at: int) -> tuple[Ints, Bools]:
    """(proposals, which of them are valid) of one metric."""
    kind, usage = spec.kind[at], seen.usage[at]
    total = kind >= TOTAL_PER_POD
    per_pod, valid = _per_pod_proposal(spec, seen, at)
    if not total.any():
        return per_pod, valid
    target = np.maximum(spec.target[at], 1).astype(np.float64)
    ratio = usage / target
    current, status = seen.spec_replicas, seen.status_replicas
    by_total = np.where(_within(spec, ratio), current, _ceil(ratio * seen.ready.astype(np.float64)))
    with np.errstate(divide="ignore", invalid="ignore"):
        average = usage / (target * status.astype(np.float64))
    by_average = np.where(_within(spec, average), status, _ceil(ratio))
    return np.where(total, np.where(kind == TOTAL, by_total, by_average), per_pod), valid | total


def _per_pod_proposal(spec: BatchSpec, seen: BatchSeen, at: int) -> tuple[Ints, Bools]:
    current, ready, unready, missing = seen.spec_replicas, seen.ready, seen.unready, seen.missing
    utilization = spec.kind[at] == UTILIZATION
    target, request, usage = np.maximum(spec.target[at], 1), seen.request[at], seen.usage[at]

    def ratio_of(total: Ints, pods: Ints) -> Floats:
        pods = np.maximum(pods, 1)
        measured = np.where(utilization, total * 100 // np.maximum(request * pods, 1), total // pods)
        return np.asarray(measured / target, np.float64)

    ratio = ratio_of(usage, ready)
    up_unready = (unready > 0) & (ratio > 1.0)
    proposal = np.where(_within(spec, ratio), current, _ceil(ratio * ready.astype(np.float64)))
    refill = up_unready | (missing > 0)
    if refill.any():
        each = np.where(utilization, request * np.maximum(100, target) // 100, target)
        counted = np.where(ratio == 1.0, 0, missing)
        total = usage + np.where(ratio < 1.0, missing * each, 0)
        pods = ready + counted + np.where(up_unready, unready, 0)
        second = ratio_of(total, pods)
        again = _ceil(second * pods.astype(np.float64))
        turned = ((ratio < 1.0) & (second > 1.0)) | ((ratio > 1.0) & (second < 1.0))
        backward = ((second < 1.0) & (again > current)) | ((second > 1.0) & (again < current))
        proposal = np.where(refill, np.where(_within(spec, second) | turned | backward, current, again), proposal)
    return proposal, ready > 0


def _within(spec: BatchSpec, ratio: Floats) -> Bools:
    band = (1.0 - spec.tolerance_down <= ratio) & (ratio <= 1.0 + spec.tolerance_up)
    return np.where(spec.absolute, np.abs(1.0 - ratio) <= spec.tolerance_up, band)


def _limit_without_behavior(spec: BatchSpec, current: Ints, desired: Ints) -> Ints:
    ceiling = np.minimum(spec.maximum, np.maximum(2 * current, 4))
    return np.where(desired < spec.minimum, spec.minimum, np.minimum(desired, ceiling))


def _limit_with_behavior(spec: BatchSpec, current: Ints, desired: Ints, history: BatchHistory) -> Ints:
    up, down = spec.up, spec.down
    start = history.up_start
    added = np.where(up.is_percent, _ceil(start * (1 + up.percent / 100)), start + up.pods)
    highest = np.maximum(current, _selected(up, added, current, highest=True))
    start = history.down_start
    kept = np.where(down.is_percent, np.trunc(start * (1 - down.percent / 100)).astype(np.int64), start - down.pods)
    lowest = np.minimum(current, _selected(down, kept, current, highest=False))
    raised = np.minimum(desired, np.minimum(spec.maximum, highest))
    lowered = np.maximum(desired, np.maximum(spec.minimum, lowest))
    return np.where(desired > current, raised, np.where(desired < current, lowered, desired))


def _selected(rules: BatchRules, proposals: Ints, current: Ints, highest: bool) -> Ints:
    """The proposal that selectPolicy picks; ``highest``: the larger change is the larger number."""
    has = rules.period_ms > 0
    most = np.where(has, proposals, MIN_INT32).max(axis=0)
    least = np.where(has, proposals, MAX_INT32).min(axis=0)
    if not highest:
        most, least = least, most
    return np.where(rules.select == _DISABLED, current, np.where(rules.select == _MIN, least, most))


def _ceil(value: Any) -> Ints:
    """Up to whole replicas, within int32; what is no number is the most, as in ``decide``."""
    return np.asarray(np.ceil(np.fmax(np.fmin(value, float(MAX_INT32)), float(MIN_INT32))), np.float64).astype(np.int64)


def batch_history(specs: "list[Spec]", histories: "list[History]", current: Ints, now_ms: int) -> BatchHistory:
    """The digest of histories at an instant."""
    ups = max(1, *(len(spec.behavior.up.policies) if spec.behavior else 0 for spec in specs))
    downs = max(1, *(len(spec.behavior.down.policies) if spec.behavior else 0 for spec in specs))
    lowest = np.full(len(specs), MAX_INT32, np.int64)
    highest = np.full(len(specs), MIN_INT32, np.int64)
    starts = {"up": np.zeros((ups, len(specs)), np.int64), "down": np.zeros((downs, len(specs)), np.int64)}
    for at, (spec, history) in enumerate(zip(specs, histories, strict=True)):
        past = history.recommendations or (Recommendation(int(current[at]), now_ms),)
        behavior = spec.behavior
        if behavior is None:
            oldest_ms = now_ms - _stabilization(spec.settings)
            highest[at] = max((p.replicas for p in past if p.at_ms >= oldest_ms), default=MIN_INT32)
            continue
        up_ms, down_ms = now_ms - behavior.up.window_s * 1000, now_ms - behavior.down.window_s * 1000
        lowest[at] = min((p.replicas for p in past if p.at_ms > up_ms), default=MAX_INT32)
        highest[at] = max((p.replicas for p in past if p.at_ms > down_ms), default=MIN_INT32)
        for name, side in (("up", behavior.up), ("down", behavior.down)):
            for row, policy in enumerate(side.policies):
                starts[name][row, at] = period_start(int(current[at]), history, policy.period_s, now_ms)
    return BatchHistory(lowest, highest, starts["up"], starts["down"])
