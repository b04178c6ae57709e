"""What installs the autoscaler on a cluster: the objects, with the permissions that its calls need and no more."""

from dataclasses import dataclass

from flyball.autoscaler.definition import governor_definition
from flyball.kube import manifests as kube
from flyball.kube.manifests import Object, allow, container, part


@dataclass(frozen=True, slots=True)
class Installation(kube.Installation):
    """What may be chosen."""

    name: str = "flyball-autoscaler"


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied."""
    return [
        kube.namespace(chosen.namespace),
        governor_definition(),
        part("v1", "ServiceAccount", chosen.name, chosen.namespace),
        *_permissions(chosen),
        kube.deployment(chosen, "autoscaler", _pod(chosen)),
        kube.disruption_budget(chosen),
        kube.network_policy(chosen),
    ]


def _permissions(chosen: Installation) -> list[Object]:
    """Governors of Deployments, StatefulSets and ReplicaSets; HPAs are only watched, for who owns a target."""
    rules = [
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
    return [*kube.cluster_role(chosen, rules), *kube.own_lease(chosen)]


def _pod(chosen: Installation) -> Object:
    """Nothing asks it over HTTP: its API listens on loopback alone, and the lease shows whether it lives."""
    lease = f"--lease={chosen.namespace}/{chosen.name}"
    main = container(
        "autoscaler",
        chosen,
        ["autoscaler", lease, "--journal=/var/lib/flyball/journal.db"],
        resources=kube.resources("50m", "128Mi", "512Mi"),
        volumeMounts=[{"name": "journal", "mountPath": "/var/lib/flyball"}, {"name": "tmp", "mountPath": "/tmp"}],
    )
    volumes = [{"name": "journal", "emptyDir": {"sizeLimit": "1Gi"}}, kube.scratch()]
    return kube.restricted_pod(chosen.name, main, volumes)
