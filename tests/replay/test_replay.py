"""Traces, the workload model, both engines and the scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyball.errors import ConfigError
from flyball.replay.engine import run_fast
from flyball.replay.peers import run_knative, run_oracle
from flyball.replay.stretches import run_parity
from flyball.replay.traces import Trace, read_trace
from flyball.replay.workload import Workload
from flyball.scaling import History, Observation, Outcome, Pod, PodReading, Reading, applied, decide, spec_from_hpa
from flyball.scaling.elasticity import scores
from flyball.scaling.forecast import Forecaster

PERIOD_S = 15
BEHAVIOR = {
    "scaleUp": {"stabilizationWindowSeconds": 30, "policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}]},
    "scaleDown": {
        "stabilizationWindowSeconds": 60,
        "policies": [{"type": "Percent", "value": 30, "periodSeconds": 45}],
    },
}


def hpa(kind: str = "cpu", **fields: Any) -> Any:
    if kind == "cpu":
        metric: Any = {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
        }
    elif kind == "pods":
        metric = {
            "type": "Pods",
            "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "7"}},
        }
    else:
        metric = {
            "type": "External",
            "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "7"}},
        }
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": ref, "minReplicas": 1, "maxReplicas": 60, "metrics": [metric], **fields}
    return spec_from_hpa({"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": spec})


def wave(seconds: int = 3000, seed: int = 5) -> Trace:
    rng = np.random.default_rng(seed)
    base = 60 + 50 * np.sin(np.arange(seconds) / 250) + 80 * (np.arange(seconds) % 900 > 600)
    return Trace("wave", 0, np.maximum(1.0, base * rng.normal(1, 0.05, seconds)))


def live(spec: Any, trace: Trace, workload: Workload) -> np.ndarray[Any, Any]:
    """The same run with ``decide`` and named pods: every pod by itself."""
    born = {f"old-{at}": -10_000 for at in range(workload.start(trace.rate))}  # pod -> ready at
    desired, history, busy, serial = [], History(), [], 0
    for at_s in range(0, len(trace), PERIOD_S):
        for second in range(max(0, at_s - PERIOD_S), at_s):
            ready = sum(ready_s <= second for ready_s in born.values())
            busy.append(min(workload.saturation, trace.rate[second] / (max(1, ready) * workload.capacity)))
        end = max(0, len(busy) - workload.age_s)
        part = busy[max(0, end - workload.window_s) : end]
        mean = float(np.mean(part)) if part else 0.0
        settle_s = workload.window_s + workload.age_s if spec.metrics[0].type == "Resource" else 0
        counted = [name for name, ready_s in born.items() if ready_s + settle_s <= at_s]
        now_ms = at_s * 1000
        old = {"start_ms": -10_000_000, "ready_since_ms": -9_000_000, "containers": (("app", {"cpu": 1000}),)}
        pods = [
            Pod(name, ready="True", **old) if name in counted else Pod(name, phase="Pending", **old) for name in born
        ]
        end_s = max(1, at_s - workload.age_s)
        total = int(float(trace.rate[max(0, end_s - workload.window_s) : end_s].mean()) * 1000)
        each = int(mean * 1000) if settle_s else int(mean * workload.capacity * 1000)
        readings = {name: PodReading(each, now_ms) for name in counted}
        reading = Reading(values=(total,)) if spec.metrics[0].type == "External" else Reading(pods=readings)
        current = len(born)
        seen = Observation(current, current, "app=web", pods=tuple(pods), readings=(reading,))
        decision, history = decide(spec, seen, history, now_ms)
        if decision.rescale:
            history = applied(history, decision, Outcome(), now_ms)
        for _ in range(decision.desired - current):
            serial += 1
            born[f"pod-{serial}"] = at_s + workload.startup_s
        for name in list(reversed(born))[: max(0, current - decision.desired)]:
            del born[name]
        desired.append(decision.desired)
    return np.repeat(desired, PERIOD_S)[: len(trace)]


@pytest.mark.parametrize("kind", ["cpu", "pods", "external"])
@pytest.mark.parametrize("behavior", [None, BEHAVIOR])
def test_a_replay_decides_as_the_live_arithmetic(kind: str, behavior: Any) -> None:
    spec = hpa(kind, **({"behavior": behavior} if behavior else {}))
    trace, workload = wave(), Workload(capacity=10)
    expected = live(spec, trace, workload)
    (replayed,) = run_parity([spec], trace, workload, PERIOD_S)
    assert np.array_equal(replayed, expected)
    assert len(np.unique(replayed)) > 5


def test_policies_side_by_side_decide_as_the_live_arithmetic() -> None:
    trace, workload = wave(1500), Workload(capacity=10)
    limits = [{"type": "Pods", "value": value, "periodSeconds": period_s} for value, period_s in ((4, 90), (1, 200))]
    steep = {
        "scaleUp": {"policies": limits, "tolerance": "0"},
        "scaleDown": {"policies": limits, "tolerance": "0", "stabilizationWindowSeconds": 0},
    }
    specs = [hpa("cpu"), hpa("pods", behavior=steep), hpa("external", maxReplicas=9), hpa("cpu", behavior=BEHAVIOR)]
    together = run_parity(specs, trace, workload, PERIOD_S)
    for spec, replayed in zip(specs, together, strict=True):
        assert np.array_equal(replayed, live(spec, trace, workload))
    # up and down again within the longest period, with a floor in between
    floor = np.where(np.arange(len(trace)) % 300 < 40, 30, 0)
    (held,) = run_parity([specs[1]], trace, workload, PERIOD_S, floors=[floor])
    assert (held[floor > 0][PERIOD_S:] >= 30).sum() > 100 and held.min() < 20


def test_supply_follows_after_the_start_up_time_and_stops_at_once() -> None:
    desired = np.array([2] * 10 + [5] * 10 + [3] * 20)
    supply = Workload(capacity=1, startup_s=4).supply(desired)
    assert supply.tolist() == [2] * 14 + [5] * 6 + [3] * 20
    # starting pods end first, so that a short rise never was supply
    blip = np.array([2] * 5 + [9] * 3 + [2] * 10)
    assert Workload(capacity=1, startup_s=4).supply(blip).tolist() == [2] * 18


def test_scores_of_a_run() -> None:
    found = scores(np.array([4, 4, 4, 4]), np.array([2, 4, 5, 4]), np.array([2, 4, 5, 5]))
    assert (found.theta_u, found.theta_o, found.tau_u, found.tau_o) == (12.5, 6.25, 25.0, 25.0)
    assert (found.changes, found.cost) == (2, 15 / 16)


def test_fast_covers_a_step_at_once_and_holds_through_noise() -> None:
    rate = np.concatenate([np.full(300, 70.0), np.full(300, 700.0)])
    workload = Workload(capacity=10)
    desired = run_fast(Trace("step", 0, rate), workload)
    assert desired[299] == 10 and desired[300] == 107  # demand and the headroom
    noisy = Trace("noise", 0, 700 * np.random.default_rng(1).uniform(0.98, 1.02, 2000))
    assert np.count_nonzero(np.diff(run_fast(noisy, workload))) < 10


def test_fast_sees_of_the_load_what_saturated_pods_show() -> None:
    rate = np.concatenate([np.full(100, 70.0), np.full(400, 2000.0)])
    workload = Workload(capacity=10, startup_s=20)
    seen, desired = [], run_fast(Trace("step", 0, rate), workload, spec=hpa("cpu", maxReplicas=1000))
    for at in range(len(rate)):
        ready = workload.supply(desired[:at])[-1] if at else desired[0]
        seen.append(min(rate[at], ready * 10 * workload.saturation))
    shown = run_fast(Trace("shown", 0, np.array(seen)), workload)
    assert np.array_equal(desired, shown)
    assert np.unique(desired).tolist() == [10, 31, 95, 289]  # three times as many each time that pods are ready
    assert run_fast(Trace("step", 0, rate), workload, spec=hpa("external", maxReplicas=1000))[101] > 285


def test_fast_sizes_for_the_target_of_its_metric() -> None:
    trace, workload = Trace("flat", 0, np.full(200, 700.0)), Workload(capacity=10)
    half = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 35}},
    }
    assert run_fast(trace, workload, spec=hpa("cpu", maxReplicas=1000, metrics=[half]))[-1] >= 200


def test_fast_leaves_a_quiet_time_after_the_hold_and_stays_within_bounds() -> None:
    rate = np.concatenate([np.full(100, 700.0), np.full(100, 70.0)])
    desired = run_fast(Trace("fall", 0, rate), Workload(capacity=10), bounds=np.tile([[20, 80]], (4, 1)))
    assert desired[0] == 80 and desired[129] == 80 and desired[131] == 20


def test_a_forecast_sees_a_daily_rise_before_it_comes() -> None:
    forecaster = Forecaster(30, seasons_s=(600.0,))
    for at_s in range(0, 6000, 3):
        forecaster.observe(at_s * 1000, 10.0 if at_s % 600 < 300 else 20.0)
    for at_s in range(6000, 6000 + 290, 3):
        forecaster.observe(at_s * 1000, 10.0)
    forecast = forecaster.forecast
    assert forecast is not None and forecast.by_model
    assert forecast.expected == pytest.approx(20, rel=0.05) and forecast.for_ms - forecast.at_ms == 30_000


def test_a_forecast_of_noise_gives_way_to_as_now() -> None:
    forecaster, rng = Forecaster(30, seasons_s=()), np.random.default_rng(2)
    level = 100.0
    for at_s in range(0, 900, 3):
        level *= float(np.exp(rng.normal(0, 0.05)))  # a random walk: nothing to know
        forecaster.observe(at_s * 1000, level)
    assert forecaster.forecast is not None and forecaster.forecast.expected == pytest.approx(level, rel=0.15)


def test_a_forecast_bridges_gaps_and_ignores_what_is_no_number() -> None:
    forecaster = Forecaster(30, seasons_s=(600.0,))
    forecaster.observe(0, 10.0)
    forecaster.observe(3000, float("nan"))
    forecaster.observe(60_000, 12.0)
    assert forecaster.forecast is not None and forecaster.forecast.at_ms == 60_000
    forecaster.observe(10_000_000_000, 12.0)  # far longer than is remembered: starts anew
    assert forecaster.forecast.expected == pytest.approx(12.0)


def test_peers_follow_demand() -> None:
    trace, workload = wave(), Workload(capacity=10)
    demand = workload.demand(trace.rate)
    assert scores(demand, workload.supply(run_oracle(trace, workload)), demand).theta_u == 0
    knative = run_knative(trace, workload)
    assert 0.8 < knative.mean() / demand.mean() < 1.5


def test_a_trace_of_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "period,count\n2026-01-01 00:00:00,60\n"
        "2026-01-01 00:01:00,120\n2026-01-01 00:02:00,120\n2026-01-01 00:05:00,0\n"
    )
    trace = read_trace(path)
    assert trace.rate[0] == 1.0 and trace.rate[30] == 1.5 and trace.rate[100] == 2.0
    counted, bridged, coarse = trace.notes
    assert counted == "count counts the 60 s up to the next row"
    assert bridged.startswith("1 gap in the trace (33.3% of its time, the longest 120 s after 2026-01-01T00:02:00Z)")
    assert coarse.startswith("points are 60 s apart: between them the load is smoother, and easier to foresee")
    assert read_trace(path, per_second=True).rate[0] == 60
    assert len(read_trace(path, compress=10)) == len(trace) // 10
    assert len(read_trace(path, begin="2026-01-01T00:01:00", end="2026-01-01T00:03:00")) == 120


def test_a_trace_of_requests(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens\n2023-11-16 18:15:46.6805900,3\n2023-11-16 18:15:46.9,1\n2023-11-16 18:15:48.7,2\n"
    )
    trace = read_trace(path)
    assert read_trace(path, begin="2023-11-16T18:15:46.7Z", end="2023-11-16T19:15:49+01:00").rate.tolist() == [1, 1]
    tokens = read_trace(path, column="ContextTokens")
    assert tokens.rate.tolist() == [4, 0, 2] and tokens.notes[0].startswith("rows come at any time: ContextTokens is")
    assert trace.rate.tolist() == [2, 0, 1] and trace.notes == ("each row is one request",)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n2,3\n", "no time column named one of period"),
        ("time,count\n1,x\n2,3\n", "t.csv:2: 'x' is not a number"),
        ("time,count\n1,-4\n2,3\n", "not a load"),
        ("time,load\n" + "".join(f"{at},5\n" for at in range(20)), "name the one of the load with --column: load"),
        ("time,count\nyesterday,4\n2,3\n", "t.csv:2: 'yesterday' is not a time"),
        ("time,count\n1\n2,3\n", "t.csv:2: 1 columns"),
        ("time,count\n1,4\n", "fewer than two rows"),
    ],
)
def test_a_bad_trace_says_where(tmp_path: Path, text: str, wanted: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=wanted):
        read_trace(path)
