"""HPAs in every situation that tells an autoscaler from another, each with its target, its pods and three loads.

A situation's objects carry its name. Loads follow each other; a load gives each metric what its API answers. An HPA is
rescaled at most ten times in all: from there on events are combined by when they came.
"""

from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
#: Metric -> what its API says. ``cpu`` and ``memory``: a quantity for every container of every pod, or a list with one
#: entry a pod, where None is a pod without metrics and a dict goes by container. Pods metrics: the same without
#: containers. Object: a value. External: a list of values. GONE: the API answers 404; BROKEN: 500.
Load = dict[str, Any]
GONE, BROKEN = "gone", "broken"


@dataclass(frozen=True)
class Pod:
    """One pod of a target; times in seconds before the start."""

    cpu: str | None = "100m"
    memory: str | None = "64Mi"
    phase: str = "Running"
    ready: str | None = "True"
    started_s: int | None = 3600
    ready_since_s: int = 3500
    containers: tuple[str, ...] = ("main",)
    deleting: bool = False
    sidecar_cpu: str = ""  # of a restartable init container
    pod_cpu: str = ""  # of the pod as a whole


@dataclass(frozen=True)
class Situation:
    """One HPA. ``metrics`` and ``spec`` (fields that replace ours) may hold ``$``, the situation's name."""

    name: str
    metrics: list[Object]
    loads: tuple[Load, Load, Load]
    replicas: int = 3
    pods: tuple[Pod, ...] | None = None
    status_replicas: int | None = None
    low: int | None = 1
    high: int = 10
    behavior: Object | None = None
    kind: str = "Deployment"
    spec: Object = field(default_factory=dict)
    version: str = "v2"
    twin: bool = False  # a second HPA selects the same pods

    def all_pods(self) -> tuple[Pod, ...]:
        return self.pods if self.pods is not None else (Pod(),) * self.replicas


def _resource(name: str = "cpu", container: str = "", **target: Any) -> Object:
    kind = {"averageUtilization": "Utilization", "averageValue": "AverageValue"}[next(iter(target))]
    source = {"name": name, "target": {"type": kind, **target}}
    if container:
        return {"type": "ContainerResource", "containerResource": {**source, "container": container}}
    return {"type": "Resource", "resource": source}


def _metric(name: str = "requests", selector: Object | None = None) -> Object:
    return {"name": name, **({"selector": selector} if selector else {})}


def _pods(average: str, name: str = "requests") -> Object:
    return {
        "type": "Pods",
        "pods": {"metric": _metric(name), "target": {"type": "AverageValue", "averageValue": average}},
    }


def _target(value: str = "", average: str = "") -> Object:
    return {"type": "Value", "value": value} if value else {"type": "AverageValue", "averageValue": average}


def _object(name: str = "hits", described: Object | None = None, selector: Object | None = None, **by: str) -> Object:
    found = described or {"apiVersion": "v1", "kind": "Service", "name": "$"}
    return {
        "type": "Object",
        "object": {"metric": _metric(name, selector), "describedObject": found, "target": _target(**by)},
    }


def _external(name: str = "$-queue", selector: Object | None = None, **by: str) -> Object:
    return {"type": "External", "external": {"metric": _metric(name, selector), "target": _target(**by)}}


def _rules(window_s: int = 0, select: str = "Max", tolerance: str = "", **policies: tuple[int, int]) -> Object:
    """``pods`` and ``percent``: (value, seconds)."""
    listed = [{"type": kind.capitalize(), "value": n, "periodSeconds": s} for kind, (n, s) in policies.items()]
    return {
        "stabilizationWindowSeconds": window_s,
        "selectPolicy": select,
        **({"policies": listed} if listed else {}),
        **({"tolerance": tolerance} if tolerance else {}),
    }


def _same(load: Load) -> tuple[Load, Load, Load]:
    return load, load, load


HALF = _resource(averageUtilization=50)
#: Above its target, then far below, then as it began: of a metric with target 10.
_SWING = ({"requests": "25"}, {"requests": "2"}, {"requests": "12500m"})
_QUEUE = ({"$-queue": ["90"]}, {"$-queue": ["10"]}, {"$-queue": ["35", "5500m"]})
_NOW = {"scaleUp": _rules(), "scaleDown": _rules()}
_LATE = Pod(started_s=30, ready="False", ready_since_s=30)
_ONCE_READY = Pod(ready="False", ready_since_s=600)
_PENDING = Pod(phase="Pending", ready=None, started_s=None)

