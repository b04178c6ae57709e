"""Finds the constants of profile fast on the first half of the World Cup's traffic, and then shows the unseen half.

A seeded search for the largest distance from all four floors of ``bench.elasticity`` at once; the second half is not
read before it has ended.

Usage: python tools/fit_fast.py [EVALUATIONS]
"""

import sys
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.elasticity import CAPACITY, FLOORS, world_cup

from flyball.replay.engine import run_fast, shape_for
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import fast, forecast, forecasts
from flyball.scaling.elasticity import Scores, scores

EVALUATIONS = 400
AT_RANDOM = 40
#: Where each constant is looked for: module, lowest, highest. Steps are relative, so both ends are above zero.
RANGES = {
    "MARGIN": (fast, 0.08, 0.4),
    "HEADROOM": (fast, 0.005, 0.1),
    "DEAD_BAND": (fast, 0.02, 0.15),
    "LOST": (forecast, 1e-5, 1e-3),
    "RIDGE": (forecast, 1e-3, 10.0),
    "HALF_LIFE_LEADS": (forecast, 3.0, 300.0),
}
Constants = dict[str, float]


def applied(trace: Trace, constants: Constants, begin: int = 0) -> Scores:
    """The scores with these constants from second ``begin`` on."""
    for name, value in constants.items():
        for module in (fast, forecast, forecasts):
            if hasattr(module, name):
                setattr(module, name, value)
    workload = Workload(CAPACITY)
    desired, demand = run_fast(trace, workload, shape=shape_for(trace, workload)), workload.demand(trace.rate)
    return scores(demand[begin:], workload.supply(desired)[begin:], desired[begin:])


def distance(found: Scores, share: float) -> float:
    """The worst score as a part of its floor; ``share`` of the span counts for that of the changes."""
    parts = {name: getattr(found, name) / floor for name, floor in FLOORS.items()}
    parts["changes"] /= share
    return max(parts.values())


def search(trace: Trace, share: float, evaluations: int) -> Constants:
    """The constants of the smallest distance: some draws at random, then changes of the best."""
    rng = np.random.default_rng(1998)
    best: tuple[float, Constants] = (np.inf, {})
    for count in range(evaluations):
        tried = {}
        for name, (_, low, high) in RANGES.items():
            drawn = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            step = float(np.exp(rng.normal(0, 0.05 * np.log(high / low))))
            moved = rng.random() < 0.5
            tried[name] = drawn if count < AT_RANDOM else best[1][name] * (step if moved else 1.0)
        found = distance(applied(trace, tried), share)
        if found < best[0]:
            best = (found, tried)
            shown = ", ".join(f"{name} {value:.3g}" for name, value in tried.items())
            print(f"{count:5d}  {found:.4f}  {shown}", flush=True)
    # two digits are what the search can tell apart
    return {name: float(f"{value:.2g}") for name, value in best[1].items()}


def main() -> None:
    whole = world_cup()
    middle = len(whole) // 2
    first = msgspec.structs.replace(whole, rate=whole.rate[:middle])
    constants = search(first, 0.5, int(sys.argv[1]) if len(sys.argv) > 1 else EVALUATIONS)
    print("constants:", constants)
    for name, trace, begin, share in (
        ("first half", first, 0, 0.5),
        ("second half, unseen", whole, middle, 0.5),
        ("whole span", whole, 0, 1.0),
    ):
        found = applied(trace, constants, begin)
        figures = ", ".join(f"{score} {getattr(found, score):.3f}" for score in FLOORS)
        print(f"{name}: {figures}; {distance(found, share):.3f} of the floors")


if __name__ == "__main__":
    main()
