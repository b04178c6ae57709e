"""StatefulSets, DaemonSets, Jobs, Ingresses, names and evictions through the whole cluster, with stock kubectl."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyball.http import certificates

from .conftest import ROOT, Flyball, eventually

pytestmark = pytest.mark.real

SERVER = """
import http.server, os, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open("/data/visits", "a").write(self.path + "\\n")
        self.send_response(200); self.end_headers()
        self.wfile.write((socket.gethostname() + " " + self.headers.get("Host", "")).encode())
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
MANIFESTS: list[dict[str, Any]] = [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "server"}, "data": {"server.py": SERVER}},
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 8000}]},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "db"}, "ports": [{"port": 80, "targetPort": 8000}]},
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web"},
        "spec": {
            "ingressClassName": "nginx",
            "rules": [
                {
                    "host": "shop.example",
                    "http": {
                        "paths": [
                            {
                                "path": "/",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "web", "port": {"number": 80}}},
                            }
                        ]
                    },
                }
            ],
        },
    },
    {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db",
            "replicas": 2,
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [
                        {
                            "name": "main",
                            "image": "python:3",
                            "command": ["python", "/app/server.py"],
                            "volumeMounts": [
                                {"name": "app", "mountPath": "/app"},
                                {"name": "data", "mountPath": "/data"},
                            ],
                            "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
                        }
                    ],
                    "volumes": [{"name": "app", "configMap": {"name": "server"}}],
                },
            },
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                }
            ],
        },
    },
    {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "3600"]}],
                },
            },
        },
    },
]
ASK = """
import urllib.request
for url in ("http://web", "http://db-1.db:8000", "http://db-0.db.default.svc.cluster.local:8000"):
    print(urllib.request.urlopen(url, timeout=10).read().decode().split()[0])
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Flyball]:
    cluster = Flyball(tmp_path_factory.mktemp("workloads") / "data", kubectl_path)
    cluster.start("--nodes", "2", "--image", "acme/sleeper=sleep")
    everything = {"apiVersion": "v1", "kind": "List", "items": MANIFESTS}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(everything))
    cluster.kubectl("rollout", "status", "sts/db", "--timeout=30s")
    yield cluster
    cluster.stop()


def job(name: str, script: str, **spec: Any) -> str:
    container = {"name": "main", "image": "python:3", "command": ["python", "-c", script]}
    pod = {"restartPolicy": "Never", "containers": [container]}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    return json.dumps({**body, "spec": {"template": {"spec": pod}, **spec}})


def test_stateful_replicas_keep_their_volumes_over_a_rollout_and_its_undo(cluster: Flyball) -> None:
    def visits() -> str:
        claim = cluster.get("pvc", "data-db-1")
        volume = cluster.get("pv", claim["spec"]["volumeName"])
        return (Path(volume["spec"]["hostPath"]["path"]) / "visits").read_text()

    ip = cluster.get("pod", "db-1")["status"]["podIP"]
    urllib.request.urlopen(f"http://{ip}:8000/before", timeout=10).close()
    assert "/before\n" in visits()
    cluster.kubectl("set", "env", "sts/db", "COLOUR=blue")
    assert "partitioned roll out complete" in cluster.kubectl("rollout", "status", "sts/db", "--timeout=60s")
    assert cluster.get("pod", "db-1")["spec"]["containers"][0]["env"] == [{"name": "COLOUR", "value": "blue"}]
    cluster.kubectl("rollout", "undo", "sts/db")
    cluster.kubectl("rollout", "status", "sts/db", "--timeout=60s")
    assert "env" not in cluster.get("pod", "db-0")["spec"]["containers"][0]
    assert cluster.kubectl("rollout", "history", "sts/db").split()[-4::2] == ["2", "3"]
    assert "/before\n" in visits()


def test_daemons_run_on_every_node_and_roll(cluster: Flyball) -> None:
    cluster.kubectl("rollout", "status", "ds/agent", "--timeout=30s")
    nodes = {pod["spec"]["nodeName"] for pod in cluster.get("pods", "-l", "app=agent")["items"]}
    assert nodes == {"flyball", "flyball-2"}
    cluster.kubectl("set", "env", "ds/agent", "A=b")
    cluster.kubectl("rollout", "status", "ds/agent", "--timeout=30s")
    cluster.kubectl("rollout", "undo", "ds/agent")
    cluster.kubectl("rollout", "status", "ds/agent", "--timeout=30s")
    assert all("env" not in p["spec"]["containers"][0] for p in cluster.get("pods", "-l", "app=agent")["items"])


def test_a_job_in_the_cluster_reaches_services_and_replicas_by_name(cluster: Flyball) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=job("ask", ASK))
    cluster.kubectl("wait", "--for=condition=complete", "job/ask", "--timeout=30s")
    answers = cluster.kubectl("logs", "job/ask").split()
    assert answers[0].startswith("db-")
    assert answers[1:] == ["db-1", "db-0"]
    cluster.kubectl("delete", "job", "ask")
    eventually(lambda: not cluster.get("pods", "-l", "job-name=ask")["items"])


def test_a_cron_job_starts_its_job_when_due_and_by_hand(cluster: Flyball) -> None:
    script = ("python", "-c", "print('the bell rings')")
    cluster.kubectl("create", "cronjob", "bell", "--image=python:3", "--schedule=@yearly", "--", *script)
    missed = {"status": {"lastScheduleTime": "2020-06-01T00:00:00Z"}}  # of years ago: due at once, and only once
    cluster.kubectl("patch", "cronjob", "bell", "--subresource=status", "--type=merge", f"--patch={json.dumps(missed)}")
    cluster.kubectl("wait", "--for=jsonpath={.status.lastSuccessfulTime}", "cronjob/bell", "--timeout=30s")
    made = cluster.get("jobs")["items"][0]["metadata"]
    assert made["name"].startswith("bell-") and made["ownerReferences"][0]["name"] == "bell"
    assert cluster.kubectl("logs", f"job/{made['name']}") == "the bell rings\n"
    cluster.kubectl("create", "job", "by-hand", "--from=cronjob/bell")
    cluster.kubectl("wait", "--for=condition=complete", "job/by-hand", "--timeout=30s")
    told = cluster.kubectl("describe", "cronjob", "bell")
    assert f"Saw completed job: {made['name']}, condition: Complete" in told
    assert "did not create or forgot: by-hand" in told
    refused = cluster.kubectl("create", "cronjob", "x", "--image=x", "--schedule=0 0 * * 7", check=False)
    assert 'spec.schedule: Invalid value: "0 0 * * 7": end of range (7) above maximum (6): 7' in refused
    cluster.kubectl("delete", "cronjob", "bell")
    eventually(lambda: not cluster.get("jobs")["items"])


def test_an_ingress_serves_its_host(cluster: Flyball) -> None:
    status = eventually(lambda: cluster.get("ingress", "web")["status"]["loadBalancer"].get("ingress"))
    url = f"http://127.0.0.1:{status[0]['ports'][0]['port']}/x"

    def ask(host: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()

    code, text = ask("shop.example")
    assert (code, text.split()[1]) == (200, "shop.example")
    assert text.startswith("db-")
    assert ask("elsewhere.example")[0] == 404


def test_an_ingress_serves_its_host_over_tls(cluster: Flyball, tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    authority = certificates.authority("test", 1, now_ms)
    pair = certificates.leaf(authority, "shop", 1, now_ms, names=["shop.example"])
    for name, text in (("ca.crt", authority.certificate_pem), ("c.crt", pair.certificate_pem), ("c.key", pair.key_pem)):
        (tmp_path / name).write_text(text)
    cluster.kubectl("create", "secret", "tls", "shop", f"--cert={tmp_path / 'c.crt'}", f"--key={tmp_path / 'c.key'}")
    tls = [{"hosts": ["shop.example"], "secretName": "shop"}]
    cluster.kubectl("patch", "ingress", "web", "--type=merge", "-p", json.dumps({"spec": {"tls": tls}}))

    def answer() -> str:
        ports = cluster.get("ingress", "web")["status"]["loadBalancer"]["ingress"][0]["ports"]
        at = f"shop.example:{ports[1]['port']}"
        command = [
            "curl",
            "-sS",
            "--cacert",
            str(tmp_path / "ca.crt"),
            "--resolve",
            f"{at}:127.0.0.1",
            f"https://{at}/x",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert eventually(answer).startswith("db-")
    assert cluster.kubectl("get", "ingress", "web", "--no-headers").split()[-2] == "443"


# With -I it is a program that knows of us only what is in its resolv.conf.
RESOLVER = """
import dns.resolver
for name, kind in (("web", "A"), ("db-0.db", "A"), ("_http._tcp.named", "SRV")):
    print(kind, *sorted(str(one) for one in dns.resolver.resolve(name, kind, search=True)))
