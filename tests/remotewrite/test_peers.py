"""Remote write into a real Prometheus and VictoriaMetrics, through kill -9 here and an outage there."""

import json
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from bench.ingest import played
from bench.peers import free_port, tool, victoria_metrics, wait_ready

pytestmark = pytest.mark.peer


def ask(port: int, expression: str) -> Any:
    address = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
    with urllib.request.urlopen(address, timeout=20) as answer:
        return json.load(answer)["data"]["result"]


def samples(port: int) -> dict[tuple[tuple[str, str], ...], dict[float, float]]:
    """By series without its external label."""
    return {
        tuple(sorted((name, value) for name, value in one["metric"].items() if name != "cluster")): {
            round(at, 3): float(value) for at, value in one["values"]
        }
        for one in ask(port, '{job="j"}[10m]')
    }


class Running:
    def __init__(self, port: int, log: Path, *command: str) -> None:
        with log.open("ab") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        wait_ready(f"http://127.0.0.1:{port}/-/ready", self.process)

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(60)


def test_every_sample_arrives_through_kills_and_an_outage(tmp_path: Path) -> None:
    prometheus_port, own_port = free_port(), free_port()
    (tmp_path / "prometheus.yml").write_text("global: {}\n")
    binary = str(tool("prometheus.py"))

    def prometheus() -> Running:
        return Running(
            prometheus_port, tmp_path / "prometheus.log", binary, f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/theirs", f"--web.listen-address=127.0.0.1:{prometheus_port}",
            "--web.enable-remote-write-receiver",
        )  # fmt: skip

    def ours() -> Running:
        return Running(
            own_port, tmp_path / "ours.log", sys.executable, "-m", "flyball", "server",
            f"--config.file={tmp_path}/ours.yml", f"--storage.tsdb.path={tmp_path}/ours",
            f"--web.listen-address=127.0.0.1:{own_port}",
        )  # fmt: skip

    with played(50) as target_port, victoria_metrics() as victoria:
        queue = "queue_config: {batch_send_deadline: 500ms, max_backoff: 500ms}"
        rule = "write_relabel_configs: [{source_labels: [__name__], regex: app_metric_1_total, action: drop}]"
        (tmp_path / "ours.yml").write_text(
            "global: {scrape_interval: 1s, external_labels: {cluster: c1}}\n"
            f'scrape_configs: [{{job_name: j, static_configs: [{{targets: ["127.0.0.1:{target_port}"]}}]}}]\n'
            "remote_write:\n"
            f'- {{name: p, url: "http://127.0.0.1:{prometheus_port}/api/v1/write", {queue}}}\n'
            f'- {{name: v, url: "http://127.0.0.1:{victoria.port}/api/v1/write", {queue}, {rule}}}\n'
        )
        there, here = prometheus(), ours()
        try:
            until(lambda: len(ask(prometheus_port, '{job="j"}')) == 55)
            assert ask(prometheus_port, "up")[0]["metric"]["cluster"] == "c1"
            here.end(signal.SIGKILL)
            here = ours()
            time.sleep(2)
            there.end(signal.SIGTERM)
            time.sleep(3)
            here.end(signal.SIGKILL)
            here = ours()
            time.sleep(2)
            there = prometheus()
            newest = max(at for found in samples(own_port).values() for at in found)
            for port, is_there in ((prometheus_port, lambda _: True), (victoria.port, _is_kept)):
                until(lambda port=port: max((at for s in samples(port).values() for at in s), default=0) > newest + 2)
                wanted, found = samples(own_port), samples(port)
                missing = [
                    (series, at)
                    for series, values in wanted.items()
                    for at, value in values.items()
                    if at <= newest and is_there(series) and found.get(series, {}).get(at) != pytest.approx(value)
                ]
                assert not missing, f"{len(missing)} samples, {missing[:3]}"
                assert all(map(is_there, found))
        finally:
            here.end(signal.SIGTERM)
            there.end(signal.SIGTERM)


def _is_kept(series: tuple[tuple[str, str], ...]) -> bool:
    return ("__name__", "app_metric_1_total") not in series


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
