"""One metric at a time: hand-computed tables for reference/hpa.md 1.2-1.8."""

from typing import Any

import pytest

from flyball.scaling import Observation, Pod, PodReading, Reading, Settings, spec_from_hpa
from flyball.scaling.metrics import MetricFailedError, Tolerances, evaluate_metric
from flyball.scaling.spec import selector_text

NOW = 1_000_000_000
MINUTE = 60_000


def hpa(metric: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 100,
    }
    if metric is not None:
        body["metrics"] = [metric]
    body.update(spec)
    return {"metadata": {"namespace": "shop", "name": "web", "uid": "u1"}, "spec": body}


def cpu_metric(percent: int = 50) -> dict[str, Any]:
    return {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
    }


def pods_metric(average: str = "100m") -> dict[str, Any]:
    return {
        "type": "Pods",
        "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": average}},
    }


def external_metric(**target: str) -> dict[str, Any]:
    kind = "AverageValue" if "averageValue" in target else "Value"
    return {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": kind, **target}}}


def object_metric(**target: str) -> dict[str, Any]:
    kind = "AverageValue" if "averageValue" in target else "Value"
    described = {"apiVersion": "v1", "kind": "Service", "name": "web"}
    return {
        "type": "Object",
        "object": {"metric": {"name": "hits"}, "describedObject": described, "target": {"type": kind, **target}},
    }


def pod(number: int, request: int | None = 1000, **fields: Any) -> Pod:
    defaults: dict[str, Any] = {
        "ready": "True",
        "start_ms": NOW - 60 * MINUTE,
        "ready_since_ms": NOW - 59 * MINUTE,
        "containers": (("app", {} if request is None else {"cpu": request, "memory": request * 1000}),),
    }
    return Pod(f"p{number}", **(defaults | fields))


def readings(*values: int | None, at_ms: int = NOW) -> Reading:
    found = {f"p{at}": PodReading(value, at_ms) for at, value in enumerate(values) if value is not None}
    return Reading(pods=found, at_ms=at_ms)


def evaluate(obj: dict[str, Any], reading: Reading, seen: Observation, settings: Settings | None = None) -> Any:
    spec = spec_from_hpa(obj, settings)
    return evaluate_metric(spec, spec.metrics[0], reading, seen, NOW)


def failing(obj: dict[str, Any], reading: Reading, seen: Observation) -> MetricFailedError:
    with pytest.raises(MetricFailedError) as caught:
        evaluate(obj, reading, seen)
    return caught.value


@pytest.mark.parametrize(
    ("values", "target", "proposal", "percent"),
    [
        ((500, 500, 500), 50, 3, 50),  # on target
        ((300, 500, 700), 30, 5, 50),  # 50/30 * 3
        ((540, 540, 540), 50, 3, 54),  # 1.08 is within 10 %
        ((560, 560, 560), 50, 4, 56),  # 1.12 is not
        ((460, 460, 460), 50, 3, 46),  # 0.92 is within
        ((440, 440, 440), 50, 3, 44),  # 0.88 * 3 = 2.64
        ((100, 100, 100), 50, 1, 10),
        ((0, 0, 0), 50, 0, 0),
        ((709, 709, 709), 64, 3, 70),  # 70.9 % counts as 70 %: 1.094, within
    ],
)
def test_cpu_utilization(values: tuple[int, ...], target: int, proposal: int, percent: int) -> None:
    seen = Observation(spec_replicas=3, pods=tuple(pod(at) for at in range(3)))
    found, status = evaluate(hpa(cpu_metric(target)), readings(*values), seen)
    assert (found.proposal, found.utilization) == (proposal, percent)
    assert status["resource"]["current"]["averageUtilization"] == percent
    assert found.name == "cpu resource utilization (percentage of request)"


@pytest.mark.parametrize(("profile", "proposal"), [("<=1.32", 11), ("1.33-1.36", 10), ("1.37", 10)])
def test_ratio_of_exactly_one_point_one(profile: str, proposal: int) -> None:
    seen = Observation(spec_replicas=10, pods=tuple(pod(at) for at in range(10)))
    found, _ = evaluate(hpa(cpu_metric(70)), readings(*[770] * 10), seen, Settings(profile=profile))
    assert found.proposal == proposal  # abs(1.0 - 1.1) is 0.10000000000000009


def test_the_twenty_targets_that_differ_between_profiles() -> None:
    old, new = Tolerances(0.1, 0.1, absolute=True), Tolerances(0.1, 0.1)
    differing = {
        target
        for target in range(1, 201)
        for percent in range(1, 260)
        if old.within(percent / target) != new.within(percent / target)
    }
    assert differing == set(range(10, 201, 10))


def test_utilization_is_a_ratio_of_sums() -> None:
    pods = (pod(0, 1000), pod(1, 3000))
    found, status = evaluate(hpa(cpu_metric(50)), readings(1000, 600), Observation(spec_replicas=2, pods=pods))
    assert found.utilization == 40  # 1600 / 4000, not the mean of 100 % and 20 %
    assert status["resource"]["current"]["averageValue"] == "800m"


def test_memory_average_prints_in_binary() -> None:
    metric = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "64Mi"}},
    }
    seen = Observation(spec_replicas=1, pods=(pod(0),))
    found, status = evaluate(hpa(metric), readings(128 * 1024 * 1024 * 1000), seen)
    assert found.proposal == 2
    assert found.name == "memory resource"
    assert status["resource"]["current"] == {"averageValue": "128Mi"}


