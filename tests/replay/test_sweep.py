"""Policies over several processes."""

import numpy as np
import pytest

from flyball.replay import sweep as sweeping
from flyball.replay.policies import policy_of
from flyball.replay.sweep import sweep
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload


def test_processes_give_what_one_gives_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_ALONE_UP_TO", 0)
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    policies = []
    for at, target in enumerate((50, 60, 70)):
        metric = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}
        spec = {
            "scaleTargetRef": reference,
            "maxReplicas": 90,
            "metrics": [{"type": "Resource", "resource": metric}],
            **({"profile": "fast"} if at == 1 else {}),
        }
        version, kind = (
            ("flyball.dev/v1alpha1", "Governor") if at == 1 else ("autoscaling/v2", "HorizontalPodAutoscaler")
        )
        policies.append(policy_of({"apiVersion": version, "kind": kind, "metadata": {"name": f"p{at}"}, "spec": spec}))
    rate = 60 + 50 * np.sin(np.arange(1200) / 90)
    told: list[tuple[str, float]] = []
    trace, workload = Trace("wave", 0, rate), Workload(capacity=5)
    several = sweep(policies, trace, workload, processes=2, progress=lambda *one: told.append(one))
    alone = sweep(policies, trace, workload, processes=1)
    assert [result.policy for result in several] == ["p0", "p1", "p2"]
    for one, other in zip(several, alone, strict=True):
        assert (one.scores, one.latency, one.saturated) == (other.scores, other.latency, other.saturated)
        assert len(one.desired) == 0
    assert told[-1] == ("sweep", 1.0)
