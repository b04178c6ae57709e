"""Partitions from the API server and faulty watches: metrics keep their times, caches come to equal the server.

The partitions close the server's end while an adapter serves. The faults are met by informers behind a proxy that
drops, repeats, reorders and cuts events, says that versions are too old, loses bookmarks and answers with HTML.
"""

import asyncio
import json
import logging
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.adapter.world import World, create, pod, world

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube import Informer, KubeClient, kubeconfig_access
from flyball.kube.kinds import CONFIG_MAPS, PODS
from flyball.localcluster import ApiServer
from gate.adapter_world import CONFIG, LOAD, MASTERS, fill, keep_filled, names
from gate.report import demand
from gate.watchfaults import FaultyProxy, wait_until

FAULTS = 10_000
CHECK_EVERY = 1_000
INFORMERS = 5
NAMES = 200
HEALED_S = 30.0


def run(*, quick: bool = False) -> list[str]:
    return partitions(quick=quick) + asyncio.run(faulty_watches(FAULTS // 20 if quick else FAULTS))


def partitions(*, quick: bool) -> list[str]:
    async def main() -> list[str]:
        with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
            pods = names(10)
            objects = [pod(name, app="web") for name in pods]
            async with world(
                Path(folder), CONFIG, objects=objects, series=lambda prometheus: fill(prometheus, pods)
            ) as found:
                return await _work(found, 2 if quick else 10, 2.0 if quick else 6.0)

    return asyncio.run(main())


async def _work(found: World, times: int, seconds: float) -> list[str]:
    await found.until(lambda: found.get(LOAD))
    filling = asyncio.create_task(keep_filled(found, names(20)))
    tls = found.tls(front_proxy=True)
    asked, resynced = 0, []
    for index in range(times):
        assert found.api_server is not None
        await found.api_server.close()
        until_s = clock.monotonic_s() + seconds
        while clock.monotonic_s() < until_s:
            status, body = await found.ask(LOAD, MASTERS, tls)
            demand(status == 200, f"partition {index}: {status} {body[:300]!r}")
            items = json.loads(body)["items"]
            demand(len(items) == 10 + index, f"partition {index}: {len(items)} items instead of {10 + index}")
            ages = [clock.now_ms() - clock.parse_rfc3339_ms(item["timestamp"]) for item in items]
            demand(max(ages) < 5_000, f"partition {index}: a value is {max(ages)} ms old while samples arrive")
            asked += 1
            await asyncio.sleep(0.05)
        found.api_server = ApiServer(found.directory / "cluster", port=found.api_port)
        await found.api_server.start()
        healed_s = clock.monotonic_s()
        await create(found.client, pod(f"web-{10 + index}", app="web"))

        async def caught_up(wanted: int = 11 + index) -> bool:
            return len(json.loads((await found.ask(LOAD, MASTERS, tls))[1])["items"]) == wanted

        await found.until(caught_up)
        resynced.append(clock.monotonic_s() - healed_s)
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)
    held = len(await found.client.list(PODS, "default"))
    demand(held == 10 + times, f"the server has {held} pods instead of {10 + times}")
    demand(max(resynced) <= 20, f"the caches took {max(resynced):.1f} s to catch up, more than 20 s")
    return [
        f"{times} partitions of {seconds:g} s (the API server's end closed): {asked} of {asked} requests served, no "
        "value older than its sample",
        f"after healing a new pod was served in at most {max(resynced):.1f} s",
    ]


# -- faulty watches --------------------------------------------------------------------------------------------------


class Follower:
    """An informer behind the proxy, and what its handler was told."""

    def __init__(self, client: KubeClient, seed: int) -> None:
        quick: dict[str, Any] = {"backoff_min_s": 0.01, "backoff_max_s": 0.2, "watch_min_s": 0.01}
        # An event that is lost without a trace is only made up for by the list that is due now and then.
        self.informer: Informer[Any] = Informer(client, CONFIG_MAPS, rng=random.Random(seed), relist_s=5.0, **quick)
        self.told: dict[tuple[str, str], str] = {}
        self.wrong = ""
        self.informer.add_handler(self._changed)

    def _changed(self, change: str, old: Any, new: Any) -> None:
        metadata = (new or old)["metadata"]
        key, version = (metadata["namespace"], metadata["name"]), metadata["resourceVersion"]
        if (key in self.told) == (change == "ADDED"):
            self.wrong = f"{change} of {key} version {version} while the handler knew {self.told.get(key)}"
        if change == "DELETED":
            self.told.pop(key, None)
        else:
            self.told[key] = version

    def versions(self) -> dict[tuple[str, str], str]:
        return {key: item["metadata"]["resourceVersion"] for key, item in self.informer.cache.items()}


async def faulty_watches(count: int) -> list[str]:
    logging.getLogger("flyball.kube.informer").setLevel(logging.CRITICAL)  # it would tell of every fault
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
        server = ApiServer(Path(folder), port=0)
        await server.start()
        access = replace(kubeconfig_access(Path(folder) / "kubeconfig"), server=f"https://127.0.0.1:{server.port}")
        try:
            async with (
                FaultyProxy(access.server, Path(folder), random.Random(25), 0.1) as proxy,
                KubeClient(access) as direct,
            ):
                return await _follow(proxy, direct, count)
        finally:
            await server.close()


async def _follow(proxy: FaultyProxy, direct: KubeClient, count: int) -> list[str]:
    clients = [KubeClient(proxy.access) for _ in range(INFORMERS)]
    followers = [Follower(client, seed) for seed, client in enumerate(clients)]
    running = [asyncio.create_task(follower.informer.run()) for follower in followers]
    rng, writes, healed, checks = random.Random(52), 0, [], 0
    try:
        while proxy.faults.total() < count:
            goal = min(count, proxy.faults.total() + min(CHECK_EVERY, count))
            while proxy.faults.total() < goal:
                writes += await _write(direct, rng)
            proxy.down = True  # and a partition
            await asyncio.sleep(0.3)
            writes += await _write(direct, rng)
            proxy.honest, proxy.down = True, False
            kept = {(i["metadata"]["namespace"], i["metadata"]["name"]): i for i in await direct.list(CONFIG_MAPS)}
            wanted = {key: item["metadata"]["resourceVersion"] for key, item in kept.items()}
            began_s = clock.monotonic_s()
            equal = await wait_until(lambda w=wanted: all(f.versions() == w for f in followers), HEALED_S)
            behind = [sum(f.versions().get(key) != wanted.get(key) for key in wanted) for f in followers]
            demand(equal, f"{HEALED_S:g} s after {proxy.faults.total()} faults the caches differ in {behind} objects")
            healed.append(clock.monotonic_s() - began_s)
            for follower in followers:
                demand(not follower.wrong, follower.wrong)
                demand(follower.told == follower.versions(), "what a handler was told differs from its cache")
            proxy.honest, checks = False, checks + 1
    finally:
        for task in running:
            task.cancel()
        ends = await asyncio.gather(*running, return_exceptions=True)
        for client in clients:
            await client.close()
    crashed = [end for end in ends if not isinstance(end, asyncio.CancelledError)]
    demand(not crashed, f"informers ended: {crashed}")
    totals: Counter[str] = Counter()
    for follower in followers:
        totals.update({k: v for k, v in follower.informer.statistics().items() if isinstance(v, int)})
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(proxy.faults.items()))
    return [
        f"{proxy.faults.total()} faults in the watches of {INFORMERS} informers over {writes} writes ({kinds})",
        f"{checks} times compared, after a partition each: every cache equal to the server in {max(healed):.1f} s; "
        f"{totals['lists']} lists, {totals['disordered']} after events out of order, {totals['expired']} after 410",
    ]


async def _write(client: KubeClient, rng: random.Random) -> int:
    name = f"c{rng.randrange(NAMES)}"
    body = {"metadata": {"name": name}, "data": {"n": str(rng.random())}}
    try:
        if rng.random() < 0.3:
            await client.delete(CONFIG_MAPS, name, "default")
        elif rng.random() < 0.5:
            await client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **body}, "default")
        else:
            await client.patch(CONFIG_MAPS, name, body, "default")
    except KubeApiError as exc:
        if exc.code not in (404, 409):
            raise
        return 0
    return 1
