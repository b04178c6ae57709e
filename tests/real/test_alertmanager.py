"""Alerting of a running cluster: from a rule to a webhook, through an Alertmanager object and its Secret."""

import datetime as dt
import json
import os
import signal
import urllib.request
from typing import Any

import pytest
from tests.alerting.programs import collecting

from .conftest import Flyball, eventually

pytestmark = pytest.mark.real


def alertmanager(flyball: Flyball, path: str, body: Any = None) -> Any:
    url = f"http://127.0.0.1:{9093 + flyball.offset}/api/v2/{path}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def apply(flyball: Flyball, api_version: str, kind: str, name: str, **more: Any) -> None:
    head = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "default"}}
    flyball.kubectl("apply", "-f", "-", stdin=json.dumps({**head, **more}))


def configure(flyball: Flyball, text: str) -> None:
    apply(flyball, "v1", "Secret", "alertmanager-main", stringData={"alertmanager.yaml": text})


def test_the_watchdog_reaches_a_webhook(flyball: Flyball) -> None:
    with collecting() as collector:
        configure(
            flyball,
            "route: {receiver: Default, group_wait: 1s, group_interval: 1s, "
            'routes: [{receiver: Watchdog, matchers: ["alertname = Watchdog"]}]}\n'
            f'receivers: [{{name: Default}}, {{name: Watchdog, webhook_configs: [{{url: "{collector.url}/hook"}}]}}]\n',
        )
        apply(flyball, "monitoring.coreos.com/v1", "Alertmanager", "main", spec={"replicas": 1})
        rules = [{"alert": "Watchdog", "expr": "vector(1)", "labels": {"severity": "none"}}]
        groups = [{"name": "watchdog", "interval": "1s", "rules": rules}]
        apply(flyball, "monitoring.coreos.com/v1", "PrometheusRule", "watchdog", spec={"groups": groups})
        eventually(lambda: collector.told.get("/hook"), 60)
        told = collector.told["/hook"][0]
        assert (told["status"], told["receiver"], told["commonLabels"]["alertname"]) == (
            "firing",
            "Watchdog",
            "Watchdog",
        )
        assert told["alerts"][0]["generatorURL"].startswith(f"{flyball.prometheus}/graph?g0.expr=vector")
    for integration in alertmanager(flyball, "receivers")[1]["integrations"]:
        assert integration["name"] == "webhook[0]" and "lastNotifyAttemptError" not in integration


def test_a_silence_outlives_a_kill(flyball: Flyball) -> None:
    now = dt.datetime.now(dt.UTC)
    matcher = {"name": "alertname", "value": "Watchdog", "isRegex": False}
    times = {"startsAt": now.isoformat(), "endsAt": (now + dt.timedelta(hours=1)).isoformat()}
    body = {"matchers": [matcher], **times, "createdBy": "me", "comment": "for a kill"}
    id_ = alertmanager(flyball, "silences", body)["silenceID"]
    os.kill(flyball.child_pids()["data"], signal.SIGKILL)

    def silenced() -> bool:
        (one,) = alertmanager(flyball, "alerts?filter=alertname%3DWatchdog")
        return bool(one["status"]["silencedBy"] == [id_] and one["receivers"] == [{"name": "Watchdog"}])

    eventually(silenced, 60)


def test_a_wrong_configuration_leaves_the_last_one_and_is_told(flyball: Flyball) -> None:
    before = alertmanager(flyball, "status")["config"]["original"]
    configure(flyball, "route: {receiver: Nobody, group_wait: soon}\nreceivers: []\n")

    def told() -> bool:
        conditions = flyball.get("alertmanager", "main")["status"]["conditions"]
        return any(
            one["status"] == "False" and '"Nobody" is not one of receivers' in one["message"] for one in conditions
        )

    eventually(told, 60)
    assert alertmanager(flyball, "status")["config"]["original"] == before
