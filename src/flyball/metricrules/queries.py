"""From a request to PromQL: label matchers, template data, and the selectors inside a rendered query.

Facts: reference/adapter.md 1.5.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.errors import ConfigError, QueryError
from flyball.metricrules.resources import NAMESPACES, GroupResource, ResourceConverter
from flyball.model.durations import parse_duration_ms
from flyball.model.gotemplate import Struct, Template, TemplateError, go_quote
from flyball.model.selectors import Requirement

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_META = re.compile(r"([\\.+*?()|\[\]{}^$])")
_RANGE = re.compile(r"\[\s*((?:\d+(?:ms|[smhdwy]))+)\s*[\]:]")
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`")
_NAME_CHAR = re.compile(r"[a-zA-Z0-9_:]")


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """A rendered query.

    Attributes:
        expr: the PromQL expression.
        group_labels: the labels of ``.GroupBy``, by which results are told apart.
        selectors: the series selectors inside, for the samples' own times.
        window_ms: the first range inside, or None.
    """

    expr: str
    group_labels: tuple[str, ...]
    selectors: tuple[str, ...]
    window_ms: int | None


def quote_meta(text: str) -> str:
    """A regular expression that matches the text and nothing else (Go's ``regexp.QuoteMeta``)."""
    return _META.sub(r"\\\1", text)


def selector_matchers(requirements: Iterable[Requirement]) -> tuple[list[str], dict[str, str]]:
    """PromQL matchers of a label selector, sorted by key, and the values by label, joined with ``|``.

    Raises:
        QueryError: an operator or a label name that PromQL does not have.
    """
    matchers, values = [], {}
    for requirement in sorted(requirements, key=lambda item: item.key):
        label, operator = requirement.key, requirement.operator
        if not _LABEL_NAME.fullmatch(label):
            raise QueryError(
                f'"{label}" in the metric selector is not a Prometheus label name; use letters, digits and _ only'
            )
        joined = "|".join(sorted(requirement.values))
        if operator in ("=", "=="):
            matchers.append(f"{label}={go_quote(joined)}")
        elif operator == "!=":
            matchers.append(f"{label}!={go_quote(joined)}")
        elif operator == "in":
            matchers.append(f"{label}=~{go_quote(joined)}")
        elif operator == "notin":
            matchers.append(f"{label}!~{go_quote(joined)}")
        elif operator == "exists":
            matchers.append(f'{label}!=""')
        elif operator == "!":
            matchers.append(f'{label}=""')
        else:
            raise QueryError(
                f'the operator "{operator}" on "{label}" cannot be turned into PromQL; use =, !=, in, notin or exists'
            )
        values[label] = joined
    return matchers, values


def custom_query(
    template: Template,
    where: str,
    converter: ResourceConverter,
    series: str,
    resource: GroupResource,
    namespace: str,
    names: Sequence[str],
    requirements: Iterable[Requirement] = (),
    extra_group_by: tuple[str, ...] = (),
    *,
    escape: bool = True,
) -> MetricQuery:
    """The query for a metric of objects.

    Args:
        namespace: "" for cluster-scoped objects, and for the namespace object itself.
        names: the objects.
        escape: whether names stand for themselves; upstream pastes them into a regular expression as they are.
        extra_group_by: more labels to group by: the container label of resource metrics.

    Raises:
        QueryError: the selector cannot be expressed.
        ConfigError: the rule has no label for a resource, or its template fails.
    """
    matchers, values = selector_matchers(requirements)
    if namespace:
        label = _checked(converter.label_of(NAMESPACES), where)
        matchers.append(f"{label}={go_quote(namespace)}")
        values[label] = namespace
    label = _checked(converter.label_of(resource), where)
    if len(names) == 1:
        matchers.append(f"{label}={go_quote(names[0])}")
    elif names:
        matchers.append(f"{label}=~{go_quote('|'.join(map(quote_meta, names) if escape else names))}")
    else:
        matchers.append(f'{label}=""')
    values[label] = "|".join(names)
    return _render(template, where, series, matchers, values, (label, *extra_group_by))


def external_query(
    template: Template,
    where: str,
    converter: ResourceConverter | None,
    series: str,
    namespace: str,
    requirements: Iterable[Requirement] = (),
    group_by: tuple[str, ...] = (),
) -> MetricQuery:
    """The query for an external metric. ``converter`` is None for a rule with ``namespaced: false``.

    ``group_by`` is empty in every request: an external metric has no object to group by.

    Raises:
        QueryError: the selector cannot be expressed.
        ConfigError: the rule has no label for the namespace, or its template fails.
    """
    matchers, values = selector_matchers(requirements)
    if converter is not None and namespace:
        try:
            label = _checked(converter.label_of(NAMESPACES), where)
        except ConfigError as exc:
            raise ConfigError(
                f"{where}: no label names the namespace; add resources.overrides for it, "
                "or set resources.namespaced: false"
            ) from exc
        matchers.append(f"{label}={go_quote(namespace)}")
        values[label] = namespace
    return _render(template, where, series, matchers, values, group_by)


def resource_query(
    template: Template,
    where: str,
    converter: ResourceConverter,
    resource: GroupResource,
    namespace: str,
    names: Sequence[str],
    container_label: str = "",
) -> MetricQuery:
    """The query for cpu or memory of pods (by container) or nodes.

    Raises:
        ConfigError: the rule has no label for a resource, or its template fails.
    """
    labels = (container_label,) if container_label else ()
    return custom_query(template, where, converter, "", resource, namespace, names, (), labels)


def newest_time_query(query: MetricQuery, labels: Sequence[str]) -> str:
    """A query for the newest sample's time (seconds) of each group."""
    times = " or ".join(f"timestamp({selector})" for selector in query.selectors)
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"max{by} ({times})"


def has_constant(expr: str) -> bool:
    """Whether the expression makes values without samples (``vector``, ``absent``), as its author's explicit wish."""
    return re.search(r"\b(vector|absent|absent_over_time|time)\s*\(", _STRING.sub('""', expr)) is not None


def _checked(label: str, where: str) -> str:
    if not _LABEL_NAME.fullmatch(label):
        raise ConfigError(f'{where}: resources: "{label}" is not a Prometheus label name; correct the template')
    return label


def _render(
    template: Template,
    where: str,
    series: str,
    matchers: list[str],
    values: dict[str, str],
    group_by: tuple[str, ...],
) -> MetricQuery:
    data: dict[str, Any] = {
        "Series": series,
        "LabelMatchers": ",".join(matchers),
        "LabelValuesByName": values,
        "GroupBy": ",".join(group_by),
        "GroupBySlice": list(group_by),
    }
    try:
        expr = template.render(Struct(data))
    except TemplateError as exc:
        raise ConfigError(f"{where}: metricsQuery: {exc}") from exc
    if not expr.strip():
        raise ConfigError(f"{where}: metricsQuery: gives an empty query; correct the template")
    return MetricQuery(expr, group_by, series_selectors(expr), _window(expr))


def series_selectors(expr: str) -> tuple[str, ...]:
    """The selectors with braces inside an expression, each once: ``http_requests_total{pod="a"}``.

    A selector without braces is not found; ``metricsQuery`` writes them for its label matchers.
    """
    found: dict[str, None] = {}
    at = 0
    while at < len(expr):
        if expr[at] in "\"'`":
            match = _STRING.match(expr, at)
            at = match.end() if match else len(expr)
        elif expr[at] == "{":
            start = at
            while start and _NAME_CHAR.match(expr[start - 1]):
                start -= 1
            end = _close(expr, at)
            selector = expr[start : end + 1]
            if selector.strip("{} "):
                found[selector] = None
            at = end + 1
        else:
            at += 1
    return tuple(found)


def _close(expr: str, at: int) -> int:
    while at < len(expr) and expr[at] != "}":
        match = _STRING.match(expr, at)
        at = match.end() if match else at + 1
    return min(at, len(expr) - 1)


def _window(expr: str) -> int | None:
    match = _RANGE.search(_STRING.sub('""', expr))
    if match is None:
        return None
    try:
        return parse_duration_ms(match.group(1))
    except ConfigError:
        return None
