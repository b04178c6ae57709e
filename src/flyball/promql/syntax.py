"""The expression tree. ``str(expr)`` parses back to an equal tree; positions are byte offsets into the text."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from flyball.model.durations import format_duration
from flyball.model.labels import METRIC_NAME, Matcher, MatchType

Position = tuple[int, int]


class ValueType(StrEnum):
    """The four types of PromQL."""

    SCALAR = "scalar"
    VECTOR = "vector"
    MATRIX = "matrix"
    STRING = "string"

    @property
    def documented(self) -> str:
        """The type's name in messages."""
        return {"vector": "instant vector", "matrix": "range vector"}.get(self.value, self.value)


COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
SET_OPERATORS = frozenset({"and", "or", "unless"})
TRIMS = frozenset({"</", ">/"})
PRECEDENCE = {
    "or": 1, "and": 2, "unless": 2,
    "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "</": 3, ">/": 3,
    "+": 4, "-": 4,
    "*": 5, "/": 5, "%": 5, "atan2": 5,
    "^": 6,
}  # fmt: skip


def quote(text: str) -> str:
    """A double-quoted string literal."""
    out = []
    for ch in text:
        if ch in '"\\':
            out.append("\\" + ch)
        elif ch == "\n":
            out.append("\\n")
        elif ch == "\t":
            out.append("\\t")
        elif ch == "\r":
            out.append("\\r")
        elif 0xDC80 <= ord(ch) <= 0xDCFF:
            out.append(f"\\x{ord(ch) - 0xDC00:02x}")
        elif ord(ch) < 0x20 or ord(ch) == 0x7F:
            out.append(f"\\x{ord(ch):02x}")
        else:
            out.append(ch)
    return '"' + "".join(out) + '"'


def is_classic_name(name: str, *, metric: bool = False) -> bool:
    """Whether a name needs no quotes."""
    plain = name.replace(":", "_") if metric else name
    return plain.isascii() and plain.isidentifier()


def _label(name: str) -> str:
    return name if is_classic_name(name) else quote(name)


def format_number(value: float) -> str:
    """A number as Go's ``strconv.FormatFloat(v, 'f', -1, 64)`` prints it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" in text:
        mantissa, exponent = text.split("e")
        sign = "-" if mantissa.startswith("-") else ""
        whole, _, fraction = mantissa.lstrip("-").partition(".")
        power = int(exponent)
        if power >= 0:
            return sign + whole + fraction.ljust(power, "0")
        return sign + "0." + "0" * (-power - 1) + whole + fraction.rstrip("0" if fraction == "0" else "")
    return text[:-2] if text.endswith(".0") else text


@dataclass(slots=True, kw_only=True)
class Expr:
    """A node; ``pos`` is its (start, end) in the text it was parsed from and does not take part in equality."""

    pos: Position = field(default=(0, 0), compare=False)

    @property
    def type(self) -> ValueType:
        raise NotImplementedError

    def children(self) -> Iterator["Expr"]:
        return iter(())

    def walk(self) -> Iterator["Expr"]:
        """This node and all below, parents first."""
        yield self
        for child in self.children():
            yield from child.walk()


@dataclass(slots=True)
class NumberLiteral(Expr):
    value: float
    duration: bool = field(default=False, compare=False)

    @property
    def type(self) -> ValueType:
        return ValueType.SCALAR

    def __str__(self) -> str:
        return format_number(self.value)


@dataclass(slots=True)
class StringLiteral(Expr):
    value: str

    @property
    def type(self) -> ValueType:
        return ValueType.STRING

    def __str__(self) -> str:
        return quote(self.value)


@dataclass(slots=True)
class DurationExpr(Expr):
    """Arithmetic on durations, in seconds: ``step`` and ``range`` of the query, or an operator over one or two
    operands. It is computed when the query's step is known."""

    op: str  # + - * / % ^ min_of max_of step range
    left: "DurationExpr | NumberLiteral | None" = None
    right: "DurationExpr | NumberLiteral | None" = None
    wrapped: bool = False

    @property
    def type(self) -> ValueType:
        return ValueType.SCALAR

    def children(self) -> Iterator[Expr]:
        yield from (side for side in (self.left, self.right) if side is not None)

    def __str__(self) -> str:
        if self.op in ("step", "range"):
            text = f"{self.op}()"
        elif self.op in ("min_of", "max_of"):
            text = f"{self.op}({self.left}, {self.right})"
        elif self.left is None:
            text = f"{'-' if self.op == '-' else ''}{self.right}"
        else:
            text = f"{self.left} {self.op} {self.right}"
        return f"({text})" if self.wrapped else text


