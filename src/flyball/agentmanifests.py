"""What installs the agent on a cluster: on every node, its figures and its kubelet's to a receiver of remote write."""

from dataclasses import dataclass

from flyball.kube import manifests as kube
from flyball.kube.manifests import Object, allow, container, part

PORT = 9095
#: The url of a receiver stands for the one word in braces.
CONFIG = """\
global:
  scrape_interval: 15s
remote_write:
- url: {url}
"""
NO_FIGURES = "--no-node.figures"


@dataclass(frozen=True, slots=True)
class Installation(kube.Installation):
    """What may be chosen.

    Attributes:
        config: Prometheus' text for an agent as it is.
        storage: how large the queue of a node may become.
        figures: whether the node's own figures are sent; false beside the node exporter.
    """

    name: str = "flyball-agent"
    #: Its pods mount the host's files, which every standard but ``privileged`` forbids: a namespace to themselves.
    namespace: str = "flyball-agent"
    config: str = CONFIG.format(url="http://flyball-server.flyball-system.svc:9090/api/v1/write")
    storage: str = "1Gi"
    figures: bool = True


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied. The configuration is a Secret: it may name keys.

    The agent asks no API server; that its account may read kubelets' metrics is asked by the kubelets.
    """
    return [
        kube.namespace(chosen.namespace, "privileged"),
        part("v1", "ServiceAccount", chosen.name, chosen.namespace),
        *kube.cluster_role(chosen, [allow("", "nodes/metrics", "get")]),
        part("v1", "Secret", chosen.name, chosen.namespace, stringData={"agent.yml": chosen.config}),
        kube.workload("DaemonSet", chosen, "agent", _pod(chosen)),
        kube.network_policy(chosen, ("http",)),
    ]


def _pod(chosen: Installation) -> Object:
    """The host's files are mounted read-only and read as nobody: no capability, none of the host's namespaces."""
    host = {"proc": "/proc", "sys": "/sys", "root": "/"}
    arguments = [
        *("agent", "--config.file=/etc/flyball/agent.yml", "--storage.agent.path=/var/lib/flyball"),
        *(f"--storage.agent.max-size={chosen.storage}B", f"--web.listen-address=0.0.0.0:{PORT}"),
        *("--enable-feature=auto-reload-config", "--storage.remote.flush-deadline=20s"),
        *("--node.name=$(NODE_NAME)", "--node.kubelet=$(NODE_IP):10250"),
        *("--path.procfs=/host/proc", "--path.sysfs=/host/sys", "--path.rootfs=/host/root", "--no-collect=conntrack"),
        *(() if chosen.figures else (NO_FIGURES,)),
    ]
    of_node = {"NODE_NAME": "spec.nodeName", "NODE_IP": "status.hostIP"}
    main = container(
        "agent",
        chosen,
        arguments,
        env=[{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in of_node.items()],
        ports=[{"name": "http", "containerPort": PORT}],
        resources=kube.resources("50m", "96Mi", "384Mi"),
        livenessProbe=kube.probe("/-/healthy", 5),
        readinessProbe=kube.probe("/-/ready", 3),
        volumeMounts=[
            {"name": "config", "mountPath": "/etc/flyball", "readOnly": True},
            {"name": "data", "mountPath": "/var/lib/flyball"},
            {"name": "tmp", "mountPath": "/tmp"},
            *(
                {"name": name, "mountPath": f"/host/{name}", "readOnly": True, "mountPropagation": "HostToContainer"}
                for name in host
            ),
        ],
    )
    volumes: list[Object] = [
        {"name": "config", "secret": {"secretName": chosen.name}},
        {"name": "data", "emptyDir": {}},  # outlives the container; what a pod leaves unsent it sends when it is ended
        kube.scratch(),
        *({"name": name, "hostPath": {"path": path}} for name, path in host.items()),
    ]
    pod = kube.restricted_pod(chosen.name, main, volumes) | {"tolerations": [{"operator": "Exists"}]}
    del pod["topologySpreadConstraints"]
    return pod
