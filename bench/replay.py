"""How long a backtest takes: 30 days of load a second, stock HPA decisions every 15 s, in processor time.

Sweeps run in two processes; what they took by the wall clock counts on a machine that does nothing else.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from bench.report import report
from flyball.replay.engine import run_columns, run_fast, run_parity, shape_for
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import spec_from_hpa

DAYS = 30
SWEEP = 1000
PROCESSES = 2


def load(days: int) -> Trace:
    """A daily wave with noise, of its own seed."""
    at = np.arange(days * 86_400)
    noise = np.repeat(np.random.default_rng(7).normal(1, 0.05, len(at) // 60), 60)
    return Trace("wave", 0, (600 + 500 * np.sin(at / 86_400 * 2 * np.pi)) * noise)


def policies(count: int) -> list[object]:
    """HPAs that differ in target, bounds and behavior."""
    found: list[object] = []
    for at in range(count):
        target = {"type": "Utilization", "averageUtilization": 40 + at % 50}
        spec = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1 + at % 3,
            "maxReplicas": 500,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        }
        if at % 2:
            spec["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 60 * (1 + at % 5)}}
        found.append(spec_from_hpa({"metadata": {"namespace": "bench", "name": f"p{at}"}, "spec": spec}))
    return found


def sweep(part: tuple[int, int]) -> float:
    """Half of the policies in a process of its own: its processor time."""
    first, last = part
    trace, began_s = load(DAYS), time.process_time()
    run_columns(policies(last)[first:], trace, Workload(capacity=24))  # type: ignore[arg-type]
    return time.process_time() - began_s


def main() -> None:
    trace, workload = load(DAYS), Workload(capacity=24)
    began_s = time.process_time()
    run_parity(policies(1), trace, workload)  # type: ignore[arg-type]
    report("replay", f"{DAYS} days, alone", time.process_time() - began_s, "s", aim=5.0)
    began_s = time.process_time()
    run_fast(trace, workload, shape=shape_for(trace, workload))
    report("replay", f"{DAYS} days, fast with forecast", time.process_time() - began_s, "s", aim=5.0)
    for count in (100,) if "--quick" in sys.argv else (100, SWEEP):
        began_s = time.monotonic()
        with ProcessPoolExecutor(PROCESSES) as pool:
            parts = [(count * at // PROCESSES, count * (at + 1) // PROCESSES) for at in range(PROCESSES)]
            busy_s = sum(pool.map(sweep, parts))
        report("replay", f"{DAYS} days, {count} policies, as they came", time.monotonic() - began_s, "s", aim=120.0)
        report("replay", f"{count} policies, processor time of each", busy_s / PROCESSES, "s", aim=120.0)
        report("replay", f"per policy of {count}", busy_s / count, "s", aim=1.0)


if __name__ == "__main__":
    main()
