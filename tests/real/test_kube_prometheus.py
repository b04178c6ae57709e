"""The unmodified kube-prometheus on Flyball: its pods run, its targets are up, and the resource metrics still come."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Flyball, eventually

pytestmark = pytest.mark.real

MANIFESTS = Path(os.environ.get("FLYBALL_SHARED", Path(__file__).parents[3] / "shared")) / "kube-prometheus"
RUNNING = ("kube-state-metrics", "node-exporter", "prometheus-adapter")
BUSY = ["python", "-c", "while True: sum(range(10000))"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Flyball]:
    if not MANIFESTS.is_dir():
        pytest.skip("needs the manifests of kube-prometheus; name their parent in FLYBALL_SHARED")
    one = Flyball(tmp_path_factory.mktemp("stack") / "data", kubectl_path)
    one.start()
    one.kubectl("create", "deployment", "busy", "--image=python:3", "--", *BUSY)
    one.kubectl("set", "resources", "deployment/busy", "--requests=cpu=100m", "--limits=cpu=200m")
    for folder in ("setup", "."):
        said = one.kubectl("apply", "--server-side", "-f", str(MANIFESTS / folder))
        assert all(line.endswith("serverside-applied") for line in said.splitlines())
    yield one
    one.stop()


def targets(cluster: Flyball) -> dict[str, set[str]]:
    """The health of each ServiceMonitor's targets."""
    with urllib.request.urlopen(f"{cluster.prometheus}/api/v1/targets", timeout=5) as answer:
        found: dict[str, set[str]] = {}
        for target in json.load(answer)["data"]["activeTargets"]:
            found.setdefault(target["scrapePool"].rpartition("/")[0], set()).add(target["health"])
        return found


def pods(cluster: Flyball) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = cluster.get("pods", "-n", "monitoring")["items"]
    return items


def test_the_pods_of_exporters_and_adapter_run_and_their_targets_are_up(cluster: Flyball) -> None:
    def running() -> bool:
        ready = {
            pod["metadata"]["labels"]["app.kubernetes.io/name"]: [
                one["ready"] for one in pod["status"].get("containerStatuses", [])
            ]
            for pod in pods(cluster)
        }
        return all(ready[name] and all(ready[name]) for name in RUNNING)

    eventually(running, 120)

    def up() -> bool:
        found = targets(cluster)
        return all(found[f"serviceMonitor/monitoring/{name}"] == {"up"} for name in RUNNING)

    eventually(up, 120)


def test_a_program_of_ours_is_not_held_to_another_ones_limits(cluster: Flyball) -> None:
    statuses = [
        one for pod in pods(cluster) for one in pod["status"]["containerStatuses"] if "rbac-proxy" in one["name"]
    ]
    assert statuses and all(one["restartCount"] == 0 for one in statuses)


def test_the_resource_metrics_come_from_prometheus_adapter(cluster: Flyball) -> None:
    service = cluster.get("apiservice", "v1beta1.metrics.k8s.io")["spec"]["service"]
    assert service["name"] == "prometheus-adapter"

    def shown() -> bool:
        cores = cluster.kubectl("top", "pods", "-n", "default", "--no-headers").split()[1]
        assert cluster.kubectl("top", "nodes", "--no-headers")
        return 150 <= int(cores.removesuffix("m")) <= 250

    eventually(shown, 180)


def test_nobody_reads_metrics_without_a_token(cluster: Flyball) -> None:
    address = next(pod["status"]["podIP"] for pod in pods(cluster) if pod["metadata"]["name"].startswith("kube-state"))
    curl = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", f"https://{address}:8443/metrics"]
    token = cluster.kubectl("create", "token", "prometheus-k8s", "-n", "monitoring").strip()
    for headers, code in (
        ([], "401"),
        (["-H", "Authorization: Bearer x"], "401"),
        (["-H", f"Authorization: Bearer {token}"], "200"),
    ):
        assert subprocess.run([*curl, *headers], capture_output=True, text=True).stdout == code


def test_another_start_leaves_the_api_to_prometheus_adapter(cluster: Flyball) -> None:
    cluster.stop()
    cluster.start()
    service = cluster.get("apiservice", "v1beta1.metrics.k8s.io")["spec"]["service"]
    assert service["name"] == "prometheus-adapter"
    said = cluster.kubectl("apply", "--server-side", "-f", str(MANIFESTS / "prometheusAdapter-apiService.yaml"))
    assert "serverside-applied" in said
