"""flyball adapter check and explain."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flyball.adapter.checking import check, check_live
from flyball.adapter.explaining import Recorder, explain
from flyball.adapter.service import Adapter
from flyball.errors import ConfigError
from flyball.kube import KubeClient
from flyball.metricrules import KindTable, parse_config
from flyball.metricrules.resources import BUILT_IN_KINDS
from flyball.sources import HttpSource

from .test_deployment import CONFIG, OBJECTS, series
from .world import create, pod, prometheus, world

MAPPER = KindTable(BUILT_IN_KINDS)
GOOD = "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"
RESOURCES = "{overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}"


def findings(section: str, rule: str) -> list[tuple[str, str]]:
    return [(f.level, f.message) for f in check(parse_config(f"{section}:\n- {{{rule}}}"), MAPPER)]


@pytest.mark.parametrize(
    ("section", "rule", "level", "says"),
    [
        ("rules", f"seriesQuery: a, resources: {RESOURCES}, metricsQuery: {GOOD!r}", None, ""),
        ("rules", f"seriesQuery: 'a{{', resources: {RESOURCES}, metricsQuery: {GOOD!r}", "error", "seriesQuery"),
        ("rules", f"seriesQuery: a, resources: {RESOURCES}, metricsQuery: 'sum(<<.Series>>'", "error", "no PromQL"),
        ("rules", f"seriesQuery: a, metricsQuery: {GOOD!r}", "error", "no label names an object"),
        ("rules", f"seriesQuery: a, resources: {{overrides: {{x: {{resource: widget}}}}}}, metricsQuery: {GOOD!r}",
         "error", 'does not serve "widget"'),
        ("rules", f"seriesQuery: a, resources: {RESOURCES}, metricsQuery: 'sum(<<.Series>>{{<<.LabelMatchers>>}})'",
         "note", "asked for each HPA alone: sum is not by"),
        ("rules", f"seriesQuery: a, source: far, resources: {RESOURCES}, metricsQuery: {GOOD!r}",
         "error", '"far" is not'),
        ("rules", "seriesQuery: a", "error", "metricsQuery: is missing"),
        ("externalRules", "seriesQuery: a, metricsQuery: 'm{<<.LabelMatchers>>}'", "error", "namespaced: false"),
        ("externalRules",
         "seriesQuery: a, resources: {namespaced: false}, metricsQuery: 'm{<<.LabelMatchers>>,x=\"1\"}'",
         "error", "put the fixed matchers first"),
        ("externalRules", f"seriesQuery: a, resources: {{namespaced: false}}, metricsQuery: {GOOD!r}",
         "warning", "GroupBy>> is empty"),
    ],
)  # fmt: skip
def test_what_the_file_alone_shows(section: str, rule: str, level: str | None, says: str) -> None:
    found = findings(section, rule)
    if level is None:
        assert found == []
    else:
        assert [item for item in found if item[0] == level and says in item[1]], found


def test_what_the_series_add() -> None:
    rules = f"""rules:
- {{seriesQuery: 'a', resources: {RESOURCES}, metricsQuery: '{GOOD}'}}
- {{seriesQuery: '{{__name__=~"a|b"}}', resources: {RESOURCES}, metricsQuery: '{GOOD}'}}
- {{seriesQuery: 'dead', resources: {RESOURCES}, metricsQuery: '{GOOD}'}}
- {{seriesQuery: 'c', resources: {RESOURCES}, metricsQuery: '{GOOD}'}}
"""

    async def main() -> list[tuple[str, str]]:
        async with prometheus() as metrics:
            for name, label in (("a", "pod"), ("b", "pod"), ("c", "job")):
                metrics.add({"__name__": name, label: "x"}, 1)
            source = HttpSource(metrics.url)
            found = await check_live(parse_config(rules), lambda _: source, MAPPER, 600_000)
            await source.close()
            return [(f.where[-8:], f.message) for f in found if f.level != "note"]

    found = asyncio.run(main())
    assert [where for where, _ in found] == ["rules[1]", "rules[2]", "rules[3]"]
    assert '"a" is also given by config: rules[0]' in found[0][1]
    assert "matches no series" in found[1][1]
    assert "no label of c names a Kubernetes resource" in found[2][1]


def test_explain_follows_a_path(tmp_path: Path) -> None:
    async def main() -> dict[str, Any]:
        async with world(tmp_path, CONFIG, series=series) as found:
            for name, app in OBJECTS:
                await create(found.client, pod(name, app=app))
            async with await KubeClient.from_kubeconfig(found.flags.kubeconfig) as client:
                source = HttpSource(found.prometheus.url)
                recorder = Recorder(source)
                adapter = Adapter(client, recorder, CONFIG, watch_config_maps=False)
                running = asyncio.create_task(adapter.run())
                await adapter.refresh()
                path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/requests?labelSelector=app%3Dweb"
                told = await explain(adapter, recorder, path)
                wrong = await explain(adapter, recorder, path.replace("/pods/", "/services/"))
                for foreign in ("", "/metrics", "apis/custom.metrics.k8s.io", "http://[", "\x00"):
                    with pytest.raises(ConfigError, match="no path of the metrics APIs"):
                        await explain(adapter, recorder, foreign)
                for short in (
                    "/apis/",
                    "/apis/custom.metrics.k8s.io/v1beta1/namespaces/%FF/pods/*/%00",
                    "/apis/x/y/z/",
                ):
                    assert (await explain(adapter, recorder, short))["status"] in (200, 404)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await source.close()
                return {"told": told, "wrong": wrong}

    found = asyncio.run(main())
    told = found["told"]
    assert told["rule"] == "config: rules[0]" and told["series"] == "requests_total"
    assert told["shared"] == "one query serves every HPA"
    assert [len(asked["samples"]) for asked in told["queries"]] == [3, 3]
    assert told["status"] == 200
    assert [item["value"] for item in told["answer"]["items"]] == ["1500m", "4"]
    assert found["wrong"]["problem"] == 'no rule gives "requests" for services; it is one of namespaces, pods'
    assert found["wrong"]["status"] == 404
