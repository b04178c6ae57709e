"""One evaluation of a rule: a function of the rule, what it left last time, a query and a time.

Source: reference/stack.md section 2. Alerts are values: an evaluation returns the next ones, so that an error leaves
the old ones as they were.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import compress

import numpy as np

from flyball.errors import FlyballError, QueryError
from flyball.model.frames import STALE, has_histogram, is_absent
from flyball.model.histograms import Histogram
from flyball.model.labels import METRIC_NAME, Labels, labels_of
from flyball.promql import Expr, Matrix, Options, Scalar, Storage, Vector, evaluate, parse
from flyball.promql.values import points_at
from flyball.promql.vectors import remember
from flyball.rules.rulefiles import INTERVAL_DEFAULT_MS, AlertingRule, Group, RecordingRule, Rule
from flyball.rules.templates import Context, Samples, expand

ALERTS, ALERTS_FOR_STATE = "ALERTS", "ALERTS_FOR_STATE"
RESOLVED_KEPT_MS = 15 * 60_000
FOR_GRACE_MS = 10 * 60_000

#: The label sets and values of an expression at a time in ms. Raises QueryError.
Query = Callable[[Expr, int], tuple[tuple[Labels, ...], list[float]]]


def points_of(
    storage: Storage, subquery_step_ms: int = INTERVAL_DEFAULT_MS
) -> Callable[[Expr, int], list[tuple[Labels, float | Histogram]]]:
    """Instant queries over a storage; a scalar is one sample without labels.

    Raises:
        QueryError: the query fails, or its result is a string or a range.
    """

    def points(expr: Expr, at_ms: int) -> list[tuple[Labels, float | Histogram]]:
        return list(points_at(_asked(expr, storage, at_ms, subquery_step_ms), at_ms).items())

    return points


def query_of(storage: Storage, subquery_step_ms: int = INTERVAL_DEFAULT_MS) -> Query:
    """Queries as rules ask them: of floats alone. While the same series answer, their labels are the same object."""

    def query(expr: Expr, at_ms: int) -> tuple[tuple[Labels, ...], list[float]]:
        found = _asked(expr, storage, at_ms, subquery_step_ms)
        values = found.values[:, 0]
        there = ~is_absent(np.ascontiguousarray(values))
        if found.histograms is not None and has_histogram(found.histograms[there]).any():
            raise QueryError("the result has native histograms, which rules cannot write yet; take a function of them")
        if there.all():
            return found.labels, values.tolist()
        return tuple(compress(found.labels, there.tolist())), values[there].tolist()

    return query


def _asked(expr: Expr, storage: Storage, at_ms: int, subquery_step_ms: int) -> Matrix:
    value = evaluate(expr, storage, at_ms, at_ms, 0, options=Options(subquery_step_ms=subquery_step_ms))
    if isinstance(value, Scalar):
        return Vector(((),), value.times_ms, value.values[None, :])
    if not isinstance(value, Vector):
        raise QueryError("rule result is not a vector or scalar")
    return value


class State(StrEnum):
    """Of an alert; an inactive one was firing and is kept for a while, so that its end can be told."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"


@dataclass(frozen=True, slots=True)
class Alert:
    """One label set for which an alerting rule's expression had a result. Times in ms; None is never."""

    labels: Labels
    annotations: tuple[tuple[str, str], ...]
    value: float
    active_at_ms: int
    state: State = State.PENDING
    fired_at_ms: int | None = None
    resolved_at_ms: int | None = None
    keep_firing_since_ms: int | None = None


Alerts = Mapping[Labels, Alert]


@dataclass(frozen=True, slots=True)
class RuleState:
    """What an evaluation leaves for the next: the alerts, and the series that were written.

    ``error`` is the last evaluation's. ``restored`` is False until the alerts of an earlier life were looked up: the
    series of alerts are not written before, lest they hide those.
    """

    alerts: Alerts = field(default_factory=dict)
    series: tuple[Labels, ...] = ()
    error: str = ""
    restored: bool = True


