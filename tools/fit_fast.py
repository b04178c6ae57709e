"""Finds the constants of profile fast on the first half of the World Cup's traffic, and then shows the unseen half.

A seeded search for the largest distance from all four floors of ``bench.elasticity`` at once. Days differ, and other
days will again: what is compared with a floor is the mean of the first half's days and, on top, twice the error
with which that mean foretells another fortnight's. The second half is not read before the search has ended.

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
DAYS = 30
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


def applied(trace: Trace, constants: Constants, parts: list[slice]) -> list[Scores]:
    """The scores with these constants in each part of the trace."""
    for name, value in constants.items():
        for module in (fast, forecast, forecasts):
            if hasattr(module, name):
                setattr(module, name, value)
    workload = Workload(CAPACITY)
    desired, demand = run_fast(trace, workload, shape=shape_for(trace, workload.startup_s)), workload.demand(trace.rate)
    supply = workload.supply(desired)
    return [scores(demand[part], supply[part], desired[part]) for part in parts]


def distance(days: list[Scores]) -> float:
    """The worst score as a part of its floor, by what other days may be like."""
    found = []
    for name, floor in FLOORS.items():
        values = np.array([getattr(day, name) for day in days], np.float64)
        error = values.std(ddof=1) * np.sqrt(2 / len(values))
        found.append((values.mean() + 2 * error) / (floor / DAYS if name == "changes" else floor))
    return float(max(found))


def search(trace: Trace, evaluations: int) -> Constants:
    """The constants of the smallest distance: some draws at random, then changes of the best."""
    length = round(len(trace) / (DAYS // 2))
    days = [slice(begin, begin + length) for begin in range(0, len(trace) - length // 2, length)]
    rng = np.random.default_rng(1998)
    best: tuple[float, Constants] = (np.inf, {})
    for count in range(evaluations):
        tried = {}
        for name, (_, low, high) in RANGES.items():
            drawn = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            step = float(np.exp(rng.normal(0, 0.05 * np.log(high / low))))
            moved = rng.random() < 0.5
            tried[name] = drawn if count < AT_RANDOM else best[1][name] * (step if moved else 1.0)
        found = distance(applied(trace, tried, days))
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
    constants = search(first, int(sys.argv[1]) if len(sys.argv) > 1 else EVALUATIONS)
    print("constants:", constants)
    parts = {"first half": slice(0, middle), "second half, unseen": slice(middle, None), "whole span": slice(None)}
    for name, found in zip(parts, applied(whole, constants, list(parts.values())), strict=True):
        print(f"{name}: {', '.join(f'{score} {getattr(found, score):.3f}' for score in FLOORS)}")


if __name__ == "__main__":
    main()
