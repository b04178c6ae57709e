"""promtool's unit-test files for rules: series in, alerts and expressions expected, on virtual time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from flyball.clock import parse_rfc3339_ms
from flyball.errors import ConfigError, FlyballError
from flyball.model.durations import format_duration, parse_duration_ms
from flyball.model.frames import Frame
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels, Matcher, labels_of
from flyball.promql import parse
from flyball.promql.scenarios import MemoryStorage, parse_series, parse_values
from flyball.rules.evaluation import External, Query, RuleState, State, evaluate_rule, points_of, query_of
from flyball.rules.rulefiles import AlertingRule, Group

INTERVAL_DEFAULT_MS = 60_000
Point = tuple[Labels, float | Histogram]


@dataclass(slots=True)
class _UntilNow:
    """Series as they are known at one time of the test."""

    storage: MemoryStorage
    now_ms: int = 0

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        return self.storage.select(matchers, start_ms, min(end_ms, self.now_ms))


@dataclass(slots=True)
class _Case:
    """One entry of ``tests``."""

    name: str
    groups: Sequence[Group]
    storage: _UntilNow
    start_ms: int
    interval_ms: int
    external: External
    fuzzy: bool
    states: dict[tuple[str, int], RuleState] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self, alerts: Sequence[Mapping[str, Any]], exprs: Sequence[Mapping[str, Any]]) -> None:
        query = query_of(self.storage, self.interval_ms)
        times = sorted({_eval_time(item) for item in alerts})
        last_ms = max([*times, *(_eval_time(item) for item in exprs)], default=0)
        for step_ms in range(0, last_ms + 1, self.interval_ms):
            self.storage.now_ms = self.start_ms + step_ms
            if not self._evaluate(query, step_ms):
                return
            for at_ms in [at for at in times if step_ms <= at < step_ms + self.interval_ms]:
                for item in alerts:
                    if _eval_time(item) == at_ms:
                        self._check_alerts(item, at_ms)
        for item in exprs:
            self._check_expr(item)

    def _evaluate(self, query: Query, step_ms: int) -> bool:
        at_ms = self.start_ms + step_ms
        fine = True
        for group in self.groups:
            for number, rule in enumerate(group.rules):
                key = (group.key, number)
                state, samples = evaluate_rule(
                    group, rule, self.states.get(key, RuleState()), query, at_ms, self.external
                )
                self.states[key] = state
                for labels, value in samples:
                    self.storage.storage.add(labels, at_ms - group.query_offset_ms, value)
                if state.error:
                    fine = False
                    self.failures.append(f"rule: {rule.name}, time: {format_duration(at_ms)}, err: {state.error}")
        return fine

    def _check_alerts(self, item: Mapping[str, Any], at_ms: int) -> None:
        name = _required(item, "alertname")
        firing = [
            (alert.labels, labels_of(alert.annotations))
            for group in self.groups
            for number, rule in enumerate(group.rules)
            if isinstance(rule, AlertingRule) and rule.alert == name
            for alert in self.states[group.key, number].alerts.values()
            if alert.state is State.FIRING
        ]
        expected = [
            (labels_of({**_texts(one, "exp_labels"), "alertname": name}), labels_of(_texts(one, "exp_annotations")))
            for one in item.get("exp_alerts") or ()
        ]
        if sorted(firing) != sorted(expected):
            self.failures.append(
                f"alertname: {name}, time: {format_duration(at_ms)},\n"
                f"    exp: {_alerts_text(expected)}\n    got: {_alerts_text(firing)}"
            )

    def _check_expr(self, item: Mapping[str, Any]) -> None:
        text, at_ms = str(_required(item, "expr")), _eval_time(item)
        where = f'expr: "{text}", time: {format_duration(at_ms)},'
        try:
            points = points_of(self.storage, self.interval_ms)(parse(text), self.start_ms + at_ms)
            found = sorted(points, key=itemgetter(0))
            expected = sorted((_expected_sample(one) for one in item.get("exp_samples") or ()), key=itemgetter(0))
        except FlyballError as exc:
            self.failures.append(f"{where} err: {exc}")
            return
        same = [labels for labels, _ in found] == [labels for labels, _ in expected] and all(
            self._equal(one, other) for (_, one), (_, other) in zip(found, expected, strict=True)
        )
        if not same:
            self.failures.append(f"{where}\n    exp: {_samples_text(expected)}\n    got: {_samples_text(found)}")

    def _equal(self, one: float | Histogram, other: float | Histogram) -> bool:
        if self.fuzzy and isinstance(one, float) and isinstance(other, float):
            return one == other or other in (math.nextafter(one, math.inf), math.nextafter(one, -math.inf))
        return one == other


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one file; a failure is a text of one or more lines."""

    tests: int
    failures: tuple[str, ...]