def test_container_resource_uses_only_its_container() -> None:
    metric = {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu", "container": "app", "target": {"type": "Utilization", "averageUtilization": 50},
        },
    }  # fmt: skip
    containers = (("app", {"cpu": 1000}), ("sidecar", {}))
    seen = Observation(spec_replicas=1, pods=(pod(0, containers=containers),))
    found, status = evaluate(hpa(metric), readings(1000), seen)
    assert found.proposal == 2
    assert found.name == "cpu container resource utilization (percentage of request)"
    assert status["containerResource"]["container"] == "app"
    other = Observation(spec_replicas=1, pods=(pod(0, containers=(("web", {"cpu": 1}),)),))
    error = failing(hpa(metric), readings(1000), other)
    assert error.inner == "failed to get cpu utilization: container app not found in Pod p0"
    assert error.outer.startswith("failed to get app container metric value: ")


def test_one_pod_without_request_fails_the_metric_even_when_ignored() -> None:
    pods = (pod(0), pod(1, None, phase="Failed"))
    error = failing(hpa(cpu_metric()), readings(500), Observation(spec_replicas=2, pods=pods))
    assert error.reason == "FailedGetResourceMetric"
    assert error.inner == "failed to get cpu utilization: missing request for cpu in container app of Pod p1"
    assert error.outer == "failed to get cpu resource metric value: " + error.inner


def test_pod_level_requests_win_and_are_demanded() -> None:
    seen = Observation(spec_replicas=1, pods=(pod(0, None, pod_requests={"cpu": 2000}),))
    found, _ = evaluate(hpa(cpu_metric(50)), readings(1000), seen)
    assert found.utilization == 50
    lacking = Observation(spec_replicas=1, pods=(pod(0, pod_requests={"memory": 1}),))
    assert failing(hpa(cpu_metric()), readings(1), lacking).inner.endswith(
        "missing pod-level request for cpu in Pod p0"
    )


