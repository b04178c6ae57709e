"""Jobs that a cluster has without anybody asking: annotated pods and services, and the node's own figures."""

from pathlib import Path

from flyball.model.clients import Authorization, HttpClientConfig, TLSConfig
from flyball.model.scrapeconfigs import KubernetesSD, RelabelConfig, ScrapeConfig

KUBELET_JOB = "kubelet-resource"
_META = "__meta_kubernetes_"


def default_scrape_configs(node_port: int, pki_dir: Path, *, interval_ms: int = 5_000) -> list[ScrapeConfig]:
    """Jobs ``kubernetes-pods`` and ``kubernetes-service-endpoints`` (``prometheus.io/scrape|path|port|scheme``
    annotations) and ``kubelet-resource`` (cpu and memory of pods and nodes).

    Args:
        node_port: the node's TLS port on 127.0.0.1.
        pki_dir: holds ca.crt and token.
    """
    common = (
        RelabelConfig(source_labels=(f"{_META}namespace",), target_label="namespace"),
        RelabelConfig(source_labels=(f"{_META}pod_name",), target_label="pod"),
        RelabelConfig(source_labels=(f"{_META}pod_container_name",), target_label="container"),
        RelabelConfig(source_labels=(f"{_META}pod_node_name",), target_label="node"),
        RelabelConfig(source_labels=(f"{_META}pod_phase",), regex="(Failed|Succeeded)", action="drop"),
    )
    pods = ScrapeConfig(
        job_name="kubernetes-pods",
        scrape_interval_ms=interval_ms,
        scrape_timeout_ms=interval_ms,
        kubernetes_sd_configs=(KubernetesSD(role="pod"),),
        relabel_configs=(
            *_annotated("pod"),
            # Without the annotation only declared ports are scraped, and of containers that run.
            RelabelConfig(source_labels=(f"{_META}pod_container_init",), regex="true", action="drop"),
            RelabelConfig(source_labels=("__address__",), regex=r"(.+):\d+", action="keep"),
            RelabelConfig(source_labels=(f"{_META}pod_label_app",), target_label="app"),
            *common,
        ),
    )
    endpoints = ScrapeConfig(
        job_name="kubernetes-service-endpoints",
        scrape_interval_ms=interval_ms,
        scrape_timeout_ms=interval_ms,
        kubernetes_sd_configs=(KubernetesSD(role="endpointslice"),),
        relabel_configs=(
            *_annotated("service"),
            RelabelConfig(source_labels=(f"{_META}service_name",), target_label="service"),
            *common,
        ),
    )
    node = ScrapeConfig(
        job_name=KUBELET_JOB,
        scrape_interval_ms=interval_ms,
        scrape_timeout_ms=interval_ms,
        metrics_path="/metrics/resource",
        scheme="https",
        honor_labels=True,  # the namespace, pod and container of each series are the kubelet's to say
        kubernetes_sd_configs=(KubernetesSD(role="node"),),
        http=HttpClientConfig(
            authorization=Authorization(credentials_file=str(pki_dir / "token")),
            tls=TLSConfig(ca_file=str(pki_dir / "ca.crt")),
        ),
        relabel_configs=(
            RelabelConfig(target_label="__address__", replacement=f"127.0.0.1:{node_port}"),
            RelabelConfig(source_labels=(f"{_META}node_name",), target_label="node"),
            # Several nodes may share one machine, and its port: each is asked for its own pods.
            RelabelConfig(source_labels=(f"{_META}node_name",), target_label="__param_node"),
        ),
    )
    return [pods, endpoints, node]


def _annotated(role: str) -> tuple[RelabelConfig, ...]:
    return (
        RelabelConfig(source_labels=(f"{_META}{role}_annotation_prometheus_io_scrape",), regex="true", action="keep"),
        *annotation_overrides(role),
    )


def annotation_overrides(role: str) -> tuple[RelabelConfig, ...]:
    """Scheme, path and port from ``prometheus.io/scheme|path|port``, where they are given."""
    at = f"{_META}{role}_annotation_prometheus_io"
    return (
        RelabelConfig(source_labels=(f"{at}_scheme",), regex="(https?)", target_label="__scheme__"),
        RelabelConfig(source_labels=(f"{at}_path",), regex="(.+)", target_label="__metrics_path__"),
        RelabelConfig(
            source_labels=("__address__", f"{at}_port"),
            regex=r"([^:]+)(?::\d+)?;(\d+)",
            replacement="${1}:${2}",
            target_label="__address__",
        ),
    )
