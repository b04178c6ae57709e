"""What a decision and its write leave on the object: conditions, events, status (reference/hpa.md 1.18)."""

from collections.abc import Mapping, Sequence
from typing import Any

from flyball.scaling.types import Condition, Decision, Event, Outcome


def after_write(decision: Decision, outcome: Outcome) -> tuple[tuple[Condition, ...], tuple[Event, ...]]:
    """What the outcome of a rescale adds to the conditions and events of its decision."""
    if not decision.rescale:
        return (), ()
    if not outcome.ok:
        message = f"the HPA controller was unable to update the target scale: {outcome.error}"
        text = f"New size: {decision.desired}; reason: {decision.reason}; error: {outcome.error}"
        return (
            (Condition("AbleToScale", "False", "FailedUpdateScale", message),),
            (Event("Warning", "FailedRescale", text),),
        )
    message = f"the HPA controller was able to update the target scale to {decision.desired}"
    conditions = [Condition("AbleToScale", "True", "SucceededRescale", message)]
    if decision.profile == "<=1.32":
        pass
    elif decision.profile != "1.37":
        conditions.append(Condition("ScaledToZero", ""))
    elif decision.to_zero:
        conditions.append(
            Condition("ScaledToZero", "True", "ScaledToZero", "the HPA controller scaled the workload to zero")
        )
    else:
        text = "the HPA controller did not scale the workload to zero"
        conditions.append(Condition("ScaledToZero", "False", "NotScaledToZero", text))
    text = f"New size: {decision.desired}; reason: {decision.reason}"
    return tuple(conditions), (Event("Normal", "SuccessfulRescale", text),)


def merge_conditions(
    existing: Sequence[dict[str, Any]], updates: Sequence[Condition], now_rfc3339: str
) -> list[dict[str, Any]]:
    """status.conditions after the updates, in upstream's order.

    ``lastTransitionTime`` moves only when the status changes; reason and message are always overwritten.
    """
    result = [dict(condition) for condition in existing]
    for update in updates:
        if not update.status:
            result = [condition for condition in result if condition.get("type") != update.type]
            continue
        found = next((condition for condition in result if condition.get("type") == update.type), None)
        if found is None:
            found = {"type": update.type}
            result.append(found)
        if found.get("status") != update.status:
            found["lastTransitionTime"] = now_rfc3339
        found.update(status=update.status, reason=update.reason, message=update.message)
    return result


def next_status(
    obj: Mapping[str, Any],
    decision: Decision,
    outcome: Outcome | None,
    conditions: Sequence[Condition],
    now_rfc3339: str,
) -> dict[str, Any]:
    """The status of an HPA (or Governor) after a decision. ``outcome`` is None when nothing was to be written."""
    old = obj.get("status") or {}
    new = dict(old)
    new["conditions"] = merge_conditions(old.get("conditions") or [], conditions, now_rfc3339)
    if decision.status_current is None:
        return new
    failed = outcome is not None and not outcome.ok
    desired = None if failed else decision.status_desired
    new["currentReplicas"] = decision.status_current
    new["desiredReplicas"] = int(old.get("desiredReplicas") or 0) if desired is None else desired
    new["currentMetrics"] = [dict(metric) for metric in decision.status_metrics]
    generation = (obj.get("metadata") or {}).get("generation")
    if generation is not None and decision.profile == "1.37":
        new["observedGeneration"] = generation
    if outcome is not None and outcome.ok:
        new["lastScaleTime"] = now_rfc3339
    return new


def ending_error(decision: Decision, outcome: Outcome | None) -> str:
    """What the reconcile ends with: the write's failure, else a metric's, else ""."""
    if outcome is None or outcome.ok:
        return decision.error
    return f"failed to rescale {decision.target}: {outcome.error}"


def same_status(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Semantic equality of two statuses: absent, null and empty are one."""
    return bool(_plain(old) == _plain(new))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item not in (None, [], {}, 0, "")}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
