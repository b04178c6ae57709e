"""Receivers against local fakes of the true protocols: what is sent, what is retried, what is not."""

import asyncio
import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.alerting.programs import Collector, collecting

from flyball.alerting.alerts import MS, Alert
from flyball.alerting.config import parse_config
from flyball.alerting.delivery import send
from flyball.alerting.receivers.sending import DeliveryError, Integration, Notification
from flyball.alerting.templates import Templates
from flyball.errors import ConfigError
from flyball.model.gotemplate import TemplateError
from flyball.model.labels import labels_of

AT_MS = 1_900_000_000_000
ALERTS = (
    Alert(labels_of({"alertname": "Down", "host": "<a>"}), labels_of({"text": "1 & 2"}), (AT_MS - 9000) * MS),
    Alert(labels_of({"alertname": "Down", "host": "b"}), (), (AT_MS - 9000) * MS, (AT_MS - 1000) * MS),
)


def notification(**more: Any) -> Notification:
    given: dict[str, Any] = {"alerts": ALERTS, "reason": "first notification"} | more
    return Notification(
        "team", "{}:{}", labels_of({"alertname": "Down"}), at_ms=AT_MS, external_url="http://am", **given
    )


def integration(kind: str, **fields: Any) -> Integration:
    receivers = [{"name": "team", f"{kind}_configs": [fields]}]
    return (
        parse_config(json.dumps({"route": {"receiver": "team"}, "receivers": receivers}))
        .receivers["team"]
        .integrations[0]
    )


def deliver(to: Integration, told: Notification | None = None, templates: Templates | None = None) -> dict[str, str]:
    expand = (templates or Templates()).at(AT_MS)
    return dict(asyncio.run(send(to, told or notification(), expand, 5.0)))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.mark.parametrize(
    ("status", "headers", "retry", "after_s", "reason"),
    [
        (500, {}, True, None, "serverError"),
        (503, {"Retry-After": "7"}, True, 7.0, "serverError"),
        (429, {"Retry-After": "3"}, True, 3.0, "clientError"),
        (429, {}, True, None, "clientError"),
        (400, {}, False, None, "clientError"),
        (404, {"Retry-After": "3"}, False, 3.0, "clientError"),
    ],
)
def test_what_may_be_taken_later_is_retried(
    collector: Collector, status: int, headers: dict[str, str], retry: bool, after_s: float | None, reason: str
) -> None:
    collector.answer = lambda path: (status, headers, b"said why")
    with pytest.raises(DeliveryError, match=f"127.0.0.1 answered {status}: said why") as raised:
        deliver(integration("webhook", url=f"{collector.url}/secret-path"))
    assert (raised.value.retry, raised.value.retry_after_s, raised.value.reason) == (retry, after_s, reason)
    assert "secret-path" not in str(raised.value)


def test_nobody_there_is_retried_and_the_url_stays_secret() -> None:
    with pytest.raises(DeliveryError) as raised:
        deliver(integration("webhook", url="http://127.0.0.1:1/secret-path"))
    assert raised.value.retry and "secret-path" not in str(raised.value)


