import pytest
import re2

from flyball.errors import ConfigError, QueryError
from flyball.metricrules import (
    GroupResource,
    KindTable,
    ResourceConverter,
    Template,
    custom_query,
    external_query,
    parse_config,
    selector_matchers,
)
from flyball.metricrules.naming import expand
from flyball.metricrules.queries import has_constant, newest_time_query, series_selectors
from flyball.metricrules.resources import BUILT_IN_KINDS, ResourceMapping
from flyball.model.selectors import parse_selector

MAPPER = KindTable(BUILT_IN_KINDS)
PODS = GroupResource("", "pods")
GOOD = """
rules:
- seriesQuery: 'http_requests_total{namespace!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pods}}}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)
"""


def converter(template: str = "", **overrides: tuple[str, str]) -> ResourceConverter:
    mapping = ResourceMapping(
        tuple((label, group, resource) for label, (group, resource) in overrides.items()),
        Template(template) if template else None,
    )
    return ResourceConverter(mapping, MAPPER)


@pytest.mark.parametrize(
    ("template", "expected"),
    [("$0", "foo_bar_total"), ("$1", "foo"), ("$1_x", ""), ("${1}_x", "foo_x"), ("$$1", "$1"), ("${rest}", "bar"),
     ("$9", ""), ("a$", "a$"), ("${1", "${1")],
)  # fmt: skip
def test_expand_as_go(template: str, expected: str) -> None:
    match = re2.compile("^(.*?)_(?P<rest>bar)_total$").search("foo_bar_total")
    assert expand(template, match) == expected


def test_names_come_from_the_match_alone() -> None:
    rule = parse_config(GOOD.replace('{matches: "^(.*)_total$", as: "${1}_per_second"}', "{matches: requests}")).rules[
        0
    ]
    assert rule.namer.metric_name("http_requests_total") == "requests"
    assert rule.namer.metric_name("up") is None


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("a=b", 'a="b"'), ("a!=b", 'a!="b"'), ("a in (v)", 'a=~"v"'), ("a notin (v)", 'a!~"v"'),
     ("a in (y,x)", 'a=~"x|y"'), ("a notin (y,x)", 'a!~"x|y"'), ("a", 'a!=""'), ("!a", 'a=""')],
)  # fmt: skip
def test_selector_operators(selector: str, expected: str) -> None:
    assert selector_matchers(parse_selector(selector).requirements)[0] == [expected]


@pytest.mark.parametrize("selector", ["a>1", "a.b/c=d"])
def test_selectors_promql_does_not_have(selector: str) -> None:
    with pytest.raises(QueryError, match='"a'):
        selector_matchers(parse_selector(selector).requirements)


def test_matchers_come_in_upstreams_order_and_pod_names_are_quoted() -> None:
    rule = parse_config(GOOD).rules[0]
    convert = ResourceConverter(rule.resources, MAPPER)
    query = custom_query(
        rule.metrics_query, "r", convert, "http_requests_total", PODS, "ns", ["web.1", "b"],
        parse_selector("z=1,code in (5)").requirements,
    )  # fmt: skip
    selector = 'http_requests_total{code=~"5",z="1",namespace="ns",pod=~"web\\\\.1|b"}'
    assert query.expr == f"sum(rate({selector}[2m])) by (pod)"
    assert query.window_ms == 120_000
    assert query.selectors == (selector,)
    assert newest_time_query(query, ["pod"]) == f"max by (pod) (timestamp({selector}))"


def test_one_name_and_the_namespace_itself() -> None:
    rule = parse_config(GOOD).rules[0]
    convert = ResourceConverter(rule.resources, MAPPER)
    one = custom_query(rule.metrics_query, "r", convert, "m", PODS, "ns", ["a.b"])
    assert 'm{namespace="ns",pod="a.b"}' in one.expr
    space = custom_query(rule.metrics_query, "r", convert, "m", GroupResource("", "namespaces"), "", ["ns"])
    assert space.expr == 'sum(rate(m{namespace="ns"}[2m])) by (namespace)'


def test_templates_convert_both_ways() -> None:
    convert = converter("kube_<<.Group>>_<<.Resource>>")
    assert convert.label_of(GroupResource("networking.k8s.io", "ingresses")) == "kube_networking_k8s_io_ingress"
    assert convert.resource_of("kube_apps_deployment") == GroupResource("apps", "deployments")
    plain = converter("<<.Resource>>")
    assert plain.resource_of("job") == GroupResource("batch", "jobs")
    assert plain.resource_of("code") is None


def test_the_first_of_two_labels_for_one_resource_is_queried() -> None:
    convert = converter(pod=("", "pod"), pod_name=("", "pods"))
    assert convert.label_of(PODS) == "pod"
    assert convert.resource_of("pod_name") == PODS


def test_an_override_to_an_unknown_resource_names_it() -> None:
    with pytest.raises(ConfigError, match=r'overrides\.x: the API server does not serve "widgets\.example\.com"'):
        converter(x=("example.com", "widgets"))


def test_external_namespaced_and_not() -> None:
    template = Template('sum(<<.Series>>{x="1",<<.LabelMatchers>>}) by (<<.GroupBy>>)')
    convert = converter(namespaces=("", "namespace"))
    query = external_query(template, "r", convert, "m", "default", parse_selector("foo=bar").requirements)
    assert query.expr == 'sum(m{x="1",foo="bar",namespaces="default"}) by ()'
    assert external_query(template, "r", None, "m", "default").expr == 'sum(m{x="1",}) by ()'
    with pytest.raises(ConfigError, match="namespaced: false"):
        external_query(template, "r", converter(), "m", "default")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("metricsQuery:", "metricQuery:"), 'unknown field "metricQuery"'),
        (("<<.GroupBy>>", "<<.GroupBy"), "metricsQuery: unclosed action"),
        (('"^(.*)_total$", as: "${1}_per_second"', '"(a)(b)"'), "name.matches"),
        (('"^(.*)_total$"', '"("'), "not an RE2 regular expression"),
        (("resources: {", "seriesFilters: [{is: a, isNot: b}]\n  resources: {"), 'has 2 of "is" and "isNot"'),
        (("resource: pods", "group: core"), "resource is missing"),
    ],
)
def test_a_wrong_rule_is_refused_alone(change: tuple[str, str], says: str) -> None:
    bad = GOOD.replace(*change).split("rules:\n")[1]
    config = parse_config(GOOD + bad)
    assert len(config.rules) == 1
    (refusal,) = config.refusals
    assert refusal.where == "config: rules[1]"
    assert says in refusal.message


@pytest.mark.parametrize("text", ["rules: []\nrules: []", "nonsense: 1", "rules: 3", "- a"])
def test_a_file_that_is_wrong_as_a_whole(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text)


def test_selectors_are_found_outside_strings() -> None:
    assert series_selectors('sum(a{x="}{"}) / on() b{y=~"[{]"} + label_replace(c, "{z}", "", "", "")') == (
        'a{x="}{"}', 'b{y=~"[{]"}',
    )  # fmt: skip
    assert has_constant("sum(a) or vector(0)")
    assert not has_constant('sum(a{b="vector(1)"})')
