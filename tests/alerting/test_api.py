"""API v2 in virtual time: those nine of Alertmanager's 27 acceptance scenarios that are about it, and refusals.

The other eighteen are in ``acceptance.yaml``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.alerting.virtualtime import EPOCH_MS, now_ms, run

from flyball import clock
from flyball.alerting.alerts import fingerprint
from flyball.alerting.api import create_app
from flyball.alerting.config import parse_config
from flyball.alerting.matchers import Mode
from flyball.alerting.receivers.sending import DeliveryError
from flyball.alerting.service import Alertmanager, Settings
from flyball.errors import ConfigError
from flyball.model.labels import labels_of

CONFIG = """
route: {receiver: default, group_by: [], group_wait: 1s, group_interval: 10m, repeat_interval: 1h}
inhibit_rules: [{source_match: {severity: critical}, target_match: {severity: warning}, equal: [alertname]}]
receivers: [{name: default, webhook_configs: [{url: "http://nobody/"}]}]
"""
FIVE_MINUTES = {"startsAt": clock.rfc3339(EPOCH_MS), "endsAt": clock.rfc3339(EPOCH_MS + 300_000)}


class Client:
    """Requests to an app, without sockets."""

    def __init__(self, mode: Mode = Mode.FALLBACK, error: str = "", **more: Any) -> None:
        async def send(*_: Any) -> dict[str, str]:
            if error:
                raise DeliveryError(error, retry=False)
            return {}

        self.alertmanager = Alertmanager(parse_config(CONFIG), Settings(mode=mode), send=send, now_ms=now_ms)
        self._app = create_app(self.alertmanager, **more)

    async def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        given = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": given, "more_body": False}

        async def respond(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query, doseq=True).encode(),
            "headers": [(b"host", b"localhost")],
            "root_path": "",
        }
        await self._app(scope, receive, respond)
        text = b"".join(message.get("body", b"") for message in sent)
        is_json = (b"content-type", b"application/json") in sent[0]["headers"]
        return sent[0]["status"], json.loads(text) if is_json else text.decode()


def in_virtual_time(scenario: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        run(scenario())  # type: ignore[arg-type]

    test.__name__ = scenario.__name__
    return test


def silence(**matcher: Any) -> dict[str, Any]:
    return {"matchers": [{"isRegex": False, **matcher}], **FIVE_MINUTES, "createdBy": "test", "comment": "test"}


@in_virtual_time
async def test_add_alerts() -> None:
    client = Client(Mode.CLASSIC)
    labels = {"a": "b", "b": "Σ", "c": "🙂", "d": "eΘ"}
    assert await client("POST", "/api/v2/alerts", [{"labels": labels, **FIVE_MINUTES}]) == (200, "")


@in_virtual_time
async def test_alert_get_returns_current_alert_status() -> None:
    client = Client()
    task = asyncio.get_running_loop().create_task(client.alertmanager.run())
    labels = {"alertname": "test1", "severity": "warning"}
    await client("POST", "/api/v2/alerts", [{"labels": labels, **FIVE_MINUTES}])
    _, (found,) = await client("GET", "/api/v2/alerts")
    assert found["status"]["state"] == "active"
    await asyncio.sleep(2)
    _, made = await client("POST", "/api/v2/silences", silence(name="alertname", value="test1"))
    _, (found,) = await client("GET", "/api/v2/alerts")
    assert found["fingerprint"] == fingerprint(labels_of(labels))
    assert (found["status"]["state"], found["status"]["silencedBy"]) == ("suppressed", [made["silenceID"]])
    critical = {**labels, "severity": "critical"}
    await client("POST", "/api/v2/alerts", [{"labels": critical, **FIVE_MINUTES}])
    _, both = await client("GET", "/api/v2/alerts")
    assert all(one["status"]["silencedBy"] == [made["silenceID"]] for one in both)
    by_severity = {one["labels"]["severity"]: one["status"] for one in both}
    assert by_severity["warning"]["inhibitedBy"] == [fingerprint(labels_of(critical))]
    assert await client("DELETE", f"/api/v2/silence/{made['silenceID']}") == (200, "")
    await asyncio.sleep(0.001)
    _, both = await client("GET", "/api/v2/alerts")
    states = {one["labels"]["severity"]: (one["status"]["state"], one["status"]["silencedBy"]) for one in both}
    assert states == {"warning": ("suppressed", []), "critical": ("active", [])}
    task.cancel()


@in_virtual_time
async def test_filter_alert_request() -> None:
    client = Client()
    first, second = {"alertname": "test1", "severity": "warning"}, {"system": "foo", "severity": "critical"}
    await client("POST", "/api/v2/alerts", [{"labels": one, **FIVE_MINUTES} for one in (first, second)])
    _, (found,) = await client("GET", "/api/v2/alerts", filter=["alertname=test1", "severity=warning"])
    assert found["labels"] == first and found["status"]["state"] == "active"


@in_virtual_time
async def test_add_silence() -> None:
    client = Client(Mode.CLASSIC)
    status, made = await client("POST", "/api/v2/silences", silence(name="foo", value="bar", isEqual=True))
    assert status == 200 and made["silenceID"]


@in_virtual_time
async def test_add_utf8_alerts() -> None:
    client = Client()
    labels = {"a": "a", "00": "b", "Σ": "c", "🙂": "dΘ"}
    await client("POST", "/api/v2/alerts", [{"labels": labels, **FIVE_MINUTES}])
    wanted = ["00=b", "Σ=c", '"\\xf0\\x9f\\x99\\x82"=dΘ']
    for query in ({}, {"filter": wanted}):
        _, (found,) = await client("GET", "/api/v2/alerts", **query)
        _, (group,) = await client("GET", "/api/v2/alerts/groups", **query)
        assert found["labels"] == group["alerts"][0]["labels"] == labels


@in_virtual_time
async def test_cannot_add_utf8_alerts_in_classic_mode() -> None:
    client = Client(Mode.CLASSIC)
    status, said = await client("POST", "/api/v2/alerts", [{"labels": {"a": "a", "00": "b", "Σ": "c"}, **FIVE_MINUTES}])
    assert status == 400 and "invalid label set" in said


@in_virtual_time
async def test_add_utf8_silences() -> None:
    client = Client()
    matcher = {"name": "fooΣ", "isEqual": True, "isRegex": False, "value": "bar🙂"}
    await client("POST", "/api/v2/silences", silence(**matcher))
    for query in ({}, {"filter": ["fooΣ=bar🙂"]}):
        _, (found,) = await client("GET", "/api/v2/silences", **query)
        assert found["matchers"] == [matcher]
    assert await client("GET", "/api/v2/silences", filter=["fooΣ=other"]) == (200, [])


@in_virtual_time
async def test_cannot_add_utf8_silences_in_classic_mode() -> None:
    client = Client(Mode.CLASSIC)
    status, said = await client("POST", "/api/v2/silences", silence(name="fooΣ", value="bar🙂"))
    assert status == 400 and "invalid silence: invalid label matcher" in said


@in_virtual_time
async def test_web_with_prefix() -> None:
    client = Client(prefix="/foo")
    for path in ("/foo/-/ready", "/foo/-/healthy", "/foo/api/v2/status", "/foo/metrics"):
        status, _ = await client("GET", path)
        assert status == 200, path
    assert (await client("GET", "/api/v2/status"))[0] == 404


@in_virtual_time
async def test_what_is_wrong_is_refused_and_the_rest_taken() -> None:
    client = Client()
    documents = [{"labels": {"alertname": "good"}}, {"labels": {}}, {"labels": {"a": "b"}, "startsAt": "yesterday"}, 5]
    status, said = await client("POST", "/api/v2/alerts", documents)
    assert status == 400 and "at least one label pair required" in said and '"yesterday" is not a time' in said
    _, (found,) = await client("GET", "/api/v2/alerts")
    assert found["labels"] == {"alertname": "good"}
    ends = clock.rfc3339_micro(now_ms() + 300_000).replace("000Z", "Z")
    assert found["endsAt"] == ends, "five minutes, as it gave no end"
    assert 'alertmanager_alerts_invalid_total{version="v2"} 3.0' in (await client("GET", "/metrics"))[1]
    for method, path, body, expected in (
        ("POST", "/api/v2/alerts", b"{", 400),
        ("POST", "/api/v2/alerts", {}, 422),
        ("POST", "/api/v2/silences", {"matchers": []}, 422),
        (
            "POST",
            "/api/v2/silences",
            silence(name="a", value="(") | {"matchers": [{"name": "a", "value": "(", "isRegex": True}]},
            400,
        ),
        ("POST", "/api/v2/silences", silence(name="a", value="b") | {"id": "none"}, 404),
        ("POST", "/api/v2/silences", silence(name="a", value="b") | {"endsAt": FIVE_MINUTES["startsAt"]}, 400),
        ("GET", "/api/v2/silence/none", None, 404),
        ("DELETE", "/api/v2/silence/none", None, 404),
    ):
        status, said = await client(method, path, body)
        assert status == expected, (path, body, said)
    for query in ({"filter": "{a=b}"}, {"receiver": "("}, {"receiver_matchers": "="}):
        status, _ = await client("GET", "/api/v2/alerts", **query)
        assert status == 400, query
    assert (await client("GET", "/api/v2/alerts", active="perhaps"))[0] == 422


@in_virtual_time
async def test_a_receiver_that_fails_shows_why() -> None:
    client = Client(error="cannot read the secret /run/url")
    task = asyncio.get_running_loop().create_task(client.alertmanager.run())
    await client("POST", "/api/v2/alerts", [{"labels": {"alertname": "test"}, **FIVE_MINUTES}])
    await asyncio.sleep(2)
    _, (receiver,) = await client("GET", "/api/v2/receivers")
    assert receiver == {
        "name": "default",
        "labels": {"name": "default"},
        "integrations": [
            {
                "name": "webhook[0]",
                "sendResolved": True,
                "lastNotifyAttempt": clock.rfc3339(EPOCH_MS + 1000).replace("Z", ".000Z"),
                "lastNotifyAttemptDuration": "0s",
                "lastNotifyAttemptError": "cannot read the secret /run/url",
            }
        ],
    }
    task.cancel()


@in_virtual_time
async def test_a_reload_that_fails_says_why() -> None:
    async def reload() -> None:
        raise ConfigError("alertmanager.yml: route: is missing")

    client = Client(reload=reload)
    assert await client("POST", "/-/reload") == (500, "failed to reload config: alertmanager.yml: route: is missing\n")
    assert (await client("GET", "/-/reload"))[0] == 405


@pytest.mark.parametrize("text", ["2030-03-17T17:46:40.123456789Z", "2030-03-17T18:46:40.123456789+01:00"])
def test_times_keep_their_nanoseconds(text: str) -> None:
    from flyball.alerting.alerts import parse_time_ns
    from flyball.alerting.gotime import Time

    assert Time(parse_time_ns(text)).rfc3339_nano() == "2030-03-17T17:46:40.123456789Z"
