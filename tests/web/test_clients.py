"""Those who ask a Prometheus, asking us: the real promtool, and Grafana's sequence of calls."""

import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.web.test_server import Process

ROOT = Path(__file__).parents[2]
CONFIG = """
global: {scrape_interval: 200ms}
rule_files: [rules.yml]
scrape_configs: [{job_name: self, static_configs: [{targets: ["%s"]}]}]
"""
RULES = "groups: [{name: g, interval: 200ms, rules: [{alert: Up, expr: up == 1}, {record: a:b, expr: sum(up)}]}]\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Scrapes itself; takes remote write."""
    directory = tmp_path_factory.mktemp("server")
    (directory / "rules.yml").write_text(RULES)
    (directory / "p.yml").write_text("global: {}\n")  # its own address is known once it runs
    running = Process(directory, "--web.enable-remote-write-receiver", "--web.enable-lifecycle")
    try:
        (directory / "p.yml").write_text(CONFIG % running.url.removeprefix("http://"))
        assert running.ask("/-/reload", "POST")[0] == 200
        deadline = time.monotonic() + 30
        while not running.ask("/api/v1/query?query=a:b%3E0")[1]["data"]["result"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield running
    finally:
        running.process.terminate()
        running.process.wait(20)


def post(server: Process, path: str, **form: str) -> Any:
    body = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + path, body), timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("application/json")
        found = json.load(answer)
    assert found["status"] == "success"
    return found["data"]


def test_what_grafana_asks(server: Process) -> None:
    now = time.time()
    window = {"start": f"{now - 300:.3f}", "end": f"{now:.3f}"}
    build = server.ask("/api/v1/status/buildinfo")[1]["data"]
    assert build["version"][0].isdigit() and "features" not in build  # a "features" key would make it a Mimir
    assert server.ask("/api/v1/query?query=1%2B1&time=4")[1]["data"] == {"resultType": "scalar", "result": [4, "2"]}
    assert {"__name__", "instance", "job"} <= set(post(server, "/api/v1/labels", **window))
    names = server.ask(f"/api/v1/label/__name__/values?{urllib.parse.urlencode(window)}")[1]["data"]
    assert {"up", "a:b"} <= set(names)
    values = server.ask("/api/v1/label/job/values?match%5B%5D=up")[1]["data"]
    assert values == ["self"]
    (series,) = post(server, "/api/v1/series", **{"match[]": "up", **window})
    assert (series["__name__"], series["job"]) == ("up", "self")
    metadata = server.ask("/api/v1/metadata?limit=5000")[1]["data"]
    assert metadata["process_cpu_seconds_total"][0]["type"] == "counter"
    panel = post(server, "/api/v1/query_range", query="sum by (job) (up)", step="15", **window)
    assert panel["resultType"] == "matrix" and panel["result"][0]["metric"] == {"job": "self"}
    instant = post(server, "/api/v1/query", query="up", time=f"{now:.3f}")
    assert instant["resultType"] == "vector" and instant["result"][0]["value"][1] == "1"
    assert post(server, "/api/v1/query_exemplars", query="up", **window) == []
    (group,) = server.ask("/api/v1/rules")[1]["data"]["groups"]
    assert [rule["type"] for rule in group["rules"]] == ["alerting", "recording"]
    assert server.ask("/api/v1/alerts")[1]["data"]["alerts"][0]["labels"]["alertname"] == "Up"


@pytest.mark.peer
def test_promtool(server: Process, tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, ROOT / "tools" / "promtool.py"], check=True, capture_output=True, text=True)
    program = found.stdout.strip()

    def promtool(*words: str, **given: Any) -> str:
        ran = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, **given)
        assert ran.returncode == 0, f"{words}: {ran.stdout} {ran.stderr}"
        return ran.stdout + ran.stderr

    url = server.url
    assert "up{" in promtool("query", "instant", url, "up")
    assert "=>" in promtool("query", "instant", url, "sum(up)")
    assert "up{" in promtool("query", "range", "--step=1s", url, "up")
    assert promtool("query", "series", "--match=up", url).count("job") == 1
    assert "self" in promtool("query", "labels", url, "job").split()
    assert "SUCCESS" in promtool("check", "healthy", f"--url={url}")
    assert "SUCCESS" in promtool("check", "ready", f"--url={url}")
    page = server.ask("/metrics")[1]
    promtool("check", "metrics", "--extended", "--lint=none", input=page)
    (tmp_path / "pushed.prom").write_text('# TYPE pushed_total counter\npushed_total{a="b"} 7\n')
    promtool("push", "metrics", url, str(tmp_path / "pushed.prom"))
    assert "7 @" in promtool("query", "instant", url, 'pushed_total{a="b"}')