@pytest.mark.parametrize(
    ("values", "proposal", "adjusted"),
    [
        ((200, 200, None, None), 4, None),  # see below: 0.4 -> (400+2000)/4000 = 60 %: 1.2 turns the direction
        ((900, 900, None), 4, 1.2),  # 1.8 -> 1800/3000 = 60 %: 1.2 * 3 = 3.6
        ((600, 600, 600, None), 4, 0.9),  # 1.2 -> 1800/4000 = 45 %: 0.9, within
        ((500, 500, None), 3, None),  # exactly 1.0: nothing is filled in
        ((900, None, None), 3, 0.6),  # 1.8 -> 900/3000 = 30 %: turns the direction
    ],
)
def test_missing_pods_utilization(values: tuple[int | None, ...], proposal: int, adjusted: float | None) -> None:
    count = len(values)
    seen = Observation(spec_replicas=count, pods=tuple(pod(at) for at in range(count)))
    found, _ = evaluate(hpa(cpu_metric(50)), readings(*values), seen)
    assert found.proposal == proposal
    if adjusted is not None:
        assert found.adjusted_ratio == adjusted


def test_missing_pod_scales_down_on_the_request_or_a_higher_target() -> None:
    seen = Observation(spec_replicas=4, pods=tuple(pod(at) for at in range(4)))
    found, _ = evaluate(hpa(cpu_metric(300)), readings(100, 100, 100, None), seen)
    assert found.filled == {"p3": 3000}  # max(100, 300) % of the request
    assert found.proposal == 2  # 3300/4000 = 82 %; ceil(82/300 * 4)


def test_missing_plain_pod_counts_as_on_target_down_and_as_zero_up() -> None:
    seen = Observation(spec_replicas=3, pods=tuple(pod(at) for at in range(3)))
    down, _ = evaluate(hpa(pods_metric("100m")), readings(20, 20, None), seen)
    assert (down.filled, down.proposal) == ({"p2": 100}, 2)  # (20+20+100)//3 = 46; ceil(.46 * 3)
    up, status = evaluate(hpa(pods_metric("100m")), readings(400, 400, None), seen)
    assert (up.filled, up.proposal) == ({"p2": 0}, 8)  # 800//3 = 266; ceil(2.66 * 3)
    assert status["pods"]["current"] == {"averageValue": "400m"}  # the first average is shown


def test_plain_average_is_truncated_before_the_ratio() -> None:
    seen = Observation(spec_replicas=3, pods=tuple(pod(at) for at in range(3)))
    found, _ = evaluate(hpa(pods_metric("10m")), readings(11, 11, 12), seen)
    assert (found.usage, found.proposal) == (11, 3)  # 34/3 = 11.33 would be out of tolerance


def test_unready_cpu_pods_hold_a_scale_up_back() -> None:
    fresh = {"start_ms": NOW - MINUTE, "ready": "False", "ready_since_ms": NOW - MINUTE}
    pods = (pod(0), pod(1), pod(2, **fresh))
    found, _ = evaluate(hpa(cpu_metric(50)), readings(900, 900, 5000), Observation(spec_replicas=3, pods=pods))
    assert found.pods.unready == ("p2",)
    assert found.proposal == 4  # 1.8 first, then 1800/3000 = 60 %: 1.2 * 3
    down, _ = evaluate(hpa(cpu_metric(50)), readings(200, 200, 5000), Observation(spec_replicas=3, pods=pods))
    assert down.proposal == 1  # down: unready pods are simply not counted: ceil(.4 * 2)


