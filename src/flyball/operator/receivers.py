"""Receivers of AlertmanagerConfigs and an Alertmanager object's global section, in Alertmanager's words.

Facts: prometheus-operator 0.93, pkg/alertmanager/amcfg.go. A field that is empty says nothing, and is left out.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flyball.operator.alertmanagerversions import check_url
from flyball.operator.clientconfig import ClientConfig, Document, Spec

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_RENAMED = {
    "urlSecret": "url",
    "pagerDutyImageConfigs": "images",
    "pagerDutyLinkConfigs": "links",
    "useAWSHTTPClient": "use_aws_http_client",
}
_PAIRS = frozenset({"headers", "details", "customFields"})
#: Flags that say nothing when they are false, as in Alertmanager's own documents.
_ONLY_TRUE = frozenset({"short", "shortFields", "linkNames", "disableNotifications", "useAWSHTTPClient"})
_KEPT_WHEN_EMPTY = frozenset({("email", "html"), ("email", "text")})

#: What a VictorOps message says by itself.
_VICTOROPS_OWN = frozenset(
    {
        "routing_key",
        "message_type",
        "state_message",
        "entity_display_name",
        "monitoring_tool",
        "entity_id",
        "entity_state",
    }
)


def receiver(spec: Spec, prefix: str, client: ClientConfig, settings: Spec) -> Document:
    """One receiver; its name carries ``prefix``.

    Args:
        settings: the configuration's ``global``, for what email needs and may have there.

    Raises:
        ConfigError: a Secret is missing, or a field that the kind needs.
    """
    found: Document = {"name": prefix + str(spec.get("name"))}
    for section, items in spec.items():
        if section.endswith("Configs") and items:
            kind = section.removesuffix("Configs")
            found[f"{kind}_configs"] = [_integration(kind, item, client) for item in items]
    for config in found.get("email_configs", ()):
        for name in ("smarthost", "from"):
            if not config.get(name) and not settings.get(f"smtp_{name}"):
                raise client.error("emailConfigs", f"{name} is missing; set it here or in global")
    return found


def http_config(spec: Spec, client: ClientConfig) -> Document:
    """``http_config``; ``proxyURL`` is the older spelling, and wins.

    Raises:
        ConfigError: two ways to sign a request, or a Secret that is missing.
    """
    given = [name for name in ("basicAuth", "oauth2", "authorization", "bearerTokenSecret") if spec.get(name)]
    if len(given) > 1:
        raise client.error(f"httpConfig.{given[1]}", f"{given[0]} signs requests already; remove one")
    found = client.of({**spec, "proxyUrl": spec.get("proxyURL") or spec.get("proxyUrl"), "tlsConfig": None})
    if spec.get("tlsConfig") is not None:
        found["tls_config"] = _tls(spec["tlsConfig"], client)
    for section in ("basic_auth", "authorization"):
        if section in found and not any(value for name, value in found[section].items() if name != "type"):
            del found[section]
    return _without_empty(found)


def global_section(spec: Spec, client: ClientConfig) -> Document:
    """``global`` of an Alertmanager object's ``alertmanagerConfiguration``."""
    smtp = spec.get("smtp") or {}
    host = smtp.get("smartHost") or {}
    found: Document = {
        "resolve_timeout": spec.get("resolveTimeout"),
        "http_config": http_config(spec["httpConfig"], client) if spec.get("httpConfig") else None,
        "smtp_smarthost": f"{host.get('host', '')}:{host.get('port', '')}" if host else None,
        "smtp_tls_config": _tls(smtp["tlsConfig"], client) if smtp.get("tlsConfig") else None,
        "pagerduty_url": spec.get("pagerdutyUrl"),
    }
    sections = {
        "smtp": (
            *("from", "hello", "authUsername", "authPassword", "authSecret", "authIdentity"),
            *("requireTLS", "forceImplicitTLS"),
        ),
        "telegram": ("apiURL",),
        "jira": ("apiURL",),
        "rocketChat": ("apiURL", "token", "tokenID"),
        "webex": ("apiURL",),
        "wechat": ("apiURL", "apiSecret", "apiCorpID"),
        "victorops": ("apiURL", "apiKey"),
        "mattermost": ("webhookURL",),
    }
    for section, names in sections.items():
        for name in names:
            value = (spec.get(section) or {}).get(name)
            found[f"{section.lower()}_{_snake(name)}"] = _value(f"{section}.{name}", value, client)
    for name in ("slackApiUrl", "opsGenieApiUrl", "opsGenieApiKey"):
        found[_snake(name).replace("ops_genie", "opsgenie")] = _value(name, spec.get(name), client)
    for name, value in found.items():
        if name.endswith("_url"):
            check_url(value, f"{client}: {name}")
    return _without_empty(found)


def _integration(kind: str, spec: Spec, client: ClientConfig) -> Document:
    found = _fields(kind, spec, client)
    if kind in _SPECIAL:
        found = _SPECIAL[kind](spec, found, client)
    return found


