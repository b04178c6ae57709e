"""Oscillation: a source that flaps and a noisy load turn the direction at most once a stabilization window."""

import random
from itertools import pairwise
from typing import Any

from flyball.scaling import History, Observation, Outcome, Pod, PodReading, Reading, applied, decide, spec_from_hpa
from flyball.scaling.governor import decide_governor, governor_from_object
from gate.report import demand

HOUR_S, BEAT_S, WINDOW_S = 3600, 15, 300
NOISE, BASE = 0.2, 60.0
RUNS = 40
_POD = {"start_ms": 0, "ready": "True", "ready_since_ms": 1}


def run(quick: bool = False) -> list[str]:
    runs = RUNS // 10 if quick else RUNS
    lines = []
    for profile in ("HPA", "parity", "fast"):
        turns, lowered, smallest = 0, 0, 1 << 30
        for seed in range(runs):
            for flaps in (False, True):
                sizes, lost = one_hour(profile, random.Random(f"{profile} {seed} {flaps}"), flaps)
                turns = max(turns, most_turns(sizes))
                lowered += sum(
                    after < before for before, after, failed in zip(sizes, sizes[1:], lost[1:], strict=False) if failed
                )
                smallest = min(smallest, *sizes)
        demand(turns <= 1, f"{profile}: {turns} changes of direction within {WINDOW_S} s")
        demand(lowered == 0, f"{profile}: {lowered} scale-downs while the source was lost")
        demand(smallest >= 5, f"{profile}: {smallest} replicas under a load that needs six")
        lines.append(
            f"{profile}: {2 * runs} hours, at most {turns} turn in {WINDOW_S} s, 0 scale-downs while it was lost"
        )
    return lines


def one_hour(profile: str, rng: random.Random, flaps: bool) -> tuple[list[int], list[bool]]:
    """Sizes after each beat, and whether the source was lost at it: it comes and goes every beat when it flaps."""
    metric = {
        "type": "Pods",
        "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}},
    }
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec: dict[str, Any] = {"scaleTargetRef": ref, "minReplicas": 1, "maxReplicas": 100, "metrics": [metric]}
    if profile == "fast":
        # a fast Governor holds for its start-up time, or for the window that it is given
        spec |= {"profile": "fast", "behavior": {"scaleDown": {"stabilizationWindowSeconds": WINDOW_S}}}
    obj = {"metadata": {"namespace": "gate", "name": "web", "uid": "u"}, "spec": spec}
    hpa, governor = spec_from_hpa(obj), governor_from_object(obj)
    history, size = History(), 6
    sizes, lost = [], []
    for beat in range(HOUR_S // BEAT_S):
        now_ms = 1_800_000_000_000 + beat * BEAT_S * 1000
        load = BASE * rng.uniform(1 - NOISE, 1 + NOISE)
        names = [f"web-{at}" for at in range(size)]
        failed = flaps and beat % 2 == 1
        readings = {name: PodReading(int(load / size * 1000), now_ms) for name in names}
        reading = Reading(error="connection refused") if failed else Reading(pods=readings)
        pods = tuple(Pod(name, **_POD) for name in names)
        seen = Observation(size, size, "app=web", pods=pods, readings=(reading,))
        if profile == "HPA":
            decision, history = decide(hpa, seen, history, now_ms)
        else:
            decision, history = decide_governor(governor, seen, history, now_ms)
        if decision.rescale:
            history = applied(history, decision, Outcome(), now_ms)
            size = decision.desired
        sizes.append(size)
        lost.append(failed)
    return sizes, lost


def most_turns(sizes: list[int]) -> int:
    """The most changes of direction within any one window."""
    moves = [(at * BEAT_S, after > before) for at, (before, after) in enumerate(pairwise(sizes)) if after != before]
    turned_s = [at_s for (_, up), (at_s, now_up) in pairwise(moves) if up != now_up]
    return max((sum(begin <= at_s < begin + WINDOW_S for at_s in turned_s) for begin in turned_s), default=0)
