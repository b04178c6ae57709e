"""Pieces of the manifests that install our parts: objects, permissions, pods that pass the restricted standard."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flyball import __version__

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
USER = 65532
#: On the pods of every part, beside its component: what a scrape job looks for.
PART_OF = {"app.kubernetes.io/part-of": "flyball"}


@dataclass(frozen=True, slots=True)
class Installation:
    """What may be chosen of any part.

    Attributes:
        name: of its objects.
        arguments: beyond our own, to its command.
    """

    name: str
    namespace: str = "flyball-system"
    image: str = f"ghcr.io/flyball-dev/flyball:{__version__}"
    replicas: int = 2
    arguments: tuple[str, ...] = ()

    @property
    def account(self) -> tuple[str, str]:
        """Namespace and name of its service account."""
        return self.namespace, self.name

    @property
    def host(self) -> str:
        """The name of its Service."""
        return f"{self.name}.{self.namespace}.svc"


def part(
    api_version: str, kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None, **fields: Any
) -> Object:
    """An object; without a namespace a cluster-scoped one."""
    metadata: Object = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def labels_of(name: str) -> dict[str, str]:
    """What a part's pods carry, and are selected by."""
    return {"app.kubernetes.io/name": name}


def allow(group: str, resources: str, verbs: str, names: list[str] | None = None) -> Object:
    """One rule of a role: words apart by spaces."""
    rule: Object = {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}
    return rule | ({"resourceNames": names} if names else {})


def bind(name: str, role: str, account: tuple[str, str], namespace: str = "", *, kind: str = "ClusterRole") -> Object:
    """Gives a role to a service account (namespace, name); with a namespace only there."""
    subject = {"kind": "ServiceAccount", "name": account[1], "namespace": account[0]}
    binding = "RoleBinding" if namespace else "ClusterRoleBinding"
    role_ref = {"apiGroup": RBAC, "kind": kind, "name": role}
    return part(f"{RBAC}/v1", binding, name, namespace, roleRef=role_ref, subjects=[subject])


def namespace(name: str, standard: str = "restricted") -> Object:
    """A namespace that holds its pods to a pod security standard."""
    return part("v1", "Namespace", name, labels={"pod-security.kubernetes.io/enforce": standard})


def own_lease(chosen: Installation) -> list[Object]:
    """Who leads, in a lease of the part's name."""
    rules = [
        allow("coordination.k8s.io", "leases", "create"),
        allow("coordination.k8s.io", "leases", "get update", [chosen.name]),
    ]
    return own_role(chosen, rules)


def cluster_role(chosen: Installation, rules: list[Object]) -> list[Object]:
    """What a part may do in the whole cluster."""
    return [part(f"{RBAC}/v1", "ClusterRole", chosen.name, rules=rules), bind(chosen.name, chosen.name, chosen.account)]


def own_role(chosen: Installation, rules: list[Object]) -> list[Object]:
    """What a part may do in its own namespace."""
    name, space = chosen.name, chosen.namespace
    return [
        part(f"{RBAC}/v1", "Role", name, space, rules=rules),
        bind(name, name, chosen.account, space, kind="Role"),
    ]


def container(name: str, chosen: Installation, arguments: list[str], **fields: Any) -> Object:
    """A container of our image."""
    return {"name": name, "image": chosen.image, "args": [*arguments, *chosen.arguments], **fields}


def resources(cpu: str, memory: str, memory_max: str) -> Object:
    """CPU is asked for and not limited: throttled programs miss their time."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory_max}}


def probe(path: str, failures: int, port: str = "http", scheme: str = "HTTP") -> Object:
    return {"httpGet": {"path": path, "port": port, "scheme": scheme}, "failureThreshold": failures}


def scratch(size: str = "16Mi") -> Object:
    """A volume ``tmp`` in memory: everything else is read-only."""
    return {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def restricted_pod(name: str, container: Object, volumes: list[Object], *, token: bool = True) -> Object:
    """The spec of a pod with one container, which passes the restricted pod security standard, spread over nodes.

    Args:
        token: whether it talks to the API server.
    """
    container = container | {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels_of(name)},
    }
    user = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return {
        "serviceAccountName": name,
        **({} if token else {"automountServiceAccountToken": False}),
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [spread],
        "containers": [container],
        **({"volumes": volumes} if volumes else {}),
    }


def workload(kind: str, chosen: Installation, component: str, pod: Object, **spec: Any) -> Object:
    """A Deployment, StatefulSet or DaemonSet of a part."""
    labels = labels_of(chosen.name)
    of_pods = {**labels, **PART_OF, "app.kubernetes.io/component": component}
    template = {"metadata": {"labels": of_pods}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, **spec, "template": template}
    return part("apps/v1", kind, chosen.name, chosen.namespace, of_pods, spec=spec)


def deployment(chosen: Installation, component: str, pod: Object) -> Object:
    """Replaced one by one, never fewer than asked for."""
    strategy = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    return workload("Deployment", chosen, component, pod, replicas=chosen.replicas, strategy=strategy)


def stateful_set(chosen: Installation, component: str, pod: Object, storage: str, service: str = "") -> Object:
    """With a volume ``data`` of its own for each replica.

    Args:
        service: the Service that gives each replica its name; the part's own by default.
    """
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    return workload(
        "StatefulSet",
        chosen,
        component,
        pod,
        replicas=chosen.replicas,
        serviceName=service or chosen.name,
        volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": claim}],
    )


def service(chosen: Installation, port: int, name: str = "http", target: str = "") -> Object:
    ports = [{"name": name, "port": port, "targetPort": target or name, "protocol": "TCP"}]
    spec = {"selector": labels_of(chosen.name), "ports": ports}
    return part("v1", "Service", chosen.name, chosen.namespace, labels_of(chosen.name), spec=spec)


def disruption_budget(chosen: Installation) -> Object:
    spec = {"minAvailable": 1, "selector": {"matchLabels": labels_of(chosen.name)}}
    return part("policy/v1", "PodDisruptionBudget", chosen.name, chosen.namespace, spec=spec)


def network_policy(
    chosen: Installation, ports: tuple[str, ...] = (), *, pods_only: bool = True, out: bool = True
) -> Object:
    """In: these ports, from pods of the cluster. Out: everything, or nothing.

    Args:
        pods_only: false where API servers ask, which no selector names.
    """
    asked: Object = {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}
    if pods_only:
        asked = {"from": [{"namespaceSelector": {}}], **asked}
    spec = {
        "podSelector": {"matchLabels": labels_of(chosen.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [asked] if ports else [],
        "egress": [{}] if out else [],
    }
    return part("networking.k8s.io/v1", "NetworkPolicy", chosen.name, chosen.namespace, spec=spec)


def written(objects: Iterable[Mapping[str, Any]]) -> str:
    """YAML as people write it: texts of several lines as they are, and no aliases, which our own loader refuses."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Dumper, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, width=1000)
