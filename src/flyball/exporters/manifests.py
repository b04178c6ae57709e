"""What installs the exporters on a cluster: of every node, of the cluster's objects, of what is probed."""

from dataclasses import dataclass

from flyball.exporters.kubestate import KINDS
from flyball.kube import manifests as kube
from flyball.kube.manifests import Installation, Object, allow, container, part

#: Its pods mount the host's files, which every standard but this one forbids: they have a namespace to themselves.
NODE = Installation("flyball-node-exporter", "flyball-node-exporter")
KUBE_STATE = Installation("flyball-kube-state-metrics", replicas=1)  # a second one would count everything twice
BLACKBOX_CONFIG = "modules:\n  http_2xx: {prober: http}\n  tcp_connect: {prober: tcp}\n"


@dataclass(frozen=True, slots=True)
class BlackboxInstallation(Installation):
    """What may be chosen.

    Attributes:
        config: blackbox_exporter's text as it is.
    """

    name: str = "flyball-blackbox-exporter"
    replicas: int = 1
    config: str = BLACKBOX_CONFIG


def node_exporter(chosen: Installation = NODE) -> list[Object]:
    """Every object, in the order in which they are applied.

    The host's files are mounted read-only and read as nobody: no capability, none of the host's namespaces. What a
    process sees only in its own network namespace (connection tracking) is left out.
    """
    host = {"proc": "/proc", "sys": "/sys", "root": "/"}
    main = container(
        "exporter",
        chosen,
        [
            *("exporter", "node", "--web.listen-address=0.0.0.0:9100", "--path.procfs=/host/proc"),
            *("--path.sysfs=/host/sys", "--path.rootfs=/host/root", "--no-collect=conntrack"),
        ],
        ports=[{"name": "http", "containerPort": 9100}],
        resources=kube.resources("20m", "48Mi", "128Mi"),
        readinessProbe=kube.probe("/", 3),
        volumeMounts=[
            {"name": name, "mountPath": f"/host/{name}", "readOnly": True, "mountPropagation": "HostToContainer"}
            for name in host
        ],
    )
    volumes: list[Object] = [{"name": name, "hostPath": {"path": path}} for name, path in host.items()]
    pod = kube.restricted_pod(chosen.name, main, volumes, token=False) | {"tolerations": [{"operator": "Exists"}]}
    del pod["topologySpreadConstraints"]
    return [
        kube.namespace(chosen.namespace, "privileged"),
        part("v1", "ServiceAccount", chosen.name, chosen.namespace),
        kube.workload("DaemonSet", chosen, "node-exporter", pod),
        kube.network_policy(chosen, ("http",), out=False),
    ]


def kube_state_metrics(chosen: Installation = KUBE_STATE) -> list[Object]:
    """Every object, in the order in which they are applied. It reads what there are series for, and no Secrets."""
    groups: dict[str, list[str]] = {}
    for kind in KINDS:
        groups.setdefault(kind.resource.group, []).append(kind.resource.plural)
    rules = [allow(group, " ".join(plurals), "list watch") for group, plurals in groups.items()]
    main = container(
        "exporter",
        chosen,
        [
            "exporter",
            "kube-state",
            "--host=0.0.0.0",
            "--port=8080",
            "--telemetry-host=0.0.0.0",
            "--telemetry-port=8081",
        ],
        ports=[{"name": "http", "containerPort": 8080}, {"name": "telemetry", "containerPort": 8081}],
        resources=kube.resources("20m", "96Mi", "512Mi"),
        livenessProbe=kube.probe("/livez", 5),
        readinessProbe=kube.probe("/healthz", 3),
    )
    return [
        kube.namespace(chosen.namespace),
        part("v1", "ServiceAccount", chosen.name, chosen.namespace),
        *kube.cluster_role(chosen, rules),
        kube.service(chosen, 8080),
        kube.deployment(chosen, "kube-state-metrics", kube.restricted_pod(chosen.name, main, [])),
        kube.network_policy(chosen, ("http", "telemetry")),
    ]


def blackbox_exporter(chosen: BlackboxInstallation) -> list[Object]:
    """Every object, in the order in which they are applied."""
    main = container(
        "exporter",
        chosen,
        ["exporter", "blackbox", "--config.file=/etc/blackbox/config.yaml", "--web.listen-address=0.0.0.0:9115"],
        ports=[{"name": "http", "containerPort": 9115}],
        resources=kube.resources("20m", "64Mi", "256Mi"),
        readinessProbe=kube.probe("/-/healthy", 3),
        volumeMounts=[{"name": "config", "mountPath": "/etc/blackbox", "readOnly": True}],
    )
    volumes: list[Object] = [{"name": "config", "configMap": {"name": chosen.name}}]
    return [
        kube.namespace(chosen.namespace),
        part("v1", "ServiceAccount", chosen.name, chosen.namespace),
        part("v1", "ConfigMap", chosen.name, chosen.namespace, data={"config.yaml": chosen.config}),
        kube.service(chosen, 9115),
        kube.deployment(chosen, "blackbox-exporter", kube.restricted_pod(chosen.name, main, volumes, token=False)),
        kube.network_policy(chosen, ("http",)),
    ]
