"""``global``: what receivers take where they do not say otherwise."""

from dataclasses import dataclass

from flyball.alerting.receivers.sending import (
    NO_SECRET,
    Secret,
    read_secret,
    read_url,
)
from flyball.model.clients import HTTP_DEFAULT, HttpClientConfig, TLSConfig, read_http_client, read_tls
from flyball.model.reader import Reader


@dataclass(frozen=True, slots=True)
class Globals:
    """Attributes:
    resolve_timeout_ms: how long an alert without an end is held for firing after it was heard of last.
    smtp_force_implicit_tls: None for what the port says: 465 is implicit.
    """

    resolve_timeout_ms: int = 300_000
    http: HttpClientConfig = HTTP_DEFAULT
    smtp_from: str = ""
    smtp_hello: str = "localhost"
    smtp_smarthost: str = ""
    smtp_auth_username: str = ""
    smtp_auth_password: Secret = NO_SECRET
    smtp_auth_secret: Secret = NO_SECRET
    smtp_auth_identity: str = ""
    smtp_require_tls: bool = True
    smtp_tls: TLSConfig | None = None
    smtp_force_implicit_tls: bool | None = None
    slack_api_url: Secret = NO_SECRET
    slack_app_token: Secret = NO_SECRET
    slack_app_url: str = "https://slack.com/api/chat.postMessage"
    pagerduty_url: str = "https://events.pagerduty.com/v2/enqueue"
    telegram_api_url: str = "https://api.telegram.org"
    telegram_bot_token: Secret = NO_SECRET


#: Fields for kinds of receivers that are not built in.
_OTHER_KINDS = ("opsgenie_", "wechat_", "victorops_", "webex_", "rocketchat_", "mattermost_", "jira_")


def read_globals(reader: Reader) -> Globals:
    """
    Raises:
        ConfigError: a field is wrong, or two exclude each other.
    """
    default = Globals()
    implicit = reader.take("smtp_force_implicit_tls")
    found = Globals(
        resolve_timeout_ms=reader.duration("resolve_timeout") or default.resolve_timeout_ms,
        http=reader.nested("http_config", read_http_client) or default.http,
        smtp_from=reader.text("smtp_from", ""),
        smtp_hello=reader.text("smtp_hello", default.smtp_hello),
        smtp_smarthost=reader.text("smtp_smarthost", ""),
        smtp_auth_username=reader.text("smtp_auth_username", ""),
        smtp_auth_password=read_secret(reader, "smtp_auth_password"),
        smtp_auth_secret=read_secret(reader, "smtp_auth_secret"),
        smtp_auth_identity=reader.text("smtp_auth_identity", ""),
        smtp_require_tls=reader.flag("smtp_require_tls", True),
        smtp_tls=reader.nested("smtp_tls_config", read_tls),
        smtp_force_implicit_tls=None if implicit is None else bool(implicit),
        slack_api_url=read_secret(reader, "slack_api_url"),
        slack_app_token=read_secret(reader, "slack_app_token"),
        slack_app_url=read_url(reader, "slack_app_url", default.slack_app_url),
        pagerduty_url=read_url(reader, "pagerduty_url", default.pagerduty_url),
        telegram_api_url=read_url(reader, "telegram_api_url", default.telegram_api_url),
        telegram_bot_token=read_secret(reader, "telegram_bot_token"),
    )
    if found.slack_app_token and found.slack_api_url and found.slack_api_url.value != found.slack_app_url:
        raise reader.error("slack_app_token", "and slack_api_url are both set; keep one")
    for name in list(reader.rest):
        if name.startswith(_OTHER_KINDS):
            reader.take(name)
    return found
