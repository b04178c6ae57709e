"""Values and functions of Go's text/template, as they print and compare in Go."""

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import quote_plus

from flyball.errors import ConfigError


class Struct(dict[str, Any]):
    """A Go struct: its field names are fixed."""


class Methods:
    """A value with methods that templates may call; ``str()`` is how it prints."""

    METHODS: ClassVar[Mapping[str, Callable[..., Any]]] = {}


class SafeHtml(str):
    """Text that is not escaped where HTML is written."""


class TemplateError(ConfigError):
    """The template does not parse, or failed while it ran."""


_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def go_quote(text: str) -> str:
    """``%q``: a double-quoted Go string, which is also a PromQL string."""
    out = ['"']
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        elif ord(char) < 0x10000:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(f"\\U{ord(char):08x}")
    return "".join([*out, '"'])


def go_string(value: Any) -> str:
    """``%v``."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Methods):
        return str(value)
    if isinstance(value, float):
        return _go_float(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{go_string(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(go_string(item) for item in value) + "]"
    return str(value)


def _go_float(value: float, kind: str = "g", precision: int | None = None) -> str:
    """``%g`` with the fewest digits that read back equal, or with a precision; ``%e`` and ``%f``, by default 6."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if precision is not None or kind in "eEfF":
        return f"%.{6 if precision is None else precision}{kind}" % value
    exact = Decimal(repr(value)).normalize()
    if -4 <= exact.adjusted() < 6 or not value:
        return format(exact, "f")
    return format_scientific(value)


def format_scientific(value: float) -> str:
    """Go's ``strconv.FormatFloat(value, 'e', -1, 64)``: the fewest digits that read back equal."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return re.sub(r"e([+-])(\d)$", r"e\g<1>0\2", f"{Decimal(repr(value)).normalize():e}")


def truth(value: Any) -> bool:
    return bool(value)


def _printf(pattern: str, *args: Any) -> str:
    left = list(args)

    def verb(match: re.Match[str]) -> str:
        flags, kind = match.group(1), match.group(2)
        if kind == "%":
            return "%"
        if not left:
            return f"%!{kind}(MISSING)"
        value = left.pop(0)
        if kind == "q":
            if isinstance(value, (list, tuple)):
                text = "[" + " ".join(go_quote(go_string(item)) for item in value) + "]"
            else:
                text = go_quote(go_string(value))
        elif kind in "vs" or (kind == "t" and isinstance(value, bool)):
            text = go_string(value)
        elif kind in "eEfFgG" and isinstance(value, float):
            shape, dot, precision = flags.partition(".")
            digits = _go_float(value, kind, int(precision or 0) if dot else None)
            if "+" in shape and digits[0] not in "+-":
                digits = "+" + digits
            width = int(re.sub(r"^[-+# 0]*", "", shape) or 0)
            return digits.ljust(width) if "-" in shape else digits.rjust(width, "0" if shape.startswith("0") else " ")
        elif kind in "dxXo" and isinstance(value, int) and not isinstance(value, bool):
            return ("%" + flags + kind) % value
        else:
            return f"%!{kind}({type(value).__name__}={go_string(value)})"
        return ("%" + flags.replace("0", "", 1 if flags.startswith("0") else 0) + "s") % text

    text = re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([a-zA-Z%])", verb, pattern)
    if left:
        text += "%!(EXTRA " + ", ".join(f"{type(v).__name__}={go_string(v)}" for v in left) + ")"
    return text


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif isinstance(value, (list, tuple, str)) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise TemplateError(f"index out of range: {key}; the list has {len(value)} elements")
            value = value[key] if not isinstance(value, str) else ord(value[key])
        else:
            raise TemplateError(f"cannot index {go_string(value)} with {go_string(key)}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= start <= end <= len(value):
        raise TemplateError(f"slice {start}:{end} is out of range; the value has {len(value)} elements")
    return value[start:end]


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("eq needs at least two arguments")
    for other in others:
        if type(first) is not type(other):
            raise TemplateError(f"eq cannot compare {go_string(first)} with {go_string(other)}: different types")
    return any(first == other for other in others)


def _ordered(first: Any, second: Any) -> int:
    """-1, 0 or 1; 2 for NaN, which is neither."""
    if type(first) is not type(second):
        raise TemplateError(f"cannot compare {go_string(first)} with {go_string(second)}: incompatible types")
    return 0 if first == second else -1 if first < second else 1 if first > second else 2


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (Mapping, list, tuple)):
        return len(value)
    raise TemplateError(f"len of {go_string(value)}, which has no length")


def escape_html(text: str) -> str:
    """As html/template writes a value between tags or in a quoted attribute."""
    return text.translate(_HTML)


_HTML = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;", "+": "&#43;", "\0": "\ufffd"}
)


def _print(*args: Any) -> str:
    parts: list[str] = []
    for i, arg in enumerate(args):
        if i and not isinstance(arg, str) and not isinstance(args[i - 1], str):
            parts.append(" ")
        parts.append(go_string(arg))
    return "".join(parts)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "printf": _printf,
    "print": _print,
    "println": lambda *args: " ".join(go_string(arg) for arg in args) + "\n",
    "index": _index,
    "slice": _slice,
    "len": _len,
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda a, b: not _equal(a, b),
    "lt": lambda a, b: _ordered(a, b) < 0,
    "le": lambda a, b: _ordered(a, b) <= 0,
    "gt": lambda a, b: _ordered(a, b) == 1,
    "ge": lambda a, b: 0 <= _ordered(a, b) <= 1,
    "urlquery": lambda *args: quote_plus(_print(*args), safe=""),
    "html": lambda *args: escape_html(_print(*args)).replace("&#43;", "+"),
}
