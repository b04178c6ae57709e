"""Texts of notifications: Go templates with Alertmanager's data and functions.

Source: Alertmanager template. The texts in ``default.tmpl`` have its names.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from functools import cache, partial
from importlib import resources
from typing import Any, ClassVar, Protocol
from urllib.parse import unquote_plus

from flyball.alerting.alerts import MS, Alert
from flyball.alerting.gotime import Duration, Time
from flyball.errors import ConfigError
from flyball.model.gofunctions import Methods, SafeHtml
from flyball.model.gotemplate import Struct, Template, TemplateError
from flyball.model.labels import Labels
from flyball.model.templatefunctions import SHARED
from flyball.model.yaml_loader import load_yaml

_DELIMITERS = ("{{", "}}")


class Pairs(list[Struct], Methods):
    """Names and values in order; prints as ``a=1, b=2``."""

    def __str__(self) -> str:
        return ", ".join(f"{pair['Name']}={pair['Value']}" for pair in self)

    METHODS: ClassVar = {
        "Names": lambda self: [pair["Name"] for pair in self],
        "Values": lambda self: [pair["Value"] for pair in self],
    }


class KV(dict[str, str], Methods):
    """Labels or annotations. In order means: the alert's name first, then by name."""

    def __str__(self) -> str:
        return str(self.pairs())

    def pairs(self) -> Pairs:
        names = sorted(self, key=lambda name: (name != "alertname", name))
        return Pairs(Struct(Name=name, Value=self[name]) for name in names)

    def without(self, names: Sequence[str]) -> "KV":
        return KV((name, value) for name, value in self.items() if name not in names)

    METHODS: ClassVar = {
        "SortedPairs": lambda self: self.pairs(),
        "Remove": lambda self, names: self.without(names),
        "Names": lambda self: [pair["Name"] for pair in self.pairs()],
        "Values": lambda self: [pair["Value"] for pair in self.pairs()],
    }


class AlertList(list[Struct], Methods):
    """The alerts of a notification."""

    METHODS: ClassVar = {
        "Firing": lambda self: AlertList(one for one in self if one["Status"] == "firing"),
        "Resolved": lambda self: AlertList(one for one in self if one["Status"] == "resolved"),
    }


def alert_data(alert: Alert, at_ms: int) -> Struct:
    """An alert as templates see it."""
    return Struct(
        Status="resolved" if alert.resolved_at(at_ms) else "firing",
        Labels=KV(alert.labels),
        Annotations=KV(alert.annotations),
        StartsAt=Time(alert.starts_ns),
        EndsAt=Time(alert.ends_ns),
        GeneratorURL=alert.generator_url,
        Fingerprint=alert.fingerprint,
    )


def notification_data(
    receiver: str, reason: str, group_labels: Labels, alerts: Sequence[Alert], external_url: str, at_ms: int
) -> Struct:
    """What templates are given: firing as long as one alert is; common is what all alerts have."""
    shown = AlertList(alert_data(alert, at_ms) for alert in alerts)
    return Struct(
        Receiver=re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", receiver),
        Status="firing" if any(one["Status"] == "firing" for one in shown) else "resolved",
        Alerts=shown,
        NotificationReason=reason,
        GroupLabels=KV(group_labels),
        CommonLabels=_common(alert.labels for alert in alerts),
        CommonAnnotations=_common(alert.annotations for alert in alerts),
        ExternalURL=external_url,
    )


def _common(sets: Iterable[Labels]) -> KV:
    found: set[tuple[str, str]] | None = None
    for labels in sets:
        found = set(labels) if found is None else found & set(labels)
    return KV(sorted(found or ()))


#: Fields of notifications and alerts; others are written as they are called.
_JSON_NAMES = {
    "NotificationReason": "notification_reason",
    "ExternalURL": "externalURL",
    "GeneratorURL": "generatorURL",
    **{
        name[:1].upper() + name[1:]: name
        for name in [
            "receiver",
            "status",
            "alerts",
            "groupLabels",
            "commonLabels",
            "commonAnnotations",
            "labels",
            "annotations",
            "startsAt",
            "endsAt",
            "fingerprint",
        ]
    },
}