@dataclass(frozen=True, slots=True)
class External:
    """What the server adds to templates."""

    labels: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


NO_EXTERNAL = External()


def evaluate_rule(
    group: Group, rule: Rule, state: RuleState, query: Query, at_ms: int, external: External = NO_EXTERNAL
) -> tuple[RuleState, Samples]:
    """The next state and the samples to write at ``at_ms - group.query_offset_ms``.

    Series that the evaluation before had and this one has not end with a stale marker. After an error nothing is
    written, no marker either, and the alerts stay; beyond the limit they are dropped.
    """
    try:
        if isinstance(rule, RecordingRule):
            alerts, samples = state.alerts, _record(group, rule, query, at_ms)
        else:
            alerts = _advance(group, rule, state.alerts, query, at_ms, external)
            samples = _alert_series(alerts) if state.restored else ()
    except _LimitError as exc:
        return replace(state, alerts={}, error=str(exc)), ()
    except FlyballError as exc:
        return replace(state, error=str(exc)), ()
    series = tuple([labels for labels, _ in samples])
    if series == state.series:
        return replace(state, alerts=alerts, error=""), samples
    ended = [(labels, STALE) for labels in sorted(set(state.series).difference(series))]
    return replace(state, alerts=alerts, series=series, error=""), (*samples, *ended)


class _LimitError(QueryError):
    pass


def _record(group: Group, rule: RecordingRule, query: Query, at_ms: int) -> Samples:
    labels, values = query(rule.expr, at_ms - group.query_offset_ms)
    own = {METRIC_NAME: rule.record, **dict(rule.labels)}

    def make() -> tuple[tuple[Labels, ...], bool]:
        recorded = tuple([labels_of({**dict(series), **own}) for series in labels])
        return recorded, len(set(recorded)) == len(recorded)

    recorded, distinct = remember((labels,), ("recorded", rule.record, rule.labels), make)
    if not distinct:
        raise QueryError("vector contains metrics with the same labelset after applying rule labels")
    if group.limit and len(recorded) > group.limit:
        raise _LimitError(f"exceeded limit of {group.limit} with {len(recorded)} series")
    return list(zip(recorded, values, strict=True))


def _advance(
    group: Group, rule: AlertingRule, before: Alerts, query: Query, at_ms: int, external: External
) -> dict[Labels, Alert]:
    active = _active(group, rule, query, at_ms, external)
    alerts: dict[Labels, Alert] = {}
    for labels, known in before.items():
        now = active.pop(labels, None)
        if now is not None:
            if known.state is State.INACTIVE:
                known = now
            else:
                known = replace(known, value=now.value, annotations=now.annotations, keep_firing_since_ms=None)
        else:
            kept = _without_result(rule, known, at_ms)
            if kept is None:
                continue
            known = kept
        alerts[labels] = known
    alerts.update(active)
    alerts = {labels: _aged(rule, alert, at_ms) for labels, alert in alerts.items()}
    count = sum(alert.state is not State.INACTIVE for alert in alerts.values())
    if group.limit and count > group.limit:
        raise _LimitError(f"exceeded limit of {group.limit} with {count} alerts")
    return alerts


def _active(group: Group, rule: AlertingRule, query: Query, at_ms: int, external: External) -> dict[Labels, Alert]:
    def samples(expr: Expr, at_ms: int) -> Samples:
        return list(zip(*query(expr, at_ms), strict=True))

    context = Context(lambda text: samples(parse(text), at_ms), at_ms, external.labels, external.url)
    found: dict[Labels, Alert] = {}
    for labels, value in samples(rule.expr, at_ms - group.query_offset_ms):
        seen = dict(labels)

        def expanded(text: str, seen: dict[str, str] = seen, value: float = value) -> str:
            return expand(text, seen, value, context)

        own = {name: expanded(text) for name, text in rule.labels}
        full = labels_of({**seen, METRIC_NAME: "", **own, "alertname": rule.alert})
        if full in found:
            raise QueryError("vector contains metrics with the same labelset after applying alert labels")
        annotations = tuple((name, expanded(text)) for name, text in rule.annotations)
        found[full] = Alert(full, annotations, value, at_ms)
    return found


