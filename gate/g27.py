"""Herd: what a cold start and 500 HPAs cost the API server: lists are paged and once a kind, requests cost none."""

import asyncio
import collections
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from tests.adapter.world import World, pod, world
from tests.agent.test_agent import Agent, running, until

import flyball.localcluster.server as api
from flyball import clock
from gate.adapter_world import CONFIG, LOAD, MASTERS, fill, names
from gate.report import demand

HPAS, API_QPS_MAX = 500, 5.0


class Counting(api.Application):
    """The API server, counting what it is asked: by method, path, and whether it is a watch."""

    seen: ClassVar[collections.Counter[tuple[str, str, bool]]] = collections.Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/apis/custom.metrics.k8s.io"):
            watch = b"watch=" in scope["query_string"]
            Counting.seen[scope["method"], scope["path"], watch] += 1
        await super().__call__(scope, receive, send)


def run(*, quick: bool = False) -> list[str]:
    async def main() -> list[str]:
        with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
            pods = names(100 if quick else 500)
            objects = [pod(name, app="web") for name in pods]
            series = lambda prometheus: fill(prometheus, pods)  # noqa: E731
            async with world(Path(folder), CONFIG, objects=objects, series=series, relist_interval_s=60.0) as found:
                return await _work(found, 20 if quick else 60)

    plain = api.Application
    api.Application = Counting  # type: ignore[misc]
    try:
        return [*asyncio.run(main()), *asyncio.run(_agent(3 if quick else 30))]
    finally:
        api.Application = plain  # type: ignore[misc]


async def _agent(scrapes: int) -> list[str]:
    """A node's agent, told where the API server is, from its start."""
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
        agent = Agent(Path(folder))
        try:
            async with agent.kubelet(), agent.receiving(), running(agent):
                await until(lambda: len(agent.times("node_load1")) >= scrapes)
                sent = len(agent.receiver.samples())
                calls = agent.api_calls()
        finally:
            agent.api_server.close()
    demand(calls == 0, f"a node's agent connected to the API server {calls} times")
    return [f"a node's agent, {scrapes} scrapes of it and its kubelet, {sent} series sent: 0 calls of the API server"]


async def _work(found: World, seconds: int) -> list[str]:
    tls = found.tls(front_proxy=True)

    async def served() -> bool:
        return (await found.ask(LOAD, MASTERS, tls))[0] == 200

    await found.until(served)
    lists = {path: count for (method, path, watch), count in Counting.seen.items() if method == "GET" and not watch}
    pods = lists.get("/api/v1/pods", 0)
    demand(pods <= 2, f"pods were listed {pods} times at start, not once a page")
    Counting.seen.clear()
    limit, began_s = asyncio.Semaphore(20), clock.monotonic_s()

    async def one() -> None:
        async with limit:
            demand((await found.ask(LOAD, MASTERS, tls))[0] == 200, "a request failed")

    while clock.monotonic_s() - began_s < seconds:
        await asyncio.gather(*(one() for _ in range(HPAS)))
        await asyncio.sleep(max(0.0, min(15.0, seconds - (clock.monotonic_s() - began_s))))
    took_s = clock.monotonic_s() - began_s
    ours = {key: count for key, count in Counting.seen.items() if "/apis/metrics.k8s.io" not in key[1]}
    listed = sum(count for (method, path, watch), count in ours.items() if path.endswith("/pods") and not watch)
    rate = sum(ours.values()) / took_s
    demand(listed == 0, f"{listed} lists of pods for requests; there must be none")
    demand(rate <= API_QPS_MAX, f"the API server got {rate:.1f} requests a second, more than {API_QPS_MAX}")
    return [
        f"cold start: pods listed {pods} time{'' if pods == 1 else 's'}",
        f"{HPAS} HPAs asked every 15 s for {took_s:.0f} s: no list, {rate:.2f} requests/s at the API server",
    ]
