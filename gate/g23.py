"""Ghosts: half of the pods are deleted while their series are still there; none is counted."""

import asyncio
import json

from tests.adapter.world import World

from flyball import clock
from flyball.kube.kinds import PODS
from gate.adapter_world import LOAD, MASTERS, USAGE, in_world, keep_filled, names
from gate.report import demand


def run(*, quick: bool = False) -> list[str]:
    count = 20 if quick else 200
    return in_world(lambda found: _work(found, count), names(count))


async def _work(found: World, count: int) -> list[str]:
    await found.until(lambda: found.get(LOAD))
    filling = asyncio.create_task(keep_filled(found, names(count)))  # the dead ones' series live on
    tls = found.tls(front_proxy=True)
    dead = names(count)[::2]
    await asyncio.gather(*(found.client.delete(PODS, name, "default", grace_period_s=0) for name in dead))
    deleted_s = clock.monotonic_s()
    seconds = {}
    for path, kind in ((LOAD, "custom"), (USAGE, "resource")):

        async def clean(path: str = path) -> bool:
            items = json.loads((await found.ask(path, MASTERS, tls))[1])["items"]
            shown = {(item.get("describedObject") or item["metadata"])["name"] for item in items}
            return not shown & set(dead) and len(shown) == count - len(dead)

        await found.until(clean)
        seconds[kind] = clock.monotonic_s() - deleted_s
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)
    demand(max(seconds.values()) <= 5, f"dead pods were counted for {seconds} s")
    return [
        f"{len(dead)} of {count} pods deleted: not counted after "
        + ", ".join(f"{s:.2f} s ({k})" for k, s in seconds.items())
    ]
