"""Slack: incoming webhooks and ``chat.postMessage``. Source: Alertmanager notify/slack."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flyball.alerting.globals import Globals
from flyball.alerting.receivers.sending import (
    NO_SECRET,
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
    read_url,
    truncate,
)
from flyball.alerting.templates import Expand
from flyball.model.clients import HTTP_DEFAULT, Authorization, HttpClientConfig, read_http_client
from flyball.model.reader import Reader, mapping_of

_TITLE_MAX = 1024
_POST_METHOD, _UPDATE_METHOD = "/chat.postMessage", "/chat.update"

#: Texts of a message and their templates, which are the defaults.
_TEXTS = {
    "channel": "",
    "username": '{{ template "slack.default.username" . }}',
    "icon_emoji": '{{ template "slack.default.iconemoji" . }}',
    "icon_url": '{{ template "slack.default.iconurl" . }}',
    "message_text": "",
    "color": '{{ template "slack.default.color" . }}',
    "title": '{{ template "slack.default.title" . }}',
    "title_link": '{{ template "slack.default.titlelink" . }}',
    "pretext": '{{ template "slack.default.pretext" . }}',
    "text": '{{ template "slack.default.text" . }}',
    "fallback": '{{ template "slack.default.fallback" . }}',
    "callback_id": '{{ template "slack.default.callbackid" . }}',
    "footer": '{{ template "slack.default.footer" . }}',
    "image_url": "",
    "thumb_url": "",
}
_TOP_LEVEL = ("channel", "username", "icon_emoji", "icon_url")
_IN_ATTACHMENT = tuple(name for name in _TEXTS if name not in (*_TOP_LEVEL, "message_text", "title"))
_ALWAYS = ("text", "fallback", "callback_id", "footer")  # there even when they are empty


@dataclass(frozen=True, slots=True)
class Slack:
    """Attributes:
    texts: by the field's name.
    update_message: alter the group's first message instead of sending another.
    """

    url: Secret
    texts: Mapping[str, str]
    fields: tuple[Mapping[str, Any], ...] = ()
    actions: tuple[Mapping[str, Any], ...] = ()
    short_fields: bool = False
    link_names: bool = False
    mrkdwn_in: tuple[str, ...] = ()
    update_message: bool = False
    timeout_ms: int = 0
    token: Secret = NO_SECRET
    http: HttpClientConfig = HTTP_DEFAULT
    send_resolved: bool = False
    kind: str = "slack"

    def message(self, told: Notification, expand: Expand, secret: ReadSecret) -> Post:
        def say(text: str) -> str:
            return expand(text, data)

        data = told.shown()
        texts = {name: say(text) for name, text in self.texts.items()}
        attachment: dict[str, Any] = {"title": truncate(texts["title"], _TITLE_MAX)} if texts["title"] else {}
        attachment |= {name: texts[name] for name in _IN_ATTACHMENT if texts[name] or name in _ALWAYS}
        attachment["mrkdwn_in"] = list(self.mrkdwn_in) or ["fallback", "pretext", "text"]
        if self.fields:
            attachment["fields"] = [
                {"title": say(one["title"]), "value": say(one["value"]), "short": one.get("short", self.short_fields)}
                for one in self.fields
            ]
        if self.actions:
            attachment["actions"] = [_expanded(one, say) for one in self.actions]
        body: dict[str, Any] = {"attachments": [attachment]}
        body |= {name: texts[name] for name in _TOP_LEVEL if texts[name]}
        body |= {"text": texts["message_text"]} if texts["message_text"] else {}
        body |= {"link_names": True} if self.link_names else {}
        url = secret(self.url)
        if self.update_message and told.data.get("threadTs") and told.data.get("channelId"):
            url = url.removesuffix(_POST_METHOD) + _UPDATE_METHOD
            body |= {"ts": told.data["threadTs"], "channel": told.data["channelId"]}
        http = self.http
        if self.token:
            http = replace(http, authorization=Authorization(credentials=secret(self.token)))
        return Post(url, body, http, self.timeout_ms)

    def accepted(self, answer: Answer) -> Mapping[str, str]:
        """Slack answers 200 to what it refuses."""
        if answer.content_type != "application/json":
            if answer.body != b"ok":
                raise DeliveryError(
                    f"Slack refused: {answer.body[:300].decode(errors='replace')}", retry=False, reason="clientError"
                )
            return {}
        try:
            said = json.loads(answer.body)
        except ValueError as exc:
            raise DeliveryError(f"Slack's answer is not JSON: {exc}", retry=True) from exc
        if not said.get("ok"):
            raise DeliveryError(f"Slack refused: {said.get('error', '')}", retry=False, reason="clientError")
        kept = {"threadTs": said.get("ts") or "", "channelId": said.get("channel") or ""}
        return kept if self.update_message and all(kept.values()) else {}


def _expanded(action: Mapping[str, Any], say: Any) -> dict[str, Any]:
    shown = {name: _expanded(one, say) if isinstance(one, Mapping) else say(one) for name, one in action.items()}
    return {name: one for name, one in shown.items() if one}


def read(reader: Reader, defaults: Globals) -> Slack:
    """
    Raises:
        ConfigError: a field is missing or wrong.
    """
    url, token = read_secret(reader, "api_url"), read_secret(reader, "app_token")
    checked_url(reader, "api_url", url.value)
    app_url = read_url(reader, "app_url", defaults.slack_app_url)
    own = reader.nested("http_config", read_http_client)
    if url and token:
        raise reader.error("app_token", "and api_url are both set; keep one")
    if not url and not token and (own is None or own.authorization is None):
        token = defaults.slack_app_token
    if token:
        if own is not None and own.authorization is not None:
            raise reader.error("http_config", "authorization and app_token are both set; keep one")
        url = Secret(app_url)
    url = url or defaults.slack_api_url
    if not url:
        raise missing(reader, "api_url, api_url_file, app_token or app_token_file")
    update = reader.flag("update_message", False)
    if update and not (token or url.value.endswith(_POST_METHOD)):
        raise reader.error("update_message", "needs app_token: an incoming webhook cannot alter a message")
    return Slack(
        url=url,
        token=token,
        texts={name: reader.text(name, default) for name, default in _TEXTS.items()},
        fields=reader.items("fields", _read_field),
        actions=reader.items("actions", _read_action),
        short_fields=reader.flag("short_fields", False),
        link_names=reader.flag("link_names", False),
        mrkdwn_in=reader.texts("mrkdwn_in"),
        update_message=update,
        timeout_ms=read_timeout_ms(reader),
        http=own or defaults.http,
        send_resolved=reader.flag("send_resolved", False),
    )


def _read_field(document: object, what: str) -> dict[str, Any]:
    reader = Reader(mapping_of(document, what), what)
    found: dict[str, Any] = {name: reader.text(name, "") for name in ("title", "value")}
    if not all(found.values()):
        raise missing(reader, "title or value")
    short = reader.take("short")
    reader.finish()
    return found if short is None else found | {"short": bool(short)}


def _read_action(document: object, what: str) -> dict[str, Any]:
    reader = Reader(mapping_of(document, what), what)
    found: dict[str, Any] = {name: reader.text(name, "") for name in ("type", "text", "url", "style", "name", "value")}
    if not found["type"] or not found["text"] or not (found["url"] or found["name"]):
        raise missing(reader, "type, text, or url or name")
    confirm = reader.nested("confirm", _read_confirm)
    reader.finish()
    return found | ({"confirm": confirm} if confirm else {})


def _read_confirm(reader: Reader) -> dict[str, str]:
    found = {name: reader.text(name, "") for name in ("text", "title", "ok_text", "dismiss_text")}
    if not found["text"]:
        raise missing(reader, "text")
    return found
