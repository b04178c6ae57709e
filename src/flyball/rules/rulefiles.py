"""Rule files in Prometheus' format: groups of recording and alerting rules, read strictly."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flyball.errors import ConfigError, FlyballError
from flyball.model.durations import parse_duration_ms
from flyball.model.labels import METRIC_NAME
from flyball.model.yaml_loader import load_yaml
from flyball.promql import Expr, parse
from flyball.rules.templates import check_template

Pairs = tuple[tuple[str, str], ...]

INTERVAL_DEFAULT_MS = 60_000
_GROUP_FIELDS = frozenset({"name", "interval", "query_offset", "limit", "rules", "labels"})
_RULE_FIELDS = frozenset({"record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"})
_ONLY_ALERTS = ("for", "keep_firing_for", "annotations")


@dataclass(frozen=True, slots=True)
class RecordingRule:
    """``labels`` are the rule's over the group's; an empty value removes the label."""

    record: str
    expr: Expr
    labels: Pairs = ()

    @property
    def name(self) -> str:
        return self.record


@dataclass(frozen=True, slots=True)
class AlertingRule:
    """``labels`` (the rule's over the group's) and ``annotations`` are templates."""

    alert: str
    expr: Expr
    for_ms: int = 0
    keep_firing_for_ms: int = 0
    labels: Pairs = ()
    annotations: Pairs = ()

    @property
    def name(self) -> str:
        return self.alert


Rule = RecordingRule | AlertingRule


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated in order, at one time. ``limit`` 0 is none."""

    file: str
    name: str
    rules: tuple[Rule, ...]
    interval_ms: int = INTERVAL_DEFAULT_MS
    query_offset_ms: int = 0
    limit: int = 0

    @property
    def key(self) -> str:
        """Upstream's ``file;name``."""
        return f"{self.file};{self.name}"


def parse_rule_file(
    text: str | bytes,
    file: str,
    *,
    interval_ms: int = INTERVAL_DEFAULT_MS,
    query_offset_ms: int = 0,
    ignore_unknown_fields: bool = False,
) -> tuple[Group, ...]:
    """The groups of one file.

    Args:
        interval_ms, query_offset_ms: for groups that name none.

    Raises:
        ConfigError: the file is not a rule file; the message has a line for every error, each with file, group,
            number and name of the rule.
    """
    document = load_yaml(text, file)
    if document is None:
        return ()
    reader = _Reader(file, interval_ms, query_offset_ms, ignore_unknown_fields)
    groups = reader.groups(document)
    if reader.errors:
        raise ConfigError("\n".join(reader.errors))
    return groups


def duplicates(groups: Iterable[Group]) -> list[tuple[str, Pairs]]:
    """Names and labels of rules that are there more than once: their series would overwrite each other."""
    counted = Counter((type(rule), rule.name, rule.labels) for group in groups for rule in group.rules)
    return [(name, labels) for (_, name, labels), count in counted.items() if count > 1]


