"""An API server with all controllers, and nodes that only say that pods run."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube import Informer, KubeClient, kubeconfig_access
from flyball.kube.kinds import DEPLOYMENTS, NODES, PODS
from flyball.localcluster.server import ApiServer
from flyball.localcluster.workloads import run_all


class FakeNode:
    """Marks pods that are bound to any node as running and ready, and lets go of deleted ones."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self.network = "127.10.0"
        self.pods: Informer[Any] = Informer(client, PODS)
        self.work: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.broken_images: set[str] = set()
        self.ends: dict[str, str] = {}  # image -> the phase in which its pods end at once
        self.most = 0
        self.fewest_ready: int | None = None
        self.pods.add_handler(self.changed)
        self.serial = 0

    def changed(self, change: str, old: Any, new: Any) -> None:
        metadata = (new or old)["metadata"]
        self.most = max(
            self.most, sum(1 for p in self.pods.cache.values() if not p["metadata"].get("deletionTimestamp"))
        )
        if new is not None:
            self.work.put_nowait((metadata["namespace"], metadata["name"]))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pods.run())
            while True:
                key = await self.work.get()
                pod = self.pods.cache.get(key)
                if pod is None or not pod["spec"].get("nodeName"):
                    continue
                try:
                    await self.keep(key, pod)
                except KubeApiError as exc:
                    if exc.code not in (404, 409):
                        raise

    async def keep(self, key: tuple[str, str], pod: Any) -> None:
        if pod["metadata"].get("deletionTimestamp"):
            await self.client.delete(PODS, key[1], key[0], grace_period_s=0)
        elif (pod.get("status") or {}).get("phase") == "Pending":
            self.serial += 1
            image = pod["spec"]["containers"][0]["image"]
            ready = image not in self.broken_images and image not in self.ends
            now = clock.rfc3339(clock.now_ms())
            conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}]
            phase = self.ends.get(image, "Running")
            address = f"{self.network}.{self.serial}"
            status = {"phase": phase, "podIP": address, "startTime": now, "conditions": conditions}
            await self.client.patch(PODS, key[1], {"status": status}, key[0], "status")


async def add_node(client, name, labels=None, taints=None, **allocatable):
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
    spec = {"taints": taints} if taints else {}
    await client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": allocatable, "capacity": allocatable}
    await client.patch(NODES, name, {"status": status}, subresource="status")


@asynccontextmanager
async def cluster(tmp_path, nodes=("flyball",)):
    server = ApiServer(tmp_path, port=0)
    await server.start()
    access = kubeconfig_access(tmp_path / "kubeconfig")
    client = KubeClient(replace(access, server=f"https://127.0.0.1:{server.port}"))
    try:
        node = FakeNode(client)
        for each in nodes:
            await add_node(client, each)
        tasks = [asyncio.create_task(run_all(client, tmp_path / "volumes")), asyncio.create_task(node.run())]
        try:
            yield client, node
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    finally:
        await client.close()
        await server.close()


async def until(check, seconds=30.0):
    """The first true answer of an async check."""
    async with asyncio.timeout(seconds):
        while True:
            answer = await check()
            if answer:
                return answer
            await asyncio.sleep(0.02)


def deployment(name="web", replicas=3, image="one", **spec):
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 8000}]}]
                },
            },
            **spec,
        },
    }


async def settled(client, name="web", replicas=3):
    async def check():
        found = await client.get(DEPLOYMENTS, name, "default")
        status = found.get("status") or {}
        ready = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return found if current and ready == [replicas] * 3 else None

    return await until(check)


def run(tmp_path, body, nodes=("flyball",)):
    async def main():
        async with cluster(tmp_path, nodes) as (client, node):
            await body(client, node)

    asyncio.run(main())
