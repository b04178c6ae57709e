"""The heart: one HPA, one instant, one decision (reference/hpa.md 1.9-1.14, 1.18).

Follows kube-controller-manager's reconcileAutoscaler step by step, without its I/O: what it reads is the
Observation, what it would write is in the Decision.
"""

from typing import Any

from msgspec.structs import replace

from flyball.scaling.metrics import MetricFailedError, evaluate_metric
from flyball.scaling.normalize import normalize, remember_event
from flyball.scaling.types import (
    Clamp,
    Condition,
    Decision,
    Event,
    History,
    MetricEvaluation,
    Observation,
    Outcome,
    Reading,
    Recommendation,
    Spec,
)

_ABOVE_MAX = "Current number of replicas above Spec.MaxReplicas"
_BELOW_MIN = "Current number of replicas below Spec.MinReplicas"
_DISABLED = "scaling is disabled since the replica count of the target is zero"


def metrics_skipped(spec: Spec, seen: Observation) -> str:
    """Why no metric is needed for this decision, or "" when they are. Ask before fetching any."""
    if seen.scale_error:
        return "the target's scale could not be read"
    current = seen.spec_replicas
    if current == 0:
        return _selector_trouble(spec, seen) if _wakes(spec, seen) else _DISABLED
    if current > spec.max_replicas:
        return _ABOVE_MAX
    if current < spec.min_replicas:
        return _BELOW_MIN
    return _selector_trouble(spec, seen)


def _wakes(spec: Spec, seen: Observation) -> bool:
    """Whether 0 replicas is a size to scale from, not a pause."""
    if spec.settings.before_1_33:
        return spec.min_replicas == 0
    zeroed = spec.settings.scale_to_zero and seen.scaled_to_zero
    return zeroed and (spec.min_replicas != 0 or spec.has_object_or_external)


def _selector_trouble(spec: Spec, seen: Observation) -> str:
    if not seen.selector:
        return "selector is required"
    if seen.selector_error:
        return "couldn't convert selector into a corresponding internal selector object: " + seen.selector_error
    if len(seen.selecting_hpas) > 1 and spec.settings.before_1_37:
        names = " ".join(seen.selecting_hpas)
        return f"pods by selector {seen.selector} are controlled by multiple HPAs: [{names}]"
    if len(seen.selecting_hpas) > 1:
        return (
            f"pods by selector {seen.selector} are controlled by more than one HPA "
            f"(e.g. [{' '.join(seen.selecting_hpas[:2])}])"
        )
    return ""


def decide(spec: Spec, seen: Observation, history: History, now_ms: int) -> tuple[Decision, History]:
    """What to do about one HPA now, and the history that the next call needs.

    The history already holds this recommendation, written or not; what the write did goes in by ``applied``.
    """
    draft = _Draft(spec, seen, now_ms)
    if seen.scale_error:
        message = f"the HPA controller was unable to get the target's current scale: {seen.scale_error}"
        draft.events.append(Event("Warning", "FailedGetScale", seen.scale_error))
        draft.conditions.append(Condition("AbleToScale", "False", "FailedGetScale", message))
        error = f"failed to query scale subresource for {spec.reference}: {seen.scale_error}"
        return draft.decision(failed=True, error=error, metrics_skipped=metrics_skipped(spec, seen)), history
    draft.condition(
        "AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale"
    )
    current = seen.spec_replicas
    if not history.recommendations:
        # after a start with no memory, nothing scales down for one window
        history = replace(history, recommendations=(Recommendation(current, now_ms),))

    if current == 0:
        if not _wakes(spec, seen):
            draft.condition("ScalingActive", "False", "ScalingDisabled", _DISABLED)
            if spec.settings.before_1_37 and not spec.settings.before_1_33:
                draft.condition("ScaledToZero", "")
            return draft.decision(metrics_skipped=_DISABLED, status_current=0, status_desired=0), history
    elif current > spec.max_replicas:
        draft.clamps.append(Clamp("bounds", current, spec.max_replicas, "TooManyReplicas", _ABOVE_MAX))
        return draft.rescale(spec.max_replicas, _ABOVE_MAX, metrics_skipped=_ABOVE_MAX), history
    elif current < spec.min_replicas:
        draft.clamps.append(Clamp("bounds", current, spec.min_replicas, "TooFewReplicas", _BELOW_MIN))
        return draft.rescale(spec.min_replicas, _BELOW_MIN, metrics_skipped=_BELOW_MIN), history

    proposal, winner, error = _compute(draft)
    if proposal < 0:
        draft.events.append(Event("Warning", "FailedComputeMetricsReplicas", error))
        text = f"failed to compute desired number of replicas based on listed metrics for {spec.reference}: {error}"
        skipped = _selector_trouble(spec, seen)
        return draft.decision(failed=True, error=text, metrics_skipped=skipped, status_current=current), history

    reason = ""
    if proposal > current:
        reason = f"{winner} above target"
    elif proposal < current:
        reason = "All metrics below target"
    desired, clamps, conditions, history = normalize(spec, current, proposal, history, now_ms)
    draft.clamps.extend(clamps)
    draft.conditions.extend(conditions)
    if current == 0 and desired < spec.min_replicas:
        draft.clamps.append(Clamp("from zero", desired, spec.min_replicas, "TooFewReplicas", _BELOW_MIN))
        desired, reason = spec.min_replicas, reason or _BELOW_MIN
    extra: dict[str, Any] = {"recommended": proposal, "winner": winner, "error": error}
    if desired == current:
        return draft.decision(status_current=current, status_desired=current, reason=reason, **extra), history
    return draft.rescale(desired, reason, **extra), history


