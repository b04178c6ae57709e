"""Queries for all objects: when they are proven, and that what they give is what single queries give."""

from typing import Any

import pytest

from flyball.adapter.registry import CustomMetric
from flyball.adapter.sharing import NotShareable, shared_custom, shared_resource
from flyball.metricrules import KindTable, ResourceConverter, parse_config
from flyball.metricrules.resources import BUILT_IN_KINDS, NODES, PODS, GroupResource
from flyball.model.selectors import parse_selector

MAPPER = KindTable(BUILT_IN_KINDS)
RESOURCES = """{overrides: {ns: {resource: namespace}, pod: {resource: pod}, node: {resource: node}}}"""


def metric(query: str, resource: GroupResource = PODS) -> CustomMetric:
    rule = parse_config(f"rules: [{{seriesQuery: m, resources: {RESOURCES}, metricsQuery: {query!r}}}]").rules[0]
    return CustomMetric(resource, resource == PODS, "m", "m", rule, ResourceConverter(rule.resources, MAPPER))


L = "<<.LabelMatchers>>"
M = f"<<.Series>>{{{L}}}"


@pytest.mark.parametrize(
    ("query", "wide", "narrow"),
    [
        (
            f"sum({M}) by (<<.GroupBy>>)",
            'sum by (ns, pod) (m{ns!="",pod!=""})',
            'sum by (pod) (m{ns="a",pod!=""})',
        ),
        (
            f'sum(rate(<<.Series>>{{{L},code=~"5.."}}[2m])) by (<<.GroupBy>>) / sum(rate({M}[2m])) by (<<.GroupBy>>)',
            'sum by (ns, pod) (rate(m{ns!="",pod!="",code=~"5.."}[2m]))'
            ' / sum by (ns, pod) (rate(m{ns!="",pod!=""}[2m]))',
            'sum by (pod) (rate(m{ns="a",pod!="",code=~"5.."}[2m])) / sum by (pod) (rate(m{ns="a",pod!=""}[2m]))',
        ),
        (
            f"histogram_quantile(0.9, sum by (le, <<.GroupBy>>) (rate({M}[5m])))",
            'histogram_quantile(0.9, sum by (ns, le, pod) (rate(m{ns!="",pod!=""}[5m])))',
            'histogram_quantile(0.9, sum by (le, pod) (rate(m{ns="a",pod!=""}[5m])))',
        ),
        (f"max_over_time({M}[5m:30s] offset 1m)", 'max_over_time(m{ns!="",pod!=""}[5m:30s] offset 1m)', None),
        (f"topk(1, {M}) by (<<.GroupBy>>)", 'topk by (ns, pod) (1, m{ns!="",pod!=""})', None),
        (
            f"sum({M}) by (pod) / on (pod) group_left (x) max({M}) by (pod)",
            'sum by (ns, pod) (m{ns!="",pod!=""}) / on (ns, pod) group_left (x) max by (ns, pod) (m{ns!="",pod!=""})',
            None,
        ),
        (f"clamp_max({M}, 5) * 2", 'clamp_max(m{ns!="",pod!=""}, 5) * 2', None),
        (f'label_replace({M}, "x", "$1", "pod", "(.*)")', None, None),
    ],
)
def test_what_keeps_objects_apart_is_shared(query: str, wide: str | None, narrow: str | None) -> None:
    found = shared_custom(metric(query), (), None)
    assert found.keys == ("ns", "pod")
    if wide is not None:
        assert found.query.expr == wide
    if narrow is not None:
        one = shared_custom(metric(query), (), "a")
        assert (one.query.expr, one.keys) == (narrow, ("pod",))


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (f"sum({M})", r"sum is not by \(pod\)"),
        (f"avg(sum({M}) by (<<.GroupBy>>))", r"avg is not by \(pod\)"),
        (f"sum({M}) by (<<.GroupBy>>) / scalar(sum({M}))", "scalar"),
        (f"sum({M}) by (<<.GroupBy>>) or vector(0)", "vector"),
        (f"absent({M})", "absent"),
        (f"sum({M}) by (<<.GroupBy>>) / on() group_left sum(total)", "does not have the rule's label matchers"),
        (f"sum({M}) by (pod) / on (x) group_left max({M}) by (pod, x)", "matches series of different objects"),
        (f"sum({M}) without (pod)", "mixes objects"),
        (f'label_replace({M}, "pod", "x", "", "")', "rewrites the label"),
        (f'count_values("pod", {M}) by (<<.GroupBy>>)', "rewrites the label"),
        (f"topk(scalar({M}), {M}) by (<<.GroupBy>>)", "reads series of all objects"),
        (f'sum({M}) by (<<.GroupBy>>) * (<<len (index .LabelValuesByName "pod")>>)', "LabelValuesByName"),
        ("sum(<<.Series>>{<<if .LabelMatchers>>x=\"1\"<<end>>}) by (<<.GroupBy>>)", "LabelMatchers"),
        ('sum(<<.Series>>{ns="a"}) by (<<.GroupBy>>)', "does not use"),
        (f"sum({M}) by (<<.GroupBy>>", "cannot be read"),
    ],
)  # fmt: skip
def test_what_may_mix_objects_is_not(query: str, says: str) -> None:
    with pytest.raises(NotShareable, match=says):
        shared_custom(metric(query), (), None)


def test_the_metric_selector_stays_and_a_node_has_no_namespace() -> None:
    found = shared_custom(metric(f"sum({M}) by (<<.GroupBy>>)"), parse_selector("code in (5,6)").requirements, None)
    assert found.query.expr == 'sum by (ns, pod) (m{code=~"5|6",ns!="",pod!=""})'
    node = shared_custom(metric(f"sum({M}) by (<<.GroupBy>>)", NODES), (), None)
    assert (node.query.expr, node.keys) == ('sum by (node) (m{node!=""})', ("node",))


def test_resource_rules_keep_their_container() -> None:
    rule: Any = metric(f"sum(x{{{L}}}) by (<<.GroupBy>>)")
    found = shared_resource(rule.rule.metrics_query, "cpu", rule.converter, PODS, None, "container")
    assert found.query.expr == 'sum by (ns, pod, container) (x{ns!="",pod!=""})'
    assert found.query.group_labels == ("ns", "pod", "container")