class _Reader:
    def __init__(self, file: str, interval_ms: int, query_offset_ms: int, ignore_unknown_fields: bool) -> None:
        self.file = file
        self.errors: list[str] = []
        self._interval_ms, self._query_offset_ms = interval_ms, query_offset_ms
        self._ignore_unknown = ignore_unknown_fields

    def wrong(self, where: str, message: str) -> None:
        self.errors.append(f"{self.file}: {where}{message}")

    def groups(self, document: object) -> tuple[Group, ...]:
        if not isinstance(document, Mapping):
            self.wrong("", "is not a mapping; a rule file has the one key groups")
            return ()
        self._unknown(document, frozenset({"groups"}), "")
        listed = document.get("groups") or []
        if not isinstance(listed, list):
            self.wrong("", "groups: is not a list")
            return ()
        found: dict[str, Group] = {}
        for index, item in enumerate(listed):
            group = self._group(item, f"groups[{index}]: ")
            if group is None:
                continue
            if group.name in found:
                self.wrong("", f'groupname: "{group.name}" is repeated in the same file')
            found[group.name] = group
        return tuple(found.values())

    def _group(self, item: object, where: str) -> Group | None:
        if not isinstance(item, Mapping):
            self.wrong(where, "is not a mapping with name and rules")
            return None
        self._unknown(item, _GROUP_FIELDS, where)
        name = _text(item.get("name"))
        if not name:
            self.wrong(where, "Groupname must not be empty")
        shared = self._labels(item.get("labels"), f'group "{name}": ')
        rules = item.get("rules") or []
        if not isinstance(rules, list):
            self.wrong(f'group "{name}": ', "rules: is not a list")
            rules = []
        found = [self._rule(rule, name, number, dict(shared)) for number, rule in enumerate(rules, 1)]
        limit = item.get("limit") or 0
        if not isinstance(limit, int) or limit < 0:
            self.wrong(f'group "{name}": ', f'limit: "{limit}" is not a whole number of at least 0')
            limit = 0
        return Group(
            self.file,
            name,
            tuple(rule for rule in found if rule is not None),
            self._duration(item, "interval", f'group "{name}": ') or self._interval_ms,
            self._query_offset_ms
            if item.get("query_offset") is None
            else self._duration(item, "query_offset", f'group "{name}": '),
            limit,
        )

    def _rule(self, item: object, group: str, number: int, shared: dict[str, str]) -> Rule | None:
        if not isinstance(item, Mapping):
            self.wrong(f'group "{group}", rule {number}: ', "is not a mapping")
            return None
        record, alert = _text(item.get("record")), _text(item.get("alert"))
        where = f'group "{group}", rule {number}, "{alert or record}": '
        self._unknown(item, _RULE_FIELDS, where)
        if record and alert:
            self.wrong(where, "only one of 'record' and 'alert' must be set")
        if not record and not alert:
            self.wrong(where, "one of 'record' or 'alert' must be set")
        expr = self._expr(item, where)
        labels = self._labels(item.get("labels"), where)
        if record:
            for field in _ONLY_ALERTS:
                if item.get(field):
                    self.wrong(where, f"invalid field '{field}' in recording rule")
            if "{" in record or "}" in record:
                self.wrong(where, f"braces present in the recording rule name; should it be in expr?: {record}")
        annotations = self._labels(item.get("annotations"), where, "annotation")
        for_ms = self._duration(item, "for", where)
        keep_ms = self._duration(item, "keep_firing_for", where)
        if alert:
            for kind, pairs in (("label", labels), ("annotation", annotations)):
                for name, template in pairs:
                    if problem := check_template(template):
                        self.wrong(where, f'{kind} "{name}", template "{template}": {problem}')
        if expr is None or bool(record) == bool(alert):
            return None
        merged = tuple(sorted({**shared, **dict(labels)}.items()))
        if record:
            return RecordingRule(record, expr, merged)
        return AlertingRule(alert, expr, for_ms, keep_ms, merged, annotations)

    def _expr(self, item: Mapping[str, Any], where: str) -> Expr | None:
        text = _text(item.get("expr"))
        if not text:
            self.wrong(where, "field 'expr' must be set in rule")
            return None
        try:
            return parse(text)
        except FlyballError as exc:
            self.wrong(where, f"could not parse expression: {exc}")
            return None

    def _labels(self, value: object, where: str, kind: str = "label") -> Pairs:
        if value is None:
            return ()
        if not isinstance(value, Mapping):
            self.wrong(where, f"{kind}s: is not a mapping of names to text")
            return ()
        for name, text in value.items():
            if not name or (kind == "label" and name == METRIC_NAME):
                self.wrong(where, f"invalid {kind} name: {name}")
            if isinstance(text, list | Mapping):
                self.wrong(where, f"{kind} {name}: is not text")
        return tuple(sorted((name, _text(text)) for name, text in value.items()))

    def _duration(self, item: Mapping[str, Any], field: str, where: str) -> int:
        text = _text(item.get(field))
        if not text:
            return 0
        try:
            return parse_duration_ms(text)
        except ConfigError as exc:
            self.wrong(where, f"{field}: {exc}")
            return 0

    def _unknown(self, item: Mapping[str, Any], known: frozenset[str], where: str) -> None:
        if not self._ignore_unknown:
            for field in item.keys() - known:
                self.wrong(where, f'unknown field "{field}"; known are {", ".join(sorted(known))}')


def _text(value: object) -> str:
    """A scalar as Go's YAML gives it to a string field."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else re.sub(r"\.0$", "", str(value))


__all__ = ["AlertingRule", "Group", "RecordingRule", "Rule", "duplicates", "parse_rule_file"]