@pytest.mark.parametrize(
    ("fields", "group"),
    [
        ({}, "ready"),
        ({"deleting": True}, "ignored"),
        ({"phase": "Failed"}, "ignored"),
        ({"phase": "Succeeded"}, "ready"),
        ({"phase": "Pending"}, "unready"),
        ({"ready": None}, "unready"),
        ({"start_ms": None}, "unready"),
        ({"start_ms": NOW - 4 * MINUTE, "ready": "False"}, "unready"),
        ({"start_ms": NOW - 4 * MINUTE, "ready": "Unknown", "ready_since_ms": NOW - 3 * MINUTE}, "ready"),
        # ready for 59 s, the window is 60 s: the sample still holds start-up work
        ({"start_ms": NOW - 4 * MINUTE, "ready_since_ms": NOW - 59_000}, "unready"),
        ({"start_ms": NOW - 4 * MINUTE, "ready_since_ms": NOW - 60_000}, "ready"),
        # exactly five minutes old is past the initialization period; false since 29 s after start: never ready
        ({"start_ms": NOW - 5 * MINUTE, "ready": "False", "ready_since_ms": NOW - 5 * MINUTE + 29_000}, "unready"),
        ({"start_ms": NOW - 5 * MINUTE, "ready": "False", "ready_since_ms": NOW - 5 * MINUTE + 30_000}, "ready"),
    ],
)
def test_group_of_a_cpu_pod(fields: dict[str, Any], group: str) -> None:
    seen = Observation(spec_replicas=2, pods=(pod(0), pod(1, **fields)))
    found, _ = evaluate(hpa(cpu_metric(50)), readings(500, 500), seen)
    groups = {name: getattr(found.pods, name) for name in ("ready", "unready", "missing", "ignored")}
    assert [name for name, names in groups.items() if "p1" in names] == [group]


def test_not_ready_pods_count_for_other_metrics() -> None:
    seen = Observation(spec_replicas=2, pods=(pod(0), pod(1, ready="False", start_ms=NOW)))
    found, _ = evaluate(hpa(pods_metric("100m")), readings(200, 200), seen)
    assert (found.multiplier, found.proposal) == (2, 4)


def test_pods_errors() -> None:
    metric = hpa(pods_metric())
    assert failing(metric, readings(1), Observation(spec_replicas=1)).inner == (
        "no pods returned by selector while calculating replica count"
    )
    unready = Observation(spec_replicas=1, pods=(pod(0, phase="Pending"),))
    assert failing(metric, readings(1), unready).inner == (
        "did not receive metrics for targeted pods (pods might be unready)"
    )
    error = failing(metric, Reading(error="no metrics returned from custom metrics API"), unready)
    assert error.inner == "unable to get metric rps: no metrics returned from custom metrics API"
    assert error.outer == "failed to get pods metric value: " + error.inner
    assert error.reason == "FailedGetPodsMetric"
    assert failing(metric, Reading(selector_error="bad"), unready).inner == "bad"


@pytest.mark.parametrize(
    ("usage", "target", "current", "pods", "proposal"),
    [
        (20_000, "10", 3, 3, 6),
        (10_900, "10", 3, 3, 3),  # within
        (20_000, "10", 3, 1, 2),  # only one pod is ready
        (20_000, "10", 0, 0, 2),  # from zero: the ratio itself
        (10_100, "10", 0, 0, 2),  # and without tolerance
        (1, "10", 0, 0, 1),
        (0, "10", 0, 0, 0),
        (0, "10", 3, 3, 0),
        ((1 << 63) - 1, "1m", 3, 3, (1 << 31) - 1),  # clamped to int32
    ],
)
def test_value_of_object_and_external(usage: int, target: str, current: int, pods: int, proposal: int) -> None:
    seen = Observation(spec_replicas=current, pods=tuple(pod(at) for at in range(pods)))
    reading = Reading(values=(usage,), at_ms=NOW)
    for metric in (object_metric(value=target), external_metric(value=target)):
        assert evaluate(hpa(metric), reading, seen)[0].proposal == proposal


def test_value_counts_running_ready_pods_terminating_too() -> None:
    pods = (pod(0, deleting=True), pod(1, ready="False"), pod(2, phase="Pending"))
    found, _ = evaluate(
        hpa(external_metric(value="10")), Reading(values=(30_000,)), Observation(spec_replicas=3, pods=pods)
    )
    assert found.proposal == 3  # 3.0 * 1
    assert failing(hpa(external_metric(value="10")), Reading(values=(30_000,)), Observation(spec_replicas=3)).inner == (
        "unable to calculate ready pods: no pods returned by selector while calculating replica count"
    )


