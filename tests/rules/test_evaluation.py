"""Alerts and recorded series over virtual time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from flyball.errors import QueryError
from flyball.model.frames import STALE
from flyball.model.labels import Labels, labels_of
from flyball.promql import Expr
from flyball.rules.evaluation import Alert, RuleState, State, evaluate_rule, restore
from flyball.rules.rulefiles import AlertingRule, Group, parse_rule_file

MINUTE = 60_000
A, B = labels_of({"__name__": "up", "pod": "a"}), labels_of({"__name__": "up", "pod": "b"})


@dataclass
class Results:
    """What the rule's expression answers next."""

    now: Mapping[Labels, float] = field(default_factory=dict)
    asked_at_ms: list[int] = field(default_factory=list)
    error: str = ""

    def query(self, _: Expr, at_ms: int) -> tuple[tuple[Labels, ...], list[float]]:
        self.asked_at_ms.append(at_ms)
        if self.error:
            raise QueryError(self.error)
        return tuple(self.now), list(self.now.values())


def group_of(rule: str, **fields: str) -> Group:
    more = "".join(f", {name}: {value}" for name, value in fields.items())
    (group,) = parse_rule_file("groups: [{name: g" + more + ", rules: [" + rule + "]}]", "f")
    return group


class Run:
    """One rule, evaluated again and again."""

    def __init__(self, rule: str, **fields: str) -> None:
        self.group, self.results, self.state = group_of(rule, **fields), Results(), RuleState()

    def at(self, minute: float, result: Mapping[Labels, float]) -> dict[Labels, float]:
        self.results.now = result
        self.state, samples = evaluate_rule(
            self.group, self.group.rules[0], self.state, self.results.query, round(minute * MINUTE)
        )
        return dict(samples)

    def states(self) -> list[State]:
        return [alert.state for alert in self.state.alerts.values()]


def is_stale(value: float) -> bool:
    return np.float64(value).view(np.uint64) == np.float64(STALE).view(np.uint64)


def test_the_timeline_of_the_reference() -> None:
    """interval 1m, for 2m, keep_firing_for 1m, the expression true from minute 1 to 6."""
    run = Run("{alert: Down, expr: up == 0, for: 2m, keep_firing_for: 1m}")
    expected = {0: [], 1: ["pending"], 2: ["pending"], 3: ["firing"], 6: ["firing"], 7: ["firing"], 8: ["inactive"]}
    for minute in range(9):
        run.at(minute, {A: 0.0} if 1 <= minute <= 6 else {})
        if minute in expected:
            assert run.states() == expected[minute], minute
    (alert,) = run.state.alerts.values()
    assert (alert.active_at_ms, alert.fired_at_ms, alert.resolved_at_ms) == (MINUTE, 3 * MINUTE, 8 * MINUTE)
    run.at(23, {})
    assert run.states() == ["inactive"]  # resolved alerts are told for 15 minutes
    run.at(23.1, {})
    assert run.states() == []


def test_a_result_in_between_begins_the_time_of_keeping_anew() -> None:
    run = Run("{alert: Down, expr: up, keep_firing_for: 2m}")
    for minute, result in ((0, {A: 1.0}), (1, {}), (2, {A: 1.0}), (3, {}), (4, {})):
        run.at(minute, result)
    assert run.states() == ["firing"]  # without a result since minute 3, not 1
    run.at(5, {})
    assert run.states() == ["inactive"]


def test_the_series_of_alerts_and_their_end() -> None:
    run = Run("{alert: Down, expr: up == 0, for: 1m, labels: {severity: page}}", query_offset="30s")
    common = {"alertname": "Down", "pod": "a", "severity": "page"}
    pending = labels_of({"__name__": "ALERTS", "alertstate": "pending", **common})
    firing = labels_of({"__name__": "ALERTS", "alertstate": "firing", **common})
    since = labels_of({"__name__": "ALERTS_FOR_STATE", **common})
    assert run.at(1, {A: 0.0}) == {pending: 1.0, since: 60.0}
    assert run.results.asked_at_ms == [MINUTE - 30_000]
    samples = run.at(2, {A: 0.0})
    assert samples[firing] == 1.0 and samples[since] == 60.0 and is_stale(samples[pending])
    samples = run.at(3, {})
    assert set(samples) == {firing, since} and all(map(is_stale, samples.values()))
    assert run.at(4, {}) == {}


def test_labels_and_annotations_are_templates_and_follow_the_value() -> None:
    run = Run(
        "{alert: Down, expr: up, labels: {level: '{{ if gt $value 5.0 }}high{{ else }}low{{ end }}', pod: ''},"
        " annotations: {text: '{{ $labels.pod }} has {{ $value }}'}}"
    )
    run.at(0, {A: 1.0})
    run.at(1, {A: 2.0})
    (alert,) = run.state.alerts.values()
    assert dict(alert.labels) == {"alertname": "Down", "level": "low"}
    assert dict(alert.annotations) == {"text": "a has 2"} and alert.value == 2.0 and alert.active_at_ms == 0


