"""The adapter behind a real aggregation layer, read by an unmodified kube-controller-manager (make test-cluster)."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.adapter.on_cluster import DEADLINE_S, ROOT, Installed, end, installed, pods_of

from flyball.kube.kinds import API_SERVICES, DEPLOYMENTS, HPAS_V2

pytestmark = pytest.mark.cluster
READ_S = 20.0
LOW, HIGH = 8.0, 35.0  # against ten a pod: one replica, and four
Object = dict[str, Any]


@pytest.fixture(scope="module")
def prometheus() -> Path:
    command = [sys.executable, str(ROOT / "tools" / "prometheus.py")]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def workload(name: str) -> Object:
    containers = [
        {"name": "main", "image": "app", "resources": {"requests": {"cpu": "100m", "memory": "10Mi"}}},
        {"name": "side", "image": "app", "resources": {"requests": {"cpu": "1m", "memory": "10Mi"}}},
    ]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def hpa(name: str, metric: Object) -> Object:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": 1,
        "maxReplicas": 6,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        "metrics": [metric],
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}


def _average(value: str) -> Object:
    return {"type": "AverageValue", "averageValue": value}


_FRONT = {"kind": "Service", "apiVersion": "v1", "name": "by-object"}
#: Application -> the metric of its HPA: every type there is, each at ten requests per second and pod.
METRICS: dict[str, Object] = {
    "by-pods": {"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": _average("10")}},
    "by-object": {
        "type": "Object",
        "object": {"metric": {"name": "front_requests"}, "describedObject": _FRONT, "target": _average("10")},
    },
    "by-external": {
        "type": "External",
        "external": {
            "metric": {"name": "queue_length", "selector": {"matchLabels": {"queue": "mail"}}},
            "target": _average("10"),
        },
    },
    "by-resource": {  # the two containers request 101m, and ten requests per second take a tenth of a core
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}},
    },
    "by-container": {
        "type": "ContainerResource",
        "containerResource": {"name": "memory", "container": "main", "target": _average("10Mi")},
    },
}


def service(name: str) -> Object:
    spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def test_stock_hpas_of_every_type_scale_up_and_down(tmp_path: Path, prometheus: Path) -> None:
    async def main() -> None:
        async with installed(tmp_path / "plane", prometheus, "--described=services") as found:
            items = [service("by-object"), *map(workload, METRICS)]
            items += [hpa(name, metric) for name, metric in METRICS.items()]
            manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
            found.exporter.load = dict.fromkeys(METRICS, LOW)
            await found.kubectl("apply", "-f", "-", stdin=manifest)
            for load, replicas in ((LOW, 1), (HIGH, 4), (LOW, 1)):
                found.exporter.load = dict.fromkeys(METRICS, load)
                await _all_at(found, replicas)
            await _trusted(found)
            await _read(found)
            await _doctor(found)
            await _backends_down(found)

    asyncio.run(main())


async def _all_at(found: Installed, replicas: int) -> None:
    """Every HPA has set, and every Deployment reached, the replicas that its load asks for."""

    async def there() -> bool:
        for name in METRICS:
            hpa = await found.client.get(HPAS_V2, name, "default")
            status, deployment = hpa.get("status") or {}, await found.client.get(DEPLOYMENTS, name, "default")
            if not status.get("currentMetrics") or status.get("desiredReplicas") != replicas:
                raise AssertionError(f"{name}: {json.dumps(status)}")
            if (deployment.get("status") or {}).get("readyReplicas") != replicas:
                raise AssertionError(f"{name}: {json.dumps(deployment.get('status'))}")
        return True

    await found.until(there, f"{replicas} replicas everywhere", 2 * DEADLINE_S)


async def _trusted(found: Installed) -> None:
    """No verification is skipped on the way, and it was the HPA controller's own account that asked."""
    for item in await found.client.list(API_SERVICES):
        if item["spec"].get("group", "").endswith("metrics.k8s.io"):
            assert item["spec"]["caBundle"] and not item["spec"].get("insecureSkipTLSVerify"), item["metadata"]
    asked = found.audited("system:serviceaccount:kube-system:horizontal-pod-autoscaler")
    groups = {(event.get("objectRef") or {}).get("apiGroup") for event in asked}
    assert {"custom.metrics.k8s.io", "external.metrics.k8s.io", "metrics.k8s.io"} <= groups


