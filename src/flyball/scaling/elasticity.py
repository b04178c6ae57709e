"""How well supply followed demand (reference: Herbst et al., "Ready for Rain?", arXiv 1604.03470).

Arrays hold one count a second. All scores are percentages unless said otherwise.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


class Scores(msgspec.Struct, frozen=True):
    """``theta_u``, ``theta_o``: mean missing and idle share of demand; ``tau_u``, ``tau_o``: share of time with any;
    ``instability``: share of time in which supply and demand do not move alike; ``changes``: writes;
    ``cost``: supply over demand (1 is ideal); ``replica_hours``: of supply."""

    theta_u: float
    theta_o: float
    tau_u: float
    tau_o: float
    instability: float
    changes: int
    cost: float
    replica_hours: float


def scores(demand: Counts, supply: Counts, desired: Counts) -> Scores:
    """The scores of a run; seconds without demand count for time but not for shares of it.

    Raises:
        ValueError: the arrays are empty or differ in length.
    """
    if not (0 < len(demand) == len(supply) == len(desired)):
        raise ValueError(f"lengths {len(demand)}, {len(supply)}, {len(desired)}: need equal, non-empty arrays")
    divisor = np.maximum(demand, 1)
    missing, idle = np.maximum(demand - supply, 0), np.maximum(supply - demand, 0)
    moved = np.sign(np.diff(supply)) != np.sign(np.diff(demand))
    return Scores(
        theta_u=100 * float(np.mean(missing / divisor)),
        theta_o=100 * float(np.mean(idle / divisor)),
        tau_u=100 * float(np.mean(missing > 0)),
        tau_o=100 * float(np.mean(idle > 0)),
        instability=100 * float(np.mean(moved)) if len(moved) else 0.0,
        changes=int(np.count_nonzero(np.diff(desired))),
        cost=float(supply.sum() / max(1, demand.sum())),
        replica_hours=float(supply.sum()) / 3600,
    )


def speedup(ours: Scores, still: Scores) -> float:
    """The elastic speed-up: how much better the four shares are than ``still``'s (geometric mean; above 1 is a gain).

    One share that is nothing makes it infinite, and too much of everything for too little of anything makes it large:
    it says little without ``theta_o`` beside it.
    """
    found = 1.0
    for name in ("theta_u", "theta_o", "tau_u", "tau_o"):
        mine, theirs = getattr(ours, name), getattr(still, name)
        found *= theirs / mine if mine else math.inf if theirs else 1.0
    return math.nan if math.isnan(found) else float(found**0.25)
