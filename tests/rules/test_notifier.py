"""Sending alerts: when, in what form, and to Alertmanagers that fail."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flyball.http.calling import Caller
from flyball.model.clients import HttpClientConfig
from flyball.model.labels import labels_of
from flyball.model.scrapeconfigs import RelabelConfig
from flyball.rules.evaluation import Alert, State
from flyball.rules.notifier import QUEUE_MAX, Alertmanager, Notifier, Schedule, payload
from flyball.rules.rulefiles import AlertingRule, Group, parse_rule_file

MINUTE = 60_000
(GROUP,) = parse_rule_file("groups: [{name: g, rules: [{alert: Down, expr: up == 0}]}]", "f")
LABELS = labels_of({"alertname": "Down", "pod": "a"})


def rule() -> AlertingRule:
    (found,) = GROUP.rules
    assert isinstance(found, AlertingRule)
    return found


def firing(minute: int = 0, **fields: Any) -> Alert:
    return Alert(LABELS, (("text", "x"),), 1.0, 0, **{"state": State.FIRING, "fired_at_ms": minute * MINUTE, **fields})


def test_the_sends_of_the_references_timeline() -> None:
    """Firing from minute 3, evaluated each minute, resolved at 8: sent at 3, 5, 7 and 8, then resolved copies."""
    schedule = Schedule(MINUTE)
    sent = {}
    for minute in range(3, 14):
        alert = firing(3) if minute < 8 else firing(3, state=State.INACTIVE, resolved_at_ms=8 * MINUTE)
        for _, valid_until_ms in schedule.due(GROUP, [alert], minute * MINUTE):
            sent[minute] = valid_until_ms
    assert list(sent) == [3, 5, 7, 8, 10, 12]
    assert sent[3] == 7 * MINUTE


def test_pending_alerts_are_not_sent() -> None:
    assert Schedule().due(GROUP, [firing(state=State.PENDING, fired_at_ms=None)], 0) == []


def test_an_alert_in_the_form_of_api_v2() -> None:
    body = payload(firing(3), 7 * MINUTE, "http://p/graph", {"region": "eu", "pod": "not taken"}, ())
    assert body == {
        "labels": {"alertname": "Down", "pod": "a", "region": "eu"},
        "annotations": {"text": "x"},
        "startsAt": "1970-01-01T00:03:00.000000Z",
        "endsAt": "1970-01-01T00:07:00.000000Z",
        "generatorURL": "http://p/graph",
    }
    resolved = payload(firing(3, state=State.INACTIVE, resolved_at_ms=8 * MINUTE), 99 * MINUTE, "", {}, ())
    assert resolved is not None and resolved["endsAt"] == "1970-01-01T00:08:00.000000Z"
    drop = RelabelConfig(source_labels=("alertname",), regex="Down", action="drop")
    assert payload(firing(), 0, "", {}, (drop,)) is None


class Receiver:
    """An Alertmanager that answers with the statuses given, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.batches, self.headers = list(statuses), [], []
        self.got = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))[15:])
        body = json.loads(await reader.readexactly(length))
        status = self.statuses.pop(0) if self.statuses else 200
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno".encode())
        await writer.drain()
        writer.close()
        self.headers.append(head.decode())
        if status == 200:
            self.batches.append(body)
            self.got.set()


def run(story: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.rules.notifier.RETRY_S", 0.01)

    async def main() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(main())


async def listen(receiver: Receiver) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v2/alerts"


def test_every_alertmanager_gets_it_and_a_failing_one_gets_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        good, bad = Receiver(), Receiver(500, 503)
        (server, url), (other, other_url) = await listen(good), await listen(bad)
        notifier = Notifier()
        notifier.external_url = "http://p"
        dead = Alertmanager("http://127.0.0.1:1/api/v2/alerts")
        notifier.set_targets(
            [
                Alertmanager(url, caller=Caller(HttpClientConfig(headers=(("X-Own", "1"),)))),
                Alertmanager(other_url),
                dead,
            ]
        )
        notifier.notify(GROUP, rule(), [firing()], MINUTE)
        await asyncio.gather(good.got.wait(), bad.got.wait())
        assert good.batches == bad.batches and len(bad.headers) == 3
        assert good.batches[0][0]["generatorURL"] == "http://p/graph?g0.expr=up+%3D%3D+0&g0.tab=1"
        assert "X-Own: 1" in good.headers[0]
        while "1" not in str(notifier.statistics()[dead.url]["error"]):
            await asyncio.sleep(0.01)
        assert notifier.statistics()[dead.url]["waiting"] <= 1
        await notifier.close()
        server.close()
        other.close()

    run(story, monkeypatch)


def test_a_full_queue_drops_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        notifier = Notifier()
        target = Alertmanager("http://127.0.0.1:1/api/v2/alerts")
        notifier.set_targets([target])
        group = Group("f", "g", (rule(),))
        alerts = [
            Alert(labels_of({"alertname": "Down", "n": str(n)}), (), 1.0, 0, State.FIRING, 0)
            for n in range(QUEUE_MAX + 5)
        ]
        notifier.notify(group, rule(), alerts, MINUTE)
        assert notifier.statistics()[target.url]["waiting"] == QUEUE_MAX
        first = notifier._queues[target.url].waiting[0]
        assert first["labels"]["n"] == "5"
        await notifier.close()

    run(story, monkeypatch)
