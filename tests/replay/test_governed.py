"""A Governor of profile fast replayed is one that is decided second by second."""

from typing import Any

import numpy as np
import pytest

from flyball.replay.engine import run_fast
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import History, Observation, Outcome, Reading, applied
from flyball.scaling.forecast import Forecaster, Shape
from flyball.scaling.governor import decide_governor, governor_from_object

PER_POD = 7
SEASONS = (600.0,)
BEHAVIOR = {
    "scaleUp": {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 20}]},
    "scaleDown": {
        "stabilizationWindowSeconds": 90,
        "policies": [{"type": "Percent", "value": 30, "periodSeconds": 45}],
    },
}


def governor(**fields: Any) -> Any:
    metric = {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": str(PER_POD)}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 2,
        "maxReplicas": 40,
        "profile": "fast",
        "metrics": [{"type": "External", "external": metric}],
        **fields,
    }
    return governor_from_object({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})


def load(seed: int, seconds: int = 1300) -> np.ndarray:
    rng, at = np.random.default_rng(seed), np.arange(seconds)
    wave = 60 + 50 * np.sin(at / 95) + 120 * (at % 600 > 500)
    return np.round(np.maximum(0, wave * rng.normal(1, 0.04, seconds)), 3)


def live(governor: Any, rate: np.ndarray, first: int, forecaster: Forecaster | None) -> list[int]:
    """``decide_governor`` each second, as the controller calls it."""
    current, history, found = first, History(began_ms=-(10**9)), []
    for at_s, value in enumerate(rate.tolist()):
        now_ms = at_s * 1000
        if forecaster is not None:
            forecaster.observe(now_ms, value / PER_POD)
        seen = Observation(current, current, "app=web", readings=(Reading(values=(round(value * 1000),)),))
        forecast = forecaster.forecast if forecaster is not None else None
        decision, history = decide_governor(governor, seen, history, now_ms, forecast)
        history = applied(history, decision, Outcome(), now_ms)
        current = decision.desired
        found.append(current)
    return found


@pytest.mark.parametrize("foreseen", [False, True])
@pytest.mark.parametrize("behavior", [None, BEHAVIOR])
def test_a_replay_decides_as_the_live_arithmetic(foreseen: bool, behavior: Any) -> None:
    fields: dict[str, Any] = {"behavior": behavior} if behavior else {}
    if foreseen:
        fields["forecast"] = {"startupSeconds": 30, "maxReplicas": 31}
    one = governor(**fields)
    rate = load(1)
    workload = Workload(capacity=PER_POD / 0.7, startup_s=30)
    expected = live(one, rate, workload.start(rate), Forecaster(30, SEASONS) if foreseen else None)
    shape = Shape(30, SEASONS) if foreseen else None
    replayed = run_fast(Trace("load", 0, rate), workload, spec=one.spec, shape=shape, ceiling=31 if foreseen else 1e9)
    assert replayed.tolist() == expected
    assert len(set(expected)) > 5