def test_two_results_that_become_one_alert_are_an_error_and_change_nothing() -> None:
    run = Run("{alert: Down, expr: up, labels: {pod: ''}}")
    run.at(0, {A: 1.0})
    before = run.state.alerts
    assert run.at(1, {A: 1.0, B: 1.0}) == {}
    assert run.state.alerts == before
    assert run.state.error == "vector contains metrics with the same labelset after applying alert labels"


def test_a_failed_query_leaves_alerts_and_series_as_they_were() -> None:
    run = Run("{alert: Down, expr: up}")
    run.at(0, {A: 1.0})
    run.results.error = "the store is gone"
    assert run.at(1, {}) == {}
    assert run.states() == ["firing"] and run.state.error == "the store is gone"
    run.results.error = ""
    assert all(map(is_stale, run.at(2, {}).values()))
    assert run.state.error == ""


def test_beyond_the_limit_everything_of_the_rule_is_dropped_without_markers() -> None:
    run = Run("{alert: Down, expr: up}", limit="1")
    run.at(0, {A: 1.0})
    assert run.at(1, {A: 1.0, B: 1.0}) == {}
    assert run.state.alerts == {} and run.state.error == "exceeded limit of 1 with 2 alerts"
    run = Run("{record: r, expr: up}", limit="1")
    run.at(0, {A: 1.0})
    assert run.at(1, {A: 1.0, B: 1.0}) == {} and run.state.error == "exceeded limit of 1 with 2 series"


def test_an_alert_that_comes_back_is_pending_again() -> None:
    run = Run("{alert: Down, expr: up, for: 1m}")
    for minute, result in ((0, {A: 1.0}), (1, {A: 1.0}), (2, {}), (3, {A: 1.0})):
        run.at(minute, result)
    (alert,) = run.state.alerts.values()
    assert alert.state is State.PENDING and alert.active_at_ms == 3 * MINUTE and alert.resolved_at_ms is None


def test_a_raised_for_makes_a_firing_alert_pending() -> None:
    run = Run("{alert: Down, expr: up, for: 1m}")
    run.at(0, {A: 1.0})
    run.at(1, {A: 1.0})
    assert run.states() == ["firing"]
    run.group = group_of("{alert: Down, expr: up, for: 10m}")
    run.at(2, {A: 1.0})
    assert run.states() == ["pending"]


def test_a_recorded_series_takes_the_rules_name_and_labels_and_ends_with_a_marker() -> None:
    run = Run("{record: 'a:up', expr: up, labels: {pod: '', team: x}}")
    recorded = labels_of({"__name__": "a:up", "team": "x"})
    assert run.at(0, {A: 3.0}) == {recorded: 3.0}
    offset = Run("{record: r, expr: up}", query_offset="30s")
    offset.at(1, {A: 3.0})
    assert offset.results.asked_at_ms == [MINUTE - 30_000]
    assert run.at(1, {A: 3.0, B: 4.0}) == {}
    assert "same labelset after applying rule labels" in run.state.error
    samples = run.at(2, {})
    assert set(samples) == {recorded} and is_stale(samples[recorded])


@pytest.mark.parametrize(
    ("down_after_min", "back_after_min", "fires_after_min"),
    [
        (40, 45, 0),  # had fired: fires at the next evaluation
        (25, 30, 10),  # 5 minutes were left: the grace of 10
        (10, 30, 20),  # 20 were left: the time down does not count
    ],
)
def test_pending_alerts_outlive_a_restart(down_after_min: int, back_after_min: int, fires_after_min: int) -> None:
    group = group_of("{alert: Down, expr: up, for: 30m}")
    rule = group.rules[0]
    assert isinstance(rule, AlertingRule)
    labels = labels_of({"alertname": "Down", "pod": "a"})
    at_ms = back_after_min * MINUTE
    fresh = RuleState(alerts={labels: Alert(labels, (), 1.0, at_ms)}, restored=False)
    state = restore(rule, fresh, {labels: (down_after_min * MINUTE, 0.0)}, at_ms)
    assert state.restored
    assert max(0, state.alerts[labels].active_at_ms + rule.for_ms - at_ms) == fires_after_min * MINUTE


def test_a_short_for_is_not_restored_and_nothing_is_written_before() -> None:
    group = group_of("{alert: Down, expr: up, for: 1m}")
    rule = group.rules[0]
    assert isinstance(rule, AlertingRule)
    state, samples = evaluate_rule(group, rule, RuleState(restored=False), lambda *_: ((A,), [math.pi]), 5 * MINUTE)
    assert samples == ()
    (labels,) = state.alerts
    state = restore(rule, state, {labels: (4 * MINUTE, 0.0)}, 5 * MINUTE)
    assert state.restored and state.alerts[labels].active_at_ms == 5 * MINUTE
