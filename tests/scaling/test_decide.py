# ruff: noqa: E501
"""Whole decisions: bounds, stabilization, policies, zero, several metrics, conditions and events."""

from typing import Any

import msgspec
import pytest

from flyball.errors import ConfigError
from flyball.scaling import (
    Condition,
    Decision,
    Event,
    History,
    Observation,
    Outcome,
    Pod,
    PodReading,
    Reading,
    Recommendation,
    ScaleEvent,
    Settings,
    after_write,
    applied,
    decide,
    merge_conditions,
    metrics_skipped,
    pod_from_object,
    spec_from_hpa,
)

NOW = 1_000_000_000
FAILED = Reading(error="no metrics returned from external metrics API")


def external(name: str = "queue", average: str = "10") -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": average}
    return {"type": "External", "external": {"metric": {"name": name}, "target": target}}


def pods_metric(average: str = "100m") -> dict[str, Any]:
    return {
        "type": "Pods",
        "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": average}},
    }


def spec(*metrics: dict[str, Any], settings: Settings | None = None, **fields: Any) -> Any:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    body: dict[str, Any] = {"scaleTargetRef": ref, "minReplicas": 1, "maxReplicas": 100}
    body["metrics"] = list(metrics) or [external()]
    body.update(fields)
    return spec_from_hpa({"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": body}, settings)


def seen(current: int, *wanted: int | Reading, **fields: Any) -> Observation:
    """An observation in which each external metric asks for exactly that many replicas."""
    made = tuple(
        value if isinstance(value, Reading) else Reading(values=(value * 10_000,), at_ms=NOW) for value in wanted
    )
    base: dict[str, Any] = {
        "spec_replicas": current,
        "status_replicas": current,
        "selector": "app=web",
        "selecting_hpas": ("shop/web",),
        "pods": tuple(Pod(f"p{at}", ready="True") for at in range(current)),
        "readings": made,
    }
    return Observation(**(base | fields))


def recommended(*pairs: tuple[int, int]) -> History:
    """Recommendations of (replicas, seconds ago)."""
    return History(tuple(Recommendation(replicas, NOW - ago * 1000) for replicas, ago in pairs))


def conditions(decision: Decision) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in decision.conditions}


def test_scale_up_in_full() -> None:
    decision, history = decide(spec(), seen(3, 5), History(), NOW)
    assert (decision.current, decision.desired, decision.rescale) == (3, 5, True)
    assert decision.reason == "external metric queue(nil) above target"
    assert history.recommendations == (Recommendation(3, NOW), Recommendation(5, NOW))
    assert decision.conditions == (
        Condition("AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale"),
        Condition(
            "ScalingActive", "True", "ValidMetricFound",
            "the HPA was able to successfully calculate a replica count from external metric queue(nil)",
        ),
        Condition("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size"),
        Condition("ScalingLimited", "False", "DesiredWithinRange", "the desired count is within the acceptable range"),
    )  # fmt: skip
    more, events = after_write(decision, Outcome())
    assert events == (
        Event("Normal", "SuccessfulRescale", "New size: 5; reason: external metric queue(nil) above target"),
    )
    assert more[0] == Condition(
        "AbleToScale", "True", "SucceededRescale", "the HPA controller was able to update the target scale to 5"
    )
    assert (more[1].type, more[1].status, more[1].reason) == ("ScaledToZero", "False", "NotScaledToZero")


def test_failed_write() -> None:
    decision, history = decide(spec(), seen(3, 5), History(), NOW)
    more, events = after_write(decision, Outcome("nope"))
    assert more == (
        Condition(
            "AbleToScale",
            "False",
            "FailedUpdateScale",
            "the HPA controller was unable to update the target scale: nope",
        ),
    )
    assert events[0].reason == "FailedRescale"
    assert events[0].message == "New size: 5; reason: external metric queue(nil) above target; error: nope"
    assert applied(history, decision, Outcome("nope"), NOW) == history


