"""Kubernetes discovery against a scripted API server: what a change of an object does to the targets."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from flyball.discovery import KubernetesDiscovery
from flyball.kube.client import KubeClient
from flyball.kube.config import Access
from flyball.model.scrapeconfigs import KubernetesSD, KubernetesSelector, ScrapeConfig, TargetGroup


class Cluster:
    """Collections that can be listed and watched; ``put`` and ``delete`` reach the open watches."""

    def __init__(self) -> None:
        self.version = 1
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.watches: dict[str, list[asyncio.Queue[bytes]]] = {}
        self.held = asyncio.Event()
        self.held.set()

    def put(self, collection: str, obj: dict[str, Any]) -> None:
        meta = obj["metadata"]
        key = (collection, meta.get("namespace", ""), meta["name"])
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.version += 1
        obj = {**obj, "metadata": {"uid": "/".join(key), **meta, "resourceVersion": str(self.version)}}
        self.objects[key] = obj
        self._tell(collection, kind, obj)

    def delete(self, collection: str, namespace: str, name: str) -> None:
        self.version += 1
        obj = self.objects.pop((collection, namespace, name))
        self._tell(
            collection, "DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        )

    def _tell(self, collection: str, kind: str, obj: dict[str, Any]) -> None:
        for queue in self.watches.get(collection, []):
            queue.put_nowait(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        collection = request.path.rsplit("/", 1)[-1]
        if "watch" not in request.query:
            if collection == "services":
                await self.held.wait()
            items = [obj for key, obj in self.objects.items() if key[0] == collection]
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.watches.setdefault(collection, []).append(queue)
        for obj in self.objects.values():  # what came between the list and this watch
            since = int(request.query.get("resourceVersion", "0"))
            if obj["metadata"]["uid"].startswith(collection + "/") and int(obj["metadata"]["resourceVersion"]) > since:
                queue.put_nowait(json.dumps({"type": "ADDED", "object": obj}).encode() + b"\n")
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        while True:
            await stream.write(await queue.get())


@asynccontextmanager
async def serving(cluster: Cluster):
    app = web.Application()
    app.router.add_get("/{path:.*}", cluster.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def pod(name: str, address: str = "10.0.0.1", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "labels": labels},
        "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 80}]}]},
        "status": {"podIP": address, "phase": "Running"},
    }


def slice_of(*pods: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "s", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": 80}],
        "endpoints": [
            {"addresses": [f"10.0.0.{i}"], "targetRef": {"kind": "Pod", "namespace": "ns", "name": name}}
            for i, name in enumerate(pods)
        ],
    }


Found = dict[str, list[TargetGroup]]


def discover(body: Callable[[Cluster, Found, KubernetesDiscovery], Awaitable[None]], *jobs: ScrapeConfig) -> Found:
    found: Found = {}

    async def main() -> None:
        cluster = Cluster()
        async with serving(cluster) as url:
            client = KubeClient(Access(url))
            discovery = KubernetesDiscovery(client, settle_s=0.0)
            discovery.set_configs(jobs)
            task = asyncio.create_task(discovery.run(found.__setitem__))
            try:
                await body(cluster, found, discovery)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await client.close()

    asyncio.run(main())
    return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def addresses(groups: list[TargetGroup] | None) -> list[str]:
    return sorted(target["__address__"] for group in groups or [] for target in group.targets)


def job(name: str, *sections: KubernetesSD) -> ScrapeConfig:
    return ScrapeConfig(job_name=name, kubernetes_sd_configs=sections)


def test_pods_come_change_and_go() -> None:
    async def body(cluster: Cluster, found: Found, discovery: KubernetesDiscovery) -> None:
        await until(lambda: found.get("j") == [])  # nothing there is an answer too
        cluster.put("pods", pod("a"))
        await until(lambda: addresses(found["j"]) == ["10.0.0.1:80"])
        cluster.put("pods", pod("a", "10.0.0.9"))
        cluster.put("pods", pod("b", "10.0.0.2"))
        await until(lambda: addresses(found["j"]) == ["10.0.0.2:80", "10.0.0.9:80"])
        cluster.delete("pods", "ns", "a")
        await until(lambda: addresses(found["j"]) == ["10.0.0.2:80"])
        assert discovery.statistics()["objects"]["pods"] == 1

    discover(body, job("j", KubernetesSD("pod")))


def test_a_slice_shows_a_change_of_its_pod_and_of_its_service() -> None:
    async def body(cluster: Cluster, found: Found, discovery: KubernetesDiscovery) -> None:
        cluster.put("pods", pod("a", team="x"))
        cluster.put("services", {"metadata": {"name": "web", "namespace": "ns", "labels": {"tier": "1"}}, "spec": {}})
        cluster.put("endpointslices", slice_of("a"))

        def label(name: str) -> str | None:
            groups = found.get("j") or []
            return {**groups[0].labels, **groups[0].targets[0]}.get(f"__meta_kubernetes_{name}") if groups else None

        await until(lambda: label("pod_label_team") == "x" and label("service_label_tier") == "1")
        cluster.put("pods", pod("a", team="y"))
        await until(lambda: label("pod_label_team") == "y")
        cluster.put("services", {"metadata": {"name": "web", "namespace": "ns", "labels": {"tier": "2"}}, "spec": {}})
        await until(lambda: label("service_label_tier") == "2")
        cluster.put("endpointslices", slice_of())
        await until(lambda: found["j"] == [])

    discover(body, job("j", KubernetesSD("endpointslice")))


def test_nothing_is_told_before_every_collection_of_a_job_is_known() -> None:
    async def body(cluster: Cluster, found: Found, discovery: KubernetesDiscovery) -> None:
        cluster.held.clear()
        cluster.put("pods", pod("a"))
        cluster.put("endpointslices", slice_of("a"))
        await until(lambda: "pods" in found)
        assert "slices" not in found
        cluster.held.set()
        await until(lambda: addresses(found.get("slices")) == ["10.0.0.0:80"])

    discover(body, job("slices", KubernetesSD("endpointslice")), job("pods", KubernetesSD("pod")))


def test_selectors_namespaces_and_several_sections() -> None:
    chosen = KubernetesSD("pod", selectors=(KubernetesSelector("pod", label="app=web", field="status.phase=Running"),))
    elsewhere = KubernetesSD("pod", namespaces=("other",))

    async def body(cluster: Cluster, found: Found, discovery: KubernetesDiscovery) -> None:
        cluster.put("pods", pod("a", "10.0.0.1", app="web"))
        cluster.put("pods", pod("b", "10.0.0.2", app="db"))
        away = pod("c", "10.0.0.3")
        away["metadata"]["namespace"] = "other"
        cluster.put("pods", away)
        await until(lambda: addresses(found.get("j")) == ["10.0.0.1:80", "10.0.0.3:80"])
        assert sorted(group.source for group in found["j"]) == ["1/pod/other/c", "pod/ns/a"]

    discover(body, job("j", chosen, elsewhere))


def test_jobs_can_be_replaced_while_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    async def body(cluster: Cluster, found: Found, discovery: KubernetesDiscovery) -> None:
        cluster.put("pods", pod("a"))
        await until(lambda: addresses(found.get("old")) == ["10.0.0.1:80"])
        bad = KubernetesSD("pod", selectors=(KubernetesSelector("pod", field="spec.secret=1"),))
        discovery.set_configs([job("new", KubernetesSD("pod")), job("bad", bad)])
        await until(lambda: addresses(found.get("new")) == ["10.0.0.1:80"])
        cluster.put("pods", pod("a", "10.0.0.7"))
        await until(lambda: addresses(found["new"]) == ["10.0.0.7:80"])
        assert addresses(found["old"]) == ["10.0.0.1:80"]  # no longer told
        assert "bad" not in found and "spec.secret=1" in caplog.text

    discover(body, job("old", KubernetesSD("pod")))
