"""A partition from the API server: metrics are served all the same with true times, and the caches catch up."""

import asyncio
import json

from tests.adapter.world import World, create, pod, world

from flyball import clock
from flyball.kube.kinds import PODS
from flyball.localcluster import ApiServer
from gate.adapter_world import CONFIG, LOAD, MASTERS, fill, keep_filled, names
from gate.report import demand


def run(*, quick: bool = False) -> list[str]:
    import tempfile
    from pathlib import Path

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
