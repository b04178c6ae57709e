"""How long a backtest takes: 30 days of load a second, each policy decided at its own ticks, the results scored.

Alone by processor time. Sweeps by the wall clock, which counts on a machine that does nothing else, with the processor
time of their processes beside it; a small sweep keeps to one process, however many it may have.
"""

import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from bench.report import report
from flyball.replay.backtest import backtest
from flyball.replay.policies import Policy
from flyball.replay.sweep import sweep
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import spec_from_hpa
from flyball.scaling.governor import ForecastSettings, Governor

DAYS = 30
SWEEP = 1000
PROCESSES = 2
WORKLOAD = Workload(capacity=24)


def load(days: int) -> Trace:
    """A daily wave with noise, of its own seed."""
    at = np.arange(days * 86_400)
    noise = np.repeat(np.random.default_rng(7).normal(1, 0.05, len(at) // 60), 60)
    return Trace("wave", 0, (600 + 500 * np.sin(at / 86_400 * 2 * np.pi)) * noise)


def policies(count: int) -> list[Policy]:
    """HPAs that differ in target, bounds and behavior."""
    found = []
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
        one = spec_from_hpa({"metadata": {"namespace": "bench", "name": f"p{at}"}, "spec": spec})
        found.append(Policy(f"p{at}", Governor(one)))
    return found


def busy_s(work: Callable[[], object]) -> float:
    """Processor time of a piece of work, that of the processes which it waited for with it."""
    before = _used_s()
    work()
    return _used_s() - before


def _used_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    trace = load(DAYS)
    (hpa,) = policies(1)
    assert hpa.governor is not None
    fast = Governor(hpa.governor.spec, profile="fast")
    ahead = Governor(hpa.governor.spec, profile="fast", forecast=ForecastSettings())
    for name, policy in (
        ("HPA every 15 s", hpa),
        ("fast every second", Policy("fast", fast)),
        ("fast with forecast", Policy("ahead", ahead)),
    ):
        took_s = busy_s(lambda policy=policy: list(backtest([policy], trace, WORKLOAD)))
        report("replay", f"{DAYS} days, {name}", took_s, "s", aim=5.0)
    walls: dict[tuple[int, int], float] = {}
    for count in (10, 100) if "--quick" in sys.argv else (10, 100, SWEEP):
        for processes in (1, PROCESSES):
            began_s = time.monotonic()
            took_s = busy_s(lambda c=count, p=processes: sweep(policies(c), trace, WORKLOAD, processes=p))
            walls[count, processes] = time.monotonic() - began_s
            named = f"{count} policies, {processes} process{'es'[: 2 * (processes - 1)]}"
            aim = 120.0 if (count, processes) == (SWEEP, PROCESSES) else None
            report("replay", f"{named}, wall clock", walls[count, processes], "s", aim=aim)
            report("replay", f"{named}, processor time of each", took_s / processes, "s", aim=aim)
            report("replay", f"{named}, processor time a policy", took_s / count, "s", aim=1.0)
        gain = walls[count, 1] / walls[count, PROCESSES]
        report("replay", f"{count} policies, {PROCESSES} processes beside 1", gain, "times")


if __name__ == "__main__":
    main()
