from pathlib import Path

from flyball.discovery import default_scrape_configs
from flyball.discovery.roles import endpoint_slice_group, pod_group

POD = {
    "metadata": {"name": "web-1", "namespace": "ns", "annotations": {"prometheus.io/scrape": "true"}},
    "spec": {"nodeName": "flyball", "containers": [{"name": "app", "ports": [{"name": "web", "containerPort": 80}]}]},
    "status": {"podIP": "127.10.0.1", "phase": "Running"},
}


def test_a_pod_is_a_target_by_port_and_none_without_an_address() -> None:
    group = pod_group(POD)
    assert group.source == "pod/ns/web-1"
    assert group.labels["__meta_kubernetes_pod_annotation_prometheus_io_scrape"] == "true"
    assert [target["__address__"] for target in group.targets] == ["127.10.0.1:80"]
    assert pod_group({**POD, "status": {}}).targets == ()


def test_an_endpoint_slice_carries_its_pod() -> None:
    group = endpoint_slice_group(
        {
            "metadata": {"name": "s", "namespace": "ns"},
            "ports": [{"name": "web", "port": 80}],
            "endpoints": [{"addresses": ["127.10.0.1"], "targetRef": {"kind": "Pod", "name": "web-1"}}],
        },
        lambda *_: None,
        lambda *_: POD,
    )
    (target,) = group.targets
    assert target["__meta_kubernetes_pod_container_port_name"] == "web"
    assert target["__meta_kubernetes_endpointslice_address_target_name"] == "web-1"


def test_default_jobs() -> None:
    names = [job.job_name for job in default_scrape_configs(10250, Path("pki"))]
    assert names == ["kubernetes-pods", "kubernetes-service-endpoints", "kubelet-resource"]