SITUATIONS = (
    # cpu and memory
    Situation("cpu-up-and-down", [HALF], ({"cpu": "100m"}, {"cpu": "10m"}, {"cpu": "50m"})),
    Situation("cpu-within-tolerance", [HALF], ({"cpu": "54m"}, {"cpu": "46m"}, {"cpu": "55m"})),
    Situation("cpu-edge-of-tolerance", [HALF], ({"cpu": "55m"}, {"cpu": "45m"}, {"cpu": "56m"})),
    Situation("cpu-by-value", [_resource(averageValue="200m")], ({"cpu": "333m"}, {"cpu": "1m"}, {"cpu": "200m"})),
    Situation(
        "memory-utilization",
        [_resource("memory", averageUtilization=80)],
        ({"memory": "62Mi"}, {"memory": "5Mi"}, {"memory": "100000001"}),
    ),
    Situation(
        "memory-by-value",
        [_resource("memory", averageValue="100M")],
        ({"memory": "150M"}, {"memory": "1Gi"}, {"memory": "3M"}),
    ),
    Situation("cpu-default-of-no-metrics", [], ({"cpu": "200m"}, {"cpu": "80m"}, {"cpu": "20m"})),
    Situation("cpu-nanocores", [HALF], ({"cpu": "123456789n"}, {"cpu": "1n"}, {"cpu": "54999999n"})),
    Situation(
        "cpu-of-version-1",
        [],
        ({"cpu": "140m"}, {"cpu": "70m"}, {"cpu": "7m"}),
        version="v1",
        spec={"targetCPUUtilizationPercentage": 70},
    ),
    Situation(
        "cpu-pods-differ",
        [HALF],
        ({"cpu": ["10m", "90m", "200m"]}, {"cpu": ["0", "0", "1m"]}, {"cpu": ["50m", "49m", "51m"]}),
    ),
    Situation(
        "cpu-two-containers",
        [HALF],
        _same({"cpu": {"main": "70m", "side": "10m"}}),
        pods=(Pod(containers=("main", "side")),) * 3,
    ),
    Situation(
        "container-of-two",
        [_resource(container="main", averageUtilization=50)],
        (
            {"cpu": {"main": "90m", "side": "1"}},
            {"cpu": {"main": "5m", "side": "1"}},
            {"cpu": {"main": "50m", "side": "1"}},
        ),
        pods=(Pod(containers=("main", "side")),) * 3,
    ),
    Situation(
        "container-by-value",
        [_resource(container="side", averageValue="50m")],
        _same({"cpu": {"main": "1", "side": "90m"}}),
        pods=(Pod(containers=("main", "side")),) * 3,
    ),
    Situation("container-that-is-not", [_resource(container="gone", averageUtilization=50)], _same({"cpu": "90m"})),
    Situation("cpu-with-a-sidecar", [HALF], _same({"cpu": "90m"}), pods=(Pod(sidecar_cpu="50m"),) * 3),
    Situation("cpu-of-the-pod", [HALF], _same({"cpu": "190m"}), pods=(Pod(pod_cpu="200m"),) * 3),
    Situation("cpu-without-a-request", [HALF], _same({"cpu": "90m"}), pods=(Pod(), Pod(cpu=None), Pod())),
    Situation("cpu-metrics-gone", [HALF], ({"cpu": "90m"}, {"cpu": GONE}, {"cpu": "90m"})),
    Situation("cpu-never-there", [HALF], _same({})),
    # pods that do not count
    Situation("one-pod-missing-up", [HALF], _same({"cpu": ["100m", "100m", None]})),
    Situation("one-pod-missing-down", [HALF], _same({"cpu": ["10m", "10m", None]})),
    Situation("most-pods-missing", [HALF], _same({"cpu": ["200m", None, None, None]}), replicas=4),
    Situation("one-pod-starting", [HALF], _same({"cpu": ["100m", "100m", "300m"]}), pods=(Pod(), Pod(), _LATE)),
    Situation("one-pod-pending", [HALF], _same({"cpu": ["100m", "100m", None]}), pods=(Pod(), Pod(), _PENDING)),
    Situation(
        "one-pod-failed", [HALF], _same({"cpu": ["90m", "90m", "90m"]}), pods=(Pod(), Pod(), Pod(phase="Failed"))
    ),
    Situation("one-pod-going", [HALF], _same({"cpu": ["90m", "90m", "90m"]}), pods=(Pod(), Pod(), Pod(deleting=True))),
    Situation("one-pod-was-ready", [HALF], _same({"cpu": ["90m", "90m", "90m"]}), pods=(Pod(), Pod(), _ONCE_READY)),
    Situation("no-pod-ready", [HALF], _same({"cpu": "90m"}), pods=(_LATE, _LATE)),
    Situation("no-pods", [HALF], _same({"cpu": "90m"}), pods=()),
    Situation("more-pods-than-replicas", [_pods("10")], _SWING, pods=(Pod(),) * 4),
    Situation("unready-pods-of-a-pods-metric", [_pods("10")], _SWING, pods=(Pod(), _LATE, _PENDING)),
    # Pods, Object, External
    Situation("pods", [_pods("10")], _SWING),
    Situation(
        "pods-one-missing",
        [_pods("10")],
        ({"requests": ["25", None, "25"]}, {"requests": ["2", None, "2"]}, {"requests": ["10", None, "10"]}),
    ),
    Situation("pods-broken", [_pods("10")], ({"requests": "25"}, {"requests": BROKEN}, {"requests": "25"})),
    Situation("object-value", [_object(value="100")], ({"hits": "250"}, {"hits": "0"}, {"hits": "101"})),
    Situation("object-average", [_object(average="30")], ({"hits": "200"}, {"hits": "1"}, {"hits": "90"})),
    Situation(
        "object-of-a-namespace",
        [_object(described={"apiVersion": "v1", "kind": "Namespace", "name": "other"}, name="$-hits", value="10")],
        ({"$-hits": "25"}, {"$-hits": "10"}, {"$-hits": "9"}),
    ),
    Situation(
        "object-of-an-unknown-kind",
        [_object(described={"apiVersion": "none.io/v1", "kind": "Nothing", "name": "$"}, value="10")],
        _same({"hits": "25"}),
    ),
    Situation(
        "object-with-a-selector", [_object(selector={"matchLabels": {"zone": "a"}}, value="10")], _same({"hits": "25"})
    ),
    Situation("object-pods-not-ready", [_object(value="10")], _same({"hits": "25"}), pods=(Pod(), _LATE, _PENDING)),
    Situation("external-value", [_external(value="30")], _QUEUE),
    Situation("external-average", [_external(average="20")], _QUEUE),
    Situation(
        "external-with-a-selector",
        [
            _external(
                selector={"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}, average="20"
            )
        ],
        _QUEUE,
    ),
    Situation("external-empty", [_external(average="20")], ({"$-queue": ["90"]}, {"$-queue": []}, {"$-queue": ["90"]})),
    Situation("external-average-mid-rollout", [_external(average="20")], _QUEUE, status_replicas=5),
    Situation("huge-values", [_external(average="1")], _same({"$-queue": ["9P", "9P"]}), high=20),
    Situation("beyond-int64", [_external(average="1")], _same({"$-queue": ["9E"]}), high=20),
    Situation(
        "negative-values", [_external(value="10")], ({"$-queue": ["25"]}, {"$-queue": ["-25"]}, {"$-queue": ["0"]})
    ),
    # several metrics
    Situation(
        "largest-of-three",
        [HALF, _pods("10"), _external(average="20")],
        # one after the other, for what one look sees of two changes is chance
        (
            {"cpu": "60m", "requests": "25", "$-queue": ["30"]},
            {"cpu": "60m", "requests": "2", "$-queue": ["30"]},
            {"cpu": "60m", "requests": "2", "$-queue": ["150"]},
        ),
    ),
    Situation("one-of-two-broken-up", [HALF, _pods("10")], _same({"cpu": "100m", "requests": GONE})),
    Situation("one-of-two-broken-down", [HALF, _pods("10")], _same({"cpu": "5m", "requests": GONE})),
    Situation("all-broken", [HALF, _external(average="20")], _same({"cpu": GONE, "$-queue": BROKEN})),
    # bounds, and zero
    Situation("above-the-maximum", [HALF], _same({"cpu": "50m"}), replicas=15),
    Situation("below-the-minimum", [HALF], _same({"cpu": "50m"}), low=5),
    Situation("clamped-by-the-maximum", [HALF], _same({"cpu": "400m"}), high=4),
    Situation("clamped-by-the-minimum", [HALF], _same({"cpu": "1m"}), low=2),
    Situation("no-minimum-given", [HALF], _same({"cpu": "1m"}), low=None),
    Situation("doubling", [_external(average="1")], _same({"$-queue": ["64"]}), replicas=1, high=100),
    Situation("paused-at-zero", [_pods("10")], _SWING, replicas=0),
    Situation("paused-at-zero-with-minimum-zero", [_external(average="20")], _QUEUE, replicas=0, low=0),
    Situation(
        "to-zero-and-back",
        [_external(average="20")],
        ({"$-queue": ["0"]}, {"$-queue": ["0"]}, {"$-queue": ["70"]}),
        low=0,
        behavior=_NOW,
    ),
    Situation(
        "to-zero-with-a-broken-metric",
        [_external(average="20"), _pods("10")],
        (
            {"$-queue": ["0"], "requests": "0"},
            {"$-queue": ["0"], "requests": GONE},
            {"$-queue": ["70"], "requests": GONE},
        ),
        low=0,
        behavior=_NOW,
    ),
    # behavior
    Situation("down-at-once", [_pods("10")], _SWING, behavior={"scaleDown": _rules()}),
    Situation("down-disabled", [_pods("10")], _SWING, behavior={"scaleDown": _rules(select="Disabled")}),
    Situation(
        "up-disabled", [_pods("10")], _SWING, behavior={"scaleUp": _rules(select="Disabled"), "scaleDown": _rules()}
    ),
    Situation(
        "two-up-and-three-down-in-two-seconds",
        [_pods("10")],
        _SWING,
        behavior={"scaleUp": _rules(pods=(2, 2)), "scaleDown": _rules(pods=(3, 2))},
    ),
    Situation(
        "down-by-a-quarter",
        [_pods("10")],
        _SWING,
        replicas=8,
        behavior={"scaleUp": _rules(pods=(100, 1)), "scaleDown": _rules(percent=(25, 2))},
    ),
    Situation(
        "smallest-of-two-policies",
        [_pods("10")],
        _SWING,
        replicas=6,
        behavior={
            "scaleUp": _rules(select="Min", pods=(2, 2), percent=(50, 2)),
            "scaleDown": _rules(select="Min", pods=(4, 2), percent=(40, 2)),
        },
    ),
    Situation(
        "up-stabilized",
        [_pods("10")],
        ({"requests": "10"}, {"requests": "25"}, {"requests": "10"}),
        behavior={"scaleUp": _rules(window_s=300)},
    ),
    Situation("down-stabilized", [_pods("10")], _SWING, behavior={"scaleDown": _rules(window_s=300)}),
    Situation(
        "own-tolerance",
        [HALF],
        ({"cpu": "52m"}, {"cpu": "42m"}, {"cpu": "38m"}),
        behavior={"scaleUp": _rules(tolerance="10m"), "scaleDown": _rules(tolerance="0.2")},
    ),
    Situation(
        "no-tolerance",
        [_pods("10")],
        ({"requests": "10001m"}, {"requests": "9999m"}, {"requests": "10"}),
        behavior={"scaleUp": _rules(tolerance="0"), "scaleDown": _rules(tolerance="0")},
    ),
    # what must be remembered through a change of leader
    Situation(
        "four-up-in-half-an-hour",
        [_pods("10")],
        ({"requests": "10"}, {"requests": "25"}, {"requests": "25"}),
        behavior={"scaleUp": _rules(pods=(4, 1800))},
    ),
    Situation(
        "two-down-in-half-an-hour",
        [_pods("10")],
        ({"requests": "10"}, {"requests": "2"}, {"requests": "2"}),
        replicas=8,
        behavior={"scaleDown": _rules(pods=(2, 1800))},
    ),
    # targets
    Situation("statefulset", [_pods("10")], _SWING, kind="StatefulSet"),
    Situation("replicaset", [_pods("10")], _SWING, kind="ReplicaSet"),
    Situation("replicationcontroller", [_pods("10")], _SWING, kind="ReplicationController"),
    Situation(
        "target-that-is-not",
        [HALF],
        _same({"cpu": "90m"}),
        kind="",
        spec={"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nowhere"}},
    ),
    Situation(
        "target-of-an-unknown-kind",
        [HALF],
        _same({"cpu": "90m"}),
        kind="",
        spec={"scaleTargetRef": {"apiVersion": "none.io/v1", "kind": "Nothing", "name": "$"}},
    ),
    Situation(
        "target-that-cannot-scale",
        [HALF],
        _same({"cpu": "90m"}),
        kind="",
        spec={"scaleTargetRef": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "$"}},
    ),
    Situation("two-hpas-of-one-target", [HALF], _same({"cpu": "50m"}), twin=True),
)
