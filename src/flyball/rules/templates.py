"""Templates of alert labels and annotations: Go's text/template with Prometheus' functions.

Source: the template reference of Prometheus' documentation; numbers print as Go's fmt prints them.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote_plus, urlsplit

import re2

from flyball.errors import FlyballError
from flyball.model.durations import parse_duration_ms
from flyball.model.gotemplate import Struct, Template, TemplateError
from flyball.model.labels import Labels

Samples = Sequence[tuple[Labels, float]]
VARIABLES = ("$labels", "$externalLabels", "$externalURL", "$value")
_UP, _DOWN = ("k", "M", "G", "T", "P", "E", "Z", "Y"), ("m", "u", "n", "p", "f", "a", "z", "y")
_BINARY = ("ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi")


@dataclass(frozen=True, slots=True)
class Context:
    """What templates see beside the sample.

    Attributes:
        query: the vector of an expression's text, at the time of the evaluation.
        at_ms: that time.
    """

    query: Callable[[str], Samples]
    at_ms: int
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""


def expand(text: str, labels: Mapping[str, str], value: float, context: Context) -> str:
    """The text with its actions carried out; an error becomes part of the text, as upstream's."""
    if "{{" not in text:
        return text
    data = Struct(
        Labels=dict(labels),
        ExternalLabels=dict(context.external_labels),
        ExternalURL=context.external_url,
        Value=value,
    )
    values = dict(zip(VARIABLES, (data["Labels"], data["ExternalLabels"], context.external_url, value), strict=True))
    try:
        template = Template(text, delimiters=("{{", "}}"), functions=_functions(context), variables=VARIABLES)
        return template.render(data, values)
    except FlyballError as exc:
        return f"<error expanding template: {exc}>"


@lru_cache(maxsize=4096)
def check_template(text: str) -> str:
    """Why the template does not parse; empty when it does."""
    nothing = Context(lambda _: (), 0)
    try:
        Template(text, delimiters=("{{", "}}"), functions=_functions(nothing), variables=VARIABLES)
    except TemplateError as exc:
        return str(exc)
    return ""


def _functions(context: Context) -> dict[str, Callable[..., Any]]:
    return {
        **_FUNCTIONS,
        "query": lambda text: [Struct(Labels=dict(labels), Value=value) for labels, value in context.query(text)],
        "now": lambda: context.at_ms / 1000,
        "externalURL": lambda: context.external_url,
        "pathPrefix": lambda: urlsplit(context.external_url).path,
    }


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TemplateError(f"can't convert {type(value).__name__} to float")
    try:
        return float(value)
    except ValueError:
        raise TemplateError(f'"{value}" is not a number') from None


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return f"{value:.4g}"


def _scaled(value: float, prefixes: Sequence[str], base: float) -> tuple[float, str]:
    """Divided by ``base`` (or multiplied, for small numbers) until it is short, with the prefix for that."""
    prefix = ""
    for candidate in prefixes:
        if abs(value) >= 1 if prefixes is _DOWN else abs(value) < base:
            break
        prefix = candidate
        value = value * base if prefixes is _DOWN else value / base
    return value, prefix


def _humanize(value: Any) -> str:
    number = _number(value)
    if number == 0 or not math.isfinite(number):
        return _short(number)
    number, prefix = _scaled(number, _UP if abs(number) >= 1 else _DOWN, 1000)
    return _short(number) + prefix


def _humanize1024(value: Any) -> str:
    number = _number(value)
    if abs(number) <= 1 or not math.isfinite(number):
        return _short(number)
    number, prefix = _scaled(number, _BINARY, 1024)
    return _short(number) + prefix


def _humanize_duration(value: Any) -> str:
    number = _number(value)
    if not math.isfinite(number):
        return _short(number)
    if number == 0 or abs(number) >= 1:
        sign, number = ("-", -number) if number < 0 else ("", number)
        minutes, seconds = divmod(int(number), 60)
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        if days:
            return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
        if hours:
            return f"{sign}{hours}h {minutes}m {seconds}s"
        if minutes:
            return f"{sign}{minutes}m {seconds}s"
        return f"{sign}{_short(number)}s"
    number, prefix = _scaled(number, _DOWN, 1000)
    return f"{_short(number)}{prefix}s"


def _humanize_timestamp(value: Any) -> str:
    number = _number(value)
    if not math.isfinite(number):
        return _short(number)
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=math.floor(number * 1000))
    except OverflowError:
        raise TemplateError(f"{value} is not a time that can be written") from None
    fraction = f".{at.microsecond:06d}".rstrip("0") if at.microsecond else ""
    return f"{at:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


def _first(samples: Sequence[Any]) -> Any:
    if not samples:
        raise TemplateError("first() called on vector with no elements")
    return samples[0]


def _replace(pattern: str, replacement: str, text: str) -> str:
    found = re2.compile(pattern)

    def group(match: Any) -> str:
        def one(part: re.Match[str]) -> str:
            if part.group() == "$$":
                return "$"
            name = part.group(1) or part.group(2)
            try:
                return match.group(int(name) if name.isdigit() else name) or ""
            except (IndexError, KeyError, re2.error):
                return ""

        return re.sub(r"\$\$|\$\{(\w+)\}|\$(\w+)", one, replacement)

    return str(found.sub(group, text))


def _split_port(host_port: str) -> tuple[str, str] | None:
    """Host and port; None when it is not ``host:port`` or ``[host]:port``."""
    host, colon, port = host_port.rpartition(":")
    if not colon:
        return None
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return None if ":" in host else (host, port)


def _strip_port(host_port: str) -> str:
    found = _split_port(host_port)
    return found[0] if found else host_port


def _strip_domain(host_port: str) -> str:
    host, port = _split_port(host_port) or (host_port, "")
    if ":" in host or re.fullmatch(r"\d+(\.\d+){3}", host):
        return host_port
    return host.split(".")[0] + (f":{port}" if port else "")


def _parse_duration(text: str) -> float:
    sign = -1 if text.startswith("-") else 1
    return sign * parse_duration_ms(text.removeprefix("-")) / 1000


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "first": _first,
    "label": lambda name, sample: sample["Labels"].get(name, ""),
    "value": lambda sample: sample["Value"],
    "strvalue": lambda sample: sample["Labels"].get("__value__", ""),
    "sortByLabel": lambda name, samples: sorted(samples, key=lambda sample: sample["Labels"].get(name, "")),
    "args": lambda *values: {f"arg{number}": value for number, value in enumerate(values)},
    "reReplaceAll": _replace,
    "match": lambda pattern, text: re2.search(pattern, text) is not None,
    "safeHtml": lambda text: text,
    "title": lambda text: re.sub(r"\b[^\W\d_]", lambda found: found.group().upper(), text),
    "toUpper": str.upper,
    "toLower": str.lower,
    "graphLink": lambda expr: f"/graph?g0.expr={quote_plus(expr)}&g0.tab=0",
    "tableLink": lambda expr: f"/graph?g0.expr={quote_plus(expr)}&g0.tab=1",
    "stripPort": _strip_port,
    "stripDomain": _strip_domain,
    "humanize": _humanize,
    "humanize1024": _humanize1024,
    "humanizeDuration": _humanize_duration,
    "humanizePercentage": lambda value: f"{_short(_number(value) * 100)}%",
    "humanizeTimestamp": _humanize_timestamp,
    "parseDuration": _parse_duration,
    "urlQueryEscape": partial(quote_plus, safe=""),
}

__all__ = ["Context", "Samples", "check_template", "expand"]
