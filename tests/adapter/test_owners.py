"""The owner of an HPA is told which link broke."""

import asyncio
from pathlib import Path
from typing import Any

from flyball.kube.kinds import EVENTS

from .test_deployment import CONFIG, series
from .world import World, create, pod, world


def hpa(name: str, *metrics: dict[str, Any]) -> dict[str, Any]:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    spec = {"scaleTargetRef": ref, "maxReplicas": 5, "metrics": list(metrics)}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}


def pods_metric(name: str) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": "1"}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


def object_metric(name: str) -> dict[str, Any]:
    described = {"apiVersion": "v1", "kind": "Service", "name": "front"}
    target = {"type": "Value", "value": "1"}
    return {"type": "Object", "object": {"metric": {"name": name}, "describedObject": described, "target": target}}


def external_metric(name: str) -> dict[str, Any]:
    return {"type": "External", "external": {"metric": {"name": name}, "target": {"type": "Value", "value": "1"}}}


def test_the_owner_is_told_which_link_broke(tmp_path: Path) -> None:
    hpas = [
        hpa("good", pods_metric("requests"), external_metric("queue_length")),
        hpa("unknown", pods_metric("nothing")),
        hpa("elsewhere", object_metric("requests")),
        hpa("outside", external_metric("backlog")),
    ]

    async def messages(found: World) -> dict[str, str]:
        listed = await found.client.list(EVENTS, "default")
        ours = [item for item in listed if item.get("reason") == "MetricMissing"]
        return {(item.get("regarding") or item["involvedObject"])["name"]: _text(item) for item in ours}

    def _text(item: dict[str, Any]) -> str:
        return str(item.get("note") or item.get("message"))

    async def work(found: World) -> None:
        async def told() -> dict[str, str]:
            got = await messages(found)
            return got if len(got) == 3 else {}

        assert await found.until(told) == {
            "unknown": 'no rule gives "nothing" for pods; no rule gives a metric of this name',
            "elsewhere": 'no rule gives "requests" for services; it is one of namespaces, pods',
            "outside": 'no external rule gives "backlog"; add one, or see flyball adapter explain',
        }
        found.prometheus.down = True

        async def failing() -> bool:
            return "which fails: seriesQuery" in (await messages(found)).get("good", "")

        await found.until(failing)

    async def main() -> None:
        objects = [pod("web-1", app="web")]
        async with world(tmp_path, CONFIG, objects=objects, series=series, hpa_check_s=0.1) as found:
            for item in hpas:
                await create(found.client, item)
            await work(found)

    asyncio.run(main())
