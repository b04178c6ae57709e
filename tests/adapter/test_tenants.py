"""MetricRules: confined on the syntax tree, served in their own namespace only, refused with a condition."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flyball.adapter.confinement import confined, confined_series
from flyball.adapter.tenants import METRIC_RULES, metric_rule_definition
from flyball.errors import ConfigError, KubeApiError
from flyball.kube.kinds import CRDS
from flyball.metricrules import parse_metric_rule
from flyball.promql.parser import parse

from .world import Prometheus, World, pod, world


@pytest.mark.parametrize(
    ("expr", "wanted"),
    [
        ("up", 'up{ns="a"}'),
        ('up{ns="b"}', 'up{ns="b",ns="a"}'),
        ('up{ns=~".*"} or up{ns!="a"}', 'up{ns=~".*",ns="a"} or up{ns!="a",ns="a"}'),
        ("sum(rate(x[5m] offset 1h)) / scalar(y)", 'sum(rate(x{ns="a"}[5m] offset 1h)) / scalar(y{ns="a"})'),
        ('{__name__=~".+"}', '{__name__=~".+",ns="a"}'),
        ('max_over_time(rate(x{c="}\\"{"}[1m])[5m:])', 'max_over_time(rate(x{c="}\\"{",ns="a"}[1m])[5m:])'),
        ("absent(x)", 'absent(x{ns="a"})'),
        ("topk(scalar(k), x)", 'topk(scalar(k{ns="a"}), x{ns="a"})'),
        ('label_replace(x, "ns", "b", "", "")', 'label_replace(x{ns="a"}, "ns", "b", "", "")'),
    ],
)
def test_every_selector_is_confined(expr: str, wanted: str) -> None:
    before = str(parse(expr))
    assert confined(expr, "ns", "a", "rule")[0] == wanted
    assert str(parse(expr)) == before  # others who ask the same see all namespaces


def test_what_cannot_be_read_cannot_be_confined() -> None:
    with pytest.raises(ConfigError, match="cannot be confined to the namespace a"):
        confined('up} or up{ns="b"', "ns", "a", "rule")
    spec = {"seriesQuery": 'up or up{namespace="b"}', "metricsQuery": "<<.Series>>"}
    with pytest.raises(ConfigError, match="is not one selector"):
        confined_series(parse_metric_rule(spec, "rule", "a", "namespace"))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"seriesQuery": "x", "metricsQuery": "y", "source": "far"}, "source: is set in the adapter's own file"),
        ({"seriesQuery": "x", "metricsQuery": "y", "namespaceLabel": "z"}, 'unknown field "namespaceLabel"'),
        ({"seriesQuery": "x"}, "metricsQuery: is missing"),
        ({"seriesQuery": "x", "metricsQuery": "y", "type": "Any"}, "Custom or External"),
    ],
)
def test_what_a_tenant_may_not_say(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_metric_rule(spec, "rule", "a", "namespace")


def metric_rule(called: str, namespace: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": called, "namespace": namespace}
    return {"apiVersion": METRIC_RULES.api_version, "kind": "MetricRule", "metadata": metadata, "spec": spec}


def series(prometheus: Prometheus) -> None:
    for namespace, value in (("team-a", 1), ("team-b", 2)):
        prometheus.add({"__name__": "jobs", "namespace": namespace, "pod": "worker"}, value)


def test_a_team_sees_its_own_and_nobody_sees_the_teams(tmp_path: Path) -> None:
    resources = {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}}
    rule = {"seriesQuery": "jobs", "resources": resources, "name": {"as": "work"}}

    async def work(found: World) -> None:
        await found.client.create(CRDS, metric_rule_definition())
        path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/{}/pods/worker/work"

        async def create() -> Any:
            # the definition is served a moment later
            other = 'on () group_left sum(jobs{namespace="team-b"})'
            query = f"sum(<<.Series>>{{<<.LabelMatchers>>}}) by (<<.GroupBy>>) + {other}"
            await found.client.create(METRIC_RULES, metric_rule("steal", "team-a", **rule, metricsQuery=query))
            good = "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"
            await found.client.create(METRIC_RULES, metric_rule("work", "team-a", **rule, metricsQuery=good))
            outside = {"type": "External", "seriesQuery": "jobs", "metricsQuery": "sum(<<.Series>>)"}
            await found.client.create(METRIC_RULES, metric_rule("all", "team-a", **outside))
            await found.client.create(METRIC_RULES, metric_rule("wrong", "team-a", seriesQuery="x", metricsQuery="<<"))
            return True

        await found.until(create)
        body = await found.until(lambda: found.get(path.format("team-a")))
        assert [item["value"] for item in body["items"]] == ["1"]  # the later of the two rules, by name
        with pytest.raises(KubeApiError, match="could not find the metric"):
            await found.get(path.format("team-b"))
        external = "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/jobs"
        body = await found.until(lambda: found.get(external.format("team-a")))
        assert [item["value"] for item in body["items"]] == ["1"]  # its own series, not the sum of all
        with pytest.raises(KubeApiError, match="could not find the metric"):
            await found.get(external.format("team-b"))

        async def refused() -> Any:
            obj = await found.client.get(METRIC_RULES, "wrong", "team-a")
            return (obj.get("status") or {}).get("conditions")

        (condition,) = await found.until(refused)
        assert (condition["status"], condition["reason"]) == ("False", "Refused")
        assert "metricsQuery" in condition["message"]

    async def main() -> None:
        namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{x}"}} for x in "ab"]
        pods = [pod("worker", f"team-{x}") for x in "ab"]
        async with world(tmp_path, "rules: []", objects=[*namespaces, *pods], series=series) as found:
            await work(found)

    asyncio.run(main())
