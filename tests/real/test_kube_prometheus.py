"""The unmodified kube-prometheus on Flyball: its pods run, its targets are up, and the resource metrics still come."""

import contextlib
import json
import os
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Flyball, eventually
from .dashboards import queries

pytestmark = pytest.mark.real

MANIFESTS = Path(os.environ.get("FLYBALL_SHARED", Path(__file__).parents[3] / "shared")) / "kube-prometheus"
RUNNING = (
    "alertmanager",
    "blackbox-exporter",
    "kube-state-metrics",
    "node-exporter",
    "prometheus",
    "prometheus-adapter",
    "prometheus-operator",
)
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
UP = ("alertmanager-main", "prometheus-k8s", *CONTROL_PLANE, *RUNNING[1:4], *RUNNING[5:])
#: ServiceMonitors without a target that is up, and why there can be none.
NOT_HERE = {
    "grafana": "its image is not pulled, and nothing here stands for it",
    "coredns": "names are answered by the node itself, and no Service has its labels",
}
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


def asked(cluster: Flyball, path: str, **parameters: str) -> Any:
    """The ``data`` of an answer of the Prometheus API."""
    url = f"{cluster.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)["data"]


@contextlib.contextmanager
def forwarded(cluster: Flyball, service: str, port: int) -> Iterator[str]:
    """The URL of a forwarded port of a Service in the stack's namespace."""
    command = [cluster.kubectl_path, "--kubeconfig", str(cluster.data_dir / "kubeconfig"), "-n", "monitoring"]
    arguments = [*command, "port-forward", f"svc/{service}", f":{port}"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield "http://" + process.stdout.readline().split()[2]
        finally:
            process.kill()


def targets(cluster: Flyball) -> dict[str, set[str]]:
    """The health of each ServiceMonitor's targets."""
    found: dict[str, set[str]] = {}
    for target in asked(cluster, "targets")["activeTargets"]:
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
        return all(found[f"serviceMonitor/monitoring/{name}"] == {"up"} for name in UP)

    eventually(up, 180)
    monitors = {one["metadata"]["name"] for one in cluster.get("servicemonitors", "-n", "monitoring")["items"]}
    assert monitors == {*UP, *NOT_HERE}


def test_every_rule_group_evaluates(cluster: Flyball) -> None:
    def evaluated() -> bool:
        groups = asked(cluster, "rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        wrong = [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")]
        assert not wrong
        unknown = [rule["name"] for rule in rules if rule["health"] != "ok"]
        assert (len(groups), len(rules), unknown) == (38, 234, [])
        return True

    eventually(evaluated, 260)  # one group has an interval of three minutes


def test_the_engine_is_found_under_the_names_that_people_know(cluster: Flyball) -> None:
    for service, port, said in (("prometheus-k8s", 9090, "Ready"), ("alertmanager-main", 9093, "OK")):
        with forwarded(cluster, service, port) as url, urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            assert said in answer.read().decode()
    conditions = cluster.get("prometheus", "k8s", "-n", "monitoring")["status"]["conditions"]
    assert {one["type"]: one["status"] for one in conditions} == {"Available": "True", "Reconciled": "True"}


def test_dashboards_have_data_or_a_reason_why_not(cluster: Flyball) -> None:
    reasons = [entry["queries"] for entry in yaml.safe_load(Path(__file__).with_name("dashboards.yaml").read_text())]
    known = re.compile("|".join(expression for expressions in reasons for expression in expressions))

    def explained() -> bool:
        empty = [(board, query) for board, query in boards if not asked(cluster, "query", query=query)["result"]]
        assert len(boards) - len(empty) > 240
        unexplained = [(board, query) for board, query in empty if not known.search(query)]
        assert not unexplained
        return True

    boards = list(queries(MANIFESTS / "grafana-dashboardDefinitions.yaml"))
    assert len(boards) == 581
    eventually(explained, 240)  # rates need two scrapes, 30 s apart, and rules two evaluations


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
