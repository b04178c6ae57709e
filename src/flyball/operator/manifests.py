"""What installs the operator on a cluster: the objects, with the permissions that its calls need and no more."""

from dataclasses import dataclass

from flyball.kube import manifests as kube
from flyball.kube.manifests import Object, allow, container, part
from flyball.operator.controller import ALERTING_SECRET_NAME, CONFIGURED, SECRET_NAME, WATCHED

PORT = 8080


@dataclass(frozen=True, slots=True)
class Installation(kube.Installation):
    """What may be chosen."""

    name: str = "flyball-operator"


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied; the definitions of monitoring.coreos.com are not ours."""
    lease = f"--lease={chosen.namespace}/{chosen.name}"
    main = container(
        "operator",
        chosen,
        ["operator", lease, f"--web.listen-address=0.0.0.0:{PORT}"],
        ports=[{"name": "http", "containerPort": PORT}],
        resources=kube.resources("20m", "96Mi", "512Mi"),
        livenessProbe=kube.probe("/healthz", 5),
        readinessProbe=kube.probe("/healthz", 3),
    )
    return [
        kube.namespace(chosen.namespace),
        part("v1", "ServiceAccount", chosen.name, chosen.namespace),
        *_permissions(chosen),
        kube.deployment(chosen, "operator", kube.restricted_pod(chosen.name, main, [])),
        kube.disruption_budget(chosen),
        kube.network_policy(chosen, ("http",)),
    ]


def _permissions(chosen: Installation) -> list[Object]:
    """A monitor names Secrets of its own namespace, any one: they are got by name, never listed."""
    rules = [
        allow("monitoring.coreos.com", " ".join(kind.plural for kind in WATCHED), "list watch"),
        allow("monitoring.coreos.com", " ".join(f"{kind.plural}/status" for kind in CONFIGURED), "patch"),
        allow("", "namespaces", "list watch"),
        allow("", "secrets configmaps", "get"),
        allow("", "events", "create patch"),
    ]
    own = [
        allow("", "secrets", "create"),
        allow("", "secrets", "update", [SECRET_NAME, ALERTING_SECRET_NAME]),
        allow("", "configmaps", "create list update delete"),
        allow("coordination.k8s.io", "leases", "create"),
        allow("coordination.k8s.io", "leases", "get update", [chosen.name]),
    ]
    return [*kube.cluster_role(chosen, rules), *kube.own_role(chosen, own)]
