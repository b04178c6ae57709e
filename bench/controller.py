"""Evaluations a second of one core: spec, observation and history in, decision and history out."""

import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.report import report
from flyball.journal import Journal
from flyball.scaling import History, Observation, Pod, PodReading, Reading, decide, spec_from_hpa
from flyball.scaling.record import Inputs

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


def journalled(hpas: int = 300, rounds: int = 5) -> float:
    """Evaluations a second with their records, inputs and histories, each in a commit of its own."""
    spec, seen = situation(3, True)
    specs = [replace(spec, name=f"web-{at}") for at in range(hpas)]
    histories = [History()] * hpas
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory) / "journal.db")
        for count in range(rounds + 1):
            if count == 1:  # the first makes the records that the others are alike to
                began_s = time.process_time()
            for at, one in enumerate(specs):
                inputs = Inputs(seen, histories[at], spec=one)
                decision, histories[at] = inputs.decide(NOW_MS + count * 15_000)
                journal.append_decision(decision, histories[at], "u", inputs)
        took_s = time.process_time() - began_s
        journal.close()
    return hpas * rounds / took_s


def main() -> None:
    for pods, behavior in ((3, False), (3, True), (10, True), (100, True)):
        case = f"decide, {pods} pods{', behavior' if behavior else ''}"
        report("controller", case, max(rate(pods, behavior) for _ in range(3)), "evaluations/s", aim=FLOOR)
    share = 100 * 10_000 / 15 / max(rate(3, True) for _ in range(3))
    report("controller", "arithmetic of 10,000 HPAs at 15 s", share, "%", aim=15)
    share = 100 * 10_000 / 15 / max(journalled() for _ in range(3))
    report("controller", "10,000 HPAs at 15 s, journalled", share, "%", aim=15)


if __name__ == "__main__":
    main()