#: Milliseconds, or how to find them.
Duration = int | DurationExpr


def _duration_text(value: Duration) -> str:
    if isinstance(value, DurationExpr):
        return str(value)
    return f"-{format_duration(-value)}" if value < 0 else format_duration(value)


@dataclass(slots=True)
class Timing(Expr):
    """What ``offset`` and ``@`` may follow. ``at`` is ms since the epoch, or ``"start"`` or ``"end"``."""

    offset_ms: Duration = field(default=0, kw_only=True)
    at: int | str | None = field(default=None, kw_only=True)

    def _modifiers(self) -> str:
        text = ""
        if self.at is not None:
            if isinstance(self.at, str):
                text += f" @ {self.at}()"
            else:
                sign = "-" if self.at < 0 else ""
                text += f" @ {sign}{abs(self.at) // 1000}.{abs(self.at) % 1000:03d}"
        if self.offset_ms != 0:
            text += f" offset {_duration_text(self.offset_ms)}"
        return text


@dataclass(slots=True)
class VectorSelector(Timing):
    name: str
    matchers: tuple[Matcher, ...]  # the one of the metric name included
    extension: str = ""  # anchored or smoothed

    @property
    def type(self) -> ValueType:
        return ValueType.VECTOR

    def _selector(self) -> str:
        parts = []
        classic = bool(self.name) and is_classic_name(self.name, metric=True)
        if self.name and not classic:
            parts.append(quote(self.name))
        for m in self.matchers:
            if m.name == METRIC_NAME and m.type is MatchType.EQUAL and self.name and m.value == self.name:
                continue
            parts.append(f"{_label(m.name)}{m.type.value}{quote(m.value)}")
        name = self.name if classic else ""
        return name + ("{" + ",".join(parts) + "}" if parts or not name else "")

    def __str__(self) -> str:
        return self._selector() + self._extension() + self._modifiers()

    def _extension(self) -> str:
        return f" {self.extension}" if self.extension else ""


@dataclass(slots=True)
class MatrixSelector(Expr):
    vector: VectorSelector
    range_ms: Duration

    @property
    def type(self) -> ValueType:
        return ValueType.MATRIX

    def children(self) -> Iterator[Expr]:
        yield self.vector

    def __str__(self) -> str:
        vector = self.vector
        return f"{vector._selector()}[{_duration_text(self.range_ms)}]{vector._extension()}{vector._modifiers()}"


@dataclass(slots=True)
class Subquery(Timing):
    expr: Expr
    range_ms: Duration
    step_ms: Duration  # 0: the default step

    @property
    def type(self) -> ValueType:
        return ValueType.MATRIX

    def children(self) -> Iterator[Expr]:
        yield self.expr

    def __str__(self) -> str:
        step = _duration_text(self.step_ms) if self.step_ms != 0 else ""
        return f"{_atom(self.expr)}[{_duration_text(self.range_ms)}:{step}]{self._modifiers()}"


@dataclass(slots=True)
class Paren(Expr):
    expr: Expr

    @property
    def type(self) -> ValueType:
        return self.expr.type

    def children(self) -> Iterator[Expr]:
        yield self.expr

    def __str__(self) -> str:
        return f"({self.expr})"


