"""Functions that templates of rules and of notifications share; numbers print as Go's fmt prints them.

Source: prometheus/common helpers/templates, and the template references of Prometheus and Alertmanager.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import re2

from flyball.model.gofunctions import SafeHtml, TemplateError

_UP, _DOWN = ("k", "M", "G", "T", "P", "E", "Z", "Y"), ("m", "u", "n", "p", "f", "a", "z", "y")
_BINARY = ("ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi")


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


SHARED: dict[str, Callable[..., Any]] = {
    "toUpper": str.upper,
    "toLower": str.lower,
    "match": lambda pattern, text: re2.search(pattern, text) is not None,
    "reReplaceAll": _replace,
    "safeHtml": SafeHtml,
    "humanizeDuration": _humanize_duration,
}

#: What rules have beside those.
HUMANIZE: dict[str, Callable[..., Any]] = {
    "humanize": _humanize,
    "humanize1024": _humanize1024,
    "humanizePercentage": lambda value: f"{_short(_number(value) * 100)}%",
    "humanizeTimestamp": _humanize_timestamp,
}
