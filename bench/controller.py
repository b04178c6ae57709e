"""Evaluations a second of one core: spec, observation and history in, decision and history out."""

import time
from typing import Any

from bench.report import report
from flyball.scaling import History, Observation, Pod, PodReading, Reading, decide, spec_from_hpa

FLOOR = 10_000
ROUND_S = 1.0
NOW_MS = 1_800_000_000_000


def situation(pods: int, behavior: bool) -> tuple[Any, Observation]:
    """An HPA on cpu with so many pods, all of them read."""
    target = {"type": "Utilization", "averageUtilization": 70}
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 1000,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    if behavior:
        spec["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    names = [f"web-{at}" for at in range(pods)]
    requests = (("app", {"cpu": 1000}),)
    seen = Observation(
        spec_replicas=pods,
        status_replicas=pods,
        selector="app=web",
        selecting_hpas=("bench/web",),
        pods=tuple(Pod(name, start_ms=0, ready="True", ready_since_ms=1000, containers=requests) for name in names),
        readings=(Reading(pods={name: PodReading(500 + at, NOW_MS) for at, name in enumerate(names)}),),
    )
    return spec_from_hpa({"metadata": {"namespace": "bench", "name": "web", "uid": "u"}, "spec": spec}), seen


def rate(pods: int, behavior: bool) -> float:
    """Evaluations a second, the history carried on as a controller does at a beat of 15 s."""
    spec, seen = situation(pods, behavior)
    history, count = History(), 0
    began_s = time.process_time()
    while time.process_time() - began_s < ROUND_S:
        for _ in range(100):
            _, history = decide(spec, seen, history, NOW_MS + count * 15_000)
            count += 1
    return count / (time.process_time() - began_s)


def main() -> None:
    for pods, behavior in ((3, False), (3, True), (10, True), (100, True)):
        case = f"decide, {pods} pods{', behavior' if behavior else ''}"
        report("controller", case, max(rate(pods, behavior) for _ in range(3)), "evaluations/s")
    share = 100 * 10_000 / 15 / max(rate(3, True) for _ in range(3))
    report("controller", "arithmetic of 10,000 HPAs at 15 s", share, "%", aim=15)


if __name__ == "__main__":
    main()
