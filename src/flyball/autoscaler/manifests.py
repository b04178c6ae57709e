"""What installs the autoscaler on a cluster: the objects, with the permissions that its calls need and no more."""

from dataclasses import dataclass

from flyball import __version__
from flyball.autoscaler.definition import governor_definition
from flyball.kube.manifests import (
    RBAC,
    Object,
    allow,
    bind,
    deployment,
    disruption_budget,
    network_policy,
    part,
    restricted_pod,
)


@dataclass(frozen=True, slots=True)
class Installation:
    """What may be chosen."""

    namespace: str = "flyball-system"
    name: str = "flyball-autoscaler"
    image: str = f"ghcr.io/flyball-dev/flyball:{__version__}"
    replicas: int = 2


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied."""
    name, namespace = chosen.name, chosen.namespace
    return [
        part("v1", "Namespace", namespace, labels={"pod-security.kubernetes.io/enforce": "restricted"}),
        governor_definition(),
        part("v1", "ServiceAccount", name, namespace),
        *_permissions(chosen),
        deployment(name, namespace, chosen.replicas, _pod(chosen)),
        disruption_budget(name, namespace),
        network_policy(name, namespace),
    ]


def _permissions(chosen: Installation) -> list[Object]:
    """Governors of Deployments, StatefulSets and ReplicaSets; HPAs are only watched, for who owns a target."""
    name, namespace = chosen.name, chosen.namespace
    us = (namespace, name)
    cluster = [
        allow("flyball.dev", "governors", "list watch"),
        allow("flyball.dev", "governors/status", "update"),
        allow("autoscaling", "horizontalpodautoscalers", "list watch"),
        allow("", "pods", "list watch"),
        allow("", "events", "create patch"),
        allow("apps", "deployments/scale statefulsets/scale replicasets/scale", "get update"),
        allow("custom.metrics.k8s.io", "*", "get"),
        allow("external.metrics.k8s.io", "*", "list"),
        allow("metrics.k8s.io", "pods", "list"),
    ]
    own = [
        allow("coordination.k8s.io", "leases", "create"),
        allow("coordination.k8s.io", "leases", "get update", [name]),
    ]
    return [
        part(f"{RBAC}/v1", "ClusterRole", name, rules=cluster),
        bind(name, name, us),
        part(f"{RBAC}/v1", "Role", name, namespace, rules=own),
        bind(name, name, us, namespace, kind="Role"),
    ]


def _pod(chosen: Installation) -> Object:
    """Nothing asks it over HTTP: its API listens on loopback alone, and the lease shows whether it lives."""
    container = {
        "name": "autoscaler",
        "image": chosen.image,
        "args": [
            "autoscaler",
            f"--lease={chosen.namespace}/{chosen.name}",
            "--journal=/var/lib/flyball/journal.db",
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [
            {"name": "journal", "mountPath": "/var/lib/flyball"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    volumes = [
        {"name": "journal", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]
    return restricted_pod(chosen.name, container, volumes)
