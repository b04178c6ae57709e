"""How well supply followed demand (reference: Herbst et al., "Ready for Rain?", arXiv 1604.03470).

Arrays hold one count a second. All scores are percentages unless said otherwise.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

AT_ONCE = 1 << 15  # seconds whose arrays stay in the processor's cache


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


class Demand:
    """A demand, and what the scores of any run beside it need of it, made once."""

    def __init__(self, demand: Counts) -> None:
        self.counts = demand.astype(np.int32)
        self.inverse = 1.0 / np.maximum(demand, 1)
        self.moves = np.sign(np.diff(self.counts)).astype(np.int8)
        self.total = int(demand.sum())

    def __len__(self) -> int:
        return len(self.counts)

    def scores(self, supply: Counts, desired: Counts) -> Scores:
        """The scores of a run; seconds without demand count for time but not for shares of it.

        Raises:
            ValueError: the arrays are empty or differ in length.
        """
        count = len(self)
        if not (0 < count == len(supply) == len(desired)):
            raise ValueError(f"lengths {count}, {len(supply)}, {len(desired)}: need equal, non-empty arrays")
        net = both = 0.0
        under = over = 0
        for begin in range(0, count, AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            lack = self.counts[part] - supply[part]
            under += int(np.count_nonzero(lack > 0))
            over += int(np.count_nonzero(lack < 0))
            share = lack * self.inverse[part]
            net += float(share.sum())
            both += float(np.abs(share, out=share).sum())
        at = np.flatnonzero(supply[1:] != supply[:-1])
        unlike = np.count_nonzero(self.moves) - np.count_nonzero(self.moves[at])
        unlike += np.count_nonzero(self.moves[at] != np.sign(supply[at + 1] - supply[at]))
        return Scores(
            theta_u=100 * (both + net) / 2 / count,
            theta_o=100 * (both - net) / 2 / count,
            tau_u=100 * under / count,
            tau_o=100 * over / count,
            instability=100 * float(unlike) / max(1, count - 1),
            changes=int(np.count_nonzero(desired[1:] != desired[:-1])),
            cost=float(supply.sum() / max(1, self.total)),
            replica_hours=float(supply.sum()) / 3600,
        )


def scores(demand: Counts, supply: Counts, desired: Counts) -> Scores:
    """Of one run; see ``Demand.scores``."""
    return Demand(demand).scores(supply, desired)


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