def _without_result(rule: AlertingRule, alert: Alert, at_ms: int) -> Alert | None:
    """The alert when its expression had no result: kept firing for a while, resolved, or forgotten."""
    if alert.state is State.PENDING:
        return None
    if alert.state is State.INACTIVE:
        assert alert.resolved_at_ms is not None
        return alert if at_ms - alert.resolved_at_ms <= RESOLVED_KEPT_MS else None
    since_ms = alert.keep_firing_since_ms
    if rule.keep_firing_for_ms:
        since_ms = at_ms if since_ms is None else since_ms
        if at_ms - since_ms < rule.keep_firing_for_ms:
            return replace(alert, keep_firing_since_ms=since_ms)
    return replace(alert, state=State.INACTIVE, resolved_at_ms=at_ms, keep_firing_since_ms=since_ms)


def _aged(rule: AlertingRule, alert: Alert, at_ms: int) -> Alert:
    """Pending long enough fires; firing goes back when ``for`` was raised since."""
    old_enough = at_ms - alert.active_at_ms >= rule.for_ms
    if alert.state is State.PENDING and old_enough:
        return replace(alert, state=State.FIRING, fired_at_ms=at_ms)
    if alert.state is State.FIRING and not old_enough:
        return replace(alert, state=State.PENDING, fired_at_ms=None, keep_firing_since_ms=None)
    return alert


def _alert_series(alerts: Alerts) -> Samples:
    samples: list[tuple[Labels, float]] = []
    for alert in alerts.values():
        if alert.state is not State.INACTIVE:
            labels = dict(alert.labels)
            samples.append((labels_of({**labels, METRIC_NAME: ALERTS, "alertstate": alert.state.value}), 1.0))
            since_s = float(alert.active_at_ms // 1000)
            samples.append((labels_of({**labels, METRIC_NAME: ALERTS_FOR_STATE}), since_s))
    return samples


def restore(
    rule: AlertingRule,
    state: RuleState,
    found: Mapping[Labels, tuple[int, float]],
    at_ms: int,
    grace_ms: int = FOR_GRACE_MS,
    interval_ms: int = 0,
) -> RuleState:
    """The state with the active times of an earlier life, looked up after the first evaluation.

    Args:
        found: by the alert's labels, time in ms and value (a unix time in seconds) of the last sample of
            ALERTS_FOR_STATE; stale ones left out.
        grace_ms: a rule with a shorter ``for`` is not restored; one with less left waits this long.
        interval_ms: between evaluations: so much of the gap is no outage. Upstream counts it as one, and the time
            until this look-up too, so that there an alert fires two evaluations later after every restart.
    """
    if rule.for_ms < grace_ms:
        return replace(state, restored=True)
    alerts = dict(state.alerts)
    for labels, alert in alerts.items():
        if labels in found:
            down_at_ms, value = found[labels]
            active_at_ms = int(value) * 1000
            left_ms = rule.for_ms - (down_at_ms - active_at_ms)
            if 0 < left_ms < grace_ms:
                active_at_ms = at_ms + grace_ms - rule.for_ms
            elif left_ms >= grace_ms:
                active_at_ms += max(0, alert.active_at_ms - down_at_ms - interval_ms)
            alerts[labels] = replace(alert, active_at_ms=active_at_ms)
    return replace(state, alerts=alerts, restored=True)


__all__ = [
    "ALERTS",
    "ALERTS_FOR_STATE",
    "Alert",
    "External",
    "Query",
    "RuleState",
    "State",
    "evaluate_rule",
    "points_of",
    "query_of",
    "restore",
]
