"""Random situations of one HPA, as Kubernetes objects and metric readings, rich in edges.

A case is plain JSON that both sides read: upstream's controller (go/harness.go) and ours (ours.py).
"""

import random
from datetime import UTC, datetime
from typing import Any

Case = dict[str, Any]

EDGE_RATIOS = (0.0, 0.5, 0.89, 0.8999, 0.9, 0.91, 0.99, 1.0, 1.0, 1.01, 1.09, 1.1, 1.1001, 1.11, 1.5, 2.0, 3.3, 10.0)
TEXT = "the server is currently unable to handle the request"


def random_case(rng: random.Random, number: int) -> Case:
    """One situation. Times lie around ``now_ms``, many of them exactly on an edge of a window."""
    now_ms = 1_800_000_000_000 + rng.choice((0, 1, 500, rng.randrange(10**6)))
    settings = {
        "tolerance": rng.choice((0.1, 0.1, 0.1, 0.0, 0.05, 0.01)),
        "downscale_stabilization_s": rng.choice((300, 300, 0, 60)),
        "cpu_initialization_period_s": rng.choice((300, 120)),
        "initial_readiness_delay_s": rng.choice((30, 10)),
    }
    pods = [_pod(rng, at, now_ms, settings) for at in range(rng.choice((0, 1, 1, 2, 3, 3, 5, 8, 12)))]
    metrics, readings = _metrics(rng, pods, now_ms)
    current = rng.choice((len(pods), len(pods), len(pods), rng.randrange(0, 15), 0, rng.randrange(100)))
    low = rng.choice((None, 0, 1, 1, 2, 5))
    high = rng.choice((1, 5, 10, 10, 100, 1000))
    hpa: dict[str, Any] = {
        "metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": rng.randrange(1, 4)},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "maxReplicas": max(high, low or 0, 1),
            "metrics": metrics,
        },
        "status": _status(rng, now_ms),
    }
    if low is not None:
        hpa["spec"]["minReplicas"] = low
    if rng.random() < 0.6:
        hpa["spec"]["behavior"] = {"scaleUp": _rules(rng, True), "scaleDown": _rules(rng, False)}
    case: Case = {
        "id": number,
        "now_ms": now_ms,
        "hpa": hpa,
        "pods": pods,
        "spec_replicas": current,
        "status_replicas": rng.choice((current, current, current, len(pods), 0, rng.randrange(20))),
        "selector": "" if rng.random() < 0.01 else "app in (" if rng.random() < 0.01 else "app=web",
        "readings": readings,
        "settings": settings,
    }
    if rng.random() < 0.8:
        case["history"] = _history(rng, now_ms, hpa["spec"].get("behavior"), settings, current)
    if rng.random() < 0.03:
        case["other_selectors"] = {"api": rng.choice(("app=web", "app=other", "tier=x"))}
    if rng.random() < 0.02:
        case["update_error"] = TEXT
    if rng.random() < 0.01:
        case["get_error"] = TEXT
    return case


def _around(rng: random.Random, now_ms: int, span_s: int) -> int:
    """A time at, just before, just after, or anywhere within twice ``span_s`` before now."""
    edge = now_ms - span_s * 1000
    return rng.choice(
        (edge, edge - 1000, edge + 1000, edge - 1, edge + 1, now_ms - rng.randrange(2 * span_s * 1000 + 1))
    )


