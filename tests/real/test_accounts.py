"""What a pod finds of its service account, and what it may do with that."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Flyball, eventually

pytestmark = pytest.mark.real

WITNESS = """
import kubernetes, time
kubernetes.config.load_incluster_config()
api = kubernetes.client.CoreV1Api()
pods = api.list_namespaced_pod(open("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read())
print("pods:", sorted(pod.metadata.name for pod in pods.items), flush=True)
review = kubernetes.client.AuthenticationV1Api().create_self_subject_review({})
print("who:", review.status.user_info.username, flush=True)
time.sleep(3600)
"""
_AS_ROBOT = ("--as", "system:serviceaccount:team:robot")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Flyball]:
    one = Flyball(tmp_path_factory.mktemp("accounts") / "data", kubectl_path)
    one.start()
    yield one
    one.stop()


def pod(name: str, *command: str, **spec: Any) -> str:
    container = {"name": "main", "image": "python:3", "command": list(command)}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def test_the_official_client_finds_its_way_from_within_a_pod(cluster: Flyball) -> None:
    cluster.kubectl("create", "namespace", "team")
    cluster.kubectl("create", "serviceaccount", "robot", "-n", "team")
    binding = (
        "create",
        "rolebinding",
        "robot-views",
        "--clusterrole=view",
        "--serviceaccount=team:robot",
        "-n",
        "team",
    )
    cluster.kubectl(*binding)
    eventually(lambda: cluster.kubectl("auth", "can-i", "list", "pods", "-n", "team", *_AS_ROBOT) == "yes\n")
    refused = cluster.kubectl("auth", "can-i", "list", "secrets", "-n", "team", *_AS_ROBOT, check=False)
    assert refused == "no\n"
    account = pod("witness", sys.executable, "-c", WITNESS, serviceAccountName="robot")
    cluster.kubectl("apply", "-n", "team", "-f", "-", stdin=account)
    text = eventually(lambda: "who:" in (log := cluster.kubectl("logs", "-n", "team", "witness")) and log)
    assert text.splitlines() == ["pods: ['witness']", "who: system:serviceaccount:team:robot"]


def test_a_pod_that_wants_no_token_has_none(cluster: Flyball) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=pod("bare", "sleep", "3600", automountServiceAccountToken=False))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/bare", "--timeout=30s")
    assert "No such file" in cluster.kubectl("exec", "bare", "--", "ls", "/var/run/secrets", check=False)
    assert not Path("/var/run/secrets/kubernetes.io").exists()
