"""Governors of profile fast under real requests and pushes: woken from zero, sized by what lands, held by a person."""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .conftest import Flyball, eventually

pytestmark = pytest.mark.real

POD = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
count = 0
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global count
        count += self.path != "/metrics"
        body = f"http_requests_total {count}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
PER_POD = {"type": "AverageValue", "averageValue": "10"}
REQUESTS = {"type": "Pods", "pods": {"metric": {"name": "http_requests_per_second"}, "target": PER_POD}}
PENDING = {
    "type": "Object",
    "object": {
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
        "metric": {"name": "flyball_service_pending_requests"},
        "target": PER_POD,
    },
}
DEPTH = {"type": "External", "external": {"metric": {"name": "queue_depth"}, "target": PER_POD}}


def governor(name: str, metrics: list[Any], **spec: Any) -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    body = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 12, "profile": "fast", "metrics": metrics}
    return {
        "apiVersion": "flyball.dev/v1alpha1",
        "kind": "Governor",
        "metadata": {"name": name},
        "spec": body | spec,
    }


def deployment(name: str, container: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": name}
    notes = {"prometheus.io/scrape": "true", "prometheus.io/port": "8000"} if "ports" in container else {}
    pod = {
        "metadata": {"labels": labels, "annotations": notes},
        "spec": {"containers": [{"name": "main", "image": "test", **container}], "terminationGracePeriodSeconds": 1},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def apply(flyball: Flyball, *objects: dict[str, Any]) -> None:
    flyball.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def ask(url: str, body: bytes | None = None, method: str | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=60) as answer:
        return answer.read()


@contextmanager
def load(url: str, rate: float) -> Iterator[None]:
    """Requests at a rate, one after the other."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(1 / rate):
            ask(url)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def replicas(flyball: Flyball, name: str) -> int:
    return int(flyball.get("deployment", name)["spec"].get("replicas", 1))


def test_the_first_request_wakes_a_service_and_load_sizes_it(flyball: Flyball) -> None:
    probe = {"httpGet": {"path": "/metrics", "port": 8000}, "periodSeconds": 1}
    container = {"command": ["python3", "-c", POD], "ports": [{"containerPort": 8000}], "readinessProbe": probe}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 8088, "targetPort": 8000}]},
    }
    apply(flyball, deployment("web", container), service, governor("web", [REQUESTS, PENDING], minReplicas=0))
    port = eventually(lambda: flyball.get("service", "web")["status"]["loadBalancer"]["ingress"][0]["ports"][0]["port"])
    eventually(lambda: replicas(flyball, "web") == 0, 90)  # nobody asks
    eventually(lambda: flyball.get("pods", "-l", "app=web")["items"] == [])
    assert ask(f"http://127.0.0.1:{port}/").startswith(b"http_requests_total")  # held until a pod was there
    assert replicas(flyball, "web") == 1
    with load(f"http://127.0.0.1:{port}/", 45):
        eventually(lambda: replicas(flyball, "web") >= 3)
        targets = json.loads(ask(f"{flyball.prometheus}/api/v1/targets"))["data"]["activeTargets"]
        assert {one["scrapeInterval"] for one in targets if one["labels"].get("app") == "web"} == {"1s"}


def test_a_push_decides_and_a_person_overrides(flyball: Flyball) -> None:
    apply(flyball, deployment("queue", {"command": ["sleep", "10000"]}), governor("queue", [DEPTH]))
    push = f"{flyball.prometheus}/metrics/job/test/namespace/default"

    def sized(depth: int) -> bool:
        ask(push, f"queue_depth {depth}\n".encode())
        return replicas(flyball, "queue") >= depth // 10

    eventually(lambda: sized(30))
    eventually(lambda: sized(60))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        line = b"queue_depth:80|g|#namespace:default,job:test"
        sender.sendto(line, ("127.0.0.1", 8125 + flyball.offset))
        eventually(lambda: replicas(flyball, "queue") >= 8)
    held = f"{flyball.prometheus}/api/flyball/v1/namespaces/default/governors/queue/override"
    answer = json.loads(ask(held, json.dumps({"replicas": 2, "seconds": 600}).encode()))
    assert answer["override"]["replicas"] == 2 and answer["override"]["until"]
    eventually(lambda: replicas(flyball, "queue") == 2)
    explained = flyball.flyball("explain", "governor", "queue", "--url", flyball.prometheus, "--why-not")
    assert "manual override" in explained.stdout and "a person holds it" in explained.stdout
    ask(held, method="DELETE")
    eventually(lambda: replicas(flyball, "queue") >= 8)


def test_what_a_page_may_not_send_is_refused(flyball: Flyball) -> None:
    held = f"{flyball.prometheus}/api/flyball/v1/namespaces/default/governors/none/override"
    request = urllib.request.Request(held, b'{"replicas": 2}', {"Origin": "http://evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=10)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(held, b'{"replicas": 2}')
