"""Evaluates groups of rules at their intervals: queries in a thread, samples into the store."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from prometheus_client import Counter, Gauge, Summary

from flyball import clock
from flyball.errors import FlyballError
from flyball.model.frames import is_absent, is_stale
from flyball.model.gotemplate import format_scientific
from flyball.model.labels import METRIC_NAME, Labels, Matcher, MatchType, labels_of
from flyball.promql import Storage
from flyball.rules.evaluation import (
    ALERTS_FOR_STATE,
    NO_EXTERNAL,
    Alert,
    External,
    RuleState,
    State,
    evaluate_rule,
    query_of,
    restore,
)
from flyball.rules.rulefiles import AlertingRule, Group, Rule
from flyball.store import Head, Plan, Writer

log = logging.getLogger(__name__)

OUTAGE_MAX_MS = 3_600_000
_EVALUATIONS = Counter("prometheus_rule_evaluations", "Rule evaluations.", ["rule_group"])
_FAILURES = Counter("prometheus_rule_evaluation_failures", "Rule evaluations that failed.", ["rule_group"])
_MISSED = Counter(
    "prometheus_rule_group_iterations_missed", "Evaluations skipped since one took too long.", ["rule_group"]
)
_GROUPS = {
    "rules": Gauge("prometheus_rule_group_rules", "Rules of a group.", ["rule_group"]),
    "interval": Gauge("prometheus_rule_group_interval_seconds", "How often it is evaluated.", ["rule_group"]),
    "at": Gauge("prometheus_rule_group_last_evaluation_timestamp_seconds", "The last evaluation.", ["rule_group"]),
    "took": Gauge("prometheus_rule_group_last_duration_seconds", "How long that took.", ["rule_group"]),
    "samples": Gauge("prometheus_rule_group_last_evaluation_samples", "Samples that it gave.", ["rule_group"]),
}
_ITERATIONS = Counter("prometheus_rule_group_iterations", "Evaluations due, missed ones among them.", ["rule_group"])
_GROUP_DURATIONS = Summary("prometheus_rule_group_duration_seconds", "How long evaluations of groups take.")
_RULE_DURATIONS = Summary("prometheus_rule_evaluation_duration_seconds", "How long evaluations of rules take.")


#: Runs a function in a thread.
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
#: Told after every evaluation of an alerting rule: the group, the rule, its alerts and the time in ms.
OnAlerts = Callable[[Group, AlertingRule, Sequence[Alert], int], None]


class _Rows:
    """Where a rule's samples go: a row an evaluation, as a target's scrape is."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._labels: tuple[Labels, ...] = ()
        self._plan = Plan(())

    def write(self, at_ms: int, labels: tuple[Labels, ...], values: Sequence[float], ended: Collection[Labels]) -> None:
        """
        Raises:
            StoreError: the store does not take them.
        """
        if labels != self._labels:
            self._plan, self._labels = Plan(self.writer.refs(labels)), labels
        if labels or ended:
            self.writer.commit(at_ms, self._plan, np.array(values, np.float64), self.writer.refs(list(ended)))


@dataclass(slots=True)
class RuleStatus:
    """A rule with what its last evaluation left. ``place`` tells it from those of its name in the group."""

    rule: Rule
    state: RuleState
    place: int
    rows: _Rows = field(repr=False)
    evaluated_at_ms: int = 0
    took_s: float = 0.0


