"""What receivers of all kinds share: the notification, secrets, the HTTP settings and the request that is made."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flyball.alerting.alerts import Alert
from flyball.alerting.templates import Expand, notification_data
from flyball.errors import ConfigError, UpstreamError
from flyball.model.clients import HTTP_DEFAULT, HttpClientConfig
from flyball.model.gotemplate import Struct
from flyball.model.labels import Labels
from flyball.model.reader import Reader

_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_GO_UNITS_MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1e3, "m": 6e4, "h": 3.6e6}


class DeliveryError(UpstreamError):
    """A notification did not arrive.

    Attributes:
        retry: whether the same message may be taken later.
        reason: ``clientError``, ``serverError``, ``contextDeadlineExceeded`` or ``other``, as the metrics name them.
    """

    def __init__(self, message: str, *, retry: bool, reason: str = "other", retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.retry, self.reason = retry, reason


@dataclass(frozen=True, slots=True)
class Secret:
    """A value, or the file that it is read from at every use."""

    value: str = field(default="", repr=False)
    file: str = ""

    def __bool__(self) -> bool:
        return bool(self.value or self.file)


NO_SECRET = Secret()

#: Reads a secret's value. Raises DeliveryError.
ReadSecret = Callable[[Secret], str]


@dataclass(frozen=True, slots=True)
class Notification:
    """What one integration is told of one group.

    Attributes:
        data: what it kept from its last message to this group.
    """

    receiver: str
    group_key: str
    group_labels: Labels
    reason: str
    alerts: tuple[Alert, ...]
    at_ms: int
    external_url: str = ""
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def firing(self) -> bool:
        return any(not alert.resolved_at(self.at_ms) for alert in self.alerts)

    def shown(self, alerts: tuple[Alert, ...] | None = None) -> Struct:
        """The data of templates, of all alerts or of those given."""
        told = self.alerts if alerts is None else alerts
        return notification_data(self.receiver, self.reason, self.group_labels, told, self.external_url, self.at_ms)


@dataclass(frozen=True, slots=True)
class Post:
    """A request to make: JSON to a URL, which may hold a secret.

    Attributes:
        timeout_ms: 0 for what is left until the next flush.
    """

    url: str = field(repr=False)
    body: Any
    http: HttpClientConfig = HTTP_DEFAULT
    timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver's server said."""

    status: int
    content_type: str
    body: bytes


class Integration(Protocol):
    """One entry of a receiver. Those that speak HTTP say what to post and what an answer means."""

    @property
    def kind(self) -> str: ...

    @property
    def send_resolved(self) -> bool: ...


class HttpIntegration(Integration, Protocol):
    """An integration that posts JSON."""

    def message(self, told: Notification, expand: Expand, secret: ReadSecret) -> Post:
        """
        Raises:
            TemplateError: a text fails.
            DeliveryError: a secret cannot be read.
        """

    def accepted(self, answer: Answer) -> Mapping[str, str]:
        """What is to be kept for the group's next message.

        Raises:
            DeliveryError: an answer of 200 that refuses.
        """


def check_status(answer: Answer, host: str, retry_after_s: float | None) -> None:
    """
    Raises:
        DeliveryError: the status is not one of success. 5xx and 429 may be retried, other 4xx not.
    """
    if answer.status // 100 == 2:
        return
    said = answer.body[:300].decode(errors="replace").strip()
    reason = {4: "clientError", 5: "serverError"}.get(answer.status // 100, "other")
    retry = answer.status // 100 == 5 or answer.status == 429
    message = f"{host} answered {answer.status}" + (f": {said}" if said else "")
    raise DeliveryError(message, retry=retry, reason=reason, retry_after_s=retry_after_s)


def read_secret(reader: Reader, name: str, default: Secret = NO_SECRET) -> Secret:
    """``name`` or ``name_file``.

    Raises:
        ConfigError: both are set.
    """
    found = Secret(reader.text(name, ""), reader.text(f"{name}_file", ""))
    if found.value and found.file:
        raise reader.error(name, f"and {name}_file are both set; keep one")
    return found or default


def read_timeout_ms(reader: Reader, name: str = "timeout") -> int:
    """A Go duration, such as ``500ms`` or ``1m30s``; 0 for none.

    Raises:
        ConfigError: it is not one.
    """
    text = reader.text(name, "0")
    if text == "0":
        return 0
    parts = _GO_DURATION.findall(text)
    if "".join(amount + unit for amount, unit in parts) != text or not parts:
        raise reader.error(name, f'"{text}" is not a duration; write one like 500ms or 1m30s')
    return round(sum(float(amount) * _GO_UNITS_MS[unit] for amount, unit in parts))


def read_url(reader: Reader, name: str, default: str = "") -> str:
    """An http or https URL.

    Raises:
        ConfigError: it is not one.
    """
    return checked_url(reader, name, reader.text(name, default))


def checked_url(reader: Reader, name: str, url: str) -> str:
    """
    Raises:
        ConfigError: what is given is not an http or https URL; the value is not said, as it may be secret.
    """
    if url and not re.fullmatch(r"https?://[^/\s]+\S*", url):
        raise reader.error(name, "is not a URL; write one like https://example.com/hook")
    return url


def truncate(text: str, length: int) -> str:
    """At most ``length`` characters, the last an ellipsis where something is missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


def missing(reader: Reader, names: str) -> ConfigError:
    """The error of a section that lacks a field."""
    return ConfigError(f"{reader.what}: {names} is missing; set it here or in global")
