"""The source is down under load: no value is served in its place, it is visible, and recovery is at once."""

import asyncio
import json

from tests.adapter.world import World

from flyball import clock
from gate.adapter_world import LOAD, MASTERS, QUEUE, USAGE, fill, in_world, names
from gate.report import demand

PODS = 20


def run(*, quick: bool = False) -> list[str]:
    return in_world(lambda found: _work(found, 6.0 if quick else 120.0), names(PODS), share_s=1.0)


async def _work(found: World, seconds: float) -> list[str]:
    tls = found.tls(front_proxy=True)

    async def items(path: str) -> int | None:
        """How many are served; None for a failure."""
        status, body = await found.ask(path, MASTERS, tls)
        return len(json.loads(body)["items"]) if status == 200 else None

    wanted = {LOAD: PODS, QUEUE: 1, USAGE: PODS}
    for path, count in wanted.items():

        async def whole(path: str = path, count: int = count) -> bool:
            return await items(path) == count

        await found.until(whole)
    found.prometheus.down = True
    down_s = clock.monotonic_s()
    visible_s: float | None = None
    asked = refused = 0
    while clock.monotonic_s() < down_s + seconds:
        for path, count in wanted.items():
            got = await items(path)
            asked += 1
            refused += got is None
            # an answer of a moment ago may still serve; fewer objects, or none, would be a scale-down
            demand(got in (None, count), f"{path} serves {got} of {count} while the source is down")
        if visible_s is None and b"[-]rule" in (await found.ask("/readyz?verbose"))[1]:
            visible_s = clock.monotonic_s() - down_s
        await asyncio.sleep(0.1)
    demand(visible_s is not None and visible_s <= 30, f"it is visible after {visible_s} s, not within 30 s")
    fill(found.prometheus, names(PODS))
    found.prometheus.down = False
    polls = 0
    for path, count in wanted.items():
        tries = 1
        while await items(path) != count:
            tries += 1
            demand(tries <= 2, f"{path} has not recovered after 2 polls")
        polls = max(polls, tries)
    return [
        f"the source was down for {seconds:g} s: {asked} requests to 3 APIs, {refused} refused, none with fewer items",
        f"visible at /readyz?verbose after {visible_s:.1f} s; whole again after {polls} poll{'s' if polls > 1 else ''}",
    ]
