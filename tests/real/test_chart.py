"""Everything that the chart can switch on, on the embedded cluster: it runs, is scraped, and an alert is delivered."""

import json
import os
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.adapter.test_chart import CHART, everything, helm

from .conftest import Flyball, eventually

pytestmark = [pytest.mark.real, pytest.mark.peer]
__all__ = ["helm"]  # the fixture
SPACE = "metrics"
PARTS = {
    *("adapter", "autoscaler", "operator", "server", "alertmanager", "agent"),
    *("node-exporter", "kube-state-metrics", "blackbox-exporter"),
}
RULE = {"alert": "NodeIsThere", "expr": 'node_memory_MemTotal_bytes{job="node-exporter"} > 0'}
MONITOR = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "ServiceMonitor",
    "metadata": {"name": "blackbox"},
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/name": "fly-blackbox-exporter"}},
        "endpoints": [{"port": "http", "interval": "2s"}],
    },
}

PROBE = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "Probe",
    "metadata": {"name": "health"},
    "spec": {
        "interval": "2s",
        "module": "http_2xx",
        "prober": {"url": f"fly-blackbox-exporter.{SPACE}.svc:9115"},
        "targets": {"staticConfig": {"static": [f"http://fly-server.{SPACE}.svc:9090/-/healthy"]}},
    },
}


def alertmanager_objects(url: str) -> list[dict[str, Any]]:
    """An Alertmanager object that selects a team's configuration, which tells the URL."""
    selects = {"alertmanagerConfigSelector": {}, "alertmanagerConfigNamespaceSelector": {}}
    receivers = [{"name": "generated", "webhookConfigs": [{"url": url}]}]
    spec = {"route": {"receiver": "generated", "groupWait": "1s", "groupBy": ["alertname"]}, "receivers": receivers}
    group = "monitoring.coreos.com"
    return [
        {"apiVersion": f"{group}/v1", "kind": "Alertmanager", "metadata": {"name": "main"}, "spec": selects},
        {"apiVersion": f"{group}/v1alpha1", "kind": "AlertmanagerConfig", "metadata": {"name": "team"}, "spec": spec},
    ]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Flyball]:
    one = Flyball(tmp_path_factory.mktemp("chart") / "data", kubectl_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def told() -> Iterator[tuple[str, list[Any]]]:
    """The URL of a receiver, and what it was sent."""
    bodies: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", bodies
        server.shutdown()


def ready(cluster: Flyball) -> set[str]:
    """The components all of whose pods are ready."""
    found: dict[str, list[bool]] = {}
    for pod in cluster.get("pods", "-n", SPACE)["items"]:
        states = [one["ready"] for one in pod["status"].get("containerStatuses", ())] or [False]
        found.setdefault(pod["metadata"]["labels"]["app.kubernetes.io/component"], []).extend(states)
    return {component for component, states in found.items() if all(states)}


def test_everything_runs_is_scraped_and_an_alert_is_delivered(
    cluster: Flyball, helm: Path, told: tuple[str, list[Any]], tmp_path: Path
) -> None:
    url, bodies = told
    route = {"receiver": "hook", "group_wait": "1s", "group_by": ["alertname"]}
    receivers = [{"name": "hook", "webhook_configs": [{"url": url}]}]
    values = {
        "adapter": {"apiServices": False},  # the embedded one keeps them
        "server": {
            "arguments": ["--config.auto-reload-interval=1s"],
            "rules": {"first.yaml": yaml.safe_dump({"groups": [{"name": "g", "interval": "1s", "rules": [RULE]}]})},
        },
        "alertmanager": {"replicas": 2, "config": yaml.safe_dump({"route": route, "receivers": receivers})},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))

    def run(*arguments: str) -> str:
        environment = {**os.environ, "HOME": str(tmp_path), "KUBECONFIG": str(cluster.data_dir / "kubeconfig")}
        command = [str(helm), *arguments, "--namespace", SPACE]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def asked(path: str) -> Any:
        address = cluster.get("pod", "fly-server-0", "-n", SPACE)["status"]["podIP"]
        with urllib.request.urlopen(f"http://{address}:9090/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def targets() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for target in asked("targets?state=active")["activeTargets"]:
            found.setdefault(target["labels"]["job"], set()).add(target["health"])
        return found

    run("install", "fly", str(CHART), "--create-namespace", *everything(), "-f", str(tmp_path / "values.yaml"))
    eventually(lambda: ready(cluster) == PARTS, 120)
    scraped = PARTS - {"adapter", "autoscaler"}  # the kubelets are left to the agent
    eventually(lambda: targets() == {job: {"up"} for job in scraped}, 60)
    sent = 'query?query=count(up{job="kubelet",metrics_path="/metrics/cadvisor",node!=""})'
    eventually(lambda: asked(urllib.parse.quote(sent, safe="?="))["result"], 60)  # by the agent

    def delivered() -> bool:
        return any(body["groupLabels"] == {"alertname": "NodeIsThere"} for body in bodies)

    eventually(delivered, 120)  # what nobody heard is said again after a minute
    assert bodies[0]["externalURL"] == f"http://fly-alertmanager.{SPACE}.svc:9093"

    def replicas() -> list[list[str]]:
        """The names that each replica knows."""
        found = []
        for number in range(2):
            address = cluster.get("pod", f"fly-alertmanager-{number}", "-n", SPACE)["status"]["podIP"]
            with urllib.request.urlopen(f"http://{address}:9093/api/v2/status", timeout=10) as answer:
                found.append(sorted(peer["name"] for peer in json.load(answer)["cluster"]["peers"]))
        return found

    eventually(lambda: replicas() == [["fly-alertmanager-0", "fly-alertmanager-1"]] * 2, 60)
    for obj in alertmanager_objects(url):
        cluster.kubectl("apply", "-n", SPACE, "-f", "-", stdin=json.dumps(obj))
    eventually(lambda: any(body["receiver"] == f"{SPACE}/team/generated" for body in bodies), 180)
    for obj in (MONITOR, PROBE):
        cluster.kubectl("apply", "-n", SPACE, "-f", "-", stdin=json.dumps(obj))
    eventually(lambda: targets().get("fly-blackbox-exporter") == {"up"}, 30)
    eventually(lambda: [one["value"][1] for one in asked("query?query=probe_success")["result"]] == ["1"], 30)

    values["server"]["rules"] = {"second.yaml": "groups: [{name: h, interval: 1s, rules: [{record: a, expr: '7'}]}]"}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    before = cluster.get("pod", "fly-server-0", "-n", SPACE)["metadata"]["uid"]
    run("upgrade", "fly", str(CHART), *everything(), "-f", str(tmp_path / "values.yaml"))
    eventually(lambda: asked("query?query=a")["result"], 120)  # volumes of ConfigMaps follow within a minute
    assert cluster.get("pod", "fly-server-0", "-n", SPACE)["metadata"]["uid"] == before
    cluster.kubectl("delete", "-n", SPACE, "alertmanager", "main")  # it has a pod of its own here, of no release
    run("uninstall", "fly")
    eventually(lambda: not cluster.get("pods", "-n", SPACE)["items"], 60)
