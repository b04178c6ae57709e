"""Webhook: the group as JSON of version 4, or as a payload of one's own. Source: Alertmanager notify/webhook."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.alerting.globals import Globals
from flyball.alerting.receivers.sending import (
    Answer,
    DeliveryError,
    Notification,
    Post,
    ReadSecret,
    Secret,
    checked_url,
    missing,
    read_secret,
    read_timeout_ms,
)
from flyball.alerting.templates import Expand, expand_all, to_json
from flyball.model.clients import HTTP_DEFAULT, HttpClientConfig, read_http_client
from flyball.model.reader import Reader


@dataclass(frozen=True, slots=True)
class Webhook:
    """Attributes:
    max_alerts: more are left out and counted; 0 for no limit.
    payload: what is posted instead, its texts expanded; None for version 4.
    """

    url: Secret
    max_alerts: int = 0
    payload: Any = None
    timeout_ms: int = 0
    http: HttpClientConfig = HTTP_DEFAULT
    send_resolved: bool = True
    kind: str = "webhook"

    def message(self, told: Notification, expand: Expand, secret: ReadSecret) -> Post:
        alerts = told.alerts[: self.max_alerts] if self.max_alerts else told.alerts
        data = told.shown(alerts)
        body: Any = {
            **to_json(data),
            "version": "4",
            "groupKey": told.group_key,
            "truncatedAlerts": len(told.alerts) - len(alerts),
        }
        if self.payload is not None:
            body = expand_all(self.payload, lambda text: expand(text, data))
        url = expand(secret(self.url), data)
        if not url.startswith(("http://", "https://")):
            raise DeliveryError("the url is not one of http or https once its template is expanded", retry=False)
        return Post(url, body, self.http, self.timeout_ms)

    def accepted(self, answer: Answer) -> Mapping[str, str]:
        return {}


def read(reader: Reader, defaults: Globals) -> Webhook:
    """
    Raises:
        ConfigError: a field is missing or wrong.
    """
    url = read_secret(reader, "url")
    if not url:
        raise missing(reader, "url or url_file")
    if "{{" not in url.value:
        checked_url(reader, "url", url.value)
    return Webhook(
        url=url,
        max_alerts=reader.count("max_alerts"),
        payload=reader.take("payload"),
        timeout_ms=read_timeout_ms(reader),
        http=reader.nested("http_config", read_http_client) or defaults.http,
        send_resolved=reader.flag("send_resolved", True),
    )
