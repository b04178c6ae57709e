"""PromQL text to tokens, with positions."""

import re
from dataclasses import dataclass
from typing import NoReturn

from flyball.errors import ConfigError, QueryError
from flyball.model.durations import parse_duration_ms
from flyball.promql.syntax import quote

_TOKENS = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |(?P<duration>[0-9]+(?:ms|[smhdwy])(?:[0-9]+(?:ms|[smhdwy]))*(?![0-9A-Za-z_.]))
    |(?P<number>(?:0[xX][0-9a-fA-F_]+|(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)(?![0-9A-Za-z_.]))
    |(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    |(?P<op>=~|!~|==|!=|<=|</|<|>=|>/|>|[-+*/%^=(){}\[\],@:])
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"[0-9A-Za-z_.]+")
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))", re.S
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(slots=True)
class Token:
    """``kind`` is duration, number, name, string, op or end."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def low(self) -> str:
        return self.text.lower()


def fail(text: str, at: int, message: str) -> NoReturn:
    """
    Raises:
        QueryError: always; the message begins with ``line:column``.
    """
    raise QueryError(f"{line_column(text, at)}: parse error: {message}")


def line_column(text: str, at: int) -> str:
    """``line:column`` of an offset into a text, both from 1."""
    line = text.count("\n", 0, at) + 1
    return f"{line}:{at - (text.rfind(chr(10), 0, at) + 1) + 1}"


def tokens_of(text: str) -> list[Token]:
    """The tokens, the last one of kind ``end``.

    Raises:
        QueryError: a character, number or string is not PromQL.
    """
    tokens: list[Token] = []
    at, brackets = 0, 0
    while at < len(text):
        if brackets and text[at] == ":":  # [5m:1m], not a metric name that begins with a colon
            tokens.append(Token("op", ":", at, at + 1))
            at += 1
            continue
        found = _TOKENS.match(text, at)
        if found is None:
            _fail_at(text, at)
        kind = found.lastgroup or ""
        if kind != "space":
            tokens.append(Token(kind, found.group(), at, found.end()))
            if kind == "op":
                brackets += {"[": 1, "]": -1}.get(found.group(), 0)
        at = found.end()
    tokens.append(Token("end", "", len(text), len(text)))
    return tokens


def _fail_at(text: str, at: int) -> NoReturn:
    ch = text[at]
    if ch in "\"'`":
        fail(text, at, "unterminated quoted string" if ch != "`" else "unterminated raw string")
    if ch.isdigit() or ch == ".":
        bad = _WORD.match(text, at)
        fail(text, at, f"bad number or duration syntax: {quote(bad.group() if bad else ch)}")
    fail(text, at, f"unexpected character: {ch!r}")


def number_of(text: str, token: Token) -> float:
    """The value of a number token: decimal, hexadecimal, or octal with a leading zero.

    Raises:
        QueryError: the underscores are not between digits.
    """
    digits = token.text.replace("_", "")
    if token.text.endswith("_") or "__" in token.text:
        fail(text, token.start, f"error parsing number: invalid syntax {quote(token.text)}")
    if digits[:2].lower() == "0x":
        return float(int(digits, 16))
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit() and not set(digits) - set("01234567"):
        return float(int(digits, 8))
    return float(digits)


def duration_ms(text: str, token: Token) -> int:
    """The value of a duration token, ms.

    Raises:
        QueryError: units repeat or are out of order, or the duration is too long.
    """
    try:
        total = parse_duration_ms(token.text)
    except ConfigError:
        fail(text, token.start, f"bad number or duration syntax: {quote(token.text)}")
    if total >= 2**63 // 1_000_000:
        fail(text, token.start, f"duration out of range: {quote(token.text)}")
    return total


def string_of(text: str, token: Token) -> str:
    """The value of a string token; bytes that are no UTF-8 become surrogate escapes.

    Raises:
        QueryError: an escape sequence is not valid.
    """
    body = token.text[1:-1]
    if token.text[0] == "`" or "\\" not in body:
        return body
    raw = False

    def escape(found: "re.Match[str]") -> str:
        nonlocal raw
        simple, hexa, octal, four, eight, bad = found.groups()
        if simple is not None:
            return _SIMPLE.get(simple, simple)
        if bad is not None:
            fail(text, token.start, f"unknown escape sequence U+{ord(bad or ' '):04X} {bad!r}")
        if hexa is not None or octal is not None:
            byte = int(hexa, 16) if hexa is not None else int(octal, 8)
            if byte > 255:
                fail(text, token.start, f"escape sequence is an invalid octal value: {byte}")
            raw = raw or byte > 127
            return chr(byte) if byte < 128 else chr(0xDC00 + byte)
        code = int(four or eight, 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            fail(text, token.start, "escape sequence is an invalid Unicode code point")
        return chr(code)

    value = _ESCAPE.sub(escape, body)
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") if raw else value
