"""Aggregation: discovery with every backend dead, readiness while Prometheus is down, namespaces deletable."""

import asyncio
import json
from typing import Any

import aiohttp
from tests.adapter.world import World

from flyball.errors import FlyballError
from flyball.kube.kinds import API_SERVICES, NAMESPACES
from flyball.localcluster import workloads
from gate.adapter_world import LOAD, QUEUE, USAGE, in_world, names, p99_ms, timed
from gate.report import demand

DISCOVERY = (
    "/apis",
    "/apis/custom.metrics.k8s.io",
    "/apis/custom.metrics.k8s.io/v1beta1",
    "/apis/custom.metrics.k8s.io/v1beta2",
    "/apis/external.metrics.k8s.io/v1beta1",
    "/apis/metrics.k8s.io/v1beta1",
    "/openapi/v2",
    "/openapi/v3",
)


def run(*, quick: bool = False) -> list[str]:
    return in_world(lambda found: _work(found, 20 if quick else 200), names(10))


async def _work(found: World, rounds: int) -> list[str]:
    for path in (LOAD, QUEUE, USAGE):
        await found.until(lambda path=path: found.get(path))  # type: ignore[misc]
    for path in DISCOVERY[2:6]:
        await found.until(lambda path=path: found.client.raw_get(path))  # type: ignore[misc]
    token = {"Authorization": f"Bearer {found.pki('token').read_text().strip()}"}
    found.prometheus.down = True
    group = {"group": "dead.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100}
    service = {"name": "nobody", "namespace": "default", "port": 443}
    body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": {**group, "service": service}}
    await found.client.create(API_SERVICES, {**body, "metadata": {"name": "v1.dead.example.com"}})
    seconds, statuses = [], set()
    connector = aiohttp.TCPConnector(ssl=found.tls())  # connections are kept, as an aggregator keeps them
    async with aiohttp.ClientSession(f"https://127.0.0.1:{found.adapter_port}", connector=connector) as session:

        async def get(path: str) -> tuple[int, bytes]:
            async with session.get(path, headers=token, allow_redirects=False) as response:
                return response.status, await response.read()

        for _ in range(rounds):
            for path in DISCOVERY:
                took_s, (status, answer) = await timed(get(path))
                seconds.append(took_s)
                statuses.add(status)
                demand(status == 200, f"{path} answers {status}: {answer[:200]!r}")
            status, _ = await get("/readyz")
            demand(status == 200, f"/readyz answers {status} while Prometheus is down")
    through = []
    for _ in range(rounds):
        for path in DISCOVERY[2:6]:
            took_s, body = await timed(found.client.raw_get(path))
            through.append(took_s)
            demand(bool(json.loads(body)["resources"]), f"{path} lists nothing while Prometheus is down")
    own, aggregated = p99_ms(seconds), p99_ms(through)
    demand(own <= 100, f"discovery takes {own:.0f} ms (p99), more than 100 ms")
    demand(aggregated <= 100, f"discovery through the API server takes {aggregated:.0f} ms (p99), more than 100 ms")
    await asyncio.sleep(1)  # an answer to all serves for half a second
    for path in (LOAD, QUEUE, USAGE):
        status, _ = await found.ask(path, token)
        statuses.add(status)
        demand(status >= 400, f"{path} answers {status} while Prometheus is down")
    controllers = asyncio.create_task(workloads.run_all(found.client, found.directory / "volumes"))
    await _delete_namespace(found, "while-prometheus-is-down")
    await found.stop()
    await _delete_namespace(found, "while-the-adapter-is-dead")
    controllers.cancel()
    await asyncio.gather(controllers, return_exceptions=True)
    demand(not any(300 <= status < 400 or status == 101 for status in statuses), f"a redirect or upgrade: {statuses}")
    return [
        f"{len(seconds)} discovery requests to the adapter, p99 {own:.1f} ms; {len(through)} through the API server, "
        f"p99 {aggregated:.1f} ms, with Prometheus down and a dead APIService",
        f"/readyz stayed 200 in {rounds} of {rounds}; statuses seen {sorted(statuses)}, none of them 3xx or 101",
        "a namespace was deleted while Prometheus was down, and one while the adapter was dead",
    ]


async def _delete_namespace(found: World, name: str) -> None:
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await found.client.create(NAMESPACES, body)
    await found.client.delete(NAMESPACES, name)
    for _ in range(600):
        try:
            await found.client.get(NAMESPACES, name)
        except FlyballError:
            return
        await asyncio.sleep(0.05)
    demand(False, f"the namespace {name} cannot be deleted")
