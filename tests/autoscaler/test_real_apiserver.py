"""The controller against the embedded cluster's own API server, over TLS."""

import asyncio
from pathlib import Path

import msgspec

from flyball.autoscaler import Autoscaler
from flyball.journal import Journal
from flyball.kube import KubeClient
from flyball.kube.kinds import DEPLOYMENTS, EVENTS, HPAS_V2
from flyball.localcluster.server import ApiServer


def test_bounds_status_and_events(tmp_path: Path) -> None:
    async def main() -> None:
        server = ApiServer(tmp_path / "data", port=0)
        await server.start()
        try:
            # the cluster's file names the usual port; this server took a free one
            written = (tmp_path / "data" / "kubeconfig").read_text().replace(":6443", f":{server.port}")
            (tmp_path / "kubeconfig").write_text(written)
            async with await KubeClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
                await steps(client)
        finally:
            await server.close()

    async def steps(client: KubeClient) -> None:
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        await client.create(
            DEPLOYMENTS,
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec},
            "default",
        )
        target = {"type": "AverageValue", "averageValue": "1"}
        metric = {"type": "External", "external": {"metric": {"name": "q"}, "target": target}}
        ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        body = {
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"scaleTargetRef": ref, "minReplicas": 3, "maxReplicas": 5, "metrics": [metric]},
        }  # fmt: skip
        await client.create(HPAS_V2, body, "default")
        scaler = Autoscaler(client, Journal(tmp_path / "journal.db"), sync_period_s=0.2)
        task = asyncio.create_task(scaler.run())
        try:
            async with asyncio.timeout(10):
                conditions: dict[str, dict[str, str]] = {}
                while conditions.get("ScalingActive", {}).get("reason") != "FailedGetExternalMetric":
                    await asyncio.sleep(0.05)
                    hpa = await client.get(HPAS_V2, "web", "default")
                    found = (hpa.get("status") or {}).get("conditions") or []
                    conditions = {condition["type"]: condition for condition in found}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        scale = msgspec.json.decode(await client.raw_get("/apis/apps/v1/namespaces/default/deployments/web/scale"))
        assert scale["spec"]["replicas"] == 3
        assert hpa["status"]["currentReplicas"] == 3 and hpa["status"]["lastScaleTime"]
        reasons = {event["reason"] for event in await client.list(EVENTS, "default")}
        assert {"SuccessfulRescale", "FailedGetExternalMetric", "FailedComputeMetricsReplicas"} <= reasons

    asyncio.run(main())
