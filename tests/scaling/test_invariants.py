"""What must hold for every policy and every observation."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.scaling import (
    History,
    Observation,
    Outcome,
    Pod,
    PodReading,
    Reading,
    Recommendation,
    ScaleEvent,
    applied,
    decide,
    spec_from_hpa,
)

NOW = 1_000_000_000
replicas = st.integers(0, 60)
times = st.integers(NOW - 700_000, NOW)
policies = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Pods", "Percent"]),
            "value": st.integers(1, 200),
            "periodSeconds": st.integers(1, 600),
        }
    ),
    min_size=1,
    max_size=3,
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "stabilizationWindowSeconds": st.integers(0, 600),
        "selectPolicy": st.sampled_from(["Max", "Min", "Disabled"]),
        "policies": policies,
        "tolerance": st.sampled_from(["0", "50m", "0.3"]),
    },
)
behaviors = st.none() | st.fixed_dictionaries({}, optional={"scaleUp": rules, "scaleDown": rules})
histories = st.builds(
    History,
    st.lists(st.builds(Recommendation, replicas, times), max_size=6).map(tuple),
    st.lists(st.builds(ScaleEvent, st.integers(1, 30), times, st.booleans()), max_size=4).map(tuple),
    st.lists(st.builds(ScaleEvent, st.integers(1, 30), times, st.booleans()), max_size=4).map(tuple),
)
pods = st.lists(
    st.tuples(
        st.sampled_from(["Running", "Pending", "Failed"]), st.booleans(), st.sampled_from(["True", "False", None])
    ),
    max_size=8,
)
values = st.integers(0, 10**7)
_METRICS = (
    {"type": "Pods", "pods": {"metric": {"name": "r"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
    {
        "type": "External",
        "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "1"}},
    },
    {"type": "External", "external": {"metric": {"name": "v"}, "target": {"type": "Value", "value": "10"}}},
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
)


def make_spec(minimum: int, extra: int, metrics: Any, behavior: Any) -> Any:
    body = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": minimum,
        "maxReplicas": max(1, minimum) + extra,
        "metrics": list(metrics),
    }
    if behavior is not None:
        body["behavior"] = behavior
    return spec_from_hpa({"metadata": {"namespace": "s", "name": "w"}, "spec": body})


@st.composite
def cases(draw: st.DrawFn, fail: str = "some") -> tuple[Any, Observation, History]:
    metrics = draw(st.lists(st.sampled_from(_METRICS), min_size=1, max_size=3))
    wish = make_spec(draw(st.integers(0, 10)), draw(st.integers(0, 50)), metrics, draw(behaviors))
    group = tuple(
        Pod(f"p{at}", phase, deleting, NOW - 10**6, ready, NOW - 10**6, (("a", {"cpu": 1000}),))
        for at, (phase, deleting, ready) in enumerate(draw(pods))
    )
    readings = []
    for metric in metrics:
        if fail == "all" or (fail == "some" and draw(st.booleans())):
            readings.append(Reading(error="gone"))
        elif metric["type"] == "External":
            readings.append(Reading(values=tuple(draw(st.lists(values, min_size=1, max_size=3))), at_ms=NOW))
        else:
            names = [pod.name for pod in group if draw(st.booleans())]
            readings.append(Reading(pods={name: PodReading(draw(values), NOW) for name in names}, at_ms=NOW))
    return (
        wish,
        Observation(
            spec_replicas=draw(replicas),
            status_replicas=draw(replicas),
            selector="app=web",
            pods=group,
            readings=tuple(readings),
            scaled_to_zero=draw(st.booleans()),
        ),
        draw(histories),
    )


@given(cases())
@settings(max_examples=300, deadline=None)
def test_a_write_is_within_the_bounds_and_a_change(case: tuple[Any, Observation, History]) -> None:
    wish, observed, history = case
    decision, after = decide(wish, observed, history, NOW)
    assert decision.rescale == (decision.desired != decision.current)
    if decision.rescale:
        assert wish.min_replicas <= decision.desired <= wish.max_replicas
    assert len(after.recommendations) <= max(1, len(history.recommendations)) + 1
    later = applied(after, decision, Outcome(), NOW)
    assert len(later.ups) + len(later.downs) <= len(history.ups) + len(history.downs) + 1


@given(cases())
@settings(max_examples=300, deadline=None)
def test_a_failing_metric_blocks_down_only(case: tuple[Any, Observation, History]) -> None:
    """With any metric failing, the metrics' own proposal never lowers the count."""
    wish, observed, history = case
    decision, _ = decide(wish, observed, history, NOW)
    if decision.metrics and any(metric.error for metric in decision.metrics):
        assert decision.failed or (decision.recommended or 0) >= decision.current
        if wish.behavior is not None:
            assert decision.desired >= min(decision.current, wish.max_replicas)


@given(cases(fail="all"))
@settings(max_examples=200, deadline=None)
def test_absent_metrics_change_nothing_within_the_bounds(case: tuple[Any, Observation, History]) -> None:
    wish, observed, history = case
    decision, after = decide(wish, observed, history, NOW)
    if wish.min_replicas <= decision.current <= wish.max_replicas:
        assert not decision.rescale
        assert after.recommendations == history.recommendations or not history.recommendations


@given(cases())
@settings(max_examples=200, deadline=None)
def test_the_same_question_has_the_same_answer(case: tuple[Any, Observation, History]) -> None:
    wish, observed, history = case
    assert decide(wish, observed, history, NOW) == decide(wish, observed, history, NOW)


@given(cases(fail="none"))
@settings(max_examples=200, deadline=None)
def test_without_memory_nothing_scales_down_by_metrics(case: tuple[Any, Observation, History]) -> None:
    wish, observed, _history = case
    if wish.behavior is not None and wish.behavior.down.window_s == 0:
        return  # the user asked for no window
    decision, _after = decide(wish, observed, History(), NOW)
    if decision.current <= wish.max_replicas:
        assert decision.desired >= decision.current