def test_webhook_limits_alerts_and_reads_its_url_anew(collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "url"
    to = integration("webhook", url_file=str(file), max_alerts=1)
    with pytest.raises(DeliveryError, match=r"cannot read the secret .*url: No such file or directory; mend"):
        deliver(to)
    for path in ("/one", "/{{ .GroupLabels.alertname }}"):
        file.write_text(f"{collector.url}{path}\n")
        deliver(to)
    ((one,), (two,)) = collector.told["/one"], collector.told["/Down"]
    assert one == two and one["truncatedAlerts"] == 1 and len(one["alerts"]) == 1 and one["version"] == "4"


def test_a_template_that_fails_is_an_error_of_its_receiver() -> None:
    with pytest.raises(TemplateError, match='template "gone" is not defined'):
        deliver(integration("webhook", url="http://127.0.0.1:1/", payload={"a": '{{ template "gone" . }}'}))


def test_credentials_are_sent_and_read_anew(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    settings = [
        {"basic_auth": {"username": "u", "password": "p"}},
        {"authorization": {"credentials_file": str(tmp_path / "token")}},
        {"http_headers": {"Authorization": {"values": ["a", "b"]}}},
    ]
    for http_config in settings:
        deliver(integration("webhook", url=f"{collector.url}/x", http_config=http_config))
    assert [headers["Authorization"] for headers in collector.headers] == ["Basic dTpw", "Bearer abc", "a, b"]


def test_slack_refuses_with_200_and_alters_its_message(collector: Collector) -> None:
    answers = iter(
        [
            (200, {"Content-Type": "application/json"}, b'{"ok": true, "ts": "12.3", "channel": "C1"}'),
            (200, {"Content-Type": "application/json"}, b'{"ok": true, "ts": "12.3", "channel": "C1"}'),
            (200, {"Content-Type": "application/json"}, b'{"ok": false, "error": "channel_not_found"}'),
            (200, {"Content-Type": "text/plain"}, b"invalid_token"),
        ]
    )
    collector.answer = lambda path: next(answers)
    app = {
        "app_token": "t",
        "app_url": f"{collector.url}/api/chat.postMessage",
        "channel": "#x",
        "update_message": True,
    }
    to = integration("slack", **app)
    kept = deliver(to)
    assert kept == {"threadTs": "12.3", "channelId": "C1"}
    deliver(to, notification(data=kept))
    for error in ("channel_not_found", "invalid_token"):
        with pytest.raises(DeliveryError, match=error) as raised:
            deliver(to)
        assert not raised.value.retry
    ((altered),) = collector.told["/api/chat.update"]
    assert (altered["ts"], altered["channel"]) == ("12.3", "C1")
    first = collector.told["/api/chat.postMessage"][0]
    assert first["attachments"][0]["title"].startswith("[FIRING:1] Down") and first["channel"] == "#x"


def test_pagerduty_resolves_what_it_triggered(collector: Collector) -> None:
    to = integration("pagerduty", url=f"{collector.url}/v2", routing_key="k", severity="{{ .Status }}")
    deliver(to)
    deliver(to, notification(alerts=ALERTS[1:]))
    first, second = collector.told["/v2"]
    assert [one["event_action"] for one in (first, second)] == ["trigger", "resolve"]
    assert first["dedup_key"] == second["dedup_key"] and first["payload"]["severity"] == "firing"
    details = first["payload"]["custom_details"]
    assert (details["num_firing"], details["firing"][0]["labels"]["host"]) == (1, "<a>")


def test_telegram_escapes_and_says_when_to_come_back(collector: Collector) -> None:
    said = b'{"ok": true}'
    collector.answer = lambda path: (200, {"Content-Type": "application/json"}, said)
    deliver(integration("telegram", api_url=collector.url, bot_token="1:a", chat_id=5, disable_notifications=True))
    (sent,) = collector.told["/bot1:a/sendMessage"]
    assert "host = &lt;a&gt;" in sent["text"] and "1 &amp; 2" in sent["text"]
    assert (sent["chat_id"], sent["parse_mode"], sent["disable_notification"]) == ("5", "HTML", "true")
    busy = json.dumps({"ok": False, "error_code": 429, "parameters": {"retry_after": 9}}).encode()
    collector.answer = lambda path: (429, {"Content-Type": "application/json"}, busy)
    with pytest.raises(DeliveryError) as raised:
        deliver(integration("telegram", api_url=collector.url, bot_token="1:a", chat_id=5))
    assert raised.value.retry and raised.value.retry_after_s == 9.0


class Smtp:
    """A mail server of one connection at a time: ESMTP with AUTH, and refusals by command."""

    def __init__(self, auth: str = "PLAIN LOGIN CRAM-MD5", refuse: Callable[[str], str] = lambda line: "") -> None:
        self.lines: list[str] = []
        self.messages: list[bytes] = []
        smtp = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, text: str) -> None:
                self.wfile.write(text.encode() + b"\r\n")

            def handle(self) -> None:
                self.say("220 fake ESMTP")
                while line := self.rfile.readline().decode().rstrip("\r\n"):
                    smtp.lines.append(line)
                    word = line.split(" ")[0].upper()
                    if answer := refuse(line):
                        self.say(answer)
                    elif word == "EHLO":
                        self.say("250-fake")
                        self.say(f"250 AUTH {auth}")
                    elif word == "DATA":
                        self.say("354 go on")
                        body = b""
                        while not body.endswith(b"\r\n.\r\n"):
                            body += self.rfile.readline()
                        smtp.messages.append(body[:-3])
                        self.say("250 taken")
                    elif word == "AUTH" and line.upper() == "AUTH LOGIN":
                        for prompt in ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"):
                            self.say(prompt)
                            smtp.lines.append(self.rfile.readline().decode().strip())
                        self.say("235 welcome")
                    elif word == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("235 welcome" if word == "AUTH" else "250 fine")

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.smarthost = f"127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def mail(smtp: Smtp, **more: Any) -> Integration:
    fields = {"to": "a@example.com, B <b@example.com>", "from": "am@example.com", "smarthost": smtp.smarthost}
    return integration("email", **fields, require_tls=False, **more)


def test_mail_has_both_parts_and_goes_to_all(tmp_path: Path) -> None:
    smtp = Smtp()
    (tmp_path / "password").write_text("secret\n")
    deliver(
        mail(
            smtp,
            auth_username="me",
            auth_password_file=str(tmp_path / "password"),
            text="{{ .Status }} Σ",
            headers={"x-team": "{{ .Receiver }}"},
            threading={"enabled": True, "thread_by_date": "daily"},
        )
    )
    smtp.close()
    assert "AUTH PLAIN AG1lAHNlY3JldA==" in smtp.lines
    assert [line.lower() for line in smtp.lines if line[:4].lower() in ("mail", "rcpt")] == [
        "mail from:<am@example.com>",
        "rcpt to:<a@example.com>",
        "rcpt to:<b@example.com>",
    ]
    message = email.message_from_bytes(smtp.messages[0], policy=email.policy.default)
    assert message["Subject"].startswith("[FIRING:1] Down") and message["X-Team"] == "team"
    assert message["In-Reply-To"].endswith("-2030-03-17@alertmanager>") and message["Message-Id"] and message["Date"]
    plain, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert plain is not None and plain.get_content().strip() == "firing Σ"
    assert html is not None and "&lt;a&gt;" in html.get_content() and "1 &amp; 2" in html.get_content()


def test_mail_takes_the_way_to_log_in_that_is_offered() -> None:
    smtp = Smtp("LOGIN")
    deliver(mail(smtp, auth_username="me", auth_password="secret"))
    assert smtp.lines[1:4] == ["AUTH LOGIN", "bWU=", "c2VjcmV0"] or "AUTH LOGIN" in smtp.lines
    assert "c2VjcmV0" in smtp.lines
    smtp.close()


@pytest.mark.parametrize(
    ("refuse", "retry"), [("MAIL FROM", True), ("RCPT", False)], ids=["busy is retried", "unknown is not"]
)
def test_mail_that_is_refused(refuse: str, retry: bool) -> None:
    answer = "451 later" if retry else "550 no such user"
    smtp = Smtp(refuse=lambda line: answer if line.upper().startswith(refuse) else "")
    with pytest.raises(DeliveryError) as raised:
        deliver(mail(smtp))
    smtp.close()
    assert raised.value.retry is retry


def test_mail_is_not_sent_in_the_clear_unless_told() -> None:
    smtp = Smtp()
    fields = {"to": "a@example.com", "from": "am@example.com", "smarthost": smtp.smarthost}
    with pytest.raises(DeliveryError, match="offers no STARTTLS; set require_tls to false"):
        deliver(integration("email", **fields))
    smtp.close()
    assert not smtp.messages


@pytest.mark.parametrize(
    ("kind", "fields", "error"),
    [
        ("webhook", {}, "webhook_configs[0]: url or url_file is missing"),
        ("webhook", {"url": "ftp://x"}, "webhook_configs[0]: url: is not a URL"),
        ("webhook", {"url": "http://x", "uri": 1}, 'webhook_configs[0]: unknown field "uri"'),
        ("webhook", {"url": "http://x", "timeout": "soon"}, 'timeout: "soon" is not a duration'),
        ("webhook", {"url": "http://x", "url_file": "y"}, "url: and url_file are both set"),
        ("slack", {"api_url": "http://x", "fields": [{"title": "a"}]}, "slack_configs[0]: fields[0]: title or value"),
        ("pagerduty", {}, "pagerduty_configs[0]: routing_key"),
        ("telegram", {"bot_token": "a"}, "telegram_configs[0]: chat_id"),
        ("telegram", {"bot_token": "a", "chat_id": 1, "parse_mode": "BB"}, 'parse_mode: "BB" is not known'),
        ("email", {"to": "a@b"}, "email_configs[0]: smarthost"),
        ("email", {"to": "a", "from": "b", "smarthost": "c"}, 'smarthost: "c" is not a host:port'),
    ],
)
def test_what_is_wrong_is_said_with_its_place(kind: str, fields: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        integration(kind, **fields)
    assert error in str(raised.value) and str(raised.value).startswith("alertmanager.yml: receivers[0]: ")
