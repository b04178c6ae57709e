"""What installs the adapter on a cluster: the objects, with the permissions that its calls need and no more."""

from dataclasses import dataclass
from typing import Any

from flyball import __version__
from flyball.adapter.tenants import metric_rule_definition

Object = dict[str, Any]
PORT = 6443
API_GROUPS = (
    ("custom.metrics.k8s.io", "v1beta1", 100),
    ("custom.metrics.k8s.io", "v1beta2", 200),
    ("external.metrics.k8s.io", "v1beta1", 100),
    ("metrics.k8s.io", "v1beta1", 100),
)
EMPTY_CONFIG = "rules: []\n"
#: On the APIServices alone: what takes the metrics APIs over, and so is applied last.
TAKES_OVER = {"flyball.dev/takes-over": "true"}


@dataclass(frozen=True, slots=True)
class Installation:
    """What may be chosen.

    Attributes:
        config: the adapter's configuration, prometheus-adapter's text as it is.
        described: (API group, resource) whose objects metrics describe, beyond pods and nodes.
        resource_metrics: whether metrics.k8s.io is taken over; leave it to metrics-server otherwise.
        standalone: no Prometheus.
    """

    namespace: str = "flyball-system"
    name: str = "flyball-adapter"
    image: str = f"ghcr.io/flyball-dev/flyball:{__version__}"
    replicas: int = 2
    prometheus_url: str = "http://prometheus-k8s.monitoring.svc:9090"
    config: str = EMPTY_CONFIG
    described: tuple[tuple[str, str], ...] = (("", "services"),)
    resource_metrics: bool = False
    standalone: bool = False


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied."""
    return [
        _object("v1", "Namespace", chosen.namespace, labels={"pod-security.kubernetes.io/enforce": "restricted"}),
        metric_rule_definition(),
        _object("v1", "ServiceAccount", chosen.name, chosen.namespace),
        *_permissions(chosen),
        _object("v1", "ConfigMap", chosen.name, chosen.namespace, data={"config.yaml": chosen.config}),
        _service(chosen),
        _deployment(chosen),
        _object(
            "policy/v1",
            "PodDisruptionBudget",
            chosen.name,
            chosen.namespace,
            spec={"minAvailable": 1, "selector": {"matchLabels": _labels(chosen)}},
        ),
        _network_policy(chosen),
        *(
            _api_service(chosen, *group)
            for group in API_GROUPS
            if group[0] != "metrics.k8s.io" or chosen.resource_metrics
        ),
    ]


def _object(
    api_version: str, kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None, **fields: Any
) -> Object:
    metadata: Object = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def _labels(chosen: Installation) -> dict[str, str]:
    return {"app.kubernetes.io/name": chosen.name}


def _rule(groups: str, resources: str, verbs: str, names: list[str] | None = None) -> Object:
    rule: Object = {"apiGroups": [groups], "resources": resources.split(), "verbs": verbs.split()}
    return rule | ({"resourceNames": names} if names else {})


def _permissions(chosen: Installation) -> list[Object]:
    rbac, name, namespace = "rbac.authorization.k8s.io/v1", chosen.name, chosen.namespace
    us = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    group = "rbac.authorization.k8s.io"
    api_services = [f"{version}.{api}" for api, version, _ in API_GROUPS]
    cluster = [
        _rule("", "pods nodes", "list watch"),
        *(_rule(api, resource, "list watch") for api, resource in chosen.described),
        _rule("apiregistration.k8s.io", "apiservices", "list watch"),
        _rule("apiregistration.k8s.io", "apiservices", "patch", api_services),
        _rule("autoscaling", "horizontalpodautoscalers", "list watch"),
        _rule("", "events", "create patch"),
        _rule("flyball.dev", "metricrules", "list watch"),
        _rule("flyball.dev", "metricrules/status", "patch"),
    ]
    if chosen.standalone:
        cluster += [
            _rule("flyball.dev", "governors", "list watch"),
            _rule("apps", "deployments/scale statefulsets/scale replicasets/scale", "get"),
        ]
    own = [
        _rule("", "configmaps", "list watch"),
        _rule("", "secrets", "create"),
        _rule("", "secrets", "get update", [f"{name}-tls"]),
    ]
    reader = [
        _rule("custom.metrics.k8s.io", "*", "get list"),
        _rule("external.metrics.k8s.io", "*", "get list"),
        _rule("metrics.k8s.io", "pods nodes", "get list"),
    ]
    hpa = [{"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}]

    def role_ref(kind: str, role: str) -> Object:
        return {"apiGroup": group, "kind": kind, "name": role}

    return [
        _object(rbac, "ClusterRole", name, rules=cluster),
        _object(rbac, "ClusterRoleBinding", name, roleRef=role_ref("ClusterRole", name), subjects=us),
        _object(
            rbac,
            "ClusterRoleBinding",
            f"{name}-auth-delegator",
            roleRef=role_ref("ClusterRole", "system:auth-delegator"),
            subjects=us,
        ),
        _object(
            rbac,
            "RoleBinding",
            f"{name}-auth-reader",
            "kube-system",
            roleRef=role_ref("Role", "extension-apiserver-authentication-reader"),
            subjects=us,
        ),
        _object(rbac, "Role", name, namespace, rules=own),
        _object(rbac, "RoleBinding", name, namespace, roleRef=role_ref("Role", name), subjects=us),
        _object(
            rbac,
            "ClusterRole",
            f"{name}-reader",
            rules=reader,
            labels={f"rbac.authorization.k8s.io/aggregate-to-{to}": "true" for to in ("view", "edit", "admin")},
        ),
        _object(
            rbac, "ClusterRoleBinding", f"{name}-hpa", roleRef=role_ref("ClusterRole", f"{name}-reader"), subjects=hpa
        ),
    ]


def _service(chosen: Installation) -> Object:
    port = {"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}
    return _object("v1", "Service", chosen.name, chosen.namespace, spec={"selector": _labels(chosen), "ports": [port]})


def _deployment(chosen: Installation) -> Object:
    own = f"{chosen.namespace}/{chosen.name}"
    arguments = [
        *("adapter", "--config=/etc/adapter/config.yaml", f"--secure-port={PORT}", f"--service={own}"),
        *(f"--cert-secret={own}-tls", "--metrics-relist-interval=1m", "--logging-format=json"),
        "--standalone" if chosen.standalone else f"--prometheus-url={chosen.prometheus_url}",
    ]

    def probe(path: str, failures: int) -> Object:
        return {"httpGet": {"path": path, "port": "https", "scheme": "HTTPS"}, "failureThreshold": failures}

    container = {
        "name": "adapter",
        "image": chosen.image,
        "args": arguments,
        "ports": [{"name": "https", "containerPort": PORT}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "livenessProbe": probe("/livez", 5),
        "readinessProbe": probe("/readyz", 3),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/adapter", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _labels(chosen)},
    }
    pod = {
        "serviceAccountName": chosen.name,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [spread],
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": chosen.name}},
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    }
    spec = {
        "replicas": chosen.replicas,
        "selector": {"matchLabels": _labels(chosen)},
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": _labels(chosen)}, "spec": pod},
    }
    return _object("apps/v1", "Deployment", chosen.name, chosen.namespace, labels=_labels(chosen), spec=spec)


def _network_policy(chosen: Installation) -> Object:
    """In: the API server and kubelets, which no selector names. Out: the API server, DNS and the metric servers."""
    spec = {
        "podSelector": {"matchLabels": _labels(chosen)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": "https", "protocol": "TCP"}]}],
        "egress": [{}],
    }
    return _object("networking.k8s.io/v1", "NetworkPolicy", chosen.name, chosen.namespace, spec=spec)


def _api_service(chosen: Installation, group: str, version: str, priority: int) -> Object:
    """Without a caBundle: the adapter writes its own authority there, and verification is never skipped."""
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": priority,
        "service": {"namespace": chosen.namespace, "name": chosen.name, "port": 443},
    }
    return _object("apiregistration.k8s.io/v1", "APIService", f"{version}.{group}", labels=TAKES_OVER, spec=spec)
