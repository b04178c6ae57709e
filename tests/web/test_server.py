"""``flyball server`` as a process: it starts where Prometheus started, reloads, and refuses what is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flyball.cli import main
from flyball.errors import ConfigError
from flyball.server import load

CONFIG = """
remote_read: [{url: "http://127.0.0.1:1/"}]
global: {scrape_interval: 100ms}
rule_files: [rules.yml]
scrape_configs:
- {job_name: self, file_sd_configs: [{files: [targets.json]}], basic_auth: {username: u, password: hunter2}}
"""
RULES = "groups: [{name: g, interval: 100ms, rules: [{alert: Down, expr: up == 0}, {record: a:b, expr: sum(up)}]}]\n"


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Process:
    """A server on a free port, with the files of ``directory``."""

    def __init__(self, directory: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "flyball", "server", "--config.file=p.yml", "--web.listen-address=127.0.0.1:0"]
        log = directory / "log"
        with log.open("w") as stderr:
            self.process = subprocess.Popen([*command, *flags], cwd=directory, stderr=stderr)
        until(lambda: "ready at" in log.read_text() or self.process.poll() is not None)
        found = re.search(r"ready at (\S+)", log.read_text())
        assert found is not None, log.read_text()
        self.url = found[1]

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, method=method), timeout=10) as answer:
                body, status = answer.read(), answer.status
        except urllib.error.HTTPError as exc:
            body, status = exc.read(), exc.code
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode()

    def value(self, query: str) -> str | None:
        found = self.ask(f"/api/v1/query?query={query}")[1]["data"]["result"]
        return found[0]["value"][1] if found else None


def test_a_server_scrapes_reloads_and_ends(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(CONFIG)
    (tmp_path / "rules.yml").write_text(RULES)
    server = Process(tmp_path, "--web.enable-lifecycle", "--web.console.templates=/x", "--query.lookback-delta=1m")
    try:
        address = server.url.removeprefix("http://")
        (tmp_path / "targets.json").write_text(json.dumps([{"targets": [address], "labels": {"own": "1"}}]))
        until(lambda: server.value("up{own='1'}") == "1")
        assert "p.yml: remote_read is accepted and has no effect here" in (tmp_path / "log").read_text()
        until(lambda: server.value("a:b") == "1")
        groups = server.ask("/api/v1/rules")[1]["data"]["groups"]
        assert [(rule["name"], rule["type"]) for rule in groups[0]["rules"]] == [
            ("Down", "alerting"),
            ("a:b", "recording"),
        ]
        assert "hunter2" not in server.ask("/api/v1/status/config")[1]["data"]["yaml"]
        assert server.ask("/api/v1/status/flags")[1]["data"]["query.lookback-delta"] == "1m"
        (tmp_path / "p.yml").write_text(CONFIG + "foo: 1\n")
        status, body = server.ask("/-/reload", "POST")
        assert status == 500 and '"foo"' in body
        assert server.ask("/api/v1/status/runtimeinfo")[1]["data"]["reloadConfigSuccess"] is False
        assert server.ask("/api/v1/notifications")[1]["data"]
        (tmp_path / "p.yml").write_text(CONFIG.replace("job_name: self", "job_name: renamed"))
        os.kill(server.process.pid, signal.SIGHUP)
        until(lambda: server.value("up{job='renamed'}") == "1")
        until(lambda: server.value("up{job='self'}") is None)  # its series ended
        assert server.ask("/-/quit", "POST")[0] == 200
        assert server.process.wait(20) == 0
    finally:
        server.process.kill()
        server.process.wait()


def test_the_admin_api_deletes_and_copies_and_files_are_read_when_they_change(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(CONFIG.replace("rule_files: [rules.yml]\n", ""))
    reload = ("--config.auto-reload", "--config.auto-reload-interval=20ms")
    server = Process(tmp_path, "--web.enable-admin-api", "--storage.tsdb.retention.time=3d", *reload)
    try:
        (tmp_path / "p.yml").write_text(CONFIG.replace("rules.yml", "rules/*.yml"))
        until(lambda: "rules/*.yml" in server.ask("/api/v1/status/config")[1]["data"]["yaml"])  # nobody was asked to
        address = server.url.removeprefix("http://")
        (tmp_path / "targets.json").write_text(json.dumps([{"targets": [address]}]))
        until(lambda: server.value("up") == "1")
        status, body = server.ask("/api/v1/admin/tsdb/snapshot", "POST")
        assert status == 200
        assert list((tmp_path / "data" / "snapshots" / body["data"]["name"] / "blocks").iterdir())
        (tmp_path / "targets.json").write_text("[]")
        until(lambda: server.value("up") is None)
        assert server.value("count(present_over_time(up[1h]))") == "1"
        assert server.ask("/api/v1/admin/tsdb/delete_series?match[]=up", "POST")[0] == 200
        assert server.value("count(present_over_time(up[1h]))") is None
        assert server.ask("/api/v1/admin/tsdb/clean_tombstones", "POST")[0] == 200
        assert server.ask("/api/v1/status/runtimeinfo")[1]["data"]["storageRetention"] == "3d"
    finally:
        server.process.kill()
        server.process.wait()


def test_a_wrong_configuration_is_named_in_full(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text("foo: 1\nscrape_configs: [{job_name: a, scheme: x}]\nrule_files: [r.yml]\n")
    (tmp_path / "r.yml").write_text("groups: [{name: g, rules: [{record: a, expr: 'sum('}]}]\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "p.yml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and '"foo"' in lines[0] and "scheme" in lines[1] and "r.yml" in lines[2]
    with pytest.raises(ConfigError, match=r"nosuch\.yml"):
        load(tmp_path / "nosuch.yml")


def test_jobs_in_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text("scrape_config_files: ['jobs/*.yml']\nscrape_configs: [{job_name: a}]\n")
    (tmp_path / "jobs").mkdir()
    more = tmp_path / "jobs" / "b.yml"
    more.write_text("scrape_configs: [{job_name: b, tls_config: {ca_file: ca}}]\n")
    loaded = load(tmp_path / "p.yml")
    assert [job.job_name for job in loaded.jobs] == ["a", "b"]
    assert loaded.jobs[1].http.tls is not None and loaded.jobs[1].http.tls.ca_file == str(tmp_path / "jobs" / "ca")
    more.write_text("scrape_configs: [{job_name: a}]\n")
    with pytest.raises(ConfigError, match="used twice"):
        load(tmp_path / "p.yml")


def test_it_starts_with_the_flags_that_an_operator_gives_prometheus(tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    web.write_text("{}\n")
    flags = [
        "--config.file=nosuch.yml", f"--web.config.file={web}", "--config.auto-reload", "--no-web.enable-lifecycle",
        "--storage.tsdb.wal-compression", "--auto-gomemlimit.ratio=0.9", "--storage.tsdb.delay-compact-file.path", "x",
        "--no-alertmanager.drain-notification-queue-on-shutdown", "--alertmanager.notification-batch-size=64",
        "--web.console.templates=/etc/prometheus/consoles", "--no-auto-gomaxprocs",
    ]  # fmt: skip
    said = CliRunner().invoke(main, ["server", *flags])
    assert "nosuch.yml: No such file" in said.stderr, said.output  # which comes after all flags
    web.write_text("http_server_config: {http2: false}\ntls_server_config: {cert_file: a, key_file: b}\n")
    said = CliRunner().invoke(main, ["server", *flags])
    assert said.exit_code == 2
    assert "tls_server_config: is not supported" in said.stderr