@dataclass(slots=True)
class Unary(Expr):
    op: str
    expr: Expr

    @property
    def type(self) -> ValueType:
        return self.expr.type

    def children(self) -> Iterator[Expr]:
        yield self.expr

    def __str__(self) -> str:
        inner = str(self.expr)
        if isinstance(self.expr, Binary) and self.expr.op != "^":
            inner = f"({inner})"
        return self.op + inner


@dataclass(slots=True)
class VectorMatching:
    """How the sides of a binary operation find each other."""

    on: bool = False
    labels: tuple[str, ...] = ()
    card: str = "one-to-one"  # many-to-one, one-to-many, many-to-many
    include: tuple[str, ...] = ()
    fill_left: float | None = None
    fill_right: float | None = None

    def __str__(self) -> str:
        text = ""
        if self.labels or self.on or self.card in ("many-to-one", "one-to-many"):
            text += f" {'on' if self.on else 'ignoring'} ({', '.join(map(_label, self.labels))})"
        if self.card in ("many-to-one", "one-to-many"):
            side = "group_left" if self.card == "many-to-one" else "group_right"
            text += f" {side} ({', '.join(map(_label, self.include))})"
        if self.fill_left is not None and self.fill_left == self.fill_right:
            return text + f" fill ({format_number(self.fill_left)})"
        if self.fill_left is not None:
            text += f" fill_left ({format_number(self.fill_left)})"
        if self.fill_right is not None:
            text += f" fill_right ({format_number(self.fill_right)})"
        return text


@dataclass(slots=True)
class Binary(Expr):
    op: str
    left: Expr
    right: Expr
    matching: VectorMatching | None = None  # only between two vectors
    bool: bool = False

    @property
    def type(self) -> ValueType:
        both = self.left.type is ValueType.SCALAR and self.right.type is ValueType.SCALAR
        return ValueType.SCALAR if both else ValueType.VECTOR

    def children(self) -> Iterator[Expr]:
        yield self.left
        yield self.right

    def __str__(self) -> str:
        modifiers = " bool" if self.bool else ""
        modifiers += str(self.matching) if self.matching is not None else ""
        left, right = str(self.left), str(self.right)
        level = PRECEDENCE[self.op]
        if isinstance(self.left, Binary):
            inner = PRECEDENCE[self.left.op]
            if inner < level or (inner == level and self.op == "^"):
                left = f"({left})"
        elif isinstance(self.left, Unary) and self.op == "^":
            left = f"({left})"
        if isinstance(self.right, Binary):
            inner = PRECEDENCE[self.right.op]
            if inner < level or (inner == level and self.op != "^"):
                right = f"({right})"
        return f"{left} {self.op}{modifiers} {right}"


@dataclass(slots=True)
class Aggregate(Expr):
    op: str
    expr: Expr
    param: Expr | None = None
    grouping: tuple[str, ...] = ()
    without: bool = False

    @property
    def type(self) -> ValueType:
        return ValueType.VECTOR

    def children(self) -> Iterator[Expr]:
        if self.param is not None:
            yield self.param
        yield self.expr

    def __str__(self) -> str:
        group = ""
        if self.without or self.grouping:
            group = f" {'without' if self.without else 'by'} ({', '.join(map(_label, self.grouping))}) "
        param = f"{self.param}, " if self.param is not None else ""
        return f"{self.op}{group}({param}{self.expr})"


@dataclass(slots=True)
class Call(Expr):
    name: str
    args: tuple[Expr, ...]
    returns: ValueType

    @property
    def type(self) -> ValueType:
        return self.returns

    def children(self) -> Iterator[Expr]:
        return iter(self.args)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.args))})"


def _atom(expr: Expr) -> str:
    return f"({expr})" if isinstance(expr, Binary | Unary) else str(expr)


def unwrap(expr: Expr) -> Expr:
    """Without the parentheses around it."""
    while isinstance(expr, Paren):
        expr = expr.expr
    return expr