def run_unit_tests(document: object, groups: Sequence[Group], file: str, only: str = "") -> Outcome:
    """Runs the tests of one file.

    Args:
        document: the file as YAML gives it.
        groups: the groups of its ``rule_files``.
        only: a regular expression for names of tests; empty means all.

    Raises:
        ConfigError: the file is not a unit-test file.
    """
    import re2

    if not isinstance(document, Mapping):
        raise ConfigError(f"{file}: is not a mapping with rule_files and tests")
    interval_ms = _duration(document, "evaluation_interval") or INTERVAL_DEFAULT_MS
    order = [str(name) for name in document.get("group_eval_order") or ()]
    if len(set(order)) < len(order):
        raise ConfigError(f"{file}: group name repeated in evaluation order: {', '.join(order)}")
    ordered = sorted(groups, key=lambda group: order.index(group.name) if group.name in order else 0)
    failures: list[str] = []
    ran = 0
    for number, test in enumerate(document.get("tests") or ()):
        name = str(test.get("name") or f"unnamed#{number}")
        if only and not re2.search(only, name):
            continue
        ran += 1
        try:
            case = _case(test, name, ordered, interval_ms, bool(document.get("fuzzy_compare")))
            case.run(test.get("alert_rule_test") or (), test.get("promql_expr_test") or ())
            failures += [f"{name}: {text}" for text in case.failures]
        except FlyballError as exc:
            failures.append(f"{name}: {exc}")
    return Outcome(ran, tuple(failures))


def _case(test: Mapping[str, Any], name: str, groups: Sequence[Group], interval_ms: int, fuzzy: bool) -> _Case:
    start = test.get("start_timestamp")
    start_ms = 0 if start is None else _time(str(start))
    step_ms = _duration(test, "interval") or interval_ms
    storage = MemoryStorage()
    for series in test.get("input_series") or ():
        labels = parse_series(str(_required(series, "series")))
        for index, value in parse_values(str(series.get("values", ""))):
            storage.add(labels, start_ms + index * step_ms, value)
    external = External(_texts(test, "external_labels"), str(test.get("external_url") or ""))
    return _Case(name, groups, _UntilNow(storage), start_ms, interval_ms, external, fuzzy)


def _time(text: str) -> int:
    try:
        return round(float(text) * 1000) if text.replace(".", "", 1).isdigit() else parse_rfc3339_ms(text)
    except ValueError as exc:
        raise ConfigError(f'start_timestamp: "{text}" is no time; write RFC 3339 or unix seconds') from exc


def _required(item: Mapping[str, Any], field: str) -> Any:
    if item.get(field) in (None, ""):
        raise ConfigError(f"{field}: is missing in {dict(item)}")
    return item[field]


def _duration(item: Mapping[str, Any], field: str) -> int:
    value = item.get(field)
    return parse_duration_ms(str(value)) if value not in (None, "") else 0


def _eval_time(item: Mapping[str, Any]) -> int:
    return _duration(item, "eval_time")


def _texts(item: Mapping[str, Any], field: str) -> dict[str, str]:
    return {str(name): "" if text is None else str(text) for name, text in (item.get(field) or {}).items()}


def _expected_sample(item: Mapping[str, Any]) -> Point:
    labels = parse_series(str(item.get("labels") or "{}"))
    if item.get("histogram"):
        return labels, parse_values(str(item["histogram"]))[0][1]
    return labels, float(item.get("value") or 0)


def _alerts_text(alerts: Sequence[tuple[Labels, Labels]]) -> str:
    return "; ".join(f"labels {dict(labels)}, annotations {dict(more)}" for labels, more in sorted(alerts)) or "none"


def _samples_text(samples: Sequence[Point]) -> str:
    return "; ".join(f"{dict(labels)} {value!r}" for labels, value in samples) or "none"


__all__ = ["Outcome", "run_unit_tests"]
