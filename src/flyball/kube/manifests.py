"""Pieces of the manifests that install our parts: objects, permissions, pods that pass the restricted standard."""

from typing import Any

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
USER = 65532


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


def restricted_pod(name: str, container: Object, volumes: list[Object]) -> Object:
    """The spec of a pod with one container, which passes the restricted pod security standard, spread over nodes."""
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
    return {
        "serviceAccountName": name,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [spread],
        "containers": [container],
        "volumes": volumes,
    }


def deployment(name: str, namespace: str, replicas: int, pod: Object) -> Object:
    """Replaced one by one, never fewer than asked for."""
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels_of(name)},
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": labels_of(name)}, "spec": pod},
    }
    return part("apps/v1", "Deployment", name, namespace, labels_of(name), spec=spec)


def disruption_budget(name: str, namespace: str) -> Object:
    spec = {"minAvailable": 1, "selector": {"matchLabels": labels_of(name)}}
    return part("policy/v1", "PodDisruptionBudget", name, namespace, spec=spec)


def network_policy(name: str, namespace: str, ports: tuple[str, ...] = ()) -> Object:
    """In: these ports, from anywhere (no selector names API servers and kubelets). Out: everything."""
    spec = {
        "podSelector": {"matchLabels": labels_of(name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": port, "protocol": "TCP"} for port in ports]}] if ports else [],
        "egress": [{}],
    }
    return part("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec=spec)