"""


def test_a_program_that_asks_a_server_finds_services_pods_and_ports(cluster: Flyball) -> None:
    if os.getuid() != 0:
        pytest.skip("an ordinary user has no port 53; names are in the hosts files")
    spec = {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "http", "port": 8000}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "named"}, "spec": spec}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    ips = {name: cluster.get("pod", name)["status"]["podIP"] for name in ("db-0", "db-1")}
    web = cluster.get("service", "web")["spec"]["clusterIP"]
    # Each headless pod serves under the name of its address, unless the Service is its set's own.
    named = sorted(f"0 50 8000 {ip.replace('.', '-')}.named.default.svc.cluster.local." for ip in ips.values())

    def said() -> bool:
        words = (sys.executable, "-I", "-c", RESOLVER)
        lines = cluster.kubectl("exec", "db-0", "--", *words).splitlines()
        return lines == [f"A {web}", f"A {ips['db-0']}", " ".join(["SRV", *named])]

    eventually(said)


def test_twenty_megabytes_through_a_port_forward(cluster: Flyball) -> None:
    size = 20 << 20
    script = (
        "import http.server\nclass H(http.server.BaseHTTPRequestHandler):\n"
        f"  def do_GET(s): s.send_response(200); s.end_headers(); s.wfile.write(bytes(range(256)) * {size // 256})\n"
        "  def do_POST(s): n = int(s.headers['content-length']); b = s.rfile.read(n); s.send_response(200); "
        "s.end_headers(); s.wfile.write(__import__('hashlib').sha256(b).hexdigest().encode())\n"
        "http.server.ThreadingHTTPServer(('', 8123), H).serve_forever()"
    )
    cluster.kubectl("run", "large", "--image=python:3", "--command", "--", "python", "-c", script)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/large", "--timeout=30s")
    command = [cluster.kubectl_path, "--kubeconfig", str(cluster.data_dir / "kubeconfig")]
    forward = subprocess.Popen([*command, "port-forward", "pod/large", ":8123"], stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout is not None
        url = "http://" + forward.stdout.readline().split()[2]
        wanted = bytes(range(256)) * (size // 256)

        def down() -> bool:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return bool(answer.read() == wanted)

        eventually(down)
        with urllib.request.urlopen(urllib.request.Request(url, data=wanted), timeout=30) as answer:
            assert answer.read().decode() == hashlib.sha256(wanted).hexdigest()
    finally:
        forward.kill()
        forward.communicate()


def test_an_eviction_waits_for_the_budget(cluster: Flyball) -> None:
    cluster.kubectl("create", "pdb", "db", "--selector=app=db", "--min-available=2")
    eventually(lambda: cluster.get("pdb", "db")["status"].get("currentHealthy") == 2)
    path = "/api/v1/namespaces/default/pods/db-1/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "db-1", "namespace": "default"}}
    answer = cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body), check=False)
    assert "would violate the pod's disruption budget" in answer
    cluster.kubectl("delete", "pdb", "db")
    before = cluster.get("pod", "db-1")["metadata"]["uid"]
    cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
    eventually(lambda: cluster.get("pod", "db-1")["metadata"]["uid"] != before)
    cluster.kubectl("rollout", "status", "sts/db", "--timeout=30s")


def test_the_stateful_example_downloads_its_catalogue_and_remembers(cluster: Flyball) -> None:
    cluster.kubectl("apply", "-f", str(ROOT / "examples/stateful"))
    cluster.kubectl("rollout", "status", "sts/store", "--timeout=60s")
    assert "store-1 prepares itself" in cluster.kubectl("logs", "store-1", "-c", "greet")
    seen = json.loads(cluster.kubectl("exec", "store-0", "-c", "store", "--", "cat", "/shared/catalogue.json"))
    assert [item["name"] for item in seen["items"]] == ["governor", "throttle", "spindle"]
    before = cluster.get("pod", "store-1")["metadata"]["uid"]
    cluster.kubectl("delete", "pod", "store-1")
    eventually(lambda: cluster.get("pod", "store-1")["metadata"]["uid"] != before)
    cluster.kubectl("rollout", "status", "sts/store", "--timeout=60s")
    assert "start 2 with 3 items" in eventually(lambda: cluster.kubectl("logs", "store-1", "-c", "store"))

    def scraped() -> bool:
        url = f"{cluster.prometheus}/api/v1/query?query=store_starts_total"
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return {series["metric"]["pod"]: series["value"][1] for series in result} == {"store-0": "1", "store-1": "2"}

    eventually(scraped)
    cluster.kubectl("delete", "-f", str(ROOT / "examples/stateful"), "--wait=false")


def test_an_image_runs_the_program_that_stands_for_it(cluster: Flyball) -> None:
    cluster.kubectl("run", "own", "--image=acme/sleeper:1.2", "--", "3600")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/own", "--timeout=20s")
    cluster.kubectl("run", "other", "--image=acme/unknown")
    eventually(lambda: "ErrImagePull" in cluster.kubectl("get", "pod", "other"))
    cluster.kubectl("delete", "pod", "own", "other", "--now")


def test_pods_that_nobody_will_have_say_why(cluster: Flyball) -> None:
    override = {"spec": {"nodeSelector": {"disk": "tape"}}}
    cluster.kubectl("run", "lost", "--image=busybox", f"--overrides={json.dumps(override)}", "--", "sleep", "1")

    def said() -> bool:
        conditions = cluster.get("pod", "lost")["status"]["conditions"]
        return any(
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector." in c.get("message", "")
            for c in conditions
        )

    eventually(said)
    cluster.kubectl("delete", "pod", "lost", "--now")


def test_jobs_count_right_while_processes_are_killed(cluster: Flyball) -> None:
    """Control and node are killed in turn while a Job runs: every completion is counted once."""
    script = "import time; time.sleep(0.3)"
    cluster.kubectl("apply", "-f", "-", stdin=job("many", script, completions=12, parallelism=3))
    for name in ("node", "control", "node"):
        reached = {"node": 2, "control": 5}.get(name, 0)

        def progress(at_least: int = reached) -> bool:
            return int(cluster.get("job", "many")["status"].get("succeeded") or 0) >= at_least

        eventually(progress)
        os.kill(eventually(lambda name=name: cluster.child_pids().get(name)), signal.SIGKILL)
    eventually(lambda: cluster.get("job", "many")["status"].get("completionTime"), 60)
    status = cluster.get("job", "many")["status"]
    pods = cluster.get("pods", "-l", "job-name=many")["items"]
    succeeded = [pod for pod in pods if pod["status"]["phase"] == "Succeeded"]
    kept = ("name", "creationTimestamp", "deletionTimestamp", "finalizers")
    told = [({name: pod["metadata"].get(name) for name in kept}, pod["status"]["containerStatuses"]) for pod in pods]
    assert (status["succeeded"], len(succeeded)) == (12, 12), json.dumps([status, told], indent=1)
    assert not status.get("active")
