"""Matchers as people write them: ``a="b"``, ``{a=~"b|c", d!=e}``, with UTF-8 names or in the classic form.

Source: Alertmanager matcher/parse (UTF-8), pkg/labels (classic), matcher/compat (which of the two is asked). Two
differences to PromQL: names may be quoted, and values need not be.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

import re2

from flyball.errors import ConfigError
from flyball.model.gofunctions import go_quote
from flyball.model.labels import Matcher, MatchType


class Mode(StrEnum):
    """Which parser decides. ``FALLBACK``: UTF-8, and the classic one where that fails or the two disagree."""

    FALLBACK = "fallback"
    UTF8 = "utf8-strict-mode"
    CLASSIC = "classic-mode"


_RESERVED = re.compile(r"[\s{}!=~,\\\"'`]")
_TOKEN = re.compile(
    r"\s*(?:(?P<mark>[{},])|(?P<operator>=~|=|!=|!~)"
    r"|(?P<quoted>\"(?:[^\"\\]|\\.)*\")|(?P<word>[^\s{}!=~,\\\"'`]+))",
    re.S,
)
_CLASSIC = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|=|!=|!~)\s*(.*?)\s*", re.S)
_CLASSIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-7]{3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.S)
_SIMPLE = {bytes([code]): bytes([byte]) for code, byte in zip(b'abfnrtv\\"', b'\a\b\f\n\r\t\v\\"', strict=True)}
_QUIET = re2.Options()
_QUIET.log_errors = False


_Found = TypeVar("_Found")


def parse_matchers(text: str, mode: Mode = Mode.FALLBACK) -> tuple[Matcher, ...]:
    """Matchers between optional braces, with commas between them.

    Raises:
        ConfigError: the text does not parse; names the text and the place.
    """
    if mode is Mode.CLASSIC:
        return _classic_matchers(text)
    if mode is Mode.UTF8:
        return _Parser(text).parse()
    return _fallback(_Parser(text).parse, lambda: _classic_matchers(text))


def parse_matcher(text: str, mode: Mode = Mode.FALLBACK) -> Matcher:
    """One matcher, without braces.

    Raises:
        ConfigError: as ``parse_matchers``, or there is not one matcher.
    """
    if mode is Mode.CLASSIC:
        return _classic(text)
    if text.startswith("{") or text.endswith("}"):
        raise ConfigError(f"unexpected open or close brace: {text}; write one matcher without braces")
    if mode is Mode.UTF8:
        return _one(_Parser(text).parse(), text)
    return _fallback(lambda: _one(_Parser(text).parse(), text), lambda: _classic(text))


def _fallback(utf8: Callable[[], _Found], classic: Callable[[], _Found]) -> _Found:
    try:
        old = classic()
    except ConfigError:
        old = None
    try:
        new = utf8()
    except ConfigError:
        if old is None:
            raise
        return old
    return new if old is None or new == old else old


def _one(found: tuple[Matcher, ...], text: str) -> Matcher:
    if len(found) != 1:
        raise ConfigError(f'"{text}": {len(found)} matchers where one is expected')
    return found[0]


def new_matcher(type_: MatchType, name: str, value: str) -> Matcher:
    """A matcher.

    Raises:
        ConfigError: the value is not a regular expression, where it must be one.
    """
    if type_ in (MatchType.REGEX, MatchType.NOT_REGEX):
        try:
            re2.compile(f"^(?:{value})$", _QUIET)
        except re2.error as exc:
            reason = exc.args[0] if exc.args else exc
            reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
            raise ConfigError(f'"{value}" is not a regular expression ({reason}); it must be RE2') from exc
    return Matcher(type_, name, value)


class _Parser:
    """The UTF-8 form: words end at white space and at ``{}!=~,\\"'```; what has those is quoted as in Go."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def error(self, expected: str) -> ConfigError:
        rest = self.text[self.at :].strip()
        found = f'"{rest}"' if rest else "the end"
        return ConfigError(f'"{self.text}": at {self.at}: found {found}, expected {expected}')

    def take(self, *kinds: str) -> tuple[str, str] | None:
        """The next token, if it is of one of the kinds."""
        found = _TOKEN.match(self.text, self.at)
        if found is None or found.lastgroup not in kinds:
            return None
        self.at = found.end()
        return found.lastgroup or "", found[found.lastgroup or 0]

    def mark(self, mark: str) -> bool:
        before = self.at
        if (token := self.take("mark")) and token[1] == mark:
            return True
        self.at = before
        return False

    def parse(self) -> tuple[Matcher, ...]:
        found: list[Matcher] = []
        braces = self.mark("{")
        while self.text[self.at :].strip() and not (braces and self.text[self.at :].lstrip().startswith("}")):
            found.append(self.matcher())
            if not self.mark(","):
                break
        if braces and not self.mark("}"):
            raise self.error("a comma or close brace")
        if self.text[self.at :].strip():
            raise self.error("a comma, or the end" if not braces else "the end")
        return tuple(found)

    def matcher(self) -> Matcher:
        name = self.word("a label name")
        operator = self.take("operator")
        if operator is None:
            raise self.error("an operator: =, !=, =~ or !~")
        return new_matcher(MatchType(operator[1]), name, self.word("a label value"))

    def word(self, expected: str) -> str:
        token = self.take("quoted", "word")
        if token is None:
            raise self.error(expected)
        kind, text = token
        return text if kind == "word" else _unquote(text, self.text)


