"""Debian's nginx beside its stock exporter and ours, and the example that scales by it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real.conftest import ROOT, Flyball, eventually
from tools import debian

pytestmark = pytest.mark.real

CONFIG = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path u; scgi_temp_path s;
    server {{
        listen 127.0.0.1:{port};
        location = /stub_status {{ stub_status; }}
        location / {{ return 200 "hi"; }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


@contextlib.contextmanager
def running(*command: object) -> Iterator[None]:
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def families(text: str) -> tuple[dict[str, str], dict[str, float]]:
    """The types and the values of nginx' own series."""
    types = dict(re.findall(r"^# TYPE (nginx_(?!exporter)\S+) (\S+)$", text, re.M))
    values = {name: float(value) for name, value in re.findall(r"^(nginx_(?!exporter)\S+) (\S+)$", text, re.M)}
    return types, values


def test_ours_serves_what_the_stock_exporter_serves(tmp_path: Path) -> None:
    web, stock, ours = free_port(), free_port(), free_port()
    (tmp_path / "nginx.conf").write_text(CONFIG.format(port=web))
    page = f"http://127.0.0.1:{web}/stub_status"
    theirs = (debian.nginx_exporter(), "-nginx.scrape-uri", page, "-web.listen-address", f"127.0.0.1:{stock}")
    own = (sys.executable, "-m", "flyball", "exporter", "nginx", "-nginx.scrape-uri", page)
    labels = ("-prometheus.const-labels", "site=a,zone=b")
    with running(debian.nginx(), "-p", tmp_path, "-c", tmp_path / "nginx.conf"):
        eventually(lambda: fetch(page))
        with (
            running(*theirs, *labels),
            running(*own, "-web.listen-address", f"127.0.0.1:{ours}", *labels),
        ):
            urls = [f"http://127.0.0.1:{port}/metrics" for port in (stock, ours)]
            for url in urls:
                eventually(lambda url=url: fetch(url))
            for _ in range(50):
                fetch(f"http://127.0.0.1:{web}/")
            # Each look is a request and a connection of its own.
            (types, values), (our_types, our_values) = (families(fetch(url)) for url in urls)
            assert our_types == types and len(types) == 8
            assert our_values.keys() == values.keys() and len(values) == 8
            for name, value in values.items():
                assert abs(our_values[name] - value) <= 2, name
            assert our_values['nginx_http_requests_total{site="a",zone="b"}'] > 50
            # The page goes: both say so, and nothing else.
            (tmp_path / "nginx.conf").write_text(CONFIG.format(port=web).replace("stub_status;", "return 404;"))
            pid = int((tmp_path / "nginx.pid").read_text())
            subprocess.run(["kill", "-HUP", str(pid)], check=True)
            for url in urls:
                eventually(lambda url=url: families(fetch(url))[1] == {'nginx_up{site="a",zone="b"}': 0.0})


@pytest.fixture
def cluster(tmp_path: Path, kubectl_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flyball]:
    monkeypatch.setenv("PATH", f"{debian.nginx().parent}{os.pathsep}{os.environ['PATH']}")
    one = Flyball(tmp_path / "data", kubectl_path)
    one.start("-f", str(ROOT / "examples/nginx"))
    yield one
    one.stop()


def test_the_example_follows_its_requests_up_and_down(cluster: Flyball) -> None:
    def replicas() -> int:
        return int(cluster.get("deployment", "nginx")["status"].get("readyReplicas") or 0)

    def metric() -> str:
        return cluster.kubectl(
            "get",
            "--raw",
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/nginx_http_requests_per_second",
        )

    address = eventually(lambda: cluster.get("service", "nginx")["status"]["loadBalancer"]["ingress"][0])
    url = f"http://{address['ip']}:{address['ports'][0]['port']}/"
    eventually(lambda: "Hello from nginx-" in fetch(url))
    eventually(lambda: '"value":' in metric(), 60)
    assert replicas() == 1
    stopping = threading.Event()

    def load() -> None:
        while not stopping.wait(0.02):
            with contextlib.suppress(OSError):
                fetch(url)

    loaders = [threading.Thread(target=load) for _ in range(4)]
    for loader in loaders:
        loader.start()
    try:
        eventually(lambda: replicas() >= 3, 90)
        # Every pod has an address of its own, with nginx' port on it, and answers for itself.
        pods = cluster.get("pods", "-l", "app=nginx")["items"]
        ips = {pod["status"]["podIP"] for pod in pods if pod["status"].get("podIP")}
        assert len(ips) == len(pods) >= 3
        eventually(lambda: len({fetch(url) for _ in range(20)}) >= 3)
    finally:
        stopping.set()
        for loader in loaders:
            loader.join()
    eventually(lambda: replicas() == 1, 120)
