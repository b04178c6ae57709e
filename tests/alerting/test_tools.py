"""The real amtool, and a real Prometheus as sender, against ours."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.alerting.programs import OURS, ROOT, Collector, Program, collecting, eventually, free_port, program, real

pytestmark = pytest.mark.peer

CONFIG = """
route:
  receiver: default
  group_by: [alertname]
  group_wait: 1s
  group_interval: 1s
  routes: [{receiver: team, matchers: ['team="a"']}]
receivers:
- {name: default, webhook_configs: [{url: "%s/hook"}]}
- {name: team}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Program, Path]]:
    directory = tmp_path_factory.mktemp("alertmanager")
    with collecting() as collector, program(OURS, directory, CONFIG % collector.url) as one:
        yield collector, one, directory


def amtool(one: Program, *arguments: str, ok: bool = True) -> str:
    found = subprocess.run(
        [real("amtool"), f"--alertmanager.url={one.url}", *arguments], capture_output=True, text=True, timeout=30
    )
    assert (found.returncode == 0) is ok, found.stdout + found.stderr
    return found.stdout + found.stderr


def test_amtool_adds_and_finds_alerts(server: tuple[Collector, Program, Path]) -> None:
    _, one, _ = server
    amtool(one, "alert", "add", "foo", "team=a", "Σ=x", "--annotation", "summary=hi")
    amtool(one, "alert", "add", "bar", "node=n1")
    assert [line.split()[0] for line in amtool(one, "alert", "query").splitlines()[1:]] == ["foo", "bar"]
    assert [line.split()[0] for line in amtool(one, "alert", "query", "node=~n.").splitlines()[1:]] == ["bar"]
    (found,) = json.loads(amtool(one, "alert", "query", "-o", "json", 'Σ="x"'))
    assert found["annotations"] == {"summary": "hi"} and found["receivers"] == [{"name": "team"}]


def test_amtool_silences(server: tuple[Collector, Program, Path], tmp_path: Path) -> None:
    _, one, _ = server
    id_ = amtool(one, "silence", "add", "alertname=foo", "team=~a|b", "-c", "for a test", "-d", "1h").strip()
    assert json.loads(amtool(one, "alert", "query", "-s", "-o", "json", "alertname=foo"))[0]["status"][
        "silencedBy"
    ] == [id_]
    assert id_ in amtool(one, "silence", "query", "alertname=foo") and id_ not in amtool(
        one, "silence", "query", "team=x"
    )
    kept = tmp_path / "silences.json"
    kept.write_text(amtool(one, "silence", "query", "-o", "json"))
    assert amtool(one, "silence", "update", "-d", "2h", id_)
    amtool(one, "silence", "expire", id_)
    assert id_ not in amtool(one, "silence", "query") and id_ in amtool(one, "silence", "query", "--expired")
    (again,) = amtool(one, "silence", "import", str(kept)).split()
    assert again != id_ and again in amtool(one, "silence", "query", "-q")
    amtool(one, "silence", "expire", again)
    assert "NotFound" in amtool(one, "silence", "expire", "11111111-1111-4111-8111-111111111111", ok=False)
    assert "must not match the empty string" in amtool(one, "silence", "add", "a=~.*", "-c", "x", ok=False)


def test_amtool_reads_the_configuration(server: tuple[Collector, Program, Path]) -> None:
    _, one, directory = server
    assert "url: <secret>" in amtool(one, "config", "show")
    assert amtool(one, "config", "routes", "test", "team=a").strip() == "team"
    assert amtool(one, "config", "routes", "test", "team=b").strip() == "default"
    assert 'team="a"' in amtool(one, "config", "routes", "show")
    assert "SUCCESS" in amtool(one, "check-config", str(directory / "alertmanager.yml"))
    assert "disabled" in amtool(one, "cluster", "show")


def test_a_reload_takes_what_is_right_and_leaves_what_is_wrong(server: tuple[Collector, Program, Path]) -> None:
    _, one, directory = server
    file = directory / "alertmanager.yml"
    before = file.read_text()
    file.write_text(before + "- {name: third}\n")
    one.post_plain("/-/reload")
    assert [receiver["name"] for receiver in one.get("/api/v2/receivers")] == ["default", "team", "third"]
    file.write_text(before + "- {nam: fourth}\n")
    assert "unknown field" not in before and one.post_plain("/-/reload") == 500
    assert len(one.get("/api/v2/receivers")) == 3
    assert "alertmanager_config_last_reload_successful 0.0" in one.page("/metrics")
    file.write_text(before)
    assert one.post_plain("/-/reload") == 200


@contextlib.contextmanager
def sending(command: list[str], one: Program, directory: Path) -> Iterator[None]:
    """A Prometheus, ours or the real one, whose one rule fires and whose one Alertmanager is this."""
    (directory / "rules.yml").write_text(
        "groups: [{name: g, interval: 1s, rules: [{alert: FromPrometheus, expr: vector(1), "
        'annotations: {value: "{{ $value }}"}}]}]'
    )
    target = one.url.removeprefix("http://")
    (directory / "prometheus.yml").write_text(
        "global: {external_labels: {region: here}}\nrule_files: [rules.yml]\n"
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{target}']}}]}}]}}\n"
    )
    with (directory / "log").open("wb") as log:
        sender = subprocess.Popen(
            [
                *command,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{free_port()}",
                "--rules.alert.resend-delay=1s",  # the first may be sent before it knows to whom
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        sender.kill()
        sender.wait(10)


def check_told(collector: Collector, one: Program) -> None:
    def told() -> list[Any]:
        return [body for body in collector.told["/hook"] if body["groupLabels"]["alertname"] == "FromPrometheus"]

    (body, *_) = eventually(told)
    assert body["commonLabels"]["region"] == "here" and body["commonAnnotations"] == {"value": "1"}
    assert "g0.expr=vector%281%29" in body["alerts"][0]["generatorURL"]
    (alert,) = one.get("/api/v2/alerts?filter=alertname%3DFromPrometheus")
    assert alert["endsAt"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def test_a_real_prometheus_sends_to_us(server: tuple[Collector, Program, Path], tmp_path: Path) -> None:
    collector, one, _ = server
    built = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "prometheus.py")], check=True, capture_output=True, text=True
    )
    with sending([built.stdout.strip()], one, tmp_path):
        check_told(collector, one)


def test_our_rules_send_to_a_real_alertmanager(tmp_path: Path) -> None:
    flags = ("--cluster.listen-address=",)
    with (
        collecting() as collector,
        program([real("alertmanager")], tmp_path / "real", CONFIG % collector.url, *flags) as one,
        sending([sys.executable, "-m", "flyball", "server"], one, tmp_path),
    ):
        check_told(collector, one)