def rfc3339(at_ms: int) -> str:
    """Whole seconds, as metav1.Time is written."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pod(rng: random.Random, at: int, now_ms: int, settings: dict[str, Any]) -> dict[str, Any]:
    containers = [
        {"name": name, "resources": {"requests": _requests(rng)}} for name in ("app", "proxy")[: rng.choice((1, 1, 2))]
    ]
    spec: dict[str, Any] = {"containers": containers}
    if rng.random() < 0.08:
        spec["initContainers"] = [
            {
                "name": "init",
                "resources": {"requests": _requests(rng)},
                **({"restartPolicy": "Always"} if rng.random() < 0.5 else {}),
            }
        ]
    if rng.random() < 0.04:
        spec["resources"] = {"requests": rng.choice(({"cpu": "750m"}, {"memory": "512Mi"}))}
    if rng.random() < 0.03:
        spec["overhead"] = {"cpu": "50m"}
    started_ms = _around(rng, now_ms, settings["cpu_initialization_period_s"])
    status: dict[str, Any] = {"phase": rng.choice(("Running",) * 17 + ("Pending", "Failed", "Succeeded"))}
    if rng.random() < 0.97:
        status["startTime"] = rfc3339(started_ms)
    if rng.random() < 0.97:
        changed_ms = rng.choice(
            (started_ms, started_ms + settings["initial_readiness_delay_s"] * 1000, _around(rng, now_ms, 60))
        )
        status["conditions"] = [
            {"type": "Initialized", "status": "True"},
            {
                "type": "Ready",
                "status": rng.choice(("True",) * 8 + ("False", "False", "Unknown")),
                "lastTransitionTime": rfc3339(changed_ms),
            },
        ]
    meta: dict[str, Any] = {
        "namespace": "shop",
        "name": f"web-{at}",
        "labels": {"app": "web" if rng.random() < 0.97 else "other"},
    }
    if rng.random() < 0.03:
        meta["deletionTimestamp"] = rfc3339(now_ms)
    return {"metadata": meta, "spec": spec, "status": status}


def _requests(rng: random.Random) -> dict[str, str]:
    if rng.random() < 0.02:
        return {}
    return {
        "cpu": rng.choice(("100m", "250m", "1", "1500m", "333m", "0.1", "2e-1")),
        "memory": rng.choice(("64Mi", "100M", "1Gi", "123456789")),
    }


def _metrics(
    rng: random.Random, pods: list[dict[str, Any]], now_ms: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    metrics: list[dict[str, Any]] = []
    readings: dict[str, Any] = {}
    for at in range(rng.choice((1, 1, 1, 2, 3, 4))):
        kind = rng.choice(
            ("Resource", "Resource", "Resource", "ContainerResource", "Pods", "Pods", "Object", "External")
        )
        ratio = rng.choice(EDGE_RATIOS) if rng.random() < 0.6 else rng.lognormvariate(0, 0.5)
        if kind in ("Resource", "ContainerResource"):
            source, key, reading = _resource(rng, kind, pods, ratio, now_ms)
            field = "resource" if kind == "Resource" else "containerResource"
        elif kind == "Pods":
            key, target = f"m{at}", rng.choice((100, 1000, 333, 50_000, 7, 1 << 40))
            source = {"metric": _identifier(rng, key), "target": {"type": "AverageValue", "averageValue": f"{target}m"}}
            field, reading = "pods", {"pods": _pod_values(rng, pods, target * ratio, now_ms)}
        else:
            key, target = f"m{at}", rng.choice((1000, 100_000, 5, 333, 70_000))
            average = rng.random() < 0.5
            values = [int(target * ratio * (max(1, len(pods)) if average else 1))]
            if kind == "External" and rng.random() < 0.3:
                values += [rng.randrange(0, 3 * target) for _ in range(rng.randrange(1, 4))]
            if rng.random() < 0.02:
                values[0] = rng.choice((0, -values[0], 1 << 28))
            wanted = (
                {"type": "AverageValue", "averageValue": f"{target}m"}
                if average
                else {"type": "Value", "value": f"{target}m"}
            )
            source = {"metric": _identifier(rng, key), "target": wanted}
            if kind == "Object":
                source["describedObject"] = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}
            field, reading = kind.lower(), {"values": values}
        if rng.random() < 0.08:
            reading = {"error": TEXT}
        metrics.append({"type": kind, field: source})
        readings[key] = reading
    return metrics, readings


def _identifier(rng: random.Random, name: str) -> dict[str, Any]:
    if rng.random() < 0.7:
        return {"name": name}
    expression = {"key": "zone", "operator": "In", "values": ["a", "b"]}
    return {
        "name": name,
        "selector": rng.choice(({"matchLabels": {"queue": "q", "a": "b"}}, {"matchExpressions": [expression]})),
    }


def _resource(
    rng: random.Random, kind: str, pods: list[dict[str, Any]], ratio: float, now_ms: int
) -> tuple[dict[str, Any], str, dict[str, Any]]:
    name = rng.choice(("cpu", "cpu", "cpu", "memory", "example.com/gpu"))
    container = rng.choice(("app", "app", "proxy", "gone")) if kind == "ContainerResource" else ""
    target: dict[str, Any]
    if rng.random() < 0.7 and name != "example.com/gpu":
        percent = rng.choice((80, 70, 50, 60, 100, 200, 33, 1))
        target = {"type": "Utilization", "averageUtilization": percent}
        per_pod = percent / 100 * (rng.choice((250, 100, 1500)) if name == "cpu" else 67_108_864_000)
    else:
        amount = rng.choice((200, 333, 1)) if name != "memory" else 50_000_000_123
        target = {"type": "AverageValue", "averageValue": f"{amount}m"}
        per_pod = amount
    source: dict[str, Any] = {"name": name, "target": target}
    if container:
        source["container"] = container
    return source, f"{name}/{container}", {"pods": _pod_values(rng, pods, per_pod * ratio, now_ms)}


def _pod_values(rng: random.Random, pods: list[dict[str, Any]], value: float, now_ms: int) -> dict[str, list[int]]:
    missing = rng.choice((0.0, 0.0, 0.05, 0.3, 1.0)) if rng.random() < 0.5 else 0.0
    names = [pod["metadata"]["name"] for pod in pods]
    if rng.random() < 0.05:
        names.append("web-gone")
    found: dict[str, list[int]] = {}
    for name in names:
        if rng.random() >= missing:
            spread = rng.choice((1.0, 1.0, rng.uniform(0.5, 1.5)))
            found[name] = [int(value * spread), _around(rng, now_ms, 60), rng.choice((60_000, 30_000, 15_000))]
    return found


def _rules(rng: random.Random, up: bool) -> dict[str, Any]:
    """Defaults are filled in, as the API server does before the controller sees them."""
    policies = [
        {
            "type": rng.choice(("Pods", "Percent")),
            "value": rng.choice((1, 4, 10, 50, 100, 150)),
            "periodSeconds": rng.choice((15, 60, 1, 300, 1800)),
        }
        for _ in range(rng.choice((1, 1, 2, 3)))
    ]
    rules: dict[str, Any] = {"selectPolicy": rng.choice(("Max", "Max", "Min", "Disabled")), "policies": policies}
    if up or rng.random() < 0.7:
        rules["stabilizationWindowSeconds"] = rng.choice((0, 0, 60, 300, 3600))
    if rng.random() < 0.2:
        rules["tolerance"] = rng.choice(("0", "50m", "0.1", "0.05", "1", "1e-3", "330m"))
    return rules


def _status(rng: random.Random, now_ms: int) -> dict[str, Any]:
    status: dict[str, Any] = {"currentReplicas": rng.randrange(5), "desiredReplicas": rng.randrange(5)}
    conditions = []
    for kind in ("AbleToScale", "ScaledToZero", "ScalingActive", "ScalingLimited"):
        if rng.random() < 0.4:
            conditions.append(
                {
                    "type": kind,
                    "status": rng.choice(("True", "False")),
                    "reason": "Before",
                    "message": "before",
                    "lastTransitionTime": rfc3339(now_ms - 3_600_000),
                }
            )
    status["conditions"] = conditions
    return status


def _history(rng: random.Random, now_ms: int, behavior: Any, settings: dict[str, Any], current: int) -> dict[str, Any]:
    windows = [settings["downscale_stabilization_s"]]
    periods: list[int] = [15]
    if behavior:
        windows += [
            side["stabilizationWindowSeconds"] for side in behavior.values() if "stabilizationWindowSeconds" in side
        ]
        periods = [policy["periodSeconds"] for side in behavior.values() for policy in side["policies"]]

    def records(spans: list[int], most: int, count: int) -> list[list[int]]:
        return [[rng.randrange(most), _around(rng, now_ms, rng.choice(spans))] for _ in range(count)]

    return {
        "recommendations": records(windows, 2 * current + 3, rng.choice((0, 1, 2, 5))),
        "ups": records(periods, 10, rng.choice((0, 0, 1, 3))),
        "downs": records(periods, 10, rng.choice((0, 0, 1, 3))),
    }