@pytest.mark.parametrize(
    ("current", "wanted", "history", "desired", "able", "limited"),
    [
        (3, 3, History(), 3, "ReadyForNewScale", "DesiredWithinRange"),
        (3, 20, History(), 6, "ReadyForNewScale", "ScaleUpLimit"),  # max(2*3, 4)
        (1, 20, History(), 4, "ReadyForNewScale", "ScaleUpLimit"),
        (90, 150, History(), 100, "ReadyForNewScale", "TooManyReplicas"),
        (5, 2, History(), 5, "ScaleDownStabilized", "DesiredWithinRange"),  # a start without memory holds
        (5, 2, recommended((2, 10)), 2, "ReadyForNewScale", "DesiredWithinRange"),
        (5, 2, recommended((4, 299), (3, 10)), 4, "ScaleDownStabilized", "DesiredWithinRange"),
        (5, 2, recommended((4, 300)), 4, "ScaleDownStabilized", "DesiredWithinRange"),  # not Before(cutoff)
        (5, 2, recommended((4, 301)), 2, "ReadyForNewScale", "DesiredWithinRange"),
        (5, 0, recommended((0, 10)), 1, "ReadyForNewScale", "TooFewReplicas"),
        (5, 2, recommended((9, 10)), 9, "ScaleDownStabilized", "DesiredWithinRange"),  # it may even scale up
    ],
)
def test_without_behavior(current: int, wanted: int, history: History, desired: int, able: str, limited: str) -> None:
    decision, _ = decide(spec(), seen(current, wanted), history, NOW)
    assert decision.desired == desired
    assert conditions(decision)["AbleToScale"][1] == able
    assert conditions(decision)["ScalingLimited"] == ("False" if limited == "DesiredWithinRange" else "True", limited)


def test_every_clamp_says_before_and_after() -> None:
    decision, _ = decide(spec(), seen(5, 0), recommended((20, 10)), NOW)
    assert [(clamp.rule, clamp.before, clamp.after) for clamp in decision.clamps] == [
        ("stabilization", 0, 20),
        ("limit", 20, 10),
    ]
    assert (decision.recommended, decision.desired) == (0, 10)


def test_the_last_old_slot_is_reused() -> None:
    history = recommended((7, 400), (8, 10), (6, 350))
    _, after = decide(spec(), seen(5, 5), history, NOW)
    assert after.recommendations[0] == history.recommendations[0]
    assert after.recommendations[2] == Recommendation(5, NOW)
    assert len(after.recommendations) == 3


@pytest.mark.parametrize(
    ("current", "wanted", "up", "down", "history", "desired", "limited"),
    [
        # defaults: +4 pods or +100 % in 15 s, whichever is more
        (3, 20, {}, {}, History(), 7, "ScaleUpLimit"),
        (10, 50, {}, {}, History(), 20, "ScaleUpLimit"),
        (98, 150, {}, {}, History(), 100, "TooManyReplicas"),
        (10, 2, {}, {}, recommended((2, 400)), 2, "DesiredWithinRange"),
        (10, 0, {}, {}, recommended((0, 400)), 1, "TooFewReplicas"),
        # Min takes the smaller step; Disabled none
        (10, 50, {"selectPolicy": "Min"}, {}, History(), 14, "ScaleUpLimit"),
        (10, 50, {"selectPolicy": "Disabled"}, {}, History(), 10, "ScaleUpLimit"),
        (10, 2, {}, {"selectPolicy": "Disabled"}, recommended((2, 400)), 10, "ScaleDownLimit"),
        (
            10, 2, {}, {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}]},
            recommended((2, 400)), 7, "ScaleDownLimit",
        ),
        # percent down truncates: 10 * 0.85 = 8.5
        (
            10, 2, {}, {"policies": [{"type": "Percent", "value": 15, "periodSeconds": 60}]},
            recommended((2, 400)), 8, "ScaleDownLimit",
        ),
        # percent up rounds up: 10 * 1.01
        (10, 50, {"policies": [{"type": "Percent", "value": 1, "periodSeconds": 60}]}, {}, History(), 11, "ScaleUpLimit"),
        # two policies down: Max removes more, Min less
        (
            10, 2, {}, {"policies": [
                {"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60},
            ]},
            recommended((2, 400)), 5, "ScaleDownLimit",
        ),
        (
            10, 2, {}, {"selectPolicy": "Min", "policies": [
                {"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60},
            ]},
            recommended((2, 400)), 9, "ScaleDownLimit",
        ),
        # what was added in the period counts against the limit, what was removed for it
        (
            10, 50, {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}, {},
            History(ups=(ScaleEvent(3, NOW - 59_999), ScaleEvent(9, NOW - 60_000)), downs=(ScaleEvent(1, NOW - 1),)),
            12, "ScaleUpLimit",
        ),
        # already beyond the limit: it is raised to the current size
        (
            10, 50, {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}, {},
            History(ups=(ScaleEvent(8, NOW - 1),)), 10, "ScaleUpLimit",
        ),
    ],
)  # fmt: skip
def test_with_behavior(
    current: int, wanted: int, up: Any, down: Any, history: History, desired: int, limited: str
) -> None:
    wish = spec(behavior={"scaleUp": up, "scaleDown": down})
    if not history.recommendations:
        history = History(recommended((wanted, 400)).recommendations, history.ups, history.downs)
    decision, _ = decide(wish, seen(current, wanted), history, NOW)
    assert decision.desired == desired
    assert conditions(decision)["ScalingLimited"][1] == limited


