"""How the engines of the embedded cluster look in it: the StatefulSets and Services that people know.

A Prometheus object ``k8s`` becomes the StatefulSet ``prometheus-k8s``; its pods forward to the one engine there is.
Names and labels are prometheus-operator's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

FIELD_MANAGER = "flyball-operator"
IMAGE = "flyball/forwarder"

#: Fields of a spec that would shape pods or processes of its own; nothing here has them.
_WITHOUT_EFFECT = (
    "image",
    "volumes",
    "volumeMounts",
    "storage",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "containers",
    "initContainers",
    "securityContext",
    "resources",
    "shards",
    "thanos",
    "web",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """What stands behind objects of one kind.

    Attributes:
        address: ``host:port`` of the engine.
        port: the port that its pods show, named ``web``.
    """

    kind: str
    address: str
    port: int

    @property
    def name(self) -> str:
        return self.kind.lower()


def objects_of(engine: Engine, obj: Mapping[str, Any]) -> list[Object]:
    """The governing Service and the StatefulSet of an object, owned by it."""
    metadata, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    name, namespace = str(metadata.get("name")), metadata.get("namespace")
    own_labels = {
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "prometheus-operator",
        "app.kubernetes.io/name": engine.name,
    }
    selector = {**own_labels, engine.name: name}
    owner = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": engine.kind,
        "name": name,
        "uid": metadata.get("uid"),
        "controller": True,
        "blockOwnerDeletion": True,
    }
    pod_metadata = spec.get("podMetadata") or {}
    governing = spec.get("serviceName") or f"{engine.name}-operated"
    container = {
        "name": engine.name,
        "image": IMAGE,
        "args": [f"$(POD_IP):{engine.port}={engine.address}"],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": spec.get("portName") or "web", "containerPort": engine.port, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": engine.port}, "periodSeconds": 5},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": governing, "namespace": namespace, "labels": {f"operated-{engine.name}": "true"}},
        "spec": {
            "clusterIP": "None",
            "ports": [{"name": spec.get("portName") or "web", "port": engine.port, "targetPort": engine.port}],
            "selector": {"app.kubernetes.io/name": engine.name},
        },
    }
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": f"{engine.name}-{name}",
            "namespace": namespace,
            "labels": {**(metadata.get("labels") or {}), **selector},
            "ownerReferences": [owner],
        },
        "spec": {
            "serviceName": governing,
            "replicas": spec.get("replicas", 1),
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {
                    "labels": {**(pod_metadata.get("labels") or {}), **selector},
                    "annotations": {
                        "kubectl.kubernetes.io/default-container": engine.name,
                        **(pod_metadata.get("annotations") or {}),
                    },
                },
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }
    return [service, stateful_set]


def kubelet_objects(nodes: Sequence[Mapping[str, Any]], ports: Mapping[str, int]) -> list[Object]:
    """The Service ``kube-system/kubelet`` and its slice, which ServiceMonitors of kubelets select.

    Args:
        ports: by name, those that are served.
    """
    metadata: Object = {
        "name": "kubelet",
        "namespace": "kube-system",
        "labels": {
            "app.kubernetes.io/managed-by": "prometheus-operator",
            "app.kubernetes.io/name": "kubelet",
            "k8s-app": "kubelet",
        },
    }
    endpoints = [
        {
            "addresses": [address],
            "conditions": {"ready": True},
            "nodeName": node["metadata"]["name"],
            "targetRef": {"kind": "Node", "name": node["metadata"]["name"], "uid": node["metadata"].get("uid")},
        }
        for node in nodes
        if (address := _internal_ip(node))
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": "None", "ports": [{"name": name, "port": port} for name, port in ports.items()]},
    }
    labels = {**metadata["labels"], "kubernetes.io/service-name": "kubelet"}
    endpoint_slice = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports.items()],
    }
    return [service, endpoint_slice]


def _internal_ip(node: Mapping[str, Any]) -> str:
    addresses = (node.get("status") or {}).get("addresses") or ()
    return next((str(item["address"]) for item in addresses if item.get("type") == "InternalIP"), "")


def status_of(obj: Mapping[str, Any], stateful_set: Mapping[str, Any] | None, refused: str, now: str) -> dict[str, Any]:
    """The status of a Prometheus or Alertmanager object; times are kept where nothing changed.

    Args:
        refused: why its configuration is not in force; empty when it is.
        now: RFC 3339.
    """
    spec, found = obj.get("spec") or {}, (stateful_set or {}).get("status") or {}
    replicas, ready = int(spec.get("replicas", 1)), int(found.get("readyReplicas") or 0)
    without_effect = [field for field in _WITHOUT_EFFECT if spec.get(field)]
    note = f"fields without effect in the embedded cluster: {', '.join(without_effect)}" if without_effect else ""
    available = "True" if ready >= replicas else "Degraded" if ready else "False"
    conditions = [
        {"type": "Available", "status": available, "reason": "" if ready >= replicas else "SomePodsNotReady"},
        {
            "type": "Reconciled",
            "status": "False" if refused else "True",
            "reason": "InvalidConfiguration" if refused else "",
            "message": refused or note,
        },
    ]
    return {
        "paused": bool(spec.get("paused", False)),
        "replicas": int(found.get("replicas") or 0),
        "updatedReplicas": int(found.get("updatedReplicas") or 0),
        "availableReplicas": ready,
        "unavailableReplicas": max(replicas - ready, 0),
        "conditions": with_times(conditions, (obj.get("status") or {}).get("conditions") or (), obj, now),
    }


#: Kinds that nothing here stands for, with what to do instead.
UNSERVED: Mapping[str, str] = {
    "ThanosRuler": "no Thanos runs here: PrometheusRule objects are evaluated by a Prometheus object, or without any; "
    "remove this object, or run Thanos' own operator for it",
    "PrometheusAgent": "the embedded cluster runs no agents: use a Prometheus object with remoteWrite, or flyball "
    "agent on each node; remove this object",
}


def unserved_status(obj: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The status of an object of a kind in ``UNSERVED``.

    Args:
        now: RFC 3339.
    """
    what = {"status": "False", "reason": "NotSupported", "message": UNSERVED[str(obj["kind"])]}
    conditions = [{"type": kind, **what} for kind in ("Available", "Reconciled")]
    return {
        "paused": bool((obj.get("spec") or {}).get("paused", False)),
        **dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "unavailableReplicas"), 0),
        "conditions": with_times(conditions, (obj.get("status") or {}).get("conditions") or (), obj, now),
    }


def with_times(conditions: list[Object], before: Any, obj: Mapping[str, Any], now: str) -> list[Object]:
    """Conditions with the generation that they tell of, and the time at which their status last changed."""
    known = {item.get("type"): item for item in before}
    generation = (obj.get("metadata") or {}).get("generation", 0)
    return [
        {
            "message": "",
            **condition,
            "observedGeneration": generation,
            "lastTransitionTime": known[condition["type"]].get("lastTransitionTime", now)
            if known.get(condition["type"], {}).get("status") == condition["status"]
            else now,
        }
        for condition in conditions
    ]
