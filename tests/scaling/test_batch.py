"""decide_batch equals decide."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.scaling import (
    History,
    Observation,
    Pod,
    PodReading,
    Reading,
    Recommendation,
    ScaleEvent,
    Settings,
    decide,
    spec_from_hpa,
)
from flyball.scaling.batch import BatchHistory, BatchSeen, batch_history, batch_spec, decide_batch

NOW = 1_000_000_000
REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}


def metric_of(rng: random.Random, at: int) -> dict[str, Any]:
    kind = rng.choice(("Resource", "Resource", "Pods", "External", "Object"))
    milli = rng.choice((100, 333, 1000, 70_000))
    if kind == "Resource":
        if rng.random() < 0.7:
            target: dict[str, Any] = {"type": "Utilization", "averageUtilization": rng.choice((50, 70, 80, 100, 33))}
        else:
            target = {"type": "AverageValue", "averageValue": f"{milli}m"}
        return {"type": kind, "resource": {"name": rng.choice(("cpu", "memory")), "target": target}}
    if kind == "Pods":
        target = {"type": "AverageValue", "averageValue": f"{milli}m"}
        return {"type": kind, "pods": {"metric": {"name": f"m{at}"}, "target": target}}
    name, field = rng.choice((("AverageValue", "averageValue"), ("Value", "value")))
    source = {"metric": {"name": f"m{at}"}, "target": {"type": name, field: f"{milli}m"}}
    if kind == "Object":
        source["describedObject"] = {"apiVersion": "v1", "kind": "Service", "name": "s"}
    return {"type": kind, kind.lower(): source}


def behavior_of(rng: random.Random) -> dict[str, Any]:
    def side() -> dict[str, Any]:
        policies = [
            {
                "type": rng.choice(("Pods", "Percent")),
                "value": rng.choice((1, 4, 50, 100, 150)),
                "periodSeconds": period,
            }
            for period in rng.sample((15, 60, 300), rng.randrange(1, 4))
        ]
        return {
            "stabilizationWindowSeconds": rng.choice((0, 60, 300)),
            "selectPolicy": rng.choice(("Max", "Max", "Min", "Disabled")),
            "policies": policies,
            **({"tolerance": rng.choice(("0", "50m", "0.3"))} if rng.random() < 0.3 else {}),
        }

    return {"scaleUp": side(), "scaleDown": side()}


def spec_of(rng: random.Random, profile: str) -> Any:
    low = rng.choice((1, 1, 2, 5))
    body: dict[str, Any] = {"scaleTargetRef": REF, "minReplicas": low, "maxReplicas": low + rng.choice((0, 8, 90))}
    body["metrics"] = [metric_of(rng, at) for at in range(rng.choice((1, 1, 2, 3)))]
    if rng.random() < 0.6:
        body["behavior"] = behavior_of(rng)
    own = Settings(profile=profile, tolerance=rng.choice((0.1, 0.0)))
    return spec_from_hpa({"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": body}, own)


def situation(rng: random.Random, profile: str, spec: Any = None) -> tuple[Any, Observation, History, dict[str, Any]]:
    """A spec (or the one that is given), what is seen, what is remembered, and the same in numbers."""
    ready, unready, missing = rng.randrange(0, 12), rng.choice((0, 0, 1, 4)), rng.choice((0, 0, 1, 4))
    request = rng.choice((100, 250, 1000))
    spec = spec or spec_of(rng, profile)
    names = [f"r{at}" for at in range(ready)], [f"u{at}" for at in range(unready)], [f"m{at}" for at in range(missing)]
    requests = (("app", {"cpu": request, "memory": request}),)
    old = {"containers": requests, "start_ms": NOW - 10**7, "ready_since_ms": NOW - 10**6}
    pods = [Pod(name, ready="True", **old) for name in (*names[0], *names[2])]
    pods += [Pod(name, phase="Pending", **old) for name in names[1]]
    readings, usages, valid = [], [], []
    for metric in spec.metrics:
        target = (
            metric.target.average_value
            or metric.target.value
            or (metric.target.average_utilization or 1) * request // 100
        )
        ratio = rng.choice((0.0, 0.5, 0.9, 1.0, 1.0, 1.1, 1.11, 1.5, 3.0)) if rng.random() < 0.7 else rng.random() * 2
        fine = rng.random() > 0.1
        if metric.type in ("Resource", "Pods"):
            values = {name: PodReading(int(target * ratio), NOW) for name in names[0]}
            usage = int(target * ratio) * ready
            readings.append(Reading(pods=values) if fine else Reading(error="down"))
        else:
            usage = int(target * ratio * rng.choice((1, max(1, ready))))
            readings.append(Reading(values=(usage,)) if fine else Reading(error="down"))
        usages.append(usage)
        valid.append(fine)
    current = rng.choice((max(1, ready + unready + missing), rng.randrange(0, 20)))
    status = rng.choice((current, rng.randrange(0, 20)))
    seen = Observation(current, status, "app=web", pods=tuple(pods), readings=tuple(readings))
    history = History(
        tuple(
            Recommendation(rng.randrange(20), NOW - rng.choice((0, 60_000, 300_000, rng.randrange(700_000))))
            for _ in range(rng.randrange(4))
        ),
        tuple(
            ScaleEvent(rng.randrange(1, 9), NOW - rng.choice((15_000, 60_000, rng.randrange(400_000))))
            for _ in range(rng.randrange(3))
        ),
        tuple(
            ScaleEvent(rng.randrange(1, 9), NOW - rng.choice((15_000, 60_000, rng.randrange(400_000))))
            for _ in range(rng.randrange(3))
        ),
    )
    numbers = {
        "spec_replicas": current,
        "status_replicas": status,
        "ready": ready,
        "unready": unready,
        "missing": missing,
    }
    return (
        spec,
        seen,
        history,
        {**numbers, "usage": usages, "request": request, "valid": valid, "running": ready + missing},
    )


def comparable(case: tuple[Any, Observation, History, dict[str, Any]]) -> bool:
    spec, seen, _, numbers = case
    # pods that are ready yet have no metric count for a total's ratio but not for a mean: keep to one kind in one case
    total = any(metric.type in ("Object", "External") for metric in spec.metrics)
    # no pod at all is an error of its own, which a replay never meets above zero replicas
    return bool(seen.pods) and not (numbers["missing"] and total)


@pytest.mark.parametrize("profile", ["<=1.32", "1.33-1.36", "1.37"])
def test_a_batch_decides_as_each_alone(profile: str) -> None:
    rng = random.Random(profile)
    cases = [situation(rng, profile) for _ in range(1500)]
    cases = [case for case in cases if comparable(case)]
    specs, histories, numbers = [c[0] for c in cases], [c[2] for c in cases], [c[3] for c in cases]
    columns = batch_spec(specs)
    depth = columns.kind.shape[0]

    def column(name: str) -> Any:
        return np.array([number[name] for number in numbers], np.int64)

    def table(name: str, fill: Any) -> Any:
        return np.array([(number[name] + [fill] * depth)[:depth] for number in numbers]).T

    current = column("spec_replicas")
    seen = BatchSeen(
        current, column("status_replicas"), column("ready"), column("unready"), column("missing"),
        table("usage", 0), np.tile(column("request"), (depth, 1)), table("valid", False),
    )  # fmt: skip
    batch = decide_batch(columns, seen, batch_history(specs, histories, current, NOW))
    moved = 0
    for at, (spec, alone_seen, history, _) in enumerate(cases):
        decision, _ = decide(spec, alone_seen, history, NOW)
        assert decision.desired == batch.desired[at], (spec, alone_seen, history)
        expected = -1 if decision.recommended is None else decision.recommended
        assert expected == batch.recommended[at], (spec, alone_seen, history)
        moved += decision.rescale
    assert moved > len(cases) // 4


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 1 << 40), st.sampled_from(["<=1.32", "1.33-1.36", "1.37"]), st.integers(1, 3), st.integers(1, 5))
def test_a_batch_of_policies_and_times_decides_as_each_alone(
    seed: int, profile: str, policies: int, times: int
) -> None:
    rng = random.Random(seed)
    specs = [spec_of(rng, profile) for _ in range(policies)]

    def case_of(spec: Any) -> Any:
        while not comparable(case := situation(rng, profile, spec)):
            pass
        return case

    cases = [[case_of(spec) for _ in range(times)] for spec in specs]
    columns = batch_spec(specs)
    depth = columns.kind.shape[0]

    def column(name: str) -> Any:
        return np.array([[case[3][name] for case in row] for row in cases], np.int64)

    def table(name: str, fill: Any) -> Any:
        return np.moveaxis(
            np.array([[(case[3][name] + [fill] * depth)[:depth] for case in row] for row in cases]), 2, 0
        )

    current = column("spec_replicas")
    seen = BatchSeen(
        current, column("status_replicas"), column("ready"), column("unready"), column("missing"),
        table("usage", 0), np.tile(column("request"), (depth, 1, 1)), table("valid", False),
    )  # fmt: skip
    digests = [batch_history(specs, [row[at][2] for row in cases], current[:, at], NOW) for at in range(times)]
    names = ("lowest", "highest", "up_start", "down_start")
    history = BatchHistory(*(np.stack([getattr(one, name) for one in digests], axis=-1) for name in names))
    batch = decide_batch(columns.over_times(), seen, history)
    for at, row in enumerate(cases):
        for when, (spec, alone_seen, past, _) in enumerate(row):
            decision, _ = decide(spec, alone_seen, past, NOW)
            assert decision.desired == batch.desired[at, when]
            assert batch.recommended[at, when] == (-1 if decision.recommended is None else decision.recommended)