def _fields(kind: str, spec: Spec, client: ClientConfig) -> Document:
    """The fields of one kind, or of a part of it, in Alertmanager's spelling, Secrets in place."""
    found: Document = {}
    for name, value in spec.items():
        other = _RENAMED.get(name) or _snake(name)
        if name == "httpConfig":
            found["http_config"] = http_config(value or {}, client) if value is not None else None
        elif name == "tlsConfig":
            found["tls_config"] = _tls(value or {}, client)
        elif name == "sigv4":
            found |= client.sigv4(value)
        elif name in _PAIRS and isinstance(value, list):
            found[other] = {item["key"]: item["value"] for item in value}
        elif name in _ONLY_TRUE and kind != "rocketchat":
            found[other] = value or None
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            found[other] = [_fields(kind, item, client) for item in value]
        elif isinstance(value, Mapping) and not _is_reference(value) and name != "attributes":
            found[other] = _fields(kind, value, client)
        else:
            found[other] = _value(name, value, client)
    kept = {name: value for name, value in found.items() if (kind, name) in _KEPT_WHEN_EMPTY and value == ""}
    return _without_empty(found) | kept


def _discord(_spec: Spec, found: Document, _client: ClientConfig) -> Document:
    return {("webhook_url" if name == "api_url" else name): value for name, value in found.items()}


def _email(spec: Spec, found: Document, _client: ClientConfig) -> Document:
    threading = spec.get("threading")
    if threading is not None:
        found["threading"] = {"enabled": True, "thread_by_date": str(threading.get("threadByDate", "")).lower()}
    return found


def _pagerduty(_spec: Spec, found: Document, client: ClientConfig) -> Document:
    if not found.get("routing_key") and not found.get("service_key"):
        raise client.error("pagerdutyConfigs", "routingKey or serviceKey is missing; set one")
    for link in found.get("links", ()):
        if "alt" in link:
            link["text"] = link.pop("alt")
    return found


def _pushover(_spec: Spec, found: Document, client: ClientConfig) -> Document:
    for name in ("user_key", "token"):
        if not found.get(name):
            raise client.error("pushoverConfigs", f"{name} is missing, or its Secret is empty; set it")
    return found


def _rocketchat(spec: Spec, found: Document, _client: ClientConfig) -> Document:
    for name in ("short_fields", "link_names"):
        found[name] = found.get(name, False)
    if spec.get("fields"):
        found["fields"] = [{"short": None, **item} for item in found["fields"]]
    if spec.get("actions"):
        found["actions"] = [{"is_webview": False, "msg_in_chat_window": False, **item} for item in found["actions"]]
    return found


def _slack(_spec: Spec, found: Document, client: ClientConfig) -> Document:
    check_url(found.get("api_url"), f"{client}: slackConfigs: apiURL")
    for action in found.get("actions", ()):
        for name in ("type", "text"):
            if not action.get(name):
                raise client.error("slackConfigs.actions", f"{name} is missing; set it")
        if not action.get("url") and not action.get("name"):
            raise client.error("slackConfigs.actions", "url or name is missing; set one")
        if "confirm" in action and not action["confirm"].get("text"):
            raise client.error("slackConfigs.actions.confirm", "text is missing; set it")
    for item in found.get("fields", ()):
        for name in ("title", "value"):
            if not item.get(name):
                raise client.error("slackConfigs.fields", f"{name} is missing; set it")
    return found


def _telegram(spec: Spec, found: Document, client: ClientConfig) -> Document:
    if bool(spec.get("botToken")) == bool(spec.get("botTokenFile")):
        raise client.error("telegramConfigs", "one of botToken and botTokenFile is needed; set one of them")
    return found


def _victorops(_spec: Spec, found: Document, client: ClientConfig) -> Document:
    for name in found.get("custom_fields", ()):
        if name in _VICTOROPS_OWN:
            raise client.error("victoropsConfigs.customFields", f'"{name}" is a field of every message; rename it')
    return found


def _webhook(_spec: Spec, found: Document, client: ClientConfig) -> Document:
    if not found.get("url"):
        raise client.error("webhookConfigs", "url or urlSecret is missing; set one")
    return found


_SPECIAL: Mapping[str, Callable[[Spec, Document, ClientConfig], Document]] = {
    "discord": _discord,
    "email": _email,
    "pagerduty": _pagerduty,
    "pushover": _pushover,
    "rocketchat": _rocketchat,
    "slack": _slack,
    "telegram": _telegram,
    "victorops": _victorops,
    "webhook": _webhook,
}


def _tls(spec: Spec, client: ClientConfig) -> Document | None:
    found = client.tls(spec).get("tls_config")
    return found if found is None else _without_empty({"insecure_skip_verify": False, **found})


def _value(field: str, value: Any, client: ClientConfig) -> Any:
    return client.secret(field, value).strip() if isinstance(value, Mapping) and _is_reference(value) else value


def _is_reference(value: Spec) -> bool:
    return "key" in value and set(value) <= {"name", "key", "optional"}


def _without_empty(document: Document) -> Document:
    return {name: value for name, value in document.items() if value not in (None, "", [], 0) or value is False}


def _snake(name: str) -> str:
    return _WORD.sub("_", name).lower()
