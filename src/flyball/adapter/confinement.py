"""A rule's queries, which see its namespace only."""

from dataclasses import replace

from flyball.errors import ConfigError, QueryError
from flyball.metricrules import MetricQuery, MetricRule
from flyball.promql.confinement import confined
from flyball.promql.parser import parse
from flyball.promql.syntax import VectorSelector


def confined_query(query: MetricQuery, rule: MetricRule) -> MetricQuery:
    """The query as its rule may ask it: unchanged, or confined to the rule's namespace.

    Raises:
        ConfigError: see ``confined``.
    """
    if not rule.namespace:
        return query
    expr, selectors = confined(query.expr, rule.namespace_label, rule.namespace, f"{rule.where}: metricsQuery")
    return replace(query, expr=expr, selectors=selectors)


def confined_series(rule: MetricRule) -> str:
    """The rule's series query, confined like its queries.

    Raises:
        ConfigError: it is not one selector.
    """
    if not rule.namespace:
        return rule.series_query
    what = f"{rule.where}: seriesQuery"
    try:
        tree = parse(rule.series_query)
    except QueryError as exc:
        raise ConfigError(f"{what}: {exc}") from exc
    if not isinstance(tree, VectorSelector):
        raise ConfigError(f'{what}: "{rule.series_query}" is not one selector; write one such as http_requests_total')
    return confined(rule.series_query, rule.namespace_label, rule.namespace, what)[0]
