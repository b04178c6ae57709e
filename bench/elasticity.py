"""How well supply follows demand on the World Cup's traffic, against three peers in one run.

Set-up of the issue: 1998-06-08 to 07-08, time ten times as fast (72 h), pods of 24 requests/s ready after 30 s, HPA
target 70 %, demand from 70 %. Needs ../shared/traces (FLYBALL_SHARED). Our constants were found on the
first half (tools/fit_fast.py); ``half2_*`` is the half that was not looked at. ``shuffled_*``, ``shifted_*`` and
``missing_*``: with forecasts that are wrong, not more than 1 % worse than the HPA that we replace. The other traces are
reported as they come.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.report import report
from flyball.replay.engine import run_fast, shape_for
from flyball.replay.peers import run_knative, run_oracle
from flyball.replay.stretches import run_parity
from flyball.replay.traces import Trace, read_trace
from flyball.replay.workload import Workload
from flyball.scaling import spec_from_hpa
from flyball.scaling.elasticity import Scores, scores

ROOT = Path(__file__).parents[1]
TRACES = Path(os.environ.get("FLYBALL_SHARED") or ROOT.parent / "shared") / "traces"
CAPACITY = 24
FLOORS = {"theta_u": 0.3, "tau_u": 5.0, "theta_o": 9.0, "changes": 4000}
UNITS = {"theta_u": "%", "tau_u": "%", "theta_o": "%", "changes": "changes"}
HPA = {
    "metadata": {"namespace": "bench", "name": "stock"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 1000,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
            }
        ],
    },
}
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def runs(trace: Trace, workload: Workload) -> dict[str, Counts]:
    """Desired replicas a second, of us and of each peer."""
    return {
        "flyball": run_fast(trace, workload, shape=shape_for(trace, workload.startup_s)),
        "hpa": next(run_parity([spec_from_hpa(HPA)], trace, workload)),
        "knative": run_knative(trace, workload),
        "oracle": run_oracle(trace, workload),
    }


def compare(trace: Trace, workload: Workload, prefix: str = "", *, floors: bool = False, begin: int = 0) -> None:
    """One line a score and peer; ``begin``: the first second that counts."""
    demand = workload.demand(trace.rate)
    found: dict[str, Scores] = {
        name: scores(demand[begin:], workload.supply(desired)[begin:], desired[begin:])
        for name, desired in runs(trace, workload).items()
    }
    ours = found.pop("flyball")
    for score, unit in UNITS.items():
        for peer, theirs in found.items():
            report(
                "elasticity", f"{prefix}{score}", getattr(ours, score), unit,
                aim=FLOORS[score] if floors else None, theirs=round(getattr(theirs, score), 4), peer=peer,
            )  # fmt: skip


def wrong_forecasts(trace: Trace, workload: Workload) -> None:
    """The shares of the HPA's missing demand and cost that we have when the forecast is wrong."""
    rng = np.random.default_rng(1998)
    lead = shape_for(trace, workload.startup_s).lead
    wrong: dict[str, Callable[[Floats], Floats]] = {
        "shuffled": rng.permutation,
        "shifted": lambda predicted: np.roll(predicted, 3 * lead),
        "early": lambda predicted: np.roll(predicted, -3 * lead),
        "missing": lambda predicted: np.full_like(predicted, np.nan),
        "interrupted": lambda predicted: np.where(np.arange(len(predicted)) // (20 * lead) % 2, np.nan, predicted),
    }
    demand = workload.demand(trace.rate)

    def scored(desired: Counts) -> Scores:
        return scores(demand, workload.supply(desired), desired)

    theirs = scored(next(run_parity([spec_from_hpa(HPA)], trace, workload)))
    for name, distort in wrong.items():
        ours = scored(run_fast(trace, workload, shape=shape_for(trace, workload.startup_s), distort=distort))
        for score in ("theta_u", "cost"):
            unit = 100 if score == "cost" else 1  # percent of the demand
            value, peer = unit * getattr(ours, score), unit * getattr(theirs, score)
            report("elasticity", f"{name}_{score}", value, "%", aim=1.01 * peer, theirs=round(peer, 4), peer="hpa")


def world_cup() -> Trace:
    """The trace of the set-up."""
    path = TRACES / "worldcup98_per_minute.csv"
    if not path.exists():
        sys.exit(f"{path} is not there; name the parent of traces in FLYBALL_SHARED")
    return read_trace(path, compress=10, begin="1998-06-08", end="1998-07-08")


def main() -> None:
    trace, workload = world_cup(), Workload(CAPACITY)
    compare(trace, workload, floors=True)
    compare(trace, workload, "half2_", begin=len(trace) // 2)
    wrong_forecasts(trace, workload)
    elb = read_trace(TRACES / "nab_elb_requests_5min.csv", compress=10)
    compare(elb, Workload(capacity=float(elb.rate.mean()) / 10), "elb_")
    llm = read_trace(TRACES / "azure_llm_conv_2023.csv")
    compare(llm, Workload(capacity=1), "llm_")


if __name__ == "__main__":
    main()
