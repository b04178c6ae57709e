"""Telegram: ``sendMessage`` of the Bot API. Source: Alertmanager notify/telegram."""

import json
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
    missing,
    read_secret,
    read_url,
    truncate,
)
from flyball.alerting.templates import Expand
from flyball.model.clients import HTTP_DEFAULT, HttpClientConfig, read_http_client
from flyball.model.reader import Reader

_MESSAGE = '{{ template "telegram.default.message" . }}'
_MESSAGE_MAX = 4096
_PARSE_MODES = ("", "Markdown", "MarkdownV2", "HTML")
_TOO_LONG = "The notification is longer than Telegram allows; shorten the receiver's template."


@dataclass(frozen=True, slots=True)
class Telegram:
    """``chat_id`` is a number; ``message_thread_id`` a topic of the chat, 0 for none."""

    api_url: str
    token: Secret
    chat_id: Secret
    text: str = _MESSAGE
    message_thread_id: int = 0
    disable_notifications: bool = False
    parse_mode: str = "HTML"
    http: HttpClientConfig = HTTP_DEFAULT
    send_resolved: bool = True
    kind: str = "telegram"

    def message(self, told: Notification, expand: Expand, secret: ReadSecret) -> Post:
        is_html = self.parse_mode == "HTML"
        text = expand(self.text, told.shown(), html=is_html)
        if len(text) > _MESSAGE_MAX:  # half of a tag would be refused
            text = _TOO_LONG if is_html else truncate(text, _MESSAGE_MAX)
        chat = secret(self.chat_id)
        if not chat.lstrip("-").isdecimal():
            raise DeliveryError(f'chat_id: "{chat}" is not a number; mend the file {self.chat_id.file}', retry=True)
        body: dict[str, Any] = {"chat_id": chat, "text": text, "disable_web_page_preview": "true"}
        body |= {"parse_mode": self.parse_mode} if self.parse_mode else {}
        body |= {"disable_notification": "true"} if self.disable_notifications else {}
        body |= {"message_thread_id": str(self.message_thread_id)} if self.message_thread_id else {}
        return Post(f"{self.api_url.rstrip('/')}/bot{secret(self.token)}/sendMessage", body, self.http)

    def accepted(self, answer: Answer) -> Mapping[str, str]:
        try:
            said = json.loads(answer.body)
        except ValueError as exc:
            raise DeliveryError(f"Telegram's answer is not JSON: {exc}", retry=True) from exc
        if not said.get("ok"):
            raise DeliveryError(f"Telegram refused: {said.get('description', '')}", retry=False, reason="clientError")
        return {}


def read(reader: Reader, defaults: Globals) -> Telegram:
    """
    Raises:
        ConfigError: a field is missing or wrong.
    """
    token, chat = read_secret(reader, "bot_token", defaults.telegram_bot_token), read_secret(reader, "chat_id")
    if not token:
        raise missing(reader, "bot_token or bot_token_file")
    if chat.value in ("", "0") and not chat.file:
        raise missing(reader, "chat_id or chat_id_file")
    if chat.value and not chat.value.lstrip("-").isdecimal():
        raise reader.error("chat_id", f'"{chat.value}" is not a number')
    mode = reader.text("parse_mode", "HTML")
    if mode not in _PARSE_MODES:
        raise reader.error("parse_mode", f'"{mode}" is not known; write Markdown, MarkdownV2 or HTML')
    return Telegram(
        api_url=read_url(reader, "api_url", defaults.telegram_api_url),
        token=token,
        chat_id=chat,
        text=reader.text("message", _MESSAGE),
        message_thread_id=reader.count("message_thread_id"),
        disable_notifications=reader.flag("disable_notifications", False),
        parse_mode=mode,
        http=reader.nested("http_config", read_http_client) or defaults.http,
        send_resolved=reader.flag("send_resolved", True),
    )
