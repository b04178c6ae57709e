"""``flyball alertmanager`` alone: two replicas over real sockets, one of them killed."""

import contextlib
import datetime as dt
import signal
from pathlib import Path

import pytest
from tests.alerting.programs import OURS, collecting, eventually, free_port, program

pytestmark = pytest.mark.real

CONFIG = """
route: {receiver: hook, group_by: [alertname], group_wait: 1s, group_interval: 1s}
receivers: [{name: hook, webhook_configs: [{url: "%s/hook"}]}]
"""


def test_two_replicas_tell_once_and_know_the_same(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    with collecting() as collector, contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(
                program(
                    OURS,
                    tmp_path / str(index),
                    CONFIG % collector.url,
                    f"--cluster.listen-address=127.0.0.1:{ports[index]}",
                    f"--cluster.peer=127.0.0.1:{ports[0]}",
                    f"--cluster.peer=127.0.0.1:{ports[1]}",
                    f"--cluster.peer-name=replica-{index}",
                    "--cluster.peer-timeout=3s",
                )
            )
            for index in range(2)
        )
        for one in (first, second):
            eventually(lambda one=one: len(one.get("/api/v2/status")["cluster"]["peers"]) == 2)
        now = dt.datetime.now(dt.UTC)
        times = {"startsAt": now.isoformat(), "endsAt": (now + dt.timedelta(hours=1)).isoformat()}
        matcher = {"name": "alertname", "value": "Quiet", "isRegex": False}
        silence = {"matchers": [matcher], **times, "createdBy": "me", "comment": "on one"}
        id_ = first.post("/api/v2/silences", silence)["silenceID"]
        eventually(lambda: [found["id"] for found in second.get("/api/v2/silences")] == [id_])
        for one in (first, second):
            one.post("/api/v2/alerts", [{"labels": {"alertname": name}} for name in ("Down", "Quiet")])
        eventually(lambda: collector.told.get("/hook"))
        eventually(lambda: 'alertmanager_notifications_total{integration="webhook"} 0.0' in second.page("/metrics"))
        first.kill()
        eventually(lambda: "alertmanager_cluster_failed_peers 1.0" in second.page("/metrics"))
        second.post("/api/v2/alerts", [{"labels": {"alertname": name}} for name in ("Down", "Up")])
        eventually(lambda: len(collector.told["/hook"]) == 2)
        assert [body["groupLabels"]["alertname"] for body in collector.told["/hook"]] == ["Down", "Up"]


def test_a_signal_reloads(tmp_path: Path) -> None:
    with program(OURS, tmp_path, CONFIG % "http://127.0.0.1:1") as one:
        file = tmp_path / "alertmanager.yml"
        file.write_text(file.read_text() + "templates: ['*.tmpl']\n")
        (tmp_path / "broken.tmpl").write_text("{{ define")
        one.process.send_signal(signal.SIGHUP)
        (problem,) = eventually(lambda: one.get("/api/v2/status")["problems"])
        assert problem.startswith(f"{tmp_path}/broken.tmpl: ")
        assert "configuration reloaded" in one.log.read_text()
