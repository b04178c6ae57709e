"""Stabilization, rate limits and bounds: from a raw recommendation to the size to write (hpa.md 1.13, 1.14)."""

import math
from collections.abc import Iterable

from msgspec.structs import replace

from flyball.scaling.types import (
    MAX_INT32,
    MIN_INT32,
    Clamp,
    Condition,
    History,
    Recommendation,
    Rules,
    ScaleEvent,
    Spec,
)

_SCALE_UP_FACTOR = 2.0
_SCALE_UP_FLOOR = 4.0
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_FAST_UP = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_TOO_FAST_DOWN = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_HIGHER = "recent recommendations were higher than current one, applying the highest recent recommendation"
_LOWER = "recent recommendations were lower than current one, applying the lowest recent recommendation"

Normalized = tuple[int, tuple[Clamp, ...], tuple[Condition, ...], History]


def normalize(spec: Spec, current: int, raw: int, history: History, now_ms: int) -> Normalized:
    """The size after every clamp, the clamps that changed it, the conditions, and the history with ``raw`` in it."""
    if spec.behavior is None:
        stabilized, reason, message, history = _stabilize_down(spec, raw, history, now_ms)
        desired, limit, why = _limit_without_behavior(spec, current, stabilized)
    else:
        stabilized, reason, message, history = _stabilize(spec, current, raw, history, now_ms)
        desired, limit, why = _limit_with_behavior(spec, current, stabilized, history, now_ms)
    clamps: list[Clamp] = []
    if stabilized != raw:
        clamps.append(Clamp("stabilization", raw, stabilized, reason, message))
        able = Condition("AbleToScale", "True", reason, message)
    else:
        able = Condition("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size")
    if desired != stabilized:
        clamps.append(Clamp("limit", stabilized, desired, limit, why))
    limited = Condition("ScalingLimited", "False" if desired == stabilized else "True", limit, why)
    return desired, tuple(clamps), (able, limited), history


def _stabilize_down(spec: Spec, raw: int, history: History, now_ms: int) -> tuple[int, str, str, History]:
    cutoff = now_ms - spec.settings.downscale_stabilization_s * 1000
    highest, slot = raw, None
    for at, past in enumerate(history.recommendations):
        if past.at_ms < cutoff:
            slot = at
        else:
            highest = max(highest, past.replicas)
    return highest, "ScaleDownStabilized", _HIGHER, _recommend(history, slot, raw, now_ms)


def _stabilize(spec: Spec, current: int, raw: int, history: History, now_ms: int) -> tuple[int, str, str, History]:
    assert spec.behavior is not None
    up_cutoff = now_ms - spec.behavior.up.window_s * 1000
    down_cutoff = now_ms - spec.behavior.down.window_s * 1000
    lowest = highest = raw
    slot = None
    for at, past in enumerate(history.recommendations):
        if past.at_ms > up_cutoff:
            lowest = min(lowest, past.replicas)
        if past.at_ms > down_cutoff:
            highest = max(highest, past.replicas)
        if past.at_ms < up_cutoff and past.at_ms < down_cutoff:
            slot = at
    result = min(max(current, lowest), highest)
    if raw >= current:
        reason, message = "ScaleUpStabilized", _LOWER
    else:
        reason, message = "ScaleDownStabilized", _HIGHER
    return result, reason, message, _recommend(history, slot, raw, now_ms)


def _recommend(history: History, slot: int | None, raw: int, now_ms: int) -> History:
    past = list(history.recommendations)
    if slot is None:
        past.append(Recommendation(raw, now_ms))
    else:
        past[slot] = Recommendation(raw, now_ms)
    return replace(history, recommendations=tuple(past))


def limited(spec: Spec, current: int, desired: int, history: History, now_ms: int) -> tuple[int, str, str]:
    """Profile fast: the user's rate policies where there are any, else only the bounds."""
    if spec.behavior is not None:
        return _limit_with_behavior(spec, current, desired, history, now_ms)
    if desired < spec.min_replicas:
        return (spec.min_replicas, *_TOO_FEW)
    if desired > spec.max_replicas:
        return (spec.max_replicas, *_TOO_MANY)
    return (desired, *_WITHIN)


