"""PromQL text to tree: lexer, Pratt parser and type check, after Prometheus 3.14's grammar (stable part).

Messages and their wording follow promql/parser of Prometheus. Positions are kept on every node.
"""

import math
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from threading import Lock
from typing import NoReturn

import re2

from flyball.errors import QueryError
from flyball.model.labels import METRIC_NAME, Matcher, MatchType
from flyball.promql.catalog import AGGREGATORS, FUNCTIONS, NOT_YET
from flyball.promql.syntax import (
    COMPARISONS,
    PRECEDENCE,
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Position,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorMatching,
    VectorSelector,
    quote,
    unwrap,
)

CACHE_ENTRIES_MAX = 1024
DEPTH_MAX = 200
TEXT_MAX = 1_000_000

_UNITS_MS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_TOKENS = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |(?P<duration>[0-9]+(?:ms|[smhdwy])(?:[0-9]+(?:ms|[smhdwy]))*(?![0-9A-Za-z_.]))
    |(?P<number>(?:0[xX][0-9a-fA-F_]+|(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)(?![0-9A-Za-z_.]))
    |(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    |(?P<op>=~|!~|==|!=|<=|>=|[-+*/%^<>=(){}\[\],@:])
    """,
    re.VERBOSE,
)
_DURATION_PART = re.compile(r"([0-9]+)(ms|[smhdwy])")
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))", re.S
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_MATCH_TYPES = {"=": MatchType.EQUAL, "!=": MatchType.NOT_EQUAL, "=~": MatchType.REGEX, "!~": MatchType.NOT_REGEX}


@dataclass(slots=True)
class _Token:
    kind: str  # duration, number, name, string, op, end
    text: str
    start: int
    end: int

    @property
    def low(self) -> str:
        return self.text.lower()


def _error(text: str, at: int, message: str) -> NoReturn:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    raise QueryError(f"{line}:{column}: parse error: {message}")


def _lex(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, brackets = 0, 0
    while at < len(text):
        if brackets and text[at] == ":":  # [5m:1m], not a metric name that begins with a colon
            tokens.append(_Token("op", ":", at, at + 1))
            at += 1
            continue
        found = _TOKENS.match(text, at)
        if found is None:
            ch = text[at]
            if ch in "\"'`":
                _error(text, at, "unterminated quoted string" if ch != "`" else "unterminated raw string")
            if ch.isdigit() or ch == ".":
                bad = re.compile(r"[0-9A-Za-z_.]+").match(text, at)
                _error(text, at, f"bad number or duration syntax: {quote(bad.group() if bad else ch)}")
            _error(text, at, f"unexpected character: {ch!r}")
        kind = found.lastgroup or ""
        if kind != "space":
            tokens.append(_Token(kind, found.group(), at, found.end()))
            if kind == "op":
                brackets += {"[": 1, "]": -1}.get(found.group(), 0)
        at = found.end()
    tokens.append(_Token("end", "", len(text), len(text)))
    return tokens


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > TEXT_MAX:
            raise QueryError(f"the expression has {len(text)} characters; at most {TEXT_MAX} are read")
        self.text = text
        self.tokens = _lex(text)
        self.at = 0
        self.depth = 0

    # --- tokens

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def is_op(self, text: str) -> bool:
        token = self.tokens[self.at]
        return token.kind == "op" and token.text == text

    def is_word(self, *words: str) -> bool:
        token = self.tokens[self.at]
        return token.kind == "name" and token.low in words

    def expect(self, text: str, context: str) -> _Token:
        if not self.is_op(text):
            self.unexpected(context, quote(text))
        return self.take()

    def fail(self, at: int, message: str) -> NoReturn:
        _error(self.text, at, message)

    def unexpected(self, context: str, expected: str = "") -> NoReturn:
        token = self.token
        what = {"end": "end of input", "name": f"identifier {quote(token.text)}", "op": quote(token.text)}.get(
            token.kind, f"{token.kind} {quote(token.text)}"
        )
        message = f"unexpected {what}" + (f" in {context}" if context else "")
        self.fail(token.start, message + (f", expected {expected}" if expected else ""))

    def end_of_last(self) -> int:
        return self.tokens[self.at - 1].end

    # --- expressions

    def parse(self) -> Expr:
        if self.token.kind == "end":
            self.fail(0, "no expression found in input")
        expr = self.expression(0)
        if self.token.kind != "end":
            self.unexpected("")
        return expr

    def expression(self, level_min: int) -> Expr:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            self.fail(self.token.start, f"the expression is nested more than {DEPTH_MAX} deep")
        left = self.unary()
        while True:
            op = self.operator()
            if op is None or PRECEDENCE[op] < level_min:
                break
            left = self.binary(left, op)
        self.depth -= 1
        return left

    def operator(self) -> str | None:
        token = self.token
        if token.kind == "op" and token.text in PRECEDENCE:
            return token.text
        if token.kind == "name" and token.low in ("and", "or", "unless", "atan2"):
            return token.low
        return None

    def unary(self) -> Expr:
        token = self.token
        if token.kind == "op" and token.text in "+-":
            self.take()
            inner = self.expression(PRECEDENCE["^"])
            pos = (token.start, inner.pos[1])
            if isinstance(inner, NumberLiteral):
                return replace(inner, value=-inner.value if token.text == "-" else inner.value, pos=pos)
            return check(self, Unary(token.text, inner, pos=pos))
        return self.postfix(self.primary())

    def binary(self, left: Expr, op: str) -> Expr:
        operator = self.take()
        returns_bool = False
        if self.is_word("bool"):
            self.take()
            returns_bool = True
        matching = VectorMatching(card="many-to-many" if op in SET_OPERATORS else "one-to-one")
        explicit = False
        if self.is_word("on", "ignoring"):
            matching.on = self.take().low == "on"
            matching.labels = self.label_list("grouping opts")
            explicit = True
            if self.is_word("group_left", "group_right"):
                side = self.take()
                matching.card = "many-to-one" if side.low == "group_left" else "one-to-many"
                if op in SET_OPERATORS:
                    self.fail(side.start, f"no grouping allowed for {quote(op)} operation")
                if self.is_op("("):
                    matching.include = self.label_list("grouping opts")
        right = self.expression(PRECEDENCE[op] + (op != "^"))
        node = Binary(op, left, right, matching, returns_bool, pos=(left.pos[0], right.pos[1]))
        return check(self, node, operator=operator, explicit=explicit)

    def primary(self) -> Expr:
        token = self.token
        if token.kind == "number":
            self.take()
            return NumberLiteral(self.number(token), pos=(token.start, token.end))
        if token.kind == "duration":
            self.take()
            return NumberLiteral(self.duration_text(token) / 1000, True, pos=(token.start, token.end))
        if token.kind == "string":
            self.take()
            return StringLiteral(self.string(token), pos=(token.start, token.end))
        if self.is_op("("):
            self.take()
            inner = self.expression(0)
            close = self.expect(")", "paren expression")
            return Paren(inner, pos=(token.start, close.end))
        if self.is_op("{"):
            return self.selector(None)
        if token.kind != "name":
            self.unexpected("")
        following = self.tokens[self.at + 1]
        calls = following.kind == "op" and following.text == "("
        if token.low in AGGREGATORS and (calls or (following.kind == "name" and following.low in ("by", "without"))):
            return self.aggregate()
        if token.low in ("inf", "nan") and not calls:
            self.take()
            return NumberLiteral(math.nan if token.low == "nan" else float(token.low), pos=(token.start, token.end))
        if calls:
            return self.call()
        if token.low in ("and", "or", "unless", "atan2", "bool", "on", "ignoring") and token.low != token.text.lower():
            self.unexpected("")
        return self.selector(self.take())

    def postfix(self, expr: Expr) -> Expr:
        while True:
            if self.is_op("["):
                expr = self.range_of(expr)
            elif self.is_word("offset"):
                keyword = self.take()
                sign = -1 if self.is_op("-") else 1
                if self.is_op("-") or self.is_op("+"):
                    self.take()
                offset = sign * self.duration("offset", positive=False)
                self.timed(expr, keyword, offset_ms=offset)
            elif self.is_op("@"):
                keyword = self.take()
                self.timed(expr, keyword, at=self.at_time())
            else:
                return expr

    def timed(self, expr: Expr, keyword: _Token, offset_ms: int | None = None, at: int | str | None = None) -> None:
        target = expr.vector if isinstance(expr, MatrixSelector) else expr
        if not isinstance(target, VectorSelector | Subquery):
            what = "offset modifier" if offset_ms is not None else "@ modifier"
            kinds = "an instant vector selector or range vector selector or a subquery"
            self.fail(expr.pos[0], f"{what} must be preceded by {kinds}")
        if offset_ms is not None:
            if target.offset_ms:
                self.fail(keyword.start, "offset may not be set multiple times")
            target.offset_ms = offset_ms
        else:
            if target.at is not None:
                self.fail(keyword.start, "@ <timestamp> may not be set multiple times")
            target.at = at
        target.pos = (target.pos[0], self.end_of_last())
        expr.pos = (expr.pos[0], self.end_of_last())

    def at_time(self) -> int | str:
        if self.is_word("start", "end"):
            word = self.take().low
            self.expect("(", "@")
            self.expect(")", "@")
            return word
        sign = 1
        if self.is_op("-") or self.is_op("+"):
            sign = -1 if self.take().text == "-" else 1
        token = self.token
        if token.kind == "number":
            value = self.number(self.take())
        elif token.kind == "duration":
            value = self.duration_text(self.take()) / 1000
        elif self.is_word("inf", "nan"):
            value = float(self.take().low)
        else:
            self.unexpected("@", "timestamp")
        if not abs(value) < 2**63 / 1000:
            self.fail(token.start, f"timestamp out of bounds for @ modifier: {value:f}")
        scaled = sign * value * 1000
        return int(scaled + 0.5) if scaled >= 0 else -int(0.5 - scaled)

    def range_of(self, expr: Expr) -> Expr:
        bracket = self.take()
        range_ms = self.duration("range", positive=True)
        if self.is_op(":"):
            self.take()
            step_ms = 0 if self.is_op("]") else self.duration("subquery step", positive=True)
            close = self.expect("]", "subquery selector")
            if expr.type is not ValueType.VECTOR:
                self.fail(expr.pos[0], f"subquery is only allowed on instant vector, got {expr.type.value} instead")
            return Subquery(expr, range_ms, step_ms, pos=(expr.pos[0], close.end))
        close = self.expect("]", "matrix selector")
        if not isinstance(expr, VectorSelector):
            self.fail(bracket.start, "ranges only allowed for vector selectors")
        if expr.offset_ms:
            self.fail(bracket.start, "no offset modifiers allowed before range")
        if expr.at is not None:
            self.fail(bracket.start, "no @ modifiers allowed before range")
        return MatrixSelector(expr, range_ms, pos=(expr.pos[0], close.end))

    def selector(self, name: _Token | None) -> VectorSelector:
        start = name.start if name else self.token.start
        metric = name.text if name else ""
        matchers: list[Matcher] = []
        if self.is_op("{"):
            self.take()
            while not self.is_op("}"):
                metric = self.matcher(metric, matchers)
                if not self.is_op(","):
                    break
                self.take()
            self.expect("}", "label matching")
        if metric:
            for m in matchers:
                if m.name == METRIC_NAME and m.type is MatchType.EQUAL:
                    both = f"{quote(metric)} or {quote(m.value)}"
                    self.fail(start, f"metric name must not be set twice: {both}")
            matchers.append(Matcher(MatchType.EQUAL, METRIC_NAME, metric))
        if all(m.matches("") for m in matchers):
            self.fail(start, "vector selector must contain at least one non-empty matcher")
        return VectorSelector(metric, tuple(matchers), pos=(start, self.end_of_last()))

    def matcher(self, metric: str, matchers: list[Matcher]) -> str:
        token = self.token
        if token.kind == "string":
            self.take()
            label = self.string(token)
            if self.is_op(",") or self.is_op("}"):
                if metric:
                    self.fail(token.start, f"metric name must not be set twice: {quote(metric)} or {quote(label)}")
                return label
        elif token.kind == "name" and ":" not in token.text:
            self.take()
            label = token.text
        else:
            self.unexpected("label matching", 'identifier or "}"')
        operator = self.token
        kind = _MATCH_TYPES.get(operator.text) if operator.kind == "op" else None
        if kind is None:
            self.unexpected("label matching", "label matching operator")
        self.take()
        value = self.token
        if value.kind != "string":
            self.unexpected("label matching", "string")
        self.take()
        try:
            matchers.append(Matcher(kind, label, self.string(value)))
        except re2.error as exc:
            self.fail(operator.start, f"error parsing regexp: {exc}")
        except UnicodeEncodeError:  # bytes of an \\x escape
            self.fail(operator.start, f"error parsing regexp: invalid UTF-8: {value.text}")
        return metric

    def label_list(self, context: str) -> tuple[str, ...]:
        self.expect("(", context)
        labels: list[str] = []
        while not self.is_op(")"):
            token = self.token
            if token.kind == "name" and ":" not in token.text:
                labels.append(token.text)
            elif token.kind == "string":
                labels.append(self.string(token))
            else:
                self.unexpected(context, "label")
            self.take()
            if not self.is_op(","):
                break
            self.take()
        self.expect(")", context)
        return tuple(labels)

    def arguments(self, context: str) -> list[Expr]:
        self.expect("(", context)
        args: list[Expr] = []
        while not self.is_op(")"):
            args.append(self.expression(0))
            if not self.is_op(","):
                break
            comma = self.take()
            if self.is_op(")"):
                self.fail(comma.start, "trailing commas not allowed in function call args")
        self.expect(")", context)
        return args

    def aggregate(self) -> Expr:
        token = self.take()
        op = token.low
        node = Aggregate(op, NumberLiteral(0))
        before = self.is_word("by", "without")
        if before:
            node.without = self.take().low == "without"
            node.grouping = self.label_list("grouping opts")
        args = self.arguments("aggregation")
        if not before and self.is_word("by", "without"):
            node.without = self.take().low == "without"
            node.grouping = self.label_list("grouping opts")
        node.pos = (token.start, self.end_of_last())
        wanted = 2 if AGGREGATORS[op] is not None else 1
        if not args:
            self.fail(token.start, "no arguments for aggregate expression provided")
        if len(args) != wanted:
            message = "wrong number of arguments for aggregate expression provided"
            self.fail(token.start, f"{message}, expected {wanted}, got {len(args)}")
        node.expr = args[-1]
        node.param = args[0] if wanted == 2 else None
        return check(self, node)

    def call(self) -> Expr:
        token = self.take()
        name = token.text
        signature = FUNCTIONS.get(name)
        if signature is None:
            if name in NOT_YET:
                self.fail(token.start, f"function {quote(name)} is experimental in Prometheus and not available here")
            self.fail(token.start, f"unknown function with name {quote(name)}")
        args = self.arguments(f"call to function {quote(name)}")
        node = Call(name, tuple(args), signature.returns, pos=(token.start, self.end_of_last()))
        return check(self, node)

    # --- literals

    def number(self, token: _Token) -> float:
        digits = token.text.replace("_", "")
        if token.text.endswith("_") or "__" in token.text:
            self.fail(token.start, f"error parsing number: invalid syntax {quote(token.text)}")
        if digits[:2].lower() == "0x":
            return float(int(digits, 16))
        if len(digits) > 1 and digits[0] == "0" and digits.isdigit() and not set(digits) - set("01234567"):
            return float(int(digits, 8))
        return float(digits)

    def duration_text(self, token: _Token) -> int:
        parts = _DURATION_PART.findall(token.text)
        order = [list(_UNITS_MS).index(unit) for _, unit in parts]
        if order != sorted(set(order)):
            self.fail(token.start, f"bad number or duration syntax: {quote(token.text)}")
        total = sum(int(amount) * _UNITS_MS[unit] for amount, unit in parts)
        if total >= 2**63 // 1_000_000:
            self.fail(token.start, f"duration out of range: {quote(token.text)}")
        return total

    def duration(self, context: str, *, positive: bool) -> int:
        token = self.token
        if token.kind == "duration":
            total = self.duration_text(self.take())
        elif token.kind == "number":
            value = self.number(self.take())
            if not abs(value) < 9_223_372_036:
                self.fail(token.start, "duration out of range")
            total = round(value * 1000)
        else:
            self.unexpected(context, "number or duration")
        if positive and total <= 0:
            self.fail(token.start, "duration must be greater than 0")
        return total

    def string(self, token: _Token) -> str:
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
                self.fail(token.start, f"unknown escape sequence U+{ord(bad or ' '):04X} {bad!r}")
            if hexa is not None or octal is not None:
                byte = int(hexa, 16) if hexa is not None else int(octal, 8)
                if byte > 255:
                    self.fail(token.start, f"escape sequence is an invalid octal value: {byte}")
                raw = raw or byte > 127
                return chr(byte) if byte < 128 else chr(0xDC00 + byte)
            code = int(four or eight, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                self.fail(token.start, "escape sequence is an invalid Unicode code point")
            return chr(code)

        text = _ESCAPE.sub(escape, body)
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") if raw else text


# --- type check


def _expect(parser: _Parser, expr: Expr, wanted: ValueType, context: str) -> None:
    if expr.type is not wanted:
        parser.fail(expr.pos[0], f"expected type {wanted.documented} in {context}, got {expr.type.documented}")


def check(parser: _Parser, expr: Expr, *, operator: _Token | None = None, explicit: bool = False) -> Expr:
    """The node itself, once its operands have the types it takes."""
    if isinstance(expr, Unary):
        if expr.type not in (ValueType.SCALAR, ValueType.VECTOR):
            message = "unary expression only allowed on expressions of type scalar or instant vector"
            parser.fail(expr.pos[0], f"{message}, got {quote(expr.type.documented)}")
    elif isinstance(expr, Aggregate):
        _expect(parser, expr.expr, ValueType.VECTOR, "aggregation expression")
        wanted = AGGREGATORS[expr.op]
        if wanted is not None and expr.param is not None:
            _expect(parser, expr.param, wanted, "aggregation parameter")
    elif isinstance(expr, Call):
        _check_call(parser, expr)
    elif isinstance(expr, Binary):
        _check_binary(parser, expr, operator, explicit)
    return expr


def _check_call(parser: _Parser, call: Call) -> None:
    signature = FUNCTIONS[call.name]
    given, wanted, quoted = len(call.args), len(signature.args), quote(call.name)
    if signature.variadic == 0:
        if given != wanted:
            parser.fail(call.pos[0], f"expected {wanted} argument(s) in call to {quoted}, got {given}")
    else:
        fewest = wanted - 1
        if given < fewest:
            parser.fail(call.pos[0], f"expected at least {fewest} argument(s) in call to {quoted}, got {given}")
        most = fewest + signature.variadic
        if signature.variadic > 0 and given > most:
            parser.fail(call.pos[0], f"expected at most {most} argument(s) in call to {quoted}, got {given}")
    for i, arg in enumerate(call.args):
        _expect(parser, arg, signature.args[min(i, wanted - 1)], f"call to function {quoted}")


def _check_binary(parser: _Parser, node: Binary, operator: _Token | None, explicit: bool) -> None:
    at = operator.start if operator else node.pos[0]
    types = (node.left.type, node.right.type)
    scalar = types == (ValueType.SCALAR, ValueType.SCALAR)
    if node.bool and node.op not in COMPARISONS:
        parser.fail(at, "bool modifier can only be used on comparison operators")
    if node.op in COMPARISONS and scalar and not node.bool:
        parser.fail(at, "comparisons between scalars must use BOOL modifier")
    m = node.matching
    if m is not None and m.on and m.card in ("many-to-one", "one-to-many"):
        for label in m.labels:
            if label in m.include:
                parser.fail(at, f"label {quote(label)} must not occur in ON and GROUP clause at once")
    for side in (node.left, node.right):
        if side.type not in (ValueType.SCALAR, ValueType.VECTOR):
            parser.fail(side.pos[0], "binary expression must contain only scalar and instant vector types")
    if types != (ValueType.VECTOR, ValueType.VECTOR):
        if explicit and m is not None and m.labels:
            parser.fail(node.pos[0], "vector matching only allowed between instant vectors")
        node.matching = None
        if node.op in SET_OPERATORS:
            parser.fail(at, f"set operator {quote(node.op)} not allowed in binary scalar expression")


# --- entry

_cache: OrderedDict[str, Expr] = OrderedDict()
_cache_lock = Lock()


def parse(text: str) -> Expr:
    """The tree of an expression. Trees are shared through a bounded cache: never change one.

    Raises:
        QueryError: the text is not an expression; the message begins with ``line:column``.
    """
    with _cache_lock:
        found = _cache.get(text)
        if found is not None:
            _cache.move_to_end(text)
            return found
    expr = _Parser(text).parse()
    with _cache_lock:
        _cache[text] = expr
        while len(_cache) > CACHE_ENTRIES_MAX:
            _cache.popitem(last=False)
    return expr


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of a series selector (``match[]``), without a range, offset or ``@``.

    Raises:
        QueryError: the text is not a plain series selector.
    """
    expr = unwrap(parse(text))
    if not isinstance(expr, VectorSelector) or expr.offset_ms or expr.at is not None:
        raise QueryError(f'"{text}" is not a series selector; write one like up{{job="x"}}')
    return expr.matchers


def line_column(text: str, pos: Position) -> str:
    """``line:column`` of a position, as annotations carry it."""
    at = pos[0]
    line = text.count("\n", 0, at) + 1
    return f"{line}:{at - (text.rfind(chr(10), 0, at) + 1) + 1}"
