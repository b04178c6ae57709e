"""Parameters of the Prometheus API: forms, times, durations, limits, selectors. Nothing is guessed: what cannot be
read is a ``BadDataError`` with Prometheus' text."""

import math
from collections.abc import Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request

from flyball import clock
from flyball.errors import FlyballError, QueryError
from flyball.model.durations import parse_duration_ms
from flyball.model.labels import Matcher
from flyball.promql import parse_selector

BODY_MAX = 1 << 20
TIME_MIN_MS, TIME_MAX_MS = -(1 << 53), 1 << 53
_DURATION_MAX_S = 9_223_372_036
_LIMIT_MAX = (1 << 63) - 1

Form = dict[str, list[str]]


class BadDataError(Exception):
    """A parameter is wrong: 400 bad_data."""


async def read_form(request: Request) -> Form:
    """Parameters of a POSTed form, then those of the URL.

    Raises:
        BadDataError: the form is too large.
    """
    form: Form = {}
    if request.method in ("POST", "PUT"):
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_MAX:
                raise BadDataError(f"the form is larger than the limit of {BODY_MAX} bytes")
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            try:
                pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10_000)
            except ValueError:
                raise BadDataError("the form has more than 10000 fields") from None
            for name, value in pairs:
                form.setdefault(name, []).append(value)
    for name, value in parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True):
        form.setdefault(name, []).append(value)
    return form


def first(form: Form, name: str, default: str = "") -> str:
    """The first value of a parameter."""
    return form.get(name, [default])[0]


def parse_time_ms(text: str) -> int:
    """Unix seconds as a decimal, or RFC 3339.

    Raises:
        ValueError: it is neither, or out of range.
    """
    try:
        seconds = float(text)
    except ValueError:
        return clock.parse_rfc3339_ms(text)
    if not math.isfinite(seconds) or not TIME_MIN_MS <= seconds * 1000 <= TIME_MAX_MS:
        raise ValueError(f"{text} is out of range")
    return round(seconds * 1000)


def time_ms(form: Form, name: str, default: int | None) -> int:
    """A time in ms; ``default`` when it is not given, an error when that is None."""
    text = first(form, name)
    if not text:
        if default is None:
            raise BadDataError(f'invalid parameter "{name}": cannot parse "" to a valid timestamp')
        return default
    try:
        return parse_time_ms(text)
    except (ValueError, OverflowError):
        raise BadDataError(f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp') from None


def window_ms(form: Form) -> tuple[int, int]:
    """``start`` and ``end``, everything by default."""
    start, end = time_ms(form, "start", TIME_MIN_MS), time_ms(form, "end", TIME_MAX_MS)
    if end < start:
        raise BadDataError('invalid parameter "end": end timestamp must not be before start time')
    return start, end


def duration_ms(form: Form, name: str) -> int | None:
    """A duration in ms; None when it is not given."""
    text = first(form, name)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            return parse_duration_ms(text)
        except FlyballError:
            raise BadDataError(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration') from None
    if not math.isfinite(seconds) or abs(seconds) > _DURATION_MAX_S:
        raise BadDataError(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration. It overflows int64')
    return round(seconds * 1000)


def whole(form: Form, name: str, default: int = 0) -> int:
    """A whole number of at least 0."""
    text = first(form, name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > _LIMIT_MAX:
        raise BadDataError(f'invalid parameter "{name}": cannot parse "{text}" to a valid {name}')
    return int(text)


def switch(form: Form, name: str, default: bool = False) -> bool:
    """A parameter that is on or off."""
    text = first(form, name).lower()
    if text in ("", "1", "t", "true", "0", "f", "false"):
        return default if not text else text in ("1", "t", "true")
    raise BadDataError(f'invalid parameter "{name}": "{text}" is neither true nor false')


def choice(form: Form, name: str, allowed: Sequence[str]) -> str:
    """One of the words of ``allowed``, the first by default."""
    text = first(form, name) or allowed[0]
    if text not in allowed:
        shown = ", ".join(repr(word) for word in allowed if word)
        raise BadDataError(f'invalid parameter "{name}": "{text}" is not one of {shown}')
    return text


def matcher_sets(form: Form, *, required: bool = False) -> list[tuple[Matcher, ...]]:
    """The selectors of ``match[]``."""
    texts = form.get("match[]", [])
    if required and not texts:
        raise BadDataError("no match[] parameter provided")
    try:
        return [parse_selector(text) for text in texts]
    except QueryError as exc:
        raise BadDataError(f'invalid parameter "match[]": {exc}') from None


def unescape_label(name: str) -> str:
    """A label name of a URL: ``U__foo_2e_bar`` is ``foo.bar``, ``__`` within is ``_``."""
    if not name.startswith("U__"):
        return name
    text, out, at = name[3:], "", 0
    while at < len(text):
        if text[at] != "_":
            out += text[at]
            at += 1
        elif text[at + 1 : at + 2] == "_":
            out += "_"
            at += 2
        else:
            end = text.find("_", at + 1)
            try:
                point = int(text[at + 1 : end], 16) if end > 0 else -1
                if point < 0 or 0xD800 <= point <= 0xDFFF:
                    return name
                out += chr(point)
            except (ValueError, OverflowError):
                return name
            at = end + 1
    return out
