"""A configuration without its secrets, to be shown."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from flyball.model.clients import without_password

HIDDEN = "<secret>"
_SECRET = re.compile(
    r"smtp_auth_(password|secret)|slack_(api_url|app_token)|opsgenie_api_key|wechat_api_secret|victorops_api_key"
    r"|telegram_bot_token|rocketchat_token(_id)?|mattermost_webhook_url|auth_(password|secret)|service_key|routing_key"
    r"|app_token|bot_token|api_(key|secret)|user_key|token|token_id|webhook_url|password|credentials|bearer_token"
    r"|client_secret|secret_key|secrets|alert_source_token"
)


def without_secrets(value: Any, name: str = "", section: str = "") -> Any:
    """The document with secrets hidden; URLs of Slack and of webhooks are secrets, too."""
    if isinstance(value, Mapping):
        inner = name if name.endswith("_configs") else section
        if name == "proxy_connect_header":
            return {key: [HIDDEN] for key in value}
        return {one: without_secrets(item, str(one), inner) for one, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item, name, section) for item in value]
    if name == "proxy_url":
        return without_password(str(value))
    is_url = (section, name) in (("slack_configs", "api_url"), ("webhook_configs", "url"))
    return HIDDEN if value and (is_url or _SECRET.fullmatch(name)) else value


def dump(document: Any) -> str:
    """As YAML."""
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
