"""Stock kubectl against the embedded cluster, asserted on effects."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from .conftest import ROOT, Flyball, eventually

pytestmark = pytest.mark.real
WEBAPP = str(ROOT / "examples/webapp/manifests")


def ready_replicas(flyball: Flyball, name: str) -> int:
    status = flyball.get("deployment", name).get("status", {})
    return int(status.get("readyReplicas", 0))


@pytest.fixture(scope="module", autouse=True)
def _ready(flyball: Flyball) -> None:
    eventually(lambda: ready_replicas(flyball, "webapp") == 2)


def test_the_second_apply_changes_nothing(flyball: Flyball) -> None:
    flyball.kubectl("apply", "-f", WEBAPP)
    second = flyball.kubectl("apply", "-f", WEBAPP)
    assert second.strip()
    assert [line for line in second.splitlines() if not line.endswith(" unchanged")] == []


def test_get_prints_tables_names_yaml_and_json(flyball: Flyball) -> None:
    table = flyball.kubectl("get", "pods").splitlines()
    assert table[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert re.match(r"webapp-\w+-\w+\s+1/1\s+Running", table[1])
    assert "NODE" in flyball.kubectl("get", "pods", "-o", "wide")
    assert flyball.kubectl("get", "svc", "webapp", "-o", "name").strip() == "service/webapp"
    assert "kind: Deployment" in flyball.kubectl("get", "deploy", "webapp", "-o", "yaml")
    assert flyball.kubectl("get", "deploy", "webapp", "-o", "jsonpath={.metadata.name}") == "webapp"


def test_the_load_balancer_spreads_requests_over_the_pods(flyball: Flyball) -> None:
    ingress = eventually(lambda: flyball.get("svc", "webapp")["status"]["loadBalancer"]["ingress"])
    url = f"http://{ingress[0]['ip']}:{ingress[0]['ports'][0]['port']}/"
    names = set()
    for _ in range(20):
        with urllib.request.urlopen(url, timeout=5) as answer:
            names.add(re.match(r"Hello from (\S+),", answer.read().decode()).group(1))
    pods = {p["metadata"]["name"] for p in flyball.get("pods", "-l", "app=webapp")["items"]}
    assert names == pods


def test_the_custom_metric_has_a_value_for_every_pod(flyball: Flyball) -> None:
    path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/webapp_requests_per_second"

    def values() -> bool:
        items = json.loads(flyball.kubectl("get", "--raw", path))["items"]
        return len(items) == 2 and all(item["describedObject"]["kind"] == "Pod" for item in items)

    eventually(values, 40)


def test_get_and_describe_hpa_show_figures(flyball: Flyball) -> None:
    eventually(lambda: re.search(r"\d+m?/20", flyball.kubectl("get", "hpa", "webapp")), 40)
    described = eventually(
        lambda: (text := flyball.kubectl("describe", "hpa", "webapp")) and "ScalingActive" in text and text
    )
    assert '"webapp_requests_per_second" on pods' in described
    assert "ValidMetricFound" in described


def test_top_shows_pods(flyball: Flyball) -> None:
    eventually(lambda: re.search(r"webapp-\S+\s+\d+m\s+\d+Mi", flyball.kubectl("top", "pods")), 60)
    eventually(lambda: re.search(r"flyball\s+\d+m", flyball.kubectl("top", "nodes")), 60)


def test_logs_of_a_pod(flyball: Flyball) -> None:
    pod = flyball.get("pods", "-l", "app=webapp")["items"][0]["metadata"]["name"]
    eventually(lambda: "serving on port 8000" in flyball.kubectl("logs", pod))
    follow = subprocess.Popen(
        [flyball.kubectl_path, "--kubeconfig", str(flyball.data_dir / "kubeconfig"), "logs", "-f", pod],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follow.stdout is not None
        assert "serving" in follow.stdout.readline()
    finally:
        follow.kill()
        follow.wait()
        follow.stdout.close()


def test_protobuf_bodies_are_understood(flyball: Flyball) -> None:
    flyball.kubectl("create", "configmap", "made", "--from-literal=a=b")
    assert flyball.get("configmap", "made")["data"] == {"a": "b"}
    flyball.kubectl("delete", "configmap", "made")


def test_scale_changes_the_pods_and_delete_removes_them(flyball: Flyball, tmp_path: Path) -> None:
    manifest = tmp_path / "sleeper.yaml"
    manifest.write_text("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleeper}
spec:
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata: {labels: {app: sleeper}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: sleeper
          image: busybox
          command: ["sleep", "3600"]
""")
    flyball.kubectl("apply", "-f", str(manifest))
    eventually(lambda: ready_replicas(flyball, "sleeper") == 1)
    flyball.kubectl("scale", "deployment", "sleeper", "--replicas=3")
    eventually(lambda: ready_replicas(flyball, "sleeper") == 3)
    flyball.kubectl("rollout", "status", "deployment/sleeper", "--timeout=30s")
    flyball.kubectl("delete", "deployment", "sleeper")
    eventually(lambda: flyball.get("pods", "-l", "app=sleeper")["items"] == [])
    assert flyball.get("rs", "-l", "app=sleeper")["items"] == []


