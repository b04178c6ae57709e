"""Groups in the store: order within a group, ends, errors apart, restoration, what the API shows."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from flyball import clock
from flyball.errors import StoreError
from flyball.model.frames import STALE
from flyball.model.labels import labels_of
from flyball.promql import parse
from flyball.rules.evaluation import query_of
from flyball.rules.manager import RuleManager, next_evaluation_ms
from flyball.rules.rulefiles import Group, parse_rule_file
from flyball.store import Head, Writer

MINUTE = 60_000


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_ms = 1_000 * MINUTE
        monkeypatch.setattr(clock, "now_ms", lambda: self.at_ms)


async def in_thread(work: Callable[[], Any]) -> Any:
    return work()


def groups(text: str) -> tuple[Group, ...]:
    return parse_rule_file("groups:\n" + text, "f")


CHAIN = """
- name: chain
  rules:
    - {record: "a:sum", expr: sum(metric)}
    - {record: "b:double", expr: "2 * a:sum"}
    - {alert: High, expr: "b:double > 5", for: 1m, labels: {severity: page}, annotations: {text: "{{ $value }}"}}
"""
SERIES = labels_of({"__name__": "metric", "pod": "a"})


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.head = Clock(monkeypatch), Head()
        self.refused, self.taken = "", Writer.commit
        monkeypatch.setattr(Writer, "commit", lambda *arguments: self.commit(*arguments))
        self.told: list[tuple[str, list[str]]] = []
        self.start()

    def start(self) -> None:
        self.rules = RuleManager(
            self.head,
            self.head,
            in_thread,
            on_alerts=lambda _, rule, alerts, __: self.told.append((rule.alert, [one.state.value for one in alerts])),
        )

    def commit(self, *arguments: Any) -> bool:
        if self.refused:
            raise StoreError(self.refused)
        return self.taken(*arguments)

    def tick(self, value: float | None = None) -> None:
        """A minute later, with a sample of the metric; every group is evaluated."""
        self.clock.at_ms += MINUTE
        if value is not None:
            self.head.append(SERIES, self.clock.at_ms, value)
        for status in self.rules.status():
            asyncio.run(self.rules.evaluate(status, self.clock.at_ms))

    def value(self, text: str) -> list[float]:
        return query_of(self.head)(parse(text), self.clock.at_ms)[1]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_rule_sees_what_the_rules_before_it_wrote(world: World) -> None:
    world.rules.set_groups(groups(CHAIN))
    world.tick(3)
    assert (world.value("a:sum"), world.value("b:double")) == ([3.0], [6.0])
    world.tick(3)
    world.tick(3)
    assert world.value('ALERTS{alertname="High",alertstate="firing",severity="page"}') == [1.0]
    assert world.told[-1] == ("High", ["firing"])
    key = {"rule_group": "f;chain"}
    assert REGISTRY.get_sample_value("prometheus_rule_group_rules", key) == 3.0
    assert REGISTRY.get_sample_value("prometheus_rule_group_last_evaluation_samples", key) == 4.0
    assert REGISTRY.get_sample_value("prometheus_rule_group_last_evaluation_timestamp_seconds", key) == (
        world.clock.at_ms / 1000
    )
    (alert,) = world.rules.alerts_json()
    assert alert["labels"] == {"alertname": "High", "severity": "page"} and alert["annotations"] == {"text": "6"}
    assert (alert["state"], alert["value"]) == ("firing", "6e+00")
    (group,) = world.rules.groups_json()
    assert [(rule["type"], rule["health"]) for rule in group["rules"]] == [
        ("recording", "ok"),
        ("recording", "ok"),
        ("alerting", "ok"),
    ]
    assert group["rules"][2]["state"] == "firing" and group["rules"][2]["duration"] == 60.0


def test_a_broken_rule_harms_no_other(world: World) -> None:
    world.head.append(labels_of({"__name__": "metric", "pod": "b"}), world.clock.at_ms + MINUTE, 1.0)
    broken = '    - {record: x, expr: "metric * on() metric"}\n    - {record: y, expr: count(metric)}\n'
    world.rules.set_groups(groups("- name: g\n  rules:\n" + broken))
    world.tick(3)
    bad, good = world.rules.groups_json()[0]["rules"]
    assert bad["health"] == "err" and "many-to-many" in bad["lastError"]
    assert good["health"] == "ok" and world.value("y") == [2.0]


def test_samples_that_the_store_refuses_are_the_rules_error(world: World) -> None:
    world.rules.set_groups(groups(CHAIN))
    world.refused = "the disk is full"
    world.tick(3)
    shown = world.rules.groups_json()[0]["rules"][0]
    assert shown["health"] == "err" and "the disk is full" in shown["lastError"]
    world.refused = ""
    world.tick(3)
    assert world.rules.groups_json()[0]["rules"][0]["health"] == "ok" and world.value("a:sum") == [3.0]


def test_a_series_ends_although_the_store_refused_its_last_sample(world: World) -> None:
    by_pod = "- {name: g, rules: [{record: r, expr: metric}]}"
    world.rules.set_groups(groups(by_pod))
    world.tick(3)
    world.refused = "the disk is full"
    world.head.append(SERIES, world.clock.at_ms + MINUTE, STALE)
    world.tick()  # the metric has ended, and the marker for r is refused
    world.refused = ""
    assert world.value("r") == [3.0]
    world.tick()
    assert world.value("r") == []


def test_what_is_taken_away_ends(world: World) -> None:
    world.rules.set_groups(groups(CHAIN))
    for _ in range(3):
        world.tick(3)
    world.clock.at_ms += 1
    world.rules.set_groups(groups(CHAIN.replace("a:sum", "c:sum")))  # another record, the same alert
    assert world.value("a:sum") == [] and world.value("ALERTS") == [1.0]
    world.tick(3)
    assert world.rules.alerts_json()[0]["state"] == "firing"  # the alert lived on
    world.clock.at_ms += 1
    world.rules.set_groups([])
    assert world.value('{__name__=~"c:sum|b:double|ALERTS"}') == []
    assert world.rules.groups_json() == []


def test_rules_of_one_name_keep_their_series_apart(world: World) -> None:
    own, other = "{record: r, expr: metric}", '{record: r, expr: \'label_replace(metric, "pod", "b", "", "")\'}'
    world.rules.set_groups(groups(f"- {{name: g, rules: [{own}, {other}]}}"))
    world.tick(3)
    assert (world.value('r{pod="a"}'), world.value('r{pod="b"}')) == ([3.0], [3.0])
    world.clock.at_ms += 1
    world.rules.set_groups(groups(f"- {{name: g, rules: [{other}]}}"))
    world.tick(4)
    assert (world.value('r{pod="a"}'), world.value('r{pod="b"}')) == ([], [4.0])
    world.rules.set_groups(groups(f"- {{name: g, interval: 2m, rules: [{other}]}}"))  # other rows, the same series
    world.tick(5)
    assert world.value("r") == [5.0]


def test_a_restart_does_not_begin_a_long_for_anew(world: World) -> None:
    long = groups(CHAIN.replace("for: 1m", "for: 30m"))
    world.rules.set_groups(long)
    for _ in range(20):
        world.tick(3)
    began = world.rules.alerts_json()[0]["activeAt"]
    world.start()
    world.rules.set_groups(long)
    world.tick(3)
    assert world.rules.alerts_json()[0]["activeAt"] != began  # not looked up before the second evaluation
    world.tick(3)
    restored = world.rules.alerts_json()[0]
    assert restored["state"] == "pending"
    for _ in range(8):
        world.tick(3)
    assert world.rules.alerts_json()[0]["state"] == "pending"
    world.tick(3)  # the 31st, as without the restart
    assert world.rules.alerts_json()[0]["state"] == "firing"


def test_groups_have_their_own_place_in_the_interval() -> None:
    found = groups("\n".join(f"- {{name: g{number}, interval: 1m}}" for number in range(20)))
    places = {next_evaluation_ms(group, 10_000 * MINUTE) % MINUTE for group in found}
    assert len(places) > 15
    for group in found:
        due_ms = next_evaluation_ms(group, 10_000 * MINUTE)
        assert 0 <= due_ms - 10_000 * MINUTE < MINUTE
        assert next_evaluation_ms(group, due_ms + 1) == due_ms + MINUTE