@pytest.mark.parametrize(
    ("current", "wanted", "history", "desired", "reason"),
    [
        (5, 9, recommended((6, 30)), 6, "ScaleUpStabilized"),
        (5, 9, recommended((6, 60)), 9, "ReadyForNewScale"),  # After(cutoff) is strict
        (5, 9, recommended((3, 30)), 5, "ScaleUpStabilized"),
        (5, 2, recommended((4, 100)), 4, "ScaleDownStabilized"),
        (5, 2, recommended((4, 120)), 2, "ReadyForNewScale"),
        (5, 2, recommended((8, 100)), 5, "ScaleDownStabilized"),  # never up on a scale down
    ],
)
def test_stabilization_windows(current: int, wanted: int, history: History, desired: int, reason: str) -> None:
    behavior = {"scaleUp": {"stabilizationWindowSeconds": 60}, "scaleDown": {"stabilizationWindowSeconds": 120}}
    decision, _ = decide(spec(behavior=behavior), seen(current, wanted), history, NOW)
    assert (decision.desired, conditions(decision)["AbleToScale"][1]) == (desired, reason)


def test_scale_events_are_kept_and_slots_reused() -> None:
    wish = spec(behavior={"scaleUp": {}})
    decision, history = decide(wish, seen(3, 5), History(), NOW)
    history = applied(history, decision, Outcome(), NOW)
    assert history.ups == (ScaleEvent(2, NOW),)
    decision, _ = decide(wish, seen(5, 7), history, NOW + 15_000)
    later = applied(history, decision, Outcome(), NOW + 15_000)
    assert later.ups == (ScaleEvent(2, NOW), ScaleEvent(2, NOW + 15_000))  # 15 s old is not yet outdated
    later = applied(history, decision, Outcome(), NOW + 15_001)
    assert later.ups == (ScaleEvent(2, NOW + 15_001),)
    plain, _ = decide(spec(), seen(3, 5), History(), NOW)
    assert applied(History(), plain, Outcome(), NOW) == History()  # without behavior nothing is kept


@pytest.mark.parametrize(
    ("current", "desired", "reason"),
    [
        (200, 100, "Current number of replicas above Spec.MaxReplicas"),
        (1, 2, "Current number of replicas below Spec.MinReplicas"),
    ],
)
def test_out_of_bounds_needs_no_metric(current: int, desired: int, reason: str) -> None:
    wish = spec(minReplicas=2, behavior={"scaleUp": {}})
    what = seen(current, FAILED)
    assert metrics_skipped(wish, what) == reason
    decision, history = decide(wish, what, History(), NOW)
    assert (decision.desired, decision.reason, decision.metrics) == (desired, reason, ())
    assert "ScalingActive" not in conditions(decision)
    assert history.recommendations == (Recommendation(current, NOW),)
    after = applied(history, decision, Outcome(), NOW)
    assert len(after.ups + after.downs) == 1  # bound-forced rescales are recorded too


