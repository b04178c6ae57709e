"""How long a pod takes from its creation to Running: processes one at a time, and simulated ones by the thousand.

The thousands are made by themselves, bound to their node, and by a Deployment, which scheduler and controllers serve.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from bench.report import report
from bench.startup import ROOT, running
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import DEPLOYMENTS, NODES, PODS

PODS_EACH = 15
SIMULATED = (2_000, 10_000)
DEPLOYED = 2_000
WRITERS = 32
ANNOTATION = {"kwok.x-k8s.io/node": "fake"}
BIG = {"cpu": "10k", "memory": "10Ti", "pods": "100k"}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sleep", "3600"]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


class Watch:
    """When each pod was first seen running."""

    def __init__(self, client: KubeClient) -> None:
        self.informer: Informer[Any] = Informer(client, PODS)
        self.running: dict[str, float] = {}
        self._seen = asyncio.Event()
        self.informer.add_handler(self._changed)

    def _changed(self, _change: str, _old: Any, new: Any) -> None:
        if new is not None and new["status"].get("phase") == "Running":
            self.running.setdefault(new["metadata"]["name"], time.monotonic())
            self._seen.set()

    async def until(self, *names: str) -> None:
        wanted = set(names)
        while not wanted <= self.running.keys():
            self._seen.clear()
            await self._seen.wait()

    async def until_count(self, count: int) -> None:
        while len(self.running) < count:
            self._seen.clear()
            await self._seen.wait()


async def one_by_one(client: KubeClient, watch: Watch, kind: str, **spec: Any) -> None:
    took = []
    for number in range(PODS_EACH):
        name = f"{kind}-{number}"
        began = time.monotonic()
        await client.create(PODS, pod(name, **spec))
        await watch.until(name)
        took.append(1000 * (watch.running[name] - began))
    took.sort()
    report("pods", f"{kind}, median", took[len(took) // 2], "ms", aim=100)
    report("pods", f"{kind}, slowest", took[-1], "ms")


async def add_fake_node(client: KubeClient) -> None:
    metadata = {"name": "fake", "annotations": ANNOTATION, "labels": {"simulated": "true"}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
    await client.create(NODES, {**node, "status": {"allocatable": BIG, "capacity": BIG}})


async def many_simulated(client: KubeClient, watch: Watch, count: int) -> None:
    names = [f"many-{count}-{number}" for number in range(count)]
    left = iter(names)
    began = time.monotonic()

    async def write() -> None:
        for name in left:
            await client.create(PODS, pod(name, nodeName="fake"))

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    await watch.until(*names)
    report("pods", f"{count} simulated", time.monotonic() - began, "s", aim=count / 1000)


async def many_deployed(client: KubeClient, watch: Watch) -> None:
    template = {
        "metadata": {"labels": {"app": "many"}},
        "spec": {**pod("")["spec"], "nodeSelector": {"simulated": "true"}},
    }
    spec = {"replicas": DEPLOYED, "selector": {"matchLabels": {"app": "many"}}, "template": template}
    metadata = {"name": "many", "namespace": "default"}
    seen, began = len(watch.running), time.monotonic()
    await client.create(
        DEPLOYMENTS, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    )
    await watch.until_count(seen + DEPLOYED)
    report("pods", f"{DEPLOYED} simulated, by a Deployment", time.monotonic() - began, "s")


async def measure(data_dir: Path) -> None:
    async with await KubeClient.from_kubeconfig(data_dir / "kubeconfig") as client:
        watch = Watch(client)
        following = asyncio.create_task(watch.informer.run())
        await watch.informer.wait_synced()
        await one_by_one(client, watch, "process")
        volume = {"name": "config", "configMap": {"name": "kube-root-ca.crt"}}
        mount = {"name": "config", "mountPath": "/etc/flyball-bench"}
        container = {"name": "main", "image": "busybox", "command": ["sleep", "3600"], "volumeMounts": [mount]}
        await one_by_one(client, watch, "volume", volumes=[volume], containers=[container])
        await add_fake_node(client)
        await many_deployed(client, watch)
        for count in SIMULATED:
            await many_simulated(client, watch, count)
        following.cancel()


def main() -> None:
    with running() as (_, _, data_dir, _):
        asyncio.run(measure(data_dir))


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
