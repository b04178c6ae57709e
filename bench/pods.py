"""How long a pod takes from its creation to Running: processes one at a time, and simulated ones by the thousand."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from bench.report import report
from bench.startup import ROOT, running
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import NODES, PODS

PODS_EACH = 15
SIMULATED = 2_000
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


async def many_simulated(client: KubeClient, watch: Watch) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fake", "annotations": ANNOTATION}}
    await client.create(NODES, {**node, "status": {"allocatable": BIG, "capacity": BIG}})
    names = [f"many-{number}" for number in range(SIMULATED)]
    left = iter(names)
    began = time.monotonic()

    async def write() -> None:
        for name in left:
            await client.create(PODS, pod(name, nodeName="fake"))

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    await watch.until(*names)
    report("pods", f"{SIMULATED} simulated", time.monotonic() - began, "s", aim=SIMULATED / 1000)


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
        await many_simulated(client, watch)
        following.cancel()


def main() -> None:
    with running() as (_, _, data_dir, _):
        asyncio.run(measure(data_dir))


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