def test_scale_not_readable() -> None:
    decision, history = decide(spec(), Observation(scale_error="not found"), History(), NOW)
    assert decision.events == (Event("Warning", "FailedGetScale", "not found"),)
    assert decision.conditions == (
        Condition(
            "AbleToScale", "False", "FailedGetScale",
            "the HPA controller was unable to get the target's current scale: not found",
        ),
    )  # fmt: skip
    assert decision.status_current is None
    assert not decision.rescale
    assert history == History()


@pytest.mark.parametrize(
    ("fields", "events", "reason", "message"),
    [
        ({"selector": ""}, "SelectorRequired", "InvalidSelector", "the HPA target's scale is missing a selector"),
        (
            {"selector": "a b", "selector_error": "bad"}, "InvalidSelector", "InvalidSelector",
            "couldn't convert selector into a corresponding internal selector object: bad",
        ),
        (
            {"selecting_hpas": ("shop/a", "shop/web", "shop/x")}, "AmbiguousSelector", "AmbiguousSelector",
            "pods by selector app=web are controlled by more than one HPA (e.g. [shop/a shop/web])",
        ),
    ],
)  # fmt: skip
def test_selector_trouble(fields: Any, events: str, reason: str, message: str) -> None:
    decision, _ = decide(spec(), seen(3, 9, **fields), History(), NOW)
    assert not decision.rescale
    assert [event.reason for event in decision.events] == [events, "FailedComputeMetricsReplicas"]
    assert Condition("ScalingActive", "False", reason, message) in decision.conditions
    assert decision.status_metrics == ()


@pytest.mark.parametrize(
    ("current", "wanted", "desired", "failed"),
    [
        (3, (5, 4), 5, False),  # the largest wins
        (3, (FAILED, 5), 5, False),  # up on the valid one
        (3, (FAILED, 3), 3, False),  # hold
        (3, (FAILED, 2), 3, True),  # never down
        (3, (2, FAILED), 3, True),
        (3, (FAILED, FAILED), 3, True),
    ],
)
def test_several_metrics(current: int, wanted: Any, desired: int, failed: bool) -> None:
    wish = spec(external("a"), external("b"))
    decision, _ = decide(wish, seen(current, *wanted), recommended((0, 1)), NOW)
    assert (decision.desired, decision.failed) == (desired, failed)
    invalid = sum(reading is FAILED for reading in wanted)
    if invalid:
        assert decision.error.startswith("failed to compute" if failed else "invalid metrics")
        assert f"invalid metrics ({invalid} invalid out of 2), first error is: failed to get " in decision.error
        assert {"type": ""} in decision.status_metrics
    if failed:
        assert conditions(decision)["ScalingActive"] == ("False", "FailedGetExternalMetric")
        assert decision.events[-1].reason == "FailedComputeMetricsReplicas"
        assert (decision.status_current, decision.status_desired) == (current, None)
        assert "AbleToScale" in conditions(decision) and "ScalingLimited" not in conditions(decision)


def test_ties_keep_the_earlier_metric() -> None:
    wish = spec(external("a"), external("b"))
    assert decide(wish, seen(3, 5, 5), History(), NOW)[0].winner == "external metric a(nil)"
    assert decide(wish, seen(3, 0, 0), recommended((0, 1)), NOW)[0].winner == "external metric b(nil)"


def test_missing_readings_fail_and_never_scale_down() -> None:
    decision, _ = decide(spec(), seen(9), recommended((0, 1)), NOW)
    assert decision.failed and decision.desired == 9


@pytest.mark.parametrize(
    ("profile", "minimum", "zeroed", "metric", "wanted", "desired", "rescale"),
    [
        ("1.37", 0, True, "external", 3, 3, True),  # wakes
        ("1.37", 0, True, "external", 0, 0, False),
        ("1.37", 0, False, "external", 3, 0, False),  # scaled to zero by hand: paused
        ("1.37", 0, True, "pods", 3, 0, False),  # nothing to wake on
        ("1.37", 2, True, "external", 0, 2, True),  # the minimum was raised meanwhile
        ("1.37", 2, True, "external", 3, 3, True),
        ("1.33-1.36", 0, True, "external", 3, 0, False),  # gate off
        ("<=1.32", 1, False, "external", 3, 0, False),
    ],
)
def test_from_zero(
    profile: str, minimum: int, zeroed: bool, metric: str, wanted: int, desired: int, rescale: bool
) -> None:
    wish = spec(
        external() if metric == "external" else pods_metric(), minReplicas=minimum, settings=Settings(profile=profile)
    )
    decision, _ = decide(wish, seen(0, wanted, scaled_to_zero=zeroed), recommended((0, 1)), NOW)
    assert (decision.desired, decision.rescale) == (desired, rescale)
    if not rescale and (not zeroed or metric == "pods" or profile != "1.37"):
        assert conditions(decision)["ScalingActive"] == ("False", "ScalingDisabled")
        assert (decision.status_current, decision.status_desired) == (0, 0)
        assert (Condition("ScaledToZero", "") in decision.conditions) == (profile == "1.33-1.36")


