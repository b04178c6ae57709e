"""What installs the adapter on a cluster: the objects, with the permissions that its calls need and no more."""

from dataclasses import dataclass

from flyball.adapter.tenants import metric_rule_definition
from flyball.kube import manifests as kube
from flyball.kube.manifests import RBAC, Object, allow, bind, container, part

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
class Installation(kube.Installation):
    """What may be chosen.

    Attributes:
        config: the adapter's configuration, prometheus-adapter's text as it is.
        described: (API group, resource) whose objects metrics describe, beyond pods and nodes.
        resource_metrics: whether metrics.k8s.io is taken over; leave it to metrics-server otherwise.
        standalone: no Prometheus.
    """

    name: str = "flyball-adapter"
    prometheus_url: str = "http://prometheus-k8s.monitoring.svc:9090"
    config: str = EMPTY_CONFIG
    described: tuple[tuple[str, str], ...] = (("", "services"),)
    resource_metrics: bool = False
    standalone: bool = False


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied."""
    name, namespace = chosen.name, chosen.namespace
    return [
        kube.namespace(namespace),
        metric_rule_definition(),
        part("v1", "ServiceAccount", name, namespace),
        *_permissions(chosen),
        part("v1", "ConfigMap", name, namespace, data={"config.yaml": chosen.config}),
        kube.service(chosen, 443, "https"),
        _deployment(chosen),
        kube.disruption_budget(chosen),
        kube.network_policy(chosen, ("https",), pods_only=False),
        *(
            _api_service(chosen, *group)
            for group in API_GROUPS
            if group[0] != "metrics.k8s.io" or chosen.resource_metrics
        ),
    ]


def _permissions(chosen: Installation) -> list[Object]:
    name, us = chosen.name, chosen.account
    api_services = [f"{version}.{api}" for api, version, _ in API_GROUPS]
    cluster = [
        allow("", "pods nodes", "list watch"),
        *(allow(api, resource, "list watch") for api, resource in chosen.described),
        allow("apiregistration.k8s.io", "apiservices", "list watch"),
        allow("apiregistration.k8s.io", "apiservices", "patch", api_services),
        allow("autoscaling", "horizontalpodautoscalers", "list watch"),
        allow("", "events", "create patch"),
        allow("flyball.dev", "metricrules", "list watch"),
        allow("flyball.dev", "metricrules/status", "patch"),
    ]
    if chosen.standalone:
        cluster += [
            allow("flyball.dev", "governors", "list watch"),
            allow("apps", "deployments/scale statefulsets/scale replicasets/scale", "get"),
        ]
    own = [
        allow("", "configmaps", "list watch"),
        allow("", "secrets", "create"),
        allow("", "secrets", "get update", [f"{name}-tls"]),
    ]
    reader = [
        allow("custom.metrics.k8s.io", "*", "get list"),
        allow("external.metrics.k8s.io", "*", "get list"),
        allow("metrics.k8s.io", "pods nodes", "get list"),
    ]
    aggregated = {f"rbac.authorization.k8s.io/aggregate-to-{to}": "true" for to in ("view", "edit", "admin")}
    return [
        *kube.cluster_role(chosen, cluster),
        bind(f"{name}-auth-delegator", "system:auth-delegator", us),
        bind(f"{name}-auth-reader", "extension-apiserver-authentication-reader", us, "kube-system", kind="Role"),
        *kube.own_role(chosen, own),
        part(f"{RBAC}/v1", "ClusterRole", f"{name}-reader", labels=aggregated, rules=reader),
        bind(f"{name}-hpa", f"{name}-reader", ("kube-system", "horizontal-pod-autoscaler")),
    ]


def _deployment(chosen: Installation) -> Object:
    own = f"{chosen.namespace}/{chosen.name}"
    arguments = [
        *("adapter", "--config=/etc/adapter/config.yaml", f"--secure-port={PORT}", f"--service={own}"),
        *(f"--cert-secret={own}-tls", "--metrics-relist-interval=1m", "--logging-format=json"),
        "--standalone" if chosen.standalone else f"--prometheus-url={chosen.prometheus_url}",
    ]
    main = container(
        "adapter",
        chosen,
        arguments,
        ports=[{"name": "https", "containerPort": PORT}],
        resources=kube.resources("50m", "128Mi", "512Mi"),
        livenessProbe=kube.probe("/livez", 5, "https", "HTTPS"),
        readinessProbe=kube.probe("/readyz", 3, "https", "HTTPS"),
        volumeMounts=[
            {"name": "config", "mountPath": "/etc/adapter", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    )
    volumes = [{"name": "config", "configMap": {"name": chosen.name}}, kube.scratch()]
    return kube.deployment(chosen, "adapter", kube.restricted_pod(chosen.name, main, volumes))


def _api_service(chosen: Installation, group: str, version: str, priority: int) -> Object:
    """Without a caBundle: the adapter writes its own authority there, and verification is never skipped."""
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": priority,
        "service": {"namespace": chosen.namespace, "name": chosen.name, "port": 443},
    }
    return part("apiregistration.k8s.io/v1", "APIService", f"{version}.{group}", labels=TAKES_OVER, spec=spec)
