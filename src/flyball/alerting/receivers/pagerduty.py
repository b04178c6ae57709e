"""PagerDuty: events of API v2, and of v1 where a service key is given. Source: Alertmanager notify/pagerduty."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyball.alerting.globals import Globals
from flyball.alerting.receivers.sending import (
    NO_SECRET,
    Answer,
    Notification,
    Post,
    ReadSecret,
    Secret,
    missing,
    read_secret,
    read_timeout_ms,
    read_url,
    truncate,
)
from flyball.alerting.templates import Expand, expand_all
from flyball.model.clients import HTTP_DEFAULT, HttpClientConfig, read_http_client
from flyball.model.gotemplate import TemplateError
from flyball.model.reader import Reader, mapping_of

_V1_URL = "https://events.pagerduty.com/generic/2010-04-15/create_event.json"
_SUMMARY_MAX, _EVENT_MAX_BYTES = 1024, 512_000
_TEXTS = {
    "client": '{{ template "pagerduty.default.client" . }}',
    "client_url": '{{ template "pagerduty.default.clientURL" . }}',
    "description": '{{ template "pagerduty.default.description" .}}',
    "source": "",
    "severity": "error",
    "class": "",
    "component": "",
    "group": "",
}
_DETAILS = {
    "firing": "{{ .Alerts.Firing | toJson }}",
    "resolved": "{{ .Alerts.Resolved | toJson }}",
    "num_firing": "{{ .Alerts.Firing | len }}",
    "num_resolved": "{{ .Alerts.Resolved | len }}",
}


@dataclass(frozen=True, slots=True)
class PagerDuty:
    """``routing_key`` for events of v2, ``service_key`` for v1."""

    url: str
    texts: Mapping[str, str]
    routing_key: Secret = NO_SECRET
    service_key: Secret = NO_SECRET
    details: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[Mapping[str, str], ...] = ()
    links: tuple[Mapping[str, str], ...] = ()
    timeout_ms: int = 0
    http: HttpClientConfig = HTTP_DEFAULT
    send_resolved: bool = True
    kind: str = "pagerduty"

    def message(self, told: Notification, expand: Expand, secret: ReadSecret) -> Post:
        def say(text: str) -> str:
            return expand(text, data)

        data = told.shown()
        texts = {name: say(text) for name, text in self.texts.items()}
        texts["description"] = truncate(texts["description"], _SUMMARY_MAX)
        details = {name: expand_all(one, say) for name, one in self.details.items()}
        event, dedup = "trigger" if told.firing else "resolve", hashlib.sha256(told.group_key.encode()).hexdigest()
        body: dict[str, Any]
        if self.service_key:
            body = {
                "service_key": _key(say(secret(self.service_key)), "service_key"),
                "event_type": event,
                "incident_key": dedup,
                "description": texts["description"],
                "details": details,
            }
            body |= {name: texts[name] for name in ("client", "client_url") if told.firing and texts[name]}
            return Post(_V1_URL, _fitting(body, body), self.http, self.timeout_ms)
        payload: dict[str, Any] = {
            "summary": texts["description"],
            "source": texts["source"],
            "severity": texts["severity"],
            **{name: texts[name] for name in ("class", "component", "group") if texts[name]},
            **({"custom_details": details} if details else {}),
        }
        images = [{name: say(one.get(name, "")) for name in ("src", "alt", "href")} for one in self.images]
        links = [{name: say(one.get(name, "")) for name in ("href", "text")} for one in self.links]
        body = {
            "routing_key": _key(say(secret(self.routing_key)), "routing_key"),
            "dedup_key": dedup,
            "event_action": event,
            "payload": payload,
            **{name: texts[name] for name in ("client", "client_url") if texts[name]},
            **({"images": kept} if (kept := [one for one in images if one["src"]]) else {}),
            **({"links": kept} if (kept := [one for one in links if one["href"]]) else {}),
        }
        return Post(self.url, _fitting(body, payload), self.http, self.timeout_ms)

    def accepted(self, answer: Answer) -> Mapping[str, str]:
        return {}


def _key(text: str, name: str) -> str:
    if not text:
        raise TemplateError(f"{name} is empty once its template is expanded; set it")
    return text


def _fitting(body: dict[str, Any], holder: dict[str, Any]) -> dict[str, Any]:
    """The event without its details when PagerDuty would find it too large."""
    name = "details" if holder is body else "custom_details"
    if name in holder and len(json.dumps(body, ensure_ascii=False).encode()) > _EVENT_MAX_BYTES:
        holder[name] = {
            "error": f"the details were left out: with them the event is larger than {_EVENT_MAX_BYTES} bytes"
        }
    return body


def read(reader: Reader, defaults: Globals) -> PagerDuty:
    """
    Raises:
        ConfigError: a field is missing or wrong.
    """
    routing, service = read_secret(reader, "routing_key"), read_secret(reader, "service_key")
    if not routing and not service:
        raise missing(reader, "routing_key, routing_key_file, service_key or service_key_file")
    texts = {name: reader.text(name, default) for name, default in _TEXTS.items()}
    return PagerDuty(
        url=read_url(reader, "url", defaults.pagerduty_url),
        texts=texts | {"source": texts["source"] or texts["client"], "severity": texts["severity"] or "error"},
        routing_key=routing,
        service_key=service,
        details=_DETAILS | dict(mapping_of(reader.take("details") or {}, f"{reader.what}: details")),
        images=reader.items("images", _read_link),
        links=reader.items("links", _read_link),
        timeout_ms=read_timeout_ms(reader),
        http=reader.nested("http_config", read_http_client) or defaults.http,
        send_resolved=reader.flag("send_resolved", True),
    )


def _read_link(document: object, what: str) -> dict[str, str]:
    reader = Reader(mapping_of(document, what), what)
    found = {name: reader.text(name, "") for name in ("src", "alt", "href", "text")}
    reader.finish()
    return found
