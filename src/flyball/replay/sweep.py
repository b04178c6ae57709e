"""Many policies on one trace, over the processors of this machine: scores alone, since counts are large."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

import numpy as np
from msgspec.structs import replace

from flyball.replay.backtest import Progress, Result, backtest
from flyball.replay.policies import Policy
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload

_ALONE_UP_TO = 60_000_000  # seconds of load times policies; below it another process costs more than it does
_NOTHING = np.zeros(0, np.int64)
_REPORT_EVERY_S = 0.2

_shares: Any = None  # in a worker: how far each part is


def sweep(
    policies: Sequence[Policy],
    trace: Trace,
    workload: Workload,
    *,
    period_s: int = 15,
    progress: Progress | None = None,
    processes: int | None = None,
) -> list[Result]:
    """As ``backtest``, the results without their counts. ``processes``: by default as many as there are processors."""
    processes = len(os.sched_getaffinity(0)) if processes is None else processes
    if processes < 2 or len(policies) < 2 or len(policies) * len(trace) < _ALONE_UP_TO:
        return list(_scored(policies, trace, workload, period_s, progress))
    # every so manieth, since policies that stand together cost alike
    parts = [list(range(at, len(policies), processes)) for at in range(min(processes, len(policies)))]
    context = multiprocessing.get_context("spawn")
    shares = context.Array("d", len(parts), lock=False)
    with ProcessPoolExecutor(len(parts), context, _begin, (shares,)) as pool:
        running = {
            pool.submit(_part, at, [policies[one] for one in part], trace, workload, period_s): part
            for at, part in enumerate(parts)
        }
        found: dict[int, Result] = {}
        waiting = set(running)
        while waiting:
            done, waiting = wait(waiting, _REPORT_EVERY_S, FIRST_COMPLETED)
            if progress is not None:
                progress("sweep", sum(shares) / len(parts))
            for future in done:
                found.update(zip(running[future], future.result(), strict=True))
    return [found[at] for at in range(len(policies))]


def _begin(shares: Any) -> None:
    global _shares
    _shares = shares


def _part(at: int, policies: list[Policy], trace: Trace, workload: Workload, period_s: int) -> list[Result]:
    results = list(_scored(policies, trace, workload, period_s, _told(at, policies)))
    _shares[at] = 1.0
    return results


def _told(at: int, policies: list[Policy]) -> Progress:
    """Progress of a part: that of the policies that go side by side counts for all of them."""
    known: dict[str, float] = {}
    together = sum(policy.governor is not None and policy.governor.profile == "parity" for policy in policies)

    def told(name: str, share: float) -> None:
        known[name] = share * (together if name == "parity" else 1)
        _shares[at] = min(1.0, sum(known.values()) / len(policies))

    return told


def _scored(
    policies: Sequence[Policy], trace: Trace, workload: Workload, period_s: int, progress: Progress | None
) -> Iterator[Result]:
    for result in backtest(policies, trace, workload, period_s=period_s, progress=progress):
        yield replace(result, desired=_NOTHING, supply=_NOTHING)
