"""No Prometheus: the pods behind an HPA are scraped, and no others."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flyball.adapter.standalone import STANDALONE_CONFIG, interval_ms
from flyball.errors import KubeApiError
from flyball.http.server import serve
from flyball.kube.kinds import DEPLOYMENTS
from flyball.metricrules import parse_config

from .world import World, create, pod, world

POD = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/{}/depth"


def test_each_target_is_scraped_once_a_second_within_the_budget() -> None:
    assert [interval_ms(n) for n in (0, 1, 1_000, 1_001, 10_000)] == [1_000, 1_000, 1_000, 1_001, 10_000]


def test_it_has_rules_of_its_own() -> None:
    config = parse_config(STANDALONE_CONFIG)
    assert config.rules and not config.refusals and config.resource_rules is None


def test_the_pods_behind_an_hpa_are_scraped(tmp_path: Path) -> None:
    asked: list[str] = []

    async def page(scope: Any, _receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"depth 7\n"})

    async def steps(found: World, port: int) -> None:
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        metadata = {"name": "web", "namespace": "default"}
        await create(found.client, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
        status = {"replicas": 1, "observedGeneration": 1}
        await found.client.patch(DEPLOYMENTS, "web", {"status": status}, "default", subresource="status")
        ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        hpa = {"scaleTargetRef": ref, "maxReplicas": 5}
        kind = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
        await create(found.client, {**kind, "metadata": metadata, "spec": hpa})
        for name, app in (("web-1", "web"), ("db-1", "db")):
            obj = pod(name, app=app)
            obj["spec"]["containers"][0]["ports"] = [{"name": "metrics", "containerPort": port}]
            obj["status"] |= {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
            await create(found.client, obj)
        body = await found.until(lambda: found.get(POD.format("web-1")))
        assert [item["value"] for item in body["items"]] == ["7"]
        with pytest.raises(KubeApiError, match="could not find the metric"):  # a pod behind no HPA
            await found.get(POD.format("db-1"))
        assert not found.prometheus.requests and set(asked) == {"/metrics"}

    async def main() -> None:
        server = await serve(page, port=0, name="pod")
        async with world(tmp_path, "", standalone=True) as found:
            await steps(found, server.port)
        await server.close()

    asyncio.run(main())