def _limit_without_behavior(spec: Spec, current: int, desired: int) -> tuple[int, str, str]:
    up_limit = int(max(_SCALE_UP_FACTOR * float(current), _SCALE_UP_FLOOR))
    if desired < spec.min_replicas:
        return (spec.min_replicas, *_TOO_FEW)
    if spec.max_replicas > up_limit:
        allowed, why = up_limit, _TOO_FAST_UP
    else:
        allowed, why = spec.max_replicas, _TOO_MANY
    if desired > allowed:
        return (allowed, *why)
    return (desired, *_WITHIN)


def _limit_with_behavior(spec: Spec, current: int, desired: int, history: History, now_ms: int) -> tuple[int, str, str]:
    assert spec.behavior is not None
    if desired > current:
        limit = max(current, up_limit(current, history, spec.behavior.up, now_ms))
        allowed, why = (limit, _TOO_FAST_UP) if spec.max_replicas > limit else (spec.max_replicas, _TOO_MANY)
        if desired > allowed:
            return (allowed, *why)
    elif desired < current:
        limit = min(current, down_limit(current, history, spec.behavior.down, now_ms))
        allowed, why = (limit, _TOO_FAST_DOWN) if spec.min_replicas < limit else (spec.min_replicas, _TOO_FEW)
        if desired < allowed:
            return (allowed, *why)
    return (desired, *_WITHIN)


def up_limit(current: int, history: History, rules: Rules, now_ms: int) -> int:
    """The most replicas that the scale-up policies allow now."""
    if rules.select == "Disabled":
        return current
    proposals = []
    for policy in rules.policies:
        start = period_start(current, history, policy.period_s, now_ms)
        if policy.type == "Pods":
            proposals.append(start + policy.value)
        else:
            proposals.append(_int32(math.ceil(float(start) * (1 + float(policy.value) / 100))))
    if rules.select == "Min":
        return min(proposals, default=MAX_INT32)
    return max(proposals, default=MIN_INT32)


def down_limit(current: int, history: History, rules: Rules, now_ms: int) -> int:
    """The fewest replicas that the scale-down policies allow now."""
    if rules.select == "Disabled":
        return current
    proposals = []
    for policy in rules.policies:
        start = period_start(current, history, policy.period_s, now_ms)
        if policy.type == "Pods":
            proposals.append(start - policy.value)
        else:
            proposals.append(_int32(int(float(start) * (1 - float(policy.value) / 100))))
    if rules.select == "Min":
        return max(proposals, default=MIN_INT32)
    return min(proposals, default=MAX_INT32)


def period_start(current: int, history: History, period_s: int, now_ms: int) -> int:
    """Replicas at the start of a policy's period: what was added since taken off, what was removed put back."""
    cutoff = now_ms - period_s * 1000
    return current - _changed(history.ups, cutoff) + _changed(history.downs, cutoff)


def _changed(events: Iterable[ScaleEvent], cutoff_ms: int) -> int:
    return sum(event.change for event in events if event.at_ms > cutoff_ms)


def _int32(value: int) -> int:
    return max(MIN_INT32, min(MAX_INT32, value))


def remember_event(events: tuple[ScaleEvent, ...], change: int, longest_s: int, now_ms: int) -> tuple[ScaleEvent, ...]:
    """The list with one more event; the last slot that any policy has outlived is reused."""
    cutoff = now_ms - longest_s * 1000
    marked = [ScaleEvent(e.change, e.at_ms, e.outdated or e.at_ms < cutoff) for e in events]
    slot = next((at for at in reversed(range(len(marked))) if marked[at].outdated), None)
    if slot is None:
        marked.append(ScaleEvent(change, now_ms))
    else:
        marked[slot] = ScaleEvent(change, now_ms)
    return tuple(marked)