@dataclass(slots=True)
class GroupStatus:
    """A group with its rules, in order."""

    group: Group
    rules: list[RuleStatus]
    evaluations: int = 0
    evaluated_at_ms: int = 0
    took_s: float = 0.0
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class RuleManager:
    """Keeps one task a group. ``set_groups`` may be called at any time; rules that stay keep their alerts.

    Args:
        storage: read by evaluations.
        head: what they record goes there, on the event loop.
        in_thread: runs an evaluation away from the event loop.
        external: what templates see of the server; may be replaced at any time.
    """

    def __init__(
        self,
        storage: Storage,
        head: Head,
        in_thread: InThread,
        *,
        external: External = NO_EXTERNAL,
        on_alerts: OnAlerts = lambda *_: None,
    ) -> None:
        self._storage, self._head, self._in_thread = storage, head, in_thread
        self.external, self._on_alerts = external, on_alerts
        self._query = query_of(storage)
        self._groups: dict[str, GroupStatus] = {}
        self._changed = asyncio.Event()

    def status(self) -> list[GroupStatus]:
        """Groups by file and name."""
        return [self._groups[key] for key in sorted(self._groups)]

    def groups_json(self) -> list[dict[str, Any]]:
        """``groups`` of ``/api/v1/rules``."""
        return [group_json(status) for status in self.status()]

    def alerts_json(self) -> list[dict[str, Any]]:
        """``alerts`` of ``/api/v1/alerts``: pending and firing."""
        return [alert for group in self.groups_json() for rule in group["rules"] for alert in rule.get("alerts", ())]

    def set_groups(self, groups: Iterable[Group]) -> None:
        """Takes over the groups given; what is not among them ends, with its series."""
        known, self._groups = self._groups, {}
        for group in groups:
            old = known.pop(group.key, None)
            if old is not None and old.group == group:
                self._groups[group.key] = old
                continue
            self._groups[group.key] = self._taken_over(group, old)
        for old in known.values():
            _cancel(old)
            if old.evaluations:
                for gauge in _GROUPS.values():
                    gauge.remove(old.group.key)
            self._end(old.group, old.rules)
        self._changed.set()

    def _taken_over(self, group: Group, old: GroupStatus | None) -> GroupStatus:
        left = list(old.rules) if old is not None else []
        found: list[RuleStatus | None] = []
        for rule in group.rules:
            same = next((one for one in left if _identity(one.rule) == _identity(rule)), None)
            if same is not None:
                left.remove(same)
            found.append(same)
        if old is not None:
            _cancel(old)
            self._end(group, left)
        rules: list[RuleStatus] = []
        for rule, same in zip(group.rules, found, strict=True):
            taken = {one.place for one in (*filter(None, found), *rules) if one.rule.name == rule.name}
            place = same.place if same is not None else min(set(range(len(taken) + 1)) - taken)
            state = same.state if same is not None else RuleState(restored=not isinstance(rule, AlertingRule))
            writer = self._head.writer(f"rules {group.key}", group.interval_ms, f"{rule.name} {place}")
            if same is not None and writer is same.rows.writer:
                rules.append(replace(same, rule=rule))
                continue
            if same is not None:
                same.rows.writer.close()  # at another interval the series go on elsewhere
            rules.append(RuleStatus(rule, state, place, _Rows(writer)))
        return GroupStatus(group, rules, evaluations=old.evaluations if old is not None else 0)

    def _end(self, group: Group, rules: Iterable[RuleStatus]) -> None:
        for one in rules:
            try:
                one.rows.writer.close(clock.now_ms() - group.query_offset_ms)
            except FlyballError as exc:
                log.warning("rule_not_ended group=%s rule=%s error=%s", group.key, one.rule.name, exc)

    async def run(self) -> None:
        """Evaluates until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for status in self._groups.values():
                    if status.task is None:
                        status.task = tasks.create_task(self._keep(status), name=f"rules {status.group.key}")
                self._changed.clear()
                await self._changed.wait()

    async def _keep(self, status: GroupStatus) -> None:
        interval_ms = status.group.interval_ms
        at_ms = next_evaluation_ms(status.group, clock.now_ms())
        while True:
            await asyncio.sleep(max(0, at_ms - clock.now_ms()) / 1000)
            await self.evaluate(status, at_ms)
            late = (clock.now_ms() - at_ms) // interval_ms
            if late > 0:
                _MISSED.labels(status.group.key).inc(late)
                _ITERATIONS.labels(status.group.key).inc(late)
            at_ms += (late + 1) * interval_ms

    async def evaluate(self, status: GroupStatus, at_ms: int) -> None:
        """One evaluation of a group: each rule sees what the ones before it wrote."""
        started_s = clock.monotonic_s()
        samples = 0
        for one in status.rules:
            samples += await self._evaluate_rule(status.group, one, at_ms)
        status.evaluations += 1
        status.evaluated_at_ms, status.took_s = at_ms, clock.monotonic_s() - started_s
        key = status.group.key
        for name, value in (
            ("rules", len(status.rules)),
            ("interval", status.group.interval_ms / 1000),
            ("at", at_ms / 1000),
            ("took", status.took_s),
            ("samples", samples),
        ):
            _GROUPS[name].labels(key).set(value)
        _ITERATIONS.labels(key).inc()
        _GROUP_DURATIONS.observe(status.took_s)
        if status.evaluations >= 2:  # by then there are scrapes, and what recording rules make of them
            for one in status.rules:
                if not one.state.restored:
                    one.state = await self._in_thread(partial(self._restored, one, status.group.interval_ms, at_ms))

    async def _evaluate_rule(self, group: Group, one: RuleStatus, at_ms: int) -> int:
        """Returns how many samples it gave."""
        started_s = clock.monotonic_s()
        try:
            state, samples = await self._in_thread(
                partial(evaluate_rule, group, one.rule, one.state, self._query, at_ms, self.external)
            )
        except Exception as exc:  # a defect of ours must not end the other rules
            log.exception("rule_broke group=%s rule=%s", group.key, one.rule.name)
            state, samples = replace(one.state, error=f"{type(exc).__name__}: {exc}"), ()
        if not state.error:
            try:
                ended = set(one.state.series).difference(state.series) if state.series != one.state.series else ()
                values = [value for _, value in samples[: len(state.series)]]
                one.rows.write(at_ms - group.query_offset_ms, state.series, values, ended)
            except FlyballError as exc:
                problem = f"the samples of group {group.name} cannot be kept: {exc}"
                state = replace(state, error=problem, series=one.state.series)
        one.state, one.evaluated_at_ms, one.took_s = state, at_ms, clock.monotonic_s() - started_s
        _EVALUATIONS.labels(group.key).inc()
        _RULE_DURATIONS.observe(one.took_s)
        if state.error:
            _FAILURES.labels(group.key).inc()
            log.warning("rule_failed group=%s rule=%s error=%s", group.key, one.rule.name, state.error)
        elif isinstance(one.rule, AlertingRule):
            self._on_alerts(group, one.rule, tuple(state.alerts.values()), at_ms)
        return len(samples)

    def _restored(self, one: RuleStatus, interval_ms: int, at_ms: int) -> RuleState:
        assert isinstance(one.rule, AlertingRule)
        matchers = [
            Matcher(MatchType.EQUAL, METRIC_NAME, ALERTS_FOR_STATE),
            Matcher(MatchType.EQUAL, "alertname", one.rule.alert),
        ]
        found: dict[Labels, tuple[int, float]] = {}
        for frame in self._storage.select(matchers, at_ms - OUTAGE_MAX_MS, at_ms):
            there = ~is_absent(frame.values)
            for column, labels in enumerate(frame.labels):
                rows = there[:, column].nonzero()[0]
                if rows.size and not is_stale(frame.values[rows[-1:], column])[0]:
                    last = (int(frame.times_ms[rows[-1], frame.target[column]]), float(frame.values[rows[-1], column]))
                    key = labels_of((name, value) for name, value in labels if name != METRIC_NAME)
                    found[key] = max(found.get(key, last), last)
        return restore(one.rule, one.state, found, at_ms, interval_ms=interval_ms)


def next_evaluation_ms(group: Group, now_ms: int) -> int:
    """When a group is due next: a fixed place in its interval for each, so that groups do not all run at once."""
    place = int.from_bytes(hashlib.sha256(group.key.encode()).digest()[:8]) % group.interval_ms
    return now_ms + (place - now_ms) % group.interval_ms


def _identity(rule: Rule) -> tuple[object, ...]:
    return (type(rule), rule.name, rule.labels)


def _cancel(status: GroupStatus) -> None:
    if status.task is not None:
        status.task.cancel()


def group_json(status: GroupStatus) -> dict[str, Any]:
    """A group as ``/api/v1/rules`` shows it."""
    group = status.group
    return {
        "name": group.name,
        "file": group.file,
        "rules": [_rule_json(one) for one in status.rules],
        "interval": group.interval_ms / 1000,
        "limit": group.limit,
        "evaluationTime": status.took_s,
        "lastEvaluation": _time(status.evaluated_at_ms),
    }


def _rule_json(one: RuleStatus) -> dict[str, Any]:
    rule, state = one.rule, one.state
    shown: dict[str, Any] = {
        "name": rule.name,
        "query": str(rule.expr),
        "labels": dict(rule.labels),
        "health": "err" if state.error else "ok" if one.evaluated_at_ms else "unknown",
        "evaluationTime": one.took_s,
        "lastEvaluation": _time(one.evaluated_at_ms),
        "type": "recording",
    }
    if state.error:
        shown["lastError"] = state.error
    if isinstance(rule, AlertingRule):
        alerts = [alert for alert in state.alerts.values() if alert.state is not State.INACTIVE]
        worst = State.FIRING if any(alert.state is State.FIRING for alert in alerts) else State.PENDING
        shown |= {
            "type": "alerting",
            "state": (worst if alerts else State.INACTIVE).value,
            "duration": rule.for_ms / 1000,
            "keepFiringFor": rule.keep_firing_for_ms / 1000,
            "annotations": dict(rule.annotations),
            "alerts": [alert_json(alert) for alert in alerts],
        }
    return shown


def alert_json(alert: Alert) -> dict[str, Any]:
    """An alert as ``/api/v1/alerts`` shows it."""
    shown: dict[str, Any] = {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "state": alert.state.value,
        "activeAt": clock.rfc3339(alert.active_at_ms),
        "value": format_scientific(alert.value),
    }
    if alert.keep_firing_since_ms is not None:
        shown["keepFiringSince"] = clock.rfc3339(alert.keep_firing_since_ms)
    return shown


def _time(at_ms: int) -> str:
    return clock.rfc3339(at_ms) if at_ms else "0001-01-01T00:00:00Z"


__all__ = ["GroupStatus", "RuleManager", "RuleStatus", "alert_json", "group_json", "next_evaluation_ms"]
