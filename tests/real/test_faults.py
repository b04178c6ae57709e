"""``flyball doctor`` names the first broken link of faults injected into a live chain."""

import json
from typing import Any

import pytest

from .conftest import Flyball, eventually

pytestmark = pytest.mark.real
SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mode = sys.argv[1]
        if self.path != "/metrics":
            return self.send_error(404)
        if mode == "hang":
            time.sleep(3600)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        if mode == "garbage":
            self.wfile.write(b"good 1\\ngarbage{\\n")
        while mode == "endless":
            self.wfile.write(b"endless 1\\n" * 1000)
        self.wfile.write(b"fine_total 1\\n")
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
Server(("0.0.0.0", 8000), Handler).serve_forever()
"""
METRIC = "webapp_requests_per_second"


def app(name: str, mode: str, probe: str = "", replicas: int = 1) -> list[dict[str, Any]]:
    """A Deployment that answers ``/metrics`` in one way, and its Service."""
    labels = {"app": name}
    container: dict[str, Any] = {
        "name": "app",
        "image": "python:3.13",
        "command": ["python", "-c", SERVER, mode],
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    if probe:
        container["readinessProbe"] = {"httpGet": {"path": probe, "port": "http"}, "periodSeconds": 1}
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": labels},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 8000, "targetPort": "http"}]},
        },
    ]


def monitor(name: str, port: str = "http", selects: str = "") -> dict[str, Any]:
    endpoint = {"port": port, "interval": "1s", "scrapeTimeout": "1s"}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": selects or name}},
            "bodySizeLimit": "100KB",
            "endpoints": [endpoint],
        },
    }


def hpa(name: str, workload: str, metric: str = METRIC) -> dict[str, Any]:
    if metric == "cpu":
        target = {"type": "Utilization", "averageUtilization": 50}
        wanted = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    else:
        pods = {"metric": {"name": metric}, "target": {"type": "AverageValue", "averageValue": "20"}}
        wanted = {"type": "Pods", "pods": pods}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
            "maxReplicas": 2,
            "metrics": [wanted],
        },
    }


def adapter_rule(name: str, series: str) -> dict[str, Any]:
    """A ConfigMap with one rule in prometheus-adapter's language."""
    overrides = {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
    rule = {
        "seriesQuery": series + '{namespace!="",pod!=""}',
        "resources": {"overrides": overrides},
        "name": {"matches": "^(.*)_total$", "as": "${1}_per_second"},
        "metricsQuery": "sum(rate(<<.Series>>{<<.LabelMatchers>>}[5s])) by (<<.GroupBy>>)",
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"flyball.dev/adapter-config": "true"}},
        "data": {"config.yaml": json.dumps({"rules": [rule]})},
    }


def bundle(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


FAULTY = [
    hpa("missing", "missing"),
    *(*app("idle", "fine", replicas=0), hpa("idle", "idle")),
    *(*app("unready", "fine", probe="/wrong"), hpa("unready", "unready")),
    *(*app("norequest", "fine"), hpa("norequest", "norequest", "cpu")),
    *(*app("wrongport", "fine"), monitor("wrongport", port="metricz"), hpa("wrongport", "wrongport")),
    *(*app("unselected", "fine"), monitor("unselected", selects="nobody"), hpa("unselected", "unselected")),
    *(*app("garbage", "garbage"), monitor("garbage"), hpa("garbage", "garbage")),
    *(*app("hang", "hang"), monitor("hang"), hpa("hang", "hang")),
    *(*app("endless", "endless"), monitor("endless"), hpa("endless", "endless")),
    *(*app("misspelt", "fine"), monitor("misspelt"), hpa("misspelt", "misspelt", "webapp_request_per_second")),
    *(*app("unexported", "fine"), monitor("unexported"), hpa("unexported", "unexported", "orders_per_second")),
    adapter_rule("unexported", "orders_total"),
]


@pytest.fixture(scope="module", autouse=True)
def _faults(flyball: Flyball) -> None:
    eventually(lambda: flyball.get("deployment", "webapp")["status"].get("readyReplicas") == 2)
    flyball.kubectl("apply", "-f", "-", stdin=bundle(FAULTY))


def doctor(flyball: Flyball, name: str, prometheus: str = "") -> tuple[int, dict[str, Any]]:
    """(exit code, the first broken finding, or nothing)."""
    answer = flyball.flyball(
        *("doctor", "--data-dir", str(flyball.data_dir), "--prometheus", prometheus or flyball.prometheus),
        *("-o", "json", "hpa", name),
    )
    assert answer.stdout, answer.stderr
    (report,) = json.loads(answer.stdout)
    return answer.returncode, next((f for f in report["findings"] if f["ok"] is False), {})


def names(flyball: Flyball, name: str, link: str, *words: str) -> None:
    def found() -> bool:
        code, broken = doctor(flyball, name)
        text = f"{broken.get('what')} | {broken.get('remedy')}"
        assert (code, broken.get("link")) == (1, link), text
        assert [word for word in words if word not in text] == [], text
        return True

    eventually(found, 25)


def metric_of_webapp(flyball: Flyball) -> bool:
    path = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/{METRIC}?labelSelector=app%3Dwebapp"
    return len(json.loads(flyball.kubectl("get", "--raw", path))["items"]) == 2


@pytest.mark.parametrize(
    ("name", "link", "words"),
    [
        ("missing", "workload", ["Deployment default/missing", "not found", "create"]),
        ("idle", "workload", ["0 replicas", "kubectl scale deployment idle --replicas=1"]),
        ("unready", "pod", ["none of 1 pods is ready", "readiness probe"]),
        ("norequest", "pod", ["container app", "requests no cpu", "resources.requests.cpu"]),
        ("wrongport", "exporter", ["ServiceMonitor wrongport asks for port metricz", "http"]),
        ("unselected", "exporter", ["no ServiceMonitor", "selects Service unselected", "spec.selector"]),
        ("garbage", "scrape", ["/metrics", "line 2"]),
        ("hang", "scrape", ["/metrics", "no complete answer within 1 s"]),
        ("endless", "scrape", ["/metrics", "larger than the limit of", "bytes"]),
        (
            "unexported",
            "series",
            ["orders_per_second", "ConfigMap default/unexported", "matches no series: orders_total"],
        ),
        ("misspelt", "rule", ["does not list webapp_request_per_second", f"did you mean {METRIC}"]),
    ],
)
def test_the_doctor_names_the_fault(flyball: Flyball, name: str, link: str, words: list[str]) -> None:
    names(flyball, name, link, *words)


def test_a_wrong_prometheus_url(flyball: Flyball) -> None:
    code, broken = doctor(flyball, "webapp", "http://127.0.0.1:1")
    assert (code, broken["link"]) == (1, "scrape")
    assert "http://127.0.0.1:1/" in broken["what"]
    assert "--prometheus" in broken["remedy"]


def test_the_webapp_keeps_its_metric_beside_the_bad_targets(flyball: Flyball) -> None:
    for name in ("garbage", "hang", "endless"):
        names(flyball, name, "scrape")
    eventually(lambda: metric_of_webapp(flyball), 20)
    eventually(lambda: doctor(flyball, "webapp") == (0, {}), 20)


def test_without_the_faults_the_chain_is_whole(flyball: Flyball) -> None:
    flyball.kubectl("delete", "--wait=false", "-f", "-", stdin=bundle(FAULTY))
    eventually(lambda: len(flyball.get("hpa")["items"]) == 1)
    eventually(lambda: doctor(flyball, "webapp") == (0, {}), 20)