def to_json(value: Any) -> Any:
    """A template's value as Go's encoding/json would write it, before it is text."""
    if isinstance(value, Time):
        return value.rfc3339_nano()
    if isinstance(value, Duration):
        return round(value * 1_000_000_000)
    if isinstance(value, Struct):
        return {_JSON_NAMES.get(name, name): to_json(one) for name, one in value.items()}
    if isinstance(value, Mapping):
        return {name: to_json(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    return value


def _json_text(value: Any) -> str:
    text = json.dumps(to_json(value), ensure_ascii=False, separators=(",", ":"))
    return text.translate(_JSON_ESCAPES)


_JSON_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


class Dict(dict[str, Any]):
    """A map of anything: what is missing is no value, and prints so."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key)


def _dict(*pairs: Any) -> Dict:
    if len(pairs) % 2 or not all(isinstance(name, str) for name in pairs[::2]):
        raise ValueError("dict needs names, which are text, and values in turn")
    return Dict(zip(pairs[::2], pairs[1::2], strict=True))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **SHARED,
    "title": lambda text: re.sub(r"[^\W\d_][\w'’]*", lambda word: word[0][:1].upper() + word[0][1:].lower(), text),
    "trimSpace": str.strip,
    "join": lambda separator, texts: separator.join(texts),
    "safeUrl": SafeHtml,
    "urlUnescape": unquote_plus,
    "stringSlice": lambda *texts: list(texts),
    "date": lambda layout, time: time.format(layout),
    "tz": lambda name, time: time.in_zone(name),
    "toJson": _json_text,
    "list": lambda *values: list(values),
    "append": lambda values, *more: [*values, *more],
    "dict": _dict,
    "now": Time,  # these two are given the time when a text is expanded
    "since": Duration,
}


@cache
def _defaults() -> dict[str, Any]:
    named: dict[str, Any] = {}
    text = resources.files(__package__).joinpath("default.tmpl").read_text()
    Template(text, delimiters=_DELIMITERS, functions=_FUNCTIONS, named=named)
    return named


class Templates:
    """Named templates: the default ones, and those of files that were read."""

    def __init__(self) -> None:
        self._named: dict[str, Any] = copy(_defaults())

    def add(self, text: str, what: str) -> None:
        """Adds what a file defines.

        Raises:
            ConfigError: it does not parse; nothing of it is added.
        """
        named = copy(self._named)
        try:
            Template(text, delimiters=_DELIMITERS, functions=_FUNCTIONS, named=named)
        except TemplateError as exc:
            raise ConfigError(f"{what}: {exc}") from exc
        self._named = named

    def expand(self, text: str, data: Struct, *, at_ms: int, html: bool = False) -> str:
        """The text with its actions carried out.

        Raises:
            TemplateError: it does not parse, or fails.
        """
        if "{{" not in text:
            return text
        functions = _FUNCTIONS | {
            "now": lambda: Time(at_ms * MS),
            "since": lambda time: Duration((at_ms * MS - time.ns) / 1e9),
        }
        template = Template(text, delimiters=_DELIMITERS, functions=functions, named=copy(self._named))
        return template.render(data, html=html)

    def at(self, at_ms: int) -> "Expand":
        """``expand`` at one time."""
        return partial(self.expand, at_ms=at_ms)


class Expand(Protocol):
    """A template's text and its data to the expansion. Raises TemplateError."""

    def __call__(self, text: str, data: Struct, *, html: bool = False) -> str: ...


def expand_all(value: Any, expand: Callable[[str], str]) -> Any:
    """A deep copy with every text expanded; a text that then reads as YAML of another kind becomes that.

    Source: Alertmanager template, DeepCopyWithTemplate.
    """
    if isinstance(value, Mapping):
        return {expand(str(name)): expand_all(one, expand) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [expand_all(one, expand) for one in value]
    if not isinstance(value, str):
        return value
    text = expand(value)
    try:
        read = load_yaml(text)
    except ConfigError:
        return text
    return text if isinstance(read, str) else expand_all(read, expand)