def test_patches_labels_and_annotations(flyball: Flyball) -> None:
    flyball.kubectl("label", "deployment", "webapp", "team=a")
    flyball.kubectl("annotate", "deployment", "webapp", "note=hello")
    flyball.kubectl(
        "patch", "deployment", "webapp", "--type=json", "-p", '[{"op":"remove","path":"/metadata/labels/team"}]'
    )
    metadata = flyball.get("deployment", "webapp")["metadata"]
    assert "team" not in metadata["labels"]
    assert metadata["annotations"]["note"] == "hello"


def test_an_unknown_field_is_named(flyball: Flyball) -> None:
    text = (ROOT / "examples/webapp/manifests/20-hpa.yaml").read_text().replace("minReplicas", "minReplicaz")
    answer = flyball.kubectl("apply", "-f", "-", stdin=text, check=False)
    assert 'unknown field "spec.minReplicaz"' in answer


def test_an_unknown_kind_is_named(flyball: Flyball) -> None:
    text = "apiVersion: apps/v1\nkind: Deploymint\nmetadata: {name: x}\n"
    assert 'no matches for kind "Deploymint"' in flyball.kubectl("apply", "-f", "-", stdin=text, check=False)


def test_events_tell_what_happened(flyball: Flyball) -> None:
    reasons = {e["reason"] for e in flyball.get("events")["items"]}
    assert {"Scheduled", "Started", "SuccessfulCreate"} <= reasons


def test_a_watch_sees_a_change(flyball: Flyball) -> None:
    watch = subprocess.Popen(
        [flyball.kubectl_path, "--kubeconfig", str(flyball.data_dir / "kubeconfig"), "get", "cm", "-w", "-o", "name"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        assert watch.stdout.readline().startswith("configmap/")
        flyball.kubectl("create", "configmap", "watched")
        assert any("watched" in watch.stdout.readline() for _ in range(10))
    finally:
        watch.kill()
        watch.wait()
        watch.stdout.close()
        flyball.kubectl("delete", "configmap", "watched")


def test_explain_and_doctor_read_the_same_chain(flyball: Flyball) -> None:
    def explained() -> bool:
        answer = flyball.flyball("explain", "hpa", "webapp", "--url", flyball.prometheus)
        return answer.returncode == 0 and "webapp_requests_per_second" in answer.stdout

    eventually(explained, 40)
    doctor = flyball.flyball(
        "doctor", "--data-dir", str(flyball.data_dir), "--prometheus", flyball.prometheus, "hpa", "webapp"
    )
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr


@pytest.mark.parametrize("name", ["control", "data", "node"])
def test_a_killed_process_comes_back_and_the_pods_go_on(flyball: Flyball, name: str) -> None:
    def pods() -> dict[str, str]:
        items = flyball.get("pods", "-l", "app=webapp")["items"]
        return {p["metadata"]["name"]: p["status"]["podIP"] for p in items}

    def processes() -> set[int]:
        return {
            int(p.name)
            for p in Path("/proc").iterdir()
            if p.name.isdigit() and _environment(p).get("POD_IP") in set(before.values())
        }

    before = pods()
    running = processes()
    assert running
    flyball.kubectl("create", "configmap", f"acknowledged-{name}")
    old = flyball.child_pids()[name]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: flyball.child_pids().get(name, old) != old)
    eventually(lambda: pods() == before)
    assert flyball.get("configmap", f"acknowledged-{name}")
    eventually(lambda: ready_replicas(flyball, "webapp") == 2)
    time.sleep(1)
    assert processes() == running


def _environment(process: Path) -> dict[str, str]:
    try:
        pairs = (process / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