def _unquote(quoted: str, whole: str) -> str:
    """A Go string; ``\\x`` and octal escapes are bytes, which must be UTF-8 in the end."""

    def one(found: re.Match[bytes]) -> bytes:
        body = found[1]
        if body[:1] in b"uU" and len(body) > 1:
            return chr(int(body[1:], 16)).encode()
        if body[:1] == b"x" and len(body) > 1:
            return bytes([int(body[1:], 16)])
        if len(body) == 3:
            return bytes([int(body, 8) & 0xFF])
        if body not in _SIMPLE:
            raise ValueError(body)
        return _SIMPLE[body]

    try:
        if "\n" in quoted:
            raise ValueError("line feed")
        return _ESCAPE.sub(one, quoted[1:-1].encode()).decode()
    except (ValueError, OverflowError) as exc:
        raise ConfigError(f'"{whole}": {quoted} is not a quoted text of UTF-8; mind the escapes') from exc


def _classic_matchers(text: str) -> tuple[Matcher, ...]:
    text = text.removeprefix("{").removesuffix("}")
    parts, part, quoted, escaped = [], "", False, False
    for char in text:
        if char == "," and not quoted:
            parts.append(part)
            part, escaped = "", False
            continue
        if char == '"' and not escaped:
            quoted = not quoted
        escaped = char == "\\" and not escaped
        part += char
    if part.strip():
        parts.append(part.strip())
    return tuple(_classic(part) for part in parts)


def _classic(text: str) -> Matcher:
    found = _CLASSIC.fullmatch(text)
    if found is None:
        raise ConfigError(f'bad matcher format: {text}; write one like name="value"')
    name, operator, raw = found.groups()
    inner = raw[1:] if (opened := raw.startswith('"')) else raw
    value, at, closed = "", 0, False
    while at < len(inner):
        char, last = inner[at], at == len(inner) - 1
        if char == "\\" and not last:
            following = inner[at + 1]
            value += {"n": "\n", '"': '"', "\\": "\\"}.get(following, "\\" + following)
            at += 2
            continue
        if char == '"':
            if not opened or not last:
                raise ConfigError(f'matcher value contains unescaped double quote: {raw}; write it as \\"')
            closed = True
        else:
            value += char
        at += 1
    if opened and not closed:
        raise ConfigError(f"matcher value contains unescaped double quote: {raw}; close the quote")
    return new_matcher(MatchType(operator), name, value)


def matches_all(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether a label set satisfies every matcher; an absent label is an empty one."""
    return all(matcher.matches(labels.get(matcher.name, "")) for matcher in matchers)


def in_order(matchers: Iterable[Matcher]) -> tuple[Matcher, ...]:
    """By name, value and operator, as keys of routes have them."""
    return tuple(sorted(matchers, key=lambda one: (one.name, one.value, list(MatchType).index(one.type))))


def show_matcher(matcher: Matcher) -> str:
    """One matcher; its name is quoted where it must be."""
    if _RESERVED.search(matcher.name):
        return f"{go_quote(matcher.name)}{matcher.type}{go_quote(matcher.value)}"
    return str(matcher)


def show(matchers: Iterable[Matcher]) -> str:
    """``{a="b",c=~"d"}``."""
    return "{" + ",".join(map(show_matcher, matchers)) + "}"


def is_label_name(name: str, mode: Mode = Mode.FALLBACK) -> bool:
    """Any text but the empty one, or letters, digits and underscores in classic mode."""
    return bool(_CLASSIC_NAME.fullmatch(name)) if mode is Mode.CLASSIC else bool(name)
