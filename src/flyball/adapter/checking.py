"""What is wrong, or will be slow, in a configuration: seen in the file alone, and seen with the series at hand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flyball.adapter.registry import CustomMetric, Registry
from flyball.adapter.sharing import NotShareable, shared_custom
from flyball.clock import now_ms
from flyball.errors import ConfigError, QueryError
from flyball.metricrules import (
    AdapterConfig,
    ExternalRule,
    MetricRule,
    ResourceConverter,
    RestMapper,
    custom_query,
    external_query,
)
from flyball.metricrules.resources import GroupResource
from flyball.promql.parser import parse
from flyball.sources import MetricsSource

_SERIES = "example_metric"


@dataclass(frozen=True, slots=True)
class Finding:
    """``level`` is error (the rule gives nothing), warning (it may surprise) or note."""

    level: str
    where: str
    message: str


def check(config: AdapterConfig, mapper: RestMapper) -> list[Finding]:
    """Everything that can be said of the file alone."""
    found = [Finding("error", refusal.where, refusal.message) for refusal in config.refusals]
    known = {source.name for source in config.sources}
    for rule in (*config.rules, *config.external_rules):
        found += [Finding(level, rule.where, message) for level, message in _of_rule(rule, mapper)]
        if rule.options.source and rule.options.source not in known:
            found.append(Finding("error", rule.where, f'source: "{rule.options.source}" is not in sources'))
    return found


def _of_rule(rule: MetricRule, mapper: RestMapper) -> Iterator[tuple[str, str]]:
    try:
        parse(rule.series_query)
    except QueryError as exc:
        yield "error", f"seriesQuery: {exc}"
    try:
        converter = ResourceConverter(rule.resources, mapper, "resources")
    except ConfigError as exc:
        yield "error", str(exc)
        return
    if isinstance(rule, ExternalRule):
        yield from _of_external(rule, converter)
        return
    resources = [resource for label, _, _ in rule.resources.overrides if (resource := converter.resource_of(label))]
    if not resources and rule.resources.template is None:
        yield "error", "resources: no label names an object, so no metric comes of this rule; add overrides"
        return
    resource = next((item for item in resources if item.resource not in ("namespaces", "nodes")), None)
    resource = resource or GroupResource("", "pods")
    metric = CustomMetric(resource, True, _SERIES, _SERIES, rule, converter)
    try:
        query = custom_query(rule.metrics_query, rule.where, converter, _SERIES, resource, "ns", ["a", "b"])
    except ConfigError as exc:
        yield "error", str(exc).removeprefix(f"{rule.where}: ")
        return
    yield from _parses(query.expr)
    try:
        shared_custom(metric, (), None)
    except NotShareable as exc:
        yield "note", f"asked for each HPA alone: {exc}"
    except ConfigError as exc:
        yield "error", str(exc).removeprefix(f"{rule.where}: ")


def _of_external(rule: ExternalRule, converter: ResourceConverter) -> Iterator[tuple[str, str]]:
    used = converter if rule.resources.namespaced else None
    try:
        query = external_query(rule.metrics_query, rule.where, used, _SERIES, "ns")
    except ConfigError as exc:
        yield "error", str(exc).removeprefix(f"{rule.where}: ")
        return
    problems = list(_parses(query.expr))
    if problems and "{," in query.expr.replace(" ", ""):
        yield (
            "error",
            "metricsQuery: without a selector <<.LabelMatchers>> is empty and a comma is left over; put the fixed "
            'matchers first: {x="1",<<.LabelMatchers>>}',
        )
    else:
        yield from problems
    if not query.group_labels and ".GroupBy" in rule.metrics_query.text:
        yield "warning", "metricsQuery: <<.GroupBy>> is empty in an external rule, so all series become one"


def _parses(expr: str) -> Iterator[tuple[str, str]]:
    try:
        parse(expr)
    except QueryError as exc:
        yield "error", f"metricsQuery: gives {expr}, which is no PromQL: {exc}"


async def check_live(
    config: AdapterConfig, source_of: Callable[[str], MetricsSource], mapper: RestMapper, max_age_ms: int
) -> list[Finding]:
    """What the series of the source add: rules without series, unmapped labels, rules that hide each other."""
    registry = Registry(source_of, max_age_ms=max_age_ms)
    registry.set_rules([config])
    await registry.relist(mapper, now_ms())
    found = []
    for document in registry.documents():
        if document["type"] != "refused":
            if document["error"]:
                found.append(Finding("error", document["rule"], document["error"]))
            found += [Finding("warning", document["rule"], text) for text in document["warnings"]]
            names = ", ".join(document["metrics"][:5]) + (", ..." if document["metricsCount"] > 5 else "")
            about = f"{document['seriesMatched']} series give {document['metricsCount']} metrics: {names or 'none'}"
            found.append(Finding("note", document["rule"], about))
    return found