@pytest.mark.parametrize(
    ("values", "target", "status_replicas", "proposal", "shown"),
    [
        ((40_000, 20_000), "10", 4, 6, "15"),
        ((41_000,), "10", 4, 4, "10250m"),  # within: status.replicas, not spec.replicas
        ((40_000,), "10", 0, 4, "0"),  # x/0 is +Inf: out of tolerance
        ((0,), "10", 0, 0, "0"),  # 0/0 is NaN: also out
        ((0,), "10", 5, 0, "0"),
        ((10_001,), "10", 3, 2, "3334m"),  # shown rounded up
        (((1 << 63) - 1, 5), "1m", 3, (1 << 31) - 1, "9223372036854775807m"),
    ],
)
def test_external_average(
    values: tuple[int, ...], target: str, status_replicas: int, proposal: int, shown: str
) -> None:
    seen = Observation(spec_replicas=9, status_replicas=status_replicas)
    found, status = evaluate(hpa(external_metric(averageValue=target)), Reading(values=values), seen)
    assert found.proposal == proposal
    assert status["external"]["current"] == {"averageValue": shown}
    assert found.name == "external metric queue(nil)"


def test_object_names_and_errors() -> None:
    seen = Observation(spec_replicas=1, status_replicas=1, pods=(pod(0),))
    value, status = evaluate(hpa(object_metric(value="10")), Reading(values=(20_000,)), seen)
    assert value.name == "Service metric hits"
    assert status["object"]["describedObject"]["name"] == "web"
    average, _ = evaluate(hpa(object_metric(averageValue="10")), Reading(values=(20_000,)), seen)
    assert average.name == "external metric hits(nil)"  # upstream's quirk
    error = failing(hpa(object_metric(averageValue="10")), Reading(error="gone"), seen)
    assert error.inner == "unable to get metric hits on Service shop/web: gone"
    assert error.outer == f"failed to get object metric value: failed to get hits object metric: {error.inner}"
    error = failing(hpa(object_metric(value="10")), Reading(error="gone"), seen)
    assert error.outer == f"failed to get object metric value: {error.inner}"


def test_external_errors() -> None:
    error = failing(
        hpa(external_metric(value="1")), Reading(error="no metrics returned from external metrics API"), Observation()
    )
    assert error.reason == "FailedGetExternalMetric"
    assert error.inner == "unable to get external metric shop/queue/nil: no metrics returned from external metrics API"
    assert error.outer == (
        "failed to get queue external metric value: failed to get external metric queue: " + error.inner
    )


def test_unknown_type() -> None:
    error = failing(hpa({"type": "Magic"}), Reading(), Observation())
    assert (error.reason, error.inner) == ("InvalidMetricSourceType", 'unknown metric source type "Magic"')


def test_own_tolerances() -> None:
    behavior = {"scaleUp": {"tolerance": "0.5"}, "scaleDown": {"tolerance": "0"}}
    seen = Observation(spec_replicas=2, pods=(pod(0), pod(1)))
    up, _ = evaluate(hpa(pods_metric("100m"), behavior=behavior), readings(150, 150), seen)
    assert up.proposal == 2
    down, _ = evaluate(hpa(pods_metric("100m"), behavior=behavior), readings(49, 49), seen)
    assert down.proposal == 1
    ignored, _ = evaluate(
        hpa(pods_metric("100m"), behavior=behavior), readings(150, 150), seen, Settings(profile="<=1.32")
    )
    assert ignored.proposal == 3


def test_selector_text_is_gos() -> None:
    assert selector_text(None) == "nil"
    selector = {
        "matchLabels": {"b": "2", "a": "1"},
        "matchExpressions": [{"key": "t", "operator": "In", "values": ["x", "y"]}],
    }
    assert selector_text(selector) == (
        "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},"
        "MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:t,Operator:In,Values:[x y],},},}"
    )
