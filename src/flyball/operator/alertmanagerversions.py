"""What a version of Alertmanager makes of a configuration: newer fields are left out, what it would refuse is an error.

Facts: prometheus-operator 0.93, pkg/alertmanager/amcfg.go.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from flyball.errors import ConfigError
from flyball.model.gotemplate import Template, TemplateError
from flyball.operator.clientconfig import Document
from flyball.operator.versions import Version, without_newer

DEFAULT_VERSION = "v0.33.1"

#: From which version on a kind of receiver is read.
_KINDS: Mapping[str, Version] = {
    "telegram": (0, 24),
    "discord": (0, 25),
    "webex": (0, 25),
    "msteams": (0, 26),
    "msteamsv2": (0, 28),
    "jira": (0, 28),
    "rocketchat": (0, 28),
    "incidentio": (0, 29),
    "mattermost": (0, 30),
}
_ATTACHMENT = (
    *("fallback", "color", "pretext", "author_name", "author_link", "author_icon", "title", "title_link"),
    *("thumb_url", "footer", "footer_icon", "image_url", "fields"),
)

#: From which version on a field is read, by kind; ``global`` beside them.
_SINCE: Mapping[str, Mapping[str, Version]] = {
    "global": {
        "slack_api_url_file": (0, 22),
        "opsgenie_api_key_file": (0, 24),
        "smtp_auth_password_file": (0, 25),
        "victorops_api_key_file": (0, 25),
        "smtp_tls_config": (0, 28),
        "slack_app_token": (0, 30),
        "slack_app_token_file": (0, 30),
        "slack_app_url": (0, 30),
        "wechat_api_secret_file": (0, 31),
        "telegram_bot_token": (0, 31),
        "telegram_bot_token_file": (0, 31),
        "smtp_auth_secret_file": (0, 31),
        "smtp_force_implicit_tls": (0, 31),
        "mattermost_webhook_url": (0, 32),
        "mattermost_webhook_url_file": (0, 32),
    },
    "http_config": {
        "follow_redirects": (0, 22),
        "enable_http2": (0, 25),
        "tls_config.min_version": (0, 25),
        "tls_config.max_version": (0, 25),
        "oauth2.proxy_url": (0, 25),
        "oauth2.no_proxy": (0, 25),
        "oauth2.proxy_from_environment": (0, 25),
        "oauth2.proxy_connect_header": (0, 25),
        "proxy_from_environment": (0, 26),
        "no_proxy": (0, 26),
        "proxy_connect_header": (0, 26),
        "http_headers": (0, 28),
    },
    "discord": {"content": (0, 28), "username": (0, 28), "avatar_url": (0, 28)},
    "email": {
        "auth_password_file": (0, 25),
        "threading": (0, 30),
        "force_implicit_tls": (0, 31),
        "auth_secret_file": (0, 31),
    },
    "jira": {"api_type": (0, 29)},
    "mattermost": dict.fromkeys(_ATTACHMENT, (0, 32)),
    "msteams": {"summary": (0, 27)},
    "opsgenie": {"actions": (0, 24), "entity": (0, 24), "update_alerts": (0, 24), "api_key_file": (0, 24)},
    "pagerduty": {"source": (0, 25), "routing_key_file": (0, 25), "service_key_file": (0, 25), "timeout": (0, 30)},
    "pushover": {
        "user_key_file": (0, 26),
        "token_file": (0, 26),
        "device": (0, 26),
        "ttl": (0, 27),
    },
    "slack": {
        "api_url_file": (0, 22),
        "timeout": (0, 30),
        "app_token": (0, 30),
        "app_token_file": (0, 30),
        "app_url": (0, 30),
        "message_text": (0, 31),
        "update_message": (0, 32),
    },
    "sns": {"sigv4.external_id": (0, 33), "use_aws_http_client": (0, 33)},
    "telegram": {"bot_token_file": (0, 26), "message_thread_id": (0, 26), "chat_id_file": (0, 31)},
    "victorops": {"api_key_file": (0, 25)},
    "webhook": {"url_file": (0, 26), "timeout": (0, 28), "payload": (0, 32)},
    "wechat": {"api_secret_file": (0, 31)},
}

#: Fields of an object that is refused where they are newer, since it would mean something else without them.
_MEANT: Mapping[str, Mapping[str, Version]] = {
    "global": {
        "telegram_api_url": (0, 24),
        "webex_api_url": (0, 25),
        "jira_api_url": (0, 28),
        "rocketchat_api_url": (0, 28),
        "rocketchat_token": (0, 28),
        "rocketchat_token_id": (0, 28),
        "smtp_force_implicit_tls": (0, 31),
        "mattermost_webhook_url": (0, 32),
    },
    "email": {"threading": (0, 30), "force_implicit_tls": (0, 31)},
    "slack": {"message_text": (0, 31), "update_message": (0, 32)},
    "sns": {"use_aws_http_client": (0, 33)},
    "telegram": {"bot_token_file": (0, 26)},
    "webhook": {"payload": (0, 32)},
}

#: What a kind must have, each a choice; the version before which it must.
_NEEDED: Mapping[str, tuple[tuple[tuple[str, ...], Version | None], ...]] = {
    "incidentio": ((("url", "url_file"), None),),
    "jira": ((("project",), None), (("issue_type",), None)),
    "mattermost": ((("webhook_url", "webhook_url_file"), (0, 32)),),
    "msteams": ((("webhook_url",), None),),
    "msteamsv2": ((("webhook_url", "webhook_url_file"), None),),
    "pushover": ((("user_key", "user_key_file"), None), (("token", "token_file"), None)),
    "telegram": ((("chat_id", "chat_id_file"), None), (("bot_token", "bot_token_file"), (0, 31))),
    "webex": ((("room_id",), None),),
}
#: Kinds that refuse a value and its file together; for the others the value wins.
_ONE_ONLY = frozenset({"incidentio", "msteamsv2", "rocketchat"})
_URLS: Mapping[str, tuple[str, ...]] = {
    "incidentio": ("url",),
    "jira": ("api_url",),
    "msteams": ("webhook_url",),
    "msteamsv2": ("webhook_url",),
    "opsgenie": ("api_url",),
    "telegram": ("api_url",),
    "victorops": ("api_url",),
    "webex": ("api_url",),
    "wechat": ("api_url",),
}
#: These may be templates.
_TEMPLATE_URLS: Mapping[str, tuple[str, ...]] = {
    "discord": ("webhook_url",),
    "pagerduty": ("client_url",),
    "pushover": ("url",),
    "rocketchat": ("icon_url", "image_url", "thumb_url"),
    "sns": ("api_url",),
    "webhook": ("url",),
}
_TLS_VERSIONS = ("TLS10", "TLS11", "TLS12", "TLS13")
_OWN_HEADERS = frozenset(
    {
        "authorization",
        "host",
        "content-encoding",
        "content-length",
        "content-type",
        "user-agent",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "www-authenticate",
        "accept-encoding",
        "x-prometheus-remote-write-version",
        "x-prometheus-remote-read-version",
        "x-prometheus-scrape-timeout-seconds",
    }
)
_POST_MESSAGE = "https://slack.com/api/chat.postMessage"


def refuse_newer(document: Document, version: Version, where: str) -> None:
    """
    Raises:
        ConfigError: what objects say in ``document`` would mean something else where ``version`` reads it.
    """
    sections = [("global", document.get("global") or {}, f"{where}: global")]
    for receiver in document.get("receivers") or ():
        for section, items in receiver.items():
            kind = section.removesuffix("_configs")
            sections += [(kind, item, f"{where}: {section}") for item in items if kind != section]
    for kind, section, place in sections:
        for name, since in _MEANT.get(kind, {}).items():
            if version < since and section.get(name) is not None:
                raise _newer(place, name, since)


def suited(document: Document, version: Version, where: str) -> Document:
    """An alertmanager.yml as ``version`` reads it; changed in place.

    Raises:
        ConfigError: it would refuse it; names the place.
    """
    if document.get("global"):
        _global(document["global"], version, f"{where}: global")
    for receiver in document.get("receivers") or ():
        for section, items in receiver.items():
            if section.endswith("_configs"):
                kind = section.removesuffix("_configs")
                for index, item in enumerate(items or ()):
                    _integration(kind, item, version, f'{where}: receiver "{receiver.get("name")}": {section}[{index}]')
    for index, rule in enumerate(document.get("inhibit_rules") or ()):
        if version < (0, 22) and (rule.get("source_matchers") or rule.get("target_matchers")):
            raise _newer(f"{where}: inhibit_rules[{index}]", "matchers", (0, 22))
    for section, since in (("mute_time_intervals", (0, 22)), ("time_intervals", (0, 24))):
        if version < since:
            document.pop(section, None)
        if version < (0, 25):
            for interval in document.get(section) or ():
                for one in interval.get("time_intervals") or ():
                    one.pop("location", None)
    if document.get("route"):
        suited_route(document["route"], version, f"{where}: route")
    return document


def suited_route(route: Document, version: Version, where: str) -> Document:
    """A route and those below it; changed in place."""
    if version < (0, 22) and route.get("matchers"):
        raise _newer(where, "matchers", (0, 22))
    without_newer(route, {"mute_time_intervals": (0, 22), "active_time_intervals": (0, 24)}, version)
    for name in ("group_interval", "repeat_interval"):
        if re.fullmatch(r"(0[a-z]*)+", str(route.get(name) or "")):
            del route[name]
    for index, child in enumerate(route.get("routes") or ()):
        suited_route(child, version, f"{where}: routes[{index}]")
    return route


def suited_client(config: Document, version: Version, where: str) -> Document:
    """An ``http_config``; changed in place."""
    for name in ("authorization", "oauth2"):
        if version < (0, 22) and config.get(name):
            raise _newer(where, name, (0, 22))
    for name in (config.get("http_headers") or {}) if isinstance(config.get("http_headers"), Mapping) else ():
        if str(name).lower() in _OWN_HEADERS:
            raise ConfigError(f'{where}: http_headers: "{name}" is set by other fields; remove it')
    without_newer(config, _SINCE["http_config"], version)
    for name, section in (("tls_config", config.get("tls_config")), ("oauth2", config.get("oauth2"))):
        if isinstance(section, dict):
            _tls(section if name == "tls_config" else section.get("tls_config") or {}, f"{where}: {name}")
    if version >= (0, 26):
        _proxy(config, where)
    return config


def _tls(config: Mapping[str, Any], where: str) -> None:
    bounds = [config.get(name) for name in ("min_version", "max_version")]
    for bound in bounds:
        if bound and bound not in _TLS_VERSIONS:
            raise ConfigError(f'{where}: "{bound}" is not a version of TLS; write one of {", ".join(_TLS_VERSIONS)}')
    if all(bounds) and _TLS_VERSIONS.index(str(bounds[0])) > _TLS_VERSIONS.index(str(bounds[1])):
        raise ConfigError(f"{where}: min_version {bounds[0]} is above max_version {bounds[1]}; lower it")


def _proxy(config: Mapping[str, Any], where: str) -> None:
    url, environment, never = (config.get(name) for name in ("proxy_url", "proxy_from_environment", "no_proxy"))
    if environment and (url or never):
        raise ConfigError(f"{where}: proxy_from_environment stands alone; remove proxy_url and no_proxy")
    if never and not url:
        raise ConfigError(f"{where}: no_proxy needs proxy_url; set it")
    if config.get("proxy_connect_header") and not url and not environment:
        raise ConfigError(f"{where}: proxy_connect_header needs proxy_url or proxy_from_environment; set one")


def _global(section: Document, version: Version, where: str) -> None:
    if section.get("http_config"):
        suited_client(section["http_config"], version, f"{where}: http_config")
    without_newer(section, _SINCE["global"], version)
    _values_win(section)
    url, app = section.get("slack_api_url"), section.get("slack_app_url")
    if (section.get("slack_app_token") or section.get("slack_app_token_file")) and url and app and url != app:
        raise ConfigError(f"{where}: slack_app_token and slack_api_url are two ways to one end; remove one")


def _integration(kind: str, config: Document, version: Version, where: str) -> None:
    if version < _KINDS.get(kind, (0,)):
        raise _newer(where, f"{kind}_configs", _KINDS[kind])
    if config.get("http_config"):
        suited_client(config["http_config"], version, f"{where}: http_config")
    _refuse(kind, config, version, where)
    without_newer(config, _SINCE.get(kind, {}), version)
    if kind in _ONE_ONLY:
        for name, other in _with_files(config):
            raise ConfigError(f"{where}: {name} and {other} are two ways to one end; remove one")
    elif kind != "msteams":
        _values_win(config)
    for names, before in _NEEDED.get(kind, ()):
        if (before is None or version < before) and not any(config.get(name) for name in names):
            raise ConfigError(f"{where}: {' or '.join(names)} is missing; set it")
    for name in _URLS.get(kind, ()):
        check_url(config.get(name), f"{where}: {name}")
    for name in _TEMPLATE_URLS.get(kind, ()):
        check_url(config.get(name), f"{where}: {name}", template=True)


def _refuse(kind: str, config: Document, version: Version, where: str) -> None:
    """What only one kind has."""
    if kind == "email" and config.get("threading") and version >= (0, 30):
        if config["threading"].get("thread_by_date") not in ("daily", "none"):
            raise ConfigError(f"{where}: threading: thread_by_date must be daily or none; write one")
    elif kind == "incidentio":
        tokens = [name for name in ("alert_source_token", "alert_source_token_file") if config.get(name)]
        signed = bool((config.get("http_config") or {}).get("authorization"))
        if len(tokens) + signed != 1:
            raise ConfigError(
                f"{where}: one of alert_source_token, alert_source_token_file and http_config.authorization is needed"
            )
    elif kind == "jira":
        if version >= (0, 29) and config.get("api_type") not in (None, "auto", "cloud", "datacenter"):
            raise ConfigError(f'{where}: api_type: "{config["api_type"]}" must be auto, cloud or datacenter')
    elif kind == "opsgenie":
        if version < (0, 24) and any(item.get("type") == "teams" for item in config.get("responders") or ()):
            raise _newer(where, "a responder of type teams", (0, 24))
    elif kind == "pagerduty":
        if version < (0, 30) and not all(isinstance(one, str) for one in (config.get("details") or {}).values()):
            raise _newer(where, "details that are not texts", (0, 30))
    elif kind == "pushover":
        if version < (0, 29) and config.get("monospace"):
            config["monospace"] = False
        if config.get("html") and config.get("monospace"):
            raise ConfigError(f"{where}: html and monospace are two ways to show one text; remove one")
    elif kind == "slack":
        url = config.get("api_url")
        if version >= (0, 32) and config.get("update_message") and url and url != _POST_MESSAGE:
            raise ConfigError(f"{where}: update_message needs a bot's token, and api_url {_POST_MESSAGE}")
        apps = version >= (0, 30) and (config.get("app_token") or config.get("app_token_file"))
        if apps and (url or config.get("api_url_file")):
            raise ConfigError(f"{where}: app_token and api_url are two ways to one end; remove one")
    elif kind == "sns":
        sigv4 = config.get("sigv4") or {}
        if sigv4.get("external_id") and not sigv4.get("role_arn"):
            raise ConfigError(f"{where}: sigv4: external_id needs role_arn; set it")


def check_url(url: object, where: str, *, template: bool = False) -> None:
    """
    Raises:
        ConfigError: not an http or https URL, nor a template where there may be one; its value may be secret.
    """
    if not url:
        return
    text = str(url)
    if template and "{{" in text:
        try:
            Template(text, delimiters=("{{", "}}"))
        except TemplateError as exc:
            raise ConfigError(f"{where}: is not a template: {exc}") from exc
        return
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.netloc) and (parts.port or 0) >= 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{where}: is not a URL; write one like https://example.com/hook")


def _with_files(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Values that are given beside the files that hold them."""
    for name in list(config):
        if name.endswith("_file") and config[name] and config.get(name.removesuffix("_file")):
            yield name.removesuffix("_file"), name


def _values_win(config: Document) -> None:
    for _, file in _with_files(config):
        del config[file]


def _newer(where: str, what: str, since: Version) -> ConfigError:
    first = ".".join(map(str, since))
    return ConfigError(f"{where}: Alertmanager reads {what} from version {first} on; raise spec.version or remove it")