def test_to_zero_sets_the_condition() -> None:
    decision, _ = decide(spec(minReplicas=0), seen(2, 0), recommended((0, 1)), NOW)
    assert (decision.desired, decision.to_zero) == (0, True)
    assert (
        Condition("ScaledToZero", "True", "ScaledToZero", "the HPA controller scaled the workload to zero")
        in (after_write(decision, Outcome())[0])
    )


def test_conditions_merge() -> None:
    old = [
        {"type": "AbleToScale", "status": "True", "reason": "x", "message": "y", "lastTransitionTime": "t0"},
        {"type": "ScaledToZero", "status": "False", "lastTransitionTime": "t0"},
    ]
    merged = merge_conditions(
        old,
        [
            Condition("AbleToScale", "True", "ReadyForNewScale", "m"),
            Condition("ScaledToZero", ""),
            Condition("ScalingActive", "False", "r", "m"),
        ],
        "t1",
    )
    assert merged == [
        {
            "type": "AbleToScale",
            "status": "True",
            "reason": "ReadyForNewScale",
            "message": "m",
            "lastTransitionTime": "t0",
        },
        {"type": "ScalingActive", "status": "False", "reason": "r", "message": "m", "lastTransitionTime": "t1"},
    ]
    assert old[0]["reason"] == "x"  # the input is not touched


def test_defaults_of_an_hpa() -> None:
    bare = spec_from_hpa(
        {"metadata": {"name": "a"}, "spec": {"scaleTargetRef": {"kind": "D", "name": "d"}, "maxReplicas": 3}}
    )
    assert (bare.min_replicas, bare.behavior) == (1, None)
    assert (bare.metrics[0].name, bare.metrics[0].target.average_utilization) == ("cpu", 80)
    own = spec(behavior={"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 9}]}}).behavior
    assert (own.up.window_s, own.down.window_s, own.up.select) == (0, 300, "Max")
    assert [(p.type, p.value, p.period_s) for p in own.up.policies] == [("Pods", 4, 15), ("Percent", 100, 15)]
    assert [(p.type, p.value) for p in own.down.policies] == [("Pods", 1)]


@pytest.mark.parametrize(
    "broken",
    [{}, {"scaleTargetRef": {"kind": "D", "name": "d"}}, {"scaleTargetRef": {"kind": "D", "name": "d"}, "maxReplicas": 1,
      "metrics": [external(average="ten")]}],
)  # fmt: skip
def test_broken_hpa_is_named(broken: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="HPA shop/web"):
        spec_from_hpa({"metadata": {"namespace": "shop", "name": "web"}, "spec": broken})


def test_pod_of_an_object() -> None:
    pod = pod_from_object(
        {
            "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "containers": [{"name": "a", "resources": {"requests": {"cpu": "1n"}}}],
                "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                    {"name": "once", "resources": {"requests": {"cpu": "5"}}},
                ],
            },
            "status": {
                "phase": "Running",
                "startTime": "1970-01-01T00:00:10Z",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:12Z"}],
            },
        }
    )
    assert pod == Pod("p", "Running", True, 10_000, "True", 12_000, (("a", {"cpu": 1}), ("s", {"cpu": 100})), None)


def test_a_decision_survives_json() -> None:
    decision, history = decide(
        spec(external(), pods_metric()), seen(3, 5, Reading(pods={"p0": PodReading(900)})), History(), NOW
    )
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision
    assert msgspec.json.decode(msgspec.json.encode(history), type=History) == history
