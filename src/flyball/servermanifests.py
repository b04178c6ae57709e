"""What installs the server on a cluster: scraping, the store, PromQL and rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flyball.discovery.configs import SECRET_NAME
from flyball.kube import manifests as kube
from flyball.kube.manifests import Object, allow, container, part

PORT = 9090
#: Alerts go to every host:port, in quotes and with commas, that stands for the one word in braces.
ALERTING = """\
alerting:
  alertmanagers:
  - static_configs:
    - targets: [{alertmanagers}]
"""
#: A job of what carries ``prometheus.io/scrape|scheme|path|port`` annotations.
_ANNOTATED = """\
- job_name: {job}
  kubernetes_sd_configs:
  - role: {role}
  relabel_configs:
  - source_labels: [__meta_kubernetes_{of}_annotation_prometheus_io_scrape]
    regex: "true"
    action: keep
  - source_labels: [__meta_kubernetes_pod_phase]
    regex: Failed|Succeeded
    action: drop
  - source_labels: [__meta_kubernetes_{of}_annotation_prometheus_io_scheme]
    regex: (https?)
    target_label: __scheme__
  - source_labels: [__meta_kubernetes_{of}_annotation_prometheus_io_path]
    regex: (.+)
    target_label: __metrics_path__
  - source_labels: [__address__, __meta_kubernetes_{of}_annotation_prometheus_io_port]
    regex: ([^:]+)(?::\\d+)?;(\\d+)
    replacement: $1:$2
    target_label: __address__
  - source_labels: [__address__]
    regex: .+:\\d+
    action: keep
{more}\
  - source_labels: [__meta_kubernetes_namespace]
    target_label: namespace
  - source_labels: [__meta_kubernetes_pod_name]
    target_label: pod
  - source_labels: [__meta_kubernetes_pod_node_name]
    target_label: node
"""
_SERVICE = """\
  - source_labels: [__meta_kubernetes_service_name]
    target_label: service
"""
#: Our own parts under the job names that rules and dashboards know, and annotated pods and services.
CONFIG = f"""\
global:
  scrape_interval: 15s
  evaluation_interval: 15s
rule_files:
- /etc/flyball-rules/*.yaml
scrape_configs:
- job_name: flyball
  honor_labels: true
  kubernetes_sd_configs:
  - role: pod
    selectors:
    - role: pod
      label: app.kubernetes.io/part-of=flyball
  relabel_configs:
  - source_labels: [__meta_kubernetes_pod_container_port_name]
    regex: http
    action: keep
  - source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
    target_label: job
  - source_labels: [__meta_kubernetes_namespace]
    target_label: namespace
  - source_labels: [__meta_kubernetes_pod_name]
    target_label: pod
  - source_labels: [__meta_kubernetes_pod_node_name]
    target_label: node
{_ANNOTATED.format(job="kubernetes-pods", role="pod", of="pod", more="")}\
{_ANNOTATED.format(job="kubernetes-service-endpoints", role="endpointslice", of="service", more=_SERVICE)}\
"""
#: Containers from the kubelets, where no agents send them.
KUBELETS = """\
- job_name: kubelet
  scheme: https
  metrics_path: /metrics/cadvisor
  honor_labels: true
  authorization:
    credentials_file: /var/run/secrets/kubernetes.io/serviceaccount/token
  # Most clusters' kubelets sign their own certificates; give ca_file where yours do not.
  tls_config:
    insecure_skip_verify: true
  kubernetes_sd_configs:
  - role: node
  relabel_configs:
  - source_labels: [__meta_kubernetes_node_name]
    target_label: node
"""
#: What agents send after an outage is late, and taken all the same.
LATE = """\
storage:
  tsdb:
    out_of_order_time_window: 4h
"""


@dataclass(frozen=True, slots=True)
class Installation(kube.Installation):
    """What may be chosen.

    Attributes:
        config: prometheus.yml as it is.
        rules: rule files by name.
        storage: size of the volume.
        operator: whether what the operator writes in the same namespace is in force, too.
        agents: whether it takes what agents send.
        kubelets: whether its configuration may have jobs of nodes.
    """

    name: str = "flyball-server"
    replicas: int = 1
    config: str = CONFIG + KUBELETS
    rules: Mapping[str, str] = field(default_factory=dict)
    storage: str = "20Gi"
    operator: bool = False
    agents: bool = False
    kubelets: bool = True


def manifests(chosen: Installation) -> list[Object]:
    """Every object, in the order in which they are applied."""
    name, namespace = chosen.name, chosen.namespace
    return [
        kube.namespace(namespace),
        part("v1", "ServiceAccount", name, namespace),
        *_permissions(chosen),
        part("v1", "ConfigMap", name, namespace, data={"prometheus.yml": chosen.config}),
        part("v1", "ConfigMap", f"{name}-rules", namespace, **({"data": dict(chosen.rules)} if chosen.rules else {})),
        kube.service(chosen, PORT),
        kube.stateful_set(chosen, "server", _pod(chosen), chosen.storage),
        kube.network_policy(chosen, ("http",)),
    ]


def _permissions(chosen: Installation) -> list[Object]:
    """What discovery watches and kubelets ask for; with the operator its Secret and its rule files, too."""
    rules: list[Object] = [
        allow("", "pods services endpoints", "list watch"),
        allow("discovery.k8s.io", "endpointslices", "list watch"),
        *([allow("", "nodes", "list watch"), allow("", "nodes/metrics", "get")] if chosen.kubelets else []),
    ]
    found = kube.cluster_role(chosen, rules)
    if chosen.operator:
        own = [allow("", "secrets", "list watch", [SECRET_NAME]), allow("", "configmaps", "list watch")]
        found += kube.own_role(chosen, own)
    return found


def _pod(chosen: Installation) -> Object:
    arguments = [
        *("server", "--config.file=/etc/flyball/prometheus.yml", "--storage.tsdb.path=/var/lib/flyball"),
        *(f"--web.listen-address=0.0.0.0:{PORT}", f"--web.external-url=http://{chosen.host}:{PORT}"),
        *("--storage.memory-limit=1GB", "--enable-feature=auto-reload-config"),
        *([f"--operator-namespace={chosen.namespace}"] if chosen.operator else []),
        *(["--web.enable-remote-write-receiver"] if chosen.agents else []),
    ]
    main = container(
        "server",
        chosen,
        arguments,
        ports=[{"name": "http", "containerPort": PORT}],
        resources=kube.resources("250m", "512Mi", "2Gi"),
        startupProbe=kube.probe("/-/ready", 90),  # its log is read first
        livenessProbe=kube.probe("/-/healthy", 5),
        readinessProbe=kube.probe("/-/ready", 3),
        volumeMounts=[
            {"name": "config", "mountPath": "/etc/flyball", "readOnly": True},
            {"name": "rules", "mountPath": "/etc/flyball-rules", "readOnly": True},
            {"name": "data", "mountPath": "/var/lib/flyball"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    )
    volumes = [
        {"name": "config", "configMap": {"name": chosen.name}},
        {"name": "rules", "configMap": {"name": f"{chosen.name}-rules"}},
        kube.scratch("64Mi"),
    ]
    return kube.restricted_pod(chosen.name, main, volumes)
