"""The source is down for an hour under load: nothing is served in its place, it is visible, recovery is at once."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from tests.adapter.world import World

from flyball import clock
from flyball.errors import UpstreamError
from gate import autoscaler_world
from gate.adapter_world import LOAD, MASTERS, QUEUE, USAGE, fill, in_world, names
from gate.autoscaler_world import BEAT_S, Subject
from gate.report import demand

PODS = 20


def run(*, quick: bool = False) -> list[str]:
    lines = in_world(lambda found: _work(found, 6.0 if quick else 3600.0), names(PODS), share_s=1.0)
    return [*lines, *_autoscaler()]


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


# --- the autoscaler's side: an hour of it, by a clock of its own ---

HOUR = 3600 // BEAT_S
VISIBLE_S, POLLS, OVERSHOOT = 30, 2, 0.1
FALLBACK = {"afterSeconds": 180, "replicas": 12}
LOST = UpstreamError("connection refused")
#: What the source does for an hour; None is the truth. The lies are shorter than any size is held.
STORIES: dict[str, Callable[[Subject, int], Any]] = {
    "is lost": lambda _one, _beat: LOST,
    "flaps": lambda one, beat: LOST if beat % 2 else one.answer(),
    "lies": lambda one, beat: one.answer(share=0.0 if beat % 4 == 3 else 1.0),
    "lies and is lost": lambda one, beat: (LOST, one.answer(), one.answer(share=0.0), one.answer())[beat % 4],
    "is partly lost": lambda one, beat: one.answer(without=beat % 8) if one.kind in ("Pods", "Resource") else LOST,
    "jumps back in time": lambda one, beat: one.answer(share=0.0, age_s=3600.0) if beat % 2 else one.answer(),
    "jumps ahead in time": lambda one, beat: one.answer(share=0.0, age_s=-3600.0) if beat % 2 else one.answer(),
}


def _autoscaler() -> list[str]:
    logging.getLogger("flyball.autoscaler").setLevel(logging.ERROR)  # it warns of each loss, as it should
    stories = 0

    async def work(subject: Subject) -> None:
        nonlocal stories
        where = f"{subject.profile} by {subject.kind}"
        for name, story in STORIES.items():
            for beat in range(HOUR):
                await subject.beat(lambda one, beat=beat, story=story: story(one, beat))  # type: ignore[misc]
                demand(subject.size >= autoscaler_world.PODS, f"{where}: its metric {name}: down to {subject.size}")
                if name == "is lost" and (beat + 1) * BEAT_S == VISIBLE_S:
                    active = subject.condition("ScalingActive")
                    demand(active.get("status") == "False", f"{where}: not visible within {VISIBLE_S} s: {active}")
                    told = {reason for reason, _ in subject.cluster.events}
                    demand("FailedComputeMetricsReplicas" in told, f"{where}: no event, only {told}")
            highest = max(subject.sizes[-HOUR:])
            demand(highest <= autoscaler_world.PODS * (1 + OVERSHOOT) + 1, f"{where}: {name}: up to {highest}")
            await _settled(subject)
            stories += 1
        # the load has grown while nothing was seen; a run without an outage says how far it should go
        for _ in range(HOUR):
            await subject.beat(lambda _: LOST)
        subject.load *= 1.5
        for _ in range(POLLS):
            await subject.beat()
        wanted = subject.load / autoscaler_world.PER_POD
        demand(subject.size >= wanted, f"{where}: {subject.size} of {wanted:g} pods {POLLS} polls after the outage")
        demand(subject.size <= wanted * (1 + OVERSHOOT) + 1, f"{where}: {subject.size} pods for {wanted:g}")

    async def held(subject: Subject) -> None:
        if subject.profile == "HPA":
            return  # the stock HPA has no fallback
        where = f"{subject.profile} by {subject.kind}"
        for beat in range(HOUR):
            await subject.beat(lambda _: LOST)
            # the first beat without the metric starts the count
            due = beat * BEAT_S >= FALLBACK["afterSeconds"]
            wanted = FALLBACK["replicas"] if due else autoscaler_world.PODS
            demand(subject.size == wanted, f"{where}: {subject.size} replicas {beat * BEAT_S} s into the outage")

    def run_all(each: Any, **spec: Any) -> int:
        return autoscaler_world.with_journal(lambda journal: autoscaler_world.each(journal, each, **spec))

    subjects = run_all(work)
    run_all(held, fallback=FALLBACK)
    return [
        f"autoscaler: {subjects} HPAs and Governors, {len(STORIES)} stories of an hour each ({stories} hours): a metric"
        f" that {', '.join(STORIES)}: 0 scale-downs",
        f"autoscaler: visible as condition and event within {VISIBLE_S} s, sized again within {POLLS} polls with at"
        f" most {OVERSHOOT:.0%} and one pod too many; the fallback engages at {FALLBACK['afterSeconds']} s, not before",
    ]


async def _settled(subject: Subject) -> None:
    for _ in range(autoscaler_world.SETTLED):
        await subject.beat()
