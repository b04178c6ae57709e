"""A metric that flaps, lies, jumps back in time or is lost for an hour never scales a loaded service down."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from flyball.scaling import History, Observation, Outcome, Pod, PodReading, Reading, applied
from flyball.scaling.governor import decide_governor, governor_from_object

PODS, PER_POD, HOUR_S, BEAT_S = 8, 10.0, 3600, 10
START = 1_800_000_000_000
Story = Callable[[int, random.Random], Reading | None]


def governor(kind: str, profile: str) -> Any:
    target = {"type": "AverageValue", "averageValue": "10"}
    source = {"metric": {"name": "rps"}, "target": target}
    metrics = [{"type": kind, kind.lower(): source}]
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    body = {"scaleTargetRef": ref, "maxReplicas": 100, "metrics": metrics, "profile": profile}
    return governor_from_object({"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": body})


def reading(kind: str, size: int, at_ms: int, share: float = 1.0, without: int = 0) -> Reading:
    """The steady load of eight full pods as ``size`` pods report it; ``share`` of it is told."""
    load = int(PODS * PER_POD * share * 1000)
    if kind == "External":
        return Reading(values=(load,), at_ms=at_ms)
    pods = {f"web-{at}": PodReading(load // size, at_ms, 2000) for at in range(without, size)}
    return Reading(pods=pods, at_ms=at_ms) if pods else Reading(error="no metrics returned from custom metrics API")


def sizes(kind: str, profile: str, story: Callable[[int, int, random.Random], Reading]) -> list[int]:
    """Replicas after each beat of two hours; the story is told from the first half hour on, for an hour."""
    one, size, found = governor(kind, profile), PODS, []
    history, rng = History(), random.Random(f"{kind} {profile}")
    for at_s in range(0, 2 * HOUR_S, BEAT_S):
        now_ms = START + at_s * 1000
        told = 1800 <= at_s < 1800 + HOUR_S
        one_reading = story(size, now_ms, rng) if told else reading(kind, size, now_ms)
        pods = tuple(Pod(f"web-{at}", start_ms=0, ready="True", ready_since_ms=1) for at in range(size))
        seen = Observation(size, size, "app=web", pods=pods, readings=(one_reading,))
        decision, history = decide_governor(one, seen, history, now_ms)
        history = applied(history, decision, Outcome(), now_ms)
        size = decision.desired
        found.append(size)
    return found


LOST = Reading(error="connection refused")


@pytest.mark.parametrize("kind", ["Pods", "External"])
@pytest.mark.parametrize(
    ("profile", "what"),
    [
        *((profile, what) for profile in ("fast", "parity") for what in ("flaps", "lost", "some pods lost", "lies")),
        # the stock HPA does not look at a sample's time, and parity decides as it does
        ("fast", "jumps back"),
        ("fast", "is ahead"),
        ("fast", "is negative"),
    ],
)
def test_a_loaded_service_keeps_its_size(kind: str, profile: str, what: str) -> None:
    def story(size: int, now_ms: int, rng: random.Random) -> Reading:
        second = now_ms // 1000
        if what == "flaps":
            return LOST if second // 15 % 2 else reading(kind, size, now_ms)
        if what == "lost":
            return LOST
        if what == "some pods lost":
            return reading(kind, size, now_ms, without=rng.randrange(size + 1) if kind == "Pods" else 0)
        if what == "lies":  # nothing, for less than the time for which sizes are held
            return reading(kind, size, now_ms, share=0.0 if second % 60 < 25 else 1.0)
        if what == "is negative":
            return reading(kind, size, now_ms, share=-1.0)
        # an hour ago, or in an hour, there was no load
        offset_ms = -HOUR_S * 1000 if what == "jumps back" else HOUR_S * 1000
        return reading(kind, size, now_ms + offset_ms, share=0.0)

    found = sizes(kind, profile, story)
    assert min(found) >= PODS
    assert max(found) <= PODS + 1


@pytest.mark.parametrize("kind", ["Pods", "External"])
def test_a_service_without_load_does_scale_down(kind: str) -> None:
    found = sizes(kind, "fast", lambda size, now_ms, _: reading(kind, size, now_ms, share=0.25))
    assert min(found) == 3


def test_after_an_outage_a_whole_window_is_seen_before_anything_falls() -> None:
    def story(size: int, now_ms: int, _: random.Random) -> Reading:
        since_s = (now_ms - START) // 1000 - 1800
        return LOST if since_s < 1800 else reading("External", size, now_ms, share=0.25)

    found = sizes("External", "fast", story)
    again = 3600 // BEAT_S
    assert min(found[: again + 3]) == PODS and found[again + 4] == 3
