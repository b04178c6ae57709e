"""The adapter as deployed, behind a real aggregator: values, hot reload, partitions, and who may ask."""

import asyncio
from pathlib import Path
from typing import Any

from flyball.errors import KubeApiError
from flyball.kube.kinds import API_SERVICES, CONFIG_MAPS

from .world import Prometheus, World, pod, world

CONFIG = """
rules:
- seriesQuery: requests_total
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {matches: "^(.*)_total$"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>)
externalRules:
- seriesQuery: queue_length
  resources: {namespaced: false}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)
"""
PODS = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/requests?labelSelector=app%3Dweb"
EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_length"


def series(prometheus: Prometheus) -> None:
    for name, rate in (("web-1", 1.5), ("web-2", 4.0), ("other", 9.0)):
        prometheus.counter({"__name__": "requests_total", "namespace": "default", "pod": name}, rate)
    prometheus.add({"__name__": "queue_length", "queue": "a"}, 12)


OBJECTS = [("web-1", "web"), ("web-2", "web"), ("other", "db")]


def in_world(tmp_path: Path, work: Any, **options: Any) -> None:
    async def main() -> None:
        pods = [pod(name, app=app) for name, app in OBJECTS]
        async with world(tmp_path, CONFIG, objects=pods, series=series, **options) as found:
            await work(found)

    asyncio.run(main())


def test_metrics_through_the_aggregation_layer(tmp_path: Path) -> None:
    async def work(found: World) -> None:
        body = await found.until(lambda: found.get(PODS))
        items = [(item["describedObject"]["name"], item["value"]) for item in body["items"]]
        assert items == [("web-1", "1500m"), ("web-2", "4")]
        external = await found.until(lambda: found.get(EXTERNAL))
        assert [(item["metricLabels"], item["value"]) for item in external["items"]] == [({"queue": "a"}, "12")]
        for item in await found.client.list(API_SERVICES):
            if item["spec"].get("service"):
                assert item["spec"]["caBundle"] and not item["spec"].get("insecureSkipTLSVerify")
        # every pod by one query, and the newest samples' times by another; no query names a pod
        selector = 'requests_total{namespace="default",pod!=""}'
        assert {query for query in found.prometheus.queries if "requests_total" in query} == {
            f"sum by (pod) (rate({selector}[1m]))",
            f"max by (pod) (timestamp({selector}))",
        }

    in_world(tmp_path, work)


def test_each_metric_has_a_rule_by_its_type_and_the_configurations_own_hide_it(tmp_path: Path) -> None:
    def typed(prometheus: Prometheus) -> None:
        series(prometheus)
        of_pod = {"namespace": "default", "pod": "web-1"}
        prometheus.add({"__name__": "temperature", **of_pod}, 21)
        prometheus.add({"__name__": "requests_per_second", **of_pod}, 5)  # a gauge, beside the rate of requests_total
        for le, rate in (("0.1", 90.0), ("0.2", 98.0), ("+Inf", 100.0)):
            prometheus.counter({"__name__": "latency_seconds_bucket", "le": le, **of_pod}, rate)

    base = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/web-1"

    async def work(found: World) -> None:
        async def value(name: str) -> Any:
            return (await found.get(f"{base}/{name}"))["items"][0]["value"]

        assert await found.until(lambda: value("temperature")) == "21"
        assert await found.until(lambda: value("latency_seconds_p90")) == "100m"
        assert await found.until(lambda: value("latency_seconds_p99")) == "200m"
        assert await found.until(lambda: value("requests_per_second")) == "1500m"
        assert await found.until(lambda: value("requests")) == "1500m"  # of the configuration's own rule
        listed = await found.get("/apis/custom.metrics.k8s.io/v1beta2")
        assert not [item["name"] for item in listed["resources"] if item["name"].endswith(("_bucket", "_total"))]

    async def main() -> None:
        pods = [pod(name, app=app) for name, app in OBJECTS]
        async with world(tmp_path, CONFIG, objects=pods, series=typed, default_rules=True) as found:
            await work(found)

    asyncio.run(main())


def test_files_and_config_maps_are_followed_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    async def work(found: World) -> None:
        await found.until(lambda: found.get(PODS))
        file = found.directory / "config.yaml"
        file.write_text("rules: {")
        await asyncio.sleep(0)
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "more",
                "namespace": "flyball-system",
                "labels": {"flyball.dev/adapter-config": "true"},
            },
            "data": {"config.yaml": CONFIG.replace("^(.*)_total$", "^(.*)s_total$")},
        }
        await found.client.create(CONFIG_MAPS, body)
        await found.until(lambda: found.get(PODS.replace("/requests?", "/request?")))
        assert (await found.get(PODS))["items"]
        file.write_text(CONFIG.replace("^(.*)_total$", "^(req)uests_total$"))
        await found.until(lambda: found.get(PODS.replace("/requests?", "/req?")))

        async def gone() -> bool:
            try:
                return not await found.get(PODS)
            except KubeApiError as exc:
                return exc.code == 404

        await found.until(gone)

    in_world(tmp_path, work)


def test_while_prometheus_is_down_the_adapter_is_ready_and_says_so(tmp_path: Path) -> None:
    async def work(found: World) -> None:
        await found.until(lambda: found.get(PODS))
        found.prometheus.down = True

        async def failing() -> bool:
            return b"[-]rule" in (await found.ask("/readyz?verbose"))[1]

        await found.until(failing)
        assert (await found.ask("/readyz"))[0] == 200
        listed = await found.get("/apis/custom.metrics.k8s.io/v1beta1")
        assert [item["name"] for item in listed["resources"]] == ["namespaces/requests", "pods/requests"]

        async def refused() -> bool:
            try:
                return not await found.get(PODS)  # an answer of a moment ago may still serve
            except KubeApiError as exc:
                return "unable to fetch metrics" in str(exc) and exc.code == 500

        await found.until(refused)
        found.prometheus.down = False
        assert (await found.get(PODS))["items"]

    in_world(tmp_path, work)