def _compute(draft: "_Draft") -> tuple[int, str, str]:
    """(proposal, the metric that made it, error); proposal -1 when nothing may be scaled."""
    spec, seen = draft.spec, draft.seen
    trouble = _selector_trouble(spec, seen)
    if trouble:
        if not seen.selector:
            event, reason, message = (
                "SelectorRequired",
                "InvalidSelector",
                "the HPA target's scale is missing a selector",
            )
        elif seen.selector_error:
            event, reason, message = "InvalidSelector", "InvalidSelector", trouble
        else:
            event, reason, message = "AmbiguousSelector", "AmbiguousSelector", trouble
        draft.events.append(Event("Warning", event, trouble))
        draft.condition("ScalingActive", "False", reason, message)
        return -1, "", trouble
    best, winner, invalid = 0, "", 0
    first: MetricFailedError | None = None
    for at, metric in enumerate(spec.metrics):
        reading = seen.readings[at] if at < len(seen.readings) else Reading(error="no reading was made")
        try:
            evaluation, status = evaluate_metric(spec, metric, reading, seen, draft.now_ms)
        except MetricFailedError as failure:
            draft.metrics.append(failure.evaluation)
            draft.statuses.append({"type": ""})  # a zero-valued MetricStatus, as upstream leaves it
            draft.events.append(Event("Warning", failure.reason, failure.inner))
            first = first or failure
            invalid += 1
            continue
        draft.metrics.append(evaluation)
        draft.statuses.append(status)
        proposal = evaluation.proposal or 0
        if best == 0 or proposal > best:
            best, winner = proposal, evaluation.name
    error = ""
    if first is not None:
        count = len(spec.metrics)
        error = f"invalid metrics ({invalid} invalid out of {count}), first error is: {first.outer}"
        if invalid >= count or best < seen.spec_replicas:
            message = f"the HPA was unable to compute the replica count: {first.inner}"
            draft.condition("ScalingActive", "False", first.reason, message)
            return -1, "", error
    message = f"the HPA was able to successfully calculate a replica count from {winner}"
    draft.condition("ScalingActive", "True", "ValidMetricFound", message)
    return max(best, 0), winner, error


class _Draft:
    """A decision in the making."""

    def __init__(self, spec: Spec, seen: Observation, now_ms: int) -> None:
        self.spec, self.seen, self.now_ms = spec, seen, now_ms
        self.conditions: list[Condition] = []
        self.events: list[Event] = []
        self.clamps: list[Clamp] = []
        self.metrics: list[MetricEvaluation] = []
        self.statuses: list[dict[str, Any]] = []

    def condition(self, type_: str, status: str, reason: str = "", message: str = "") -> None:
        self.conditions.append(Condition(type_, status, reason, message))

    def decision(self, **fields: Any) -> Decision:
        spec, current = self.spec, self.seen.spec_replicas
        fields.setdefault("desired", current)
        return Decision(
            namespace=spec.namespace,
            name=spec.name,
            at_ms=self.now_ms,
            current=current,
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            metrics=tuple(self.metrics),
            clamps=tuple(self.clamps),
            conditions=tuple(self.conditions),
            events=tuple(self.events),
            status_metrics=tuple(self.statuses),
            profile=spec.settings.profile,
            target=spec.reference,
            **fields,
        )

    def rescale(self, desired: int, reason: str, **fields: Any) -> Decision:
        spec, current = self.spec, self.seen.spec_replicas
        to_zero = current > 0 and desired == 0 and spec.min_replicas == 0 and spec.has_object_or_external
        return self.decision(
            desired=desired,
            rescale=True,
            reason=reason,
            to_zero=to_zero and spec.settings.scale_to_zero,
            event_periods_s=event_periods(spec),
            status_current=current,
            status_desired=desired,
            **fields,
        )


def event_periods(spec: Spec) -> tuple[int, int] | None:
    """The longest period of the policies of each side, up to which a write counts; None without behavior."""
    if spec.behavior is None:
        return None
    up, down = (
        max((policy.period_s for policy in side.policies), default=0) for side in (spec.behavior.up, spec.behavior.down)
    )
    return up, down


def applied(history: History, decision: Decision, outcome: Outcome, now_ms: int) -> History:
    """The history after the scale write: an accepted one counts against the rate policies."""
    if not decision.rescale or not outcome.ok or decision.event_periods_s is None:
        return history
    up_s, down_s = decision.event_periods_s
    change = decision.desired - decision.current
    if change > 0:
        return replace(history, ups=remember_event(history.ups, change, up_s, now_ms))
    return replace(history, downs=remember_event(history.downs, -change, down_s, now_ms))
