"""Beside the real Alertmanager 0.33.1: what receivers are told and what the API says are equal."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.alerting.programs import OURS, Collector, Program, collecting, eventually, program, real

pytestmark = pytest.mark.peer

URL = "http://alerts.example.com/am"
TEMPLATES = (Path(__file__).parent / "templates.txt").read_text().splitlines()


def config(base: str) -> str:
    plain = {
        "slack": {"title": "{{ .Status }}", "text": "{{ .CommonLabels }}", "title_link": "{{ .ExternalURL }}"},
        "pagerduty": {"description": "{{ .GroupLabels }}", "client": "c", "client_url": "{{ .ExternalURL }}"},
    }
    slack = {
        **plain["slack"],
        "api_url": f"{base}/slack",
        "channel": "#{{ .GroupLabels.alertname }}",
        "fallback": "f",
        "username": "u",
        "send_resolved": True,
        "fields": [{"title": "a", "value": "{{ len .Alerts }}"}, {"title": "b", "value": "c", "short": True}],
        "actions": [{"type": "button", "text": "{{ .Status }}", "url": "http://x/"}],
        "short_fields": False,
    }
    pagerduty = {
        **plain["pagerduty"],
        "url": f"{base}/pagerduty",
        "routing_key": "key",
        "severity": "{{ if .CommonLabels.severity }}{{ .CommonLabels.severity }}{{ else }}error{{ end }}",
        "links": [{"href": "http://{{ .Status }}/", "text": "t"}, {"href": "", "text": "gone"}],
        "images": [{"src": "http://i/", "alt": "a"}],
        "details": {"nested": {"list": ["{{ .Status }}", 1, True]}, "count": "{{ len .Alerts }}"},
    }
    telegram = {"api_url": f"{base}/telegram", "bot_token": "123:abc", "chat_id": -42, "message_thread_id": 7}
    payload = {f"t{index}": text for index, text in enumerate(TEMPLATES)}
    return yaml.safe_dump(
        {
            "route": {
                "receiver": "all",
                "group_by": ["alertname"],
                "group_wait": "3s",
                "group_interval": "1s",
                "repeat_interval": "1h",
                "routes": [{"receiver": "few", "matchers": ['few=~".+"'], "group_by": ["..."]}],
            },
            "inhibit_rules": [
                {"source_matchers": ["severity=critical"], "target_matchers": ["severity=info"], "equal": ["cluster"]}
            ],
            "receivers": [
                {
                    "name": "all",
                    "webhook_configs": [
                        {"url": f"{base}/webhook"},
                        {"url": f"{base}/payload", "payload": payload},
                        {
                            "url": f"{base}/payload2",
                            "payload": {"list": ["{{ .Status }}", {"a": "{{ 1 }}"}], "number": 5},
                        },
                    ],
                    "slack_configs": [slack],
                    "pagerduty_configs": [pagerduty],
                    "telegram_configs": [telegram | {"message": "<b>{{ .CommonAnnotations.text }}</b>"}],
                },
                {"name": "few", "webhook_configs": [{"url": f"{base}/few", "max_alerts": 1, "send_resolved": False}]},
            ],
        },
        allow_unicode=True,
    )


def alerts() -> list[dict[str, Any]]:
    # Of what began longer ago than group_wait the first alert is told at once, before the others have come.
    start = dt.datetime.now(dt.UTC) - dt.timedelta(milliseconds=10)

    def at(ms: float) -> str:
        return (start + dt.timedelta(milliseconds=ms)).isoformat().replace("+00:00", "123Z")

    end = at(3_600_000)
    return [
        {
            "labels": {
                "alertname": "Down",
                "instance": f"host-{index}",
                "job": "node",
                "severity": "critical",
                "cluster": "a",
            },
            "annotations": {"text": 'it\'s <down> & "out" + Σ', "runbook": f"http://wiki/?q={index}&x"},
            "startsAt": at(index),
            "endsAt": end,
            "generatorURL": "http://prometheus/graph?g0.expr=up+%3D%3D+0&g0.tab=1",
        }
        for index in range(3)
    ] + [
        {"labels": {"alertname": "Note", "severity": "info", "cluster": "a"}, "startsAt": at(1), "endsAt": end},
        {"labels": {"alertname": "Note", "severity": "info", "cluster": "b"}, "startsAt": at(2), "endsAt": end},
        {"labels": {"alertname": "Few", "few": "1", "Z": "z", "a": '\\"\n'}, "startsAt": at(3), "endsAt": end},
    ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Program, Program]]:
    directory = tmp_path_factory.mktemp("alertmanagers")
    slack_ok = (200, {"Content-Type": "text/plain"}, b"ok")
    telegram_ok = {"ok": True, "result": {"message_id": 1, "chat": {"id": -42, "type": "group"}, "date": 1}}

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        if "telegram" in path:
            return 200, {"Content-Type": "application/json"}, json.dumps(telegram_ok).encode()
        return slack_ok

    with collecting() as collector:
        collector.answer = answer
        flags = ("--web.external-url=" + URL, "--web.route-prefix=/", "--cluster.listen-address=")
        with (
            program([real("alertmanager")], directory / "real", config(f"{collector.url}/real"), *flags) as theirs,
            program(OURS, directory / "ours", config(f"{collector.url}/ours"), *flags) as ours,
        ):
            posted = alerts()
            for one in (theirs, ours):
                one.post("/api/v2/alerts", posted)
            yield collector, theirs, ours


@pytest.mark.parametrize(
    "path", ["/webhook", "/payload", "/payload2", "/slack", "/pagerduty", "/telegram/bot123:abc/sendMessage", "/few"]
)
def test_receivers_are_told_the_same(both: tuple[Collector, Program, Program], path: str) -> None:
    collector, _, _ = both
    count = 1 if path == "/few" else 2  # the groups Down and Note

    def told(name: str) -> list[Any]:
        return collector.told.get(f"/{name}{path}", [])

    eventually(lambda: len(told("real")) >= count and len(told("ours")) >= count)
    order = lambda one: json.dumps(one, sort_keys=True)  # noqa: E731
    theirs, ours = (sorted(told(name)[:count], key=order) for name in ("real", "ours"))
    if path == "/payload":
        for index, text in enumerate(TEMPLATES):
            for one, two in zip(theirs, ours, strict=True):
                assert two.get(f"t{index}") == one.get(f"t{index}"), text
    assert ours == theirs


UNEQUAL = {"updatedAt", "lastNotifyAttempt", "integrations"}


def same(value: Any) -> Any:
    """Without what differs by the moment, or is there beyond the schema."""
    if isinstance(value, dict):
        return {name: same(one) for name, one in value.items() if name not in UNEQUAL}
    return [same(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "path",
    [
        "/api/v2/alerts",
        "/api/v2/alerts?filter=alertname%3DDown&filter=instance%21~%22host-0%22",
        "/api/v2/alerts?active=false",
        "/api/v2/alerts?inhibited=false",
        "/api/v2/alerts?receiver=few",
        "/api/v2/alerts?filter=few%3D%22%22",
        "/api/v2/alerts/groups",
        "/api/v2/alerts/groups?receiver=a.%2B&inhibited=false",
        "/api/v2/receivers",
        "/api/v2/silences",
    ],
)
def test_the_api_says_the_same(both: tuple[Collector, Program, Program], path: str) -> None:
    _, theirs, ours = both
    assert same(ours.get(path)) == same(theirs.get(path))