async def _read(found: Installed) -> None:
    """kubectl top and kubectl get --raw."""

    async def topped() -> bool:
        lines = (await found.kubectl("top", "pods", "--no-headers")).splitlines()
        shown = {name.rsplit("-", 2)[0]: (cpu, memory) for name, cpu, memory in map(str.split, lines)}
        millicores = [int(cpu.removesuffix("m")) for cpu, _ in shown.values()]
        assert set(shown) == set(METRICS) and {memory for _, memory in shown.values()} == {"16Mi"}, lines
        assert all(60 <= value <= 100 for value in millicores), lines  # eight hundredths of a core, as scraped
        return True

    await found.until(topped, "kubectl top shows each pod's load")
    nodes = await found.kubectl("top", "nodes", "--no-headers")
    assert [line.split()[0] for line in nodes.splitlines()] == ["one", "two"] and "1024Mi" in nodes, nodes
    containers = await found.kubectl("top", "pods", "--containers", "--no-headers")
    assert {line.split()[1] for line in containers.splitlines()} == {"main", "side"}
    base = "/apis/custom.metrics.k8s.io/v1beta2"
    listed = json.loads(await found.kubectl("get", "--raw", base))
    assert {item["name"] for item in listed["resources"]} >= {"pods/requests", "services/front_requests"}
    path = f"{base}/namespaces/default/pods/*/requests?labelSelector=app%3Dby-pods"
    items = json.loads(await found.kubectl("get", "--raw", path))["items"]
    assert [item["value"] for item in items] == ["8"] and len(await pods_of(found.client, "by-pods")) == 1
    path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_length"
    assert [item["value"] for item in json.loads(await found.kubectl("get", "--raw", path))["items"]] == ["8"]
    resources = await found.kubectl("api-resources", "--api-group=metrics.k8s.io", "--no-headers", "-o", "name")
    assert resources.split() == ["nodes.metrics.k8s.io", "pods.metrics.k8s.io"]
    assert "by-pods" in await found.kubectl("describe", "hpa", "by-pods")


async def _doctor(found: Installed) -> None:
    """It judges every HPA with nothing but the cluster role ``view``, and writes nothing."""
    kubeconfig = await found.reader("viewer", "view")
    command = (sys.executable, "-m", "flyball", "doctor", "--kubeconfig", str(found.directory / kubeconfig))
    for name in METRICS:
        code, out, err = await found.run(*command, "--prometheus", found.prometheus_url, "hpa", name)
        assert code == 0, out + err
    code, out, err = await found.run(*command, "--prometheus", found.prometheus_url, "hpa", "by-nothing")
    assert code == 1 and "by-nothing" in out, out + err
    verbs = {event["verb"] for event in found.audited("system:serviceaccount:default:viewer")}
    assert verbs == {"get", "list"}, verbs


async def _backends_down(found: Installed) -> None:
    """With Prometheus dead the metrics APIs stay, nothing scales, and namespaces can be deleted."""
    await end(found.prometheus)

    async def inactive() -> bool:
        for name in METRICS:
            status = (await found.client.get(HPAS_V2, name, "default"))["status"]
            active = next(item for item in status["conditions"] if item["type"] == "ScalingActive")
            if active["status"] != "False":
                raise AssertionError(f"{name}: {json.dumps(active)}")
        return True

    await found.until(inactive, "every HPA says that it has no metric")
    for name in METRICS:
        assert (await found.client.get(DEPLOYMENTS, name, "default"))["spec"]["replicas"] == 1
    await found.kubectl("get", "--raw", "/apis/custom.metrics.k8s.io/v1beta2")
    await found.kubectl("create", "namespace", "short")
    await found.kubectl("delete", "namespace", "short", f"--timeout={READ_S:.0f}s")
    assert found.adapter.returncode is None, (found.directory / "adapter.log").read_text()[-3000:]
