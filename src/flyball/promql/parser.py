"""PromQL text to tree: a Pratt parser after Prometheus 3.14's grammar.

Messages and their wording follow promql/parser of Prometheus. Positions are kept on every node. What Prometheus
has behind a switch is an error here without it.
"""

import math
from collections import OrderedDict
from dataclasses import replace
from threading import Lock
from typing import NoReturn

import re2

from flyball.errors import QueryError
from flyball.model.labels import METRIC_NAME, Matcher, MatchType
from flyball.promql.catalog import AGGREGATORS, EXPERIMENTAL, FUNCTIONS
from flyball.promql.checking import check
from flyball.promql.features import STABLE, Features
from flyball.promql.lexer import Token, duration_ms, fail, number_of, string_of, tokens_of
from flyball.promql.syntax import (
    PRECEDENCE,
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Duration,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorMatching,
    VectorSelector,
    quote,
    unwrap,
)

CACHE_ENTRIES_MAX = 1024
#: Expressions within expressions; reading one takes five calls.
DEPTH_MAX = 120
#: Operators in a row without parentheses make a tree as deep as they are many. What walks over a tree takes
#: three calls for an operator and up to seven for a function or a subquery, of the thousand that Python allows.
CHAIN_MAX, _CALLS_MAX = 250, 760
TEXT_MAX = 1_000_000
_SECONDS_MAX = 2**63 / 1e9

_MATCH_TYPES = {"=": MatchType.EQUAL, "!=": MatchType.NOT_EQUAL, "=~": MatchType.REGEX, "!~": MatchType.NOT_REGEX}
_DURATION_WORDS = ("step", "range", "min_of", "max_of")
_OPERATOR_WORDS = ("and", "or", "unless", "atan2")


class _Parser:
    def __init__(self, text: str, features: Features) -> None:
        if len(text) > TEXT_MAX:
            raise QueryError(f"the expression has {len(text)} characters; at most {TEXT_MAX} are read")
        self.text = text
        self.features = features
        self.tokens = tokens_of(text)
        self.at = 0
        self.depth = 0

    # --- tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def is_op(self, *texts: str) -> bool:
        token = self.tokens[self.at]
        return token.kind == "op" and token.text in texts

    def is_word(self, *words: str) -> bool:
        token = self.tokens[self.at]
        return token.kind == "name" and token.low in words

    def is_called(self) -> bool:
        """Whether the token is followed by an opening parenthesis."""
        following = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        return following.kind == "op" and following.text == "("

    def expect(self, text: str, context: str) -> Token:
        if not self.is_op(text):
            self.unexpected(context, quote(text))
        return self.take()

    def fail(self, at: int, message: str) -> NoReturn:
        fail(self.text, at, message)

    def unexpected(self, context: str, expected: str = "") -> NoReturn:
        token = self.token
        what = {"end": "end of input", "name": f"identifier {quote(token.text)}", "op": quote(token.text)}.get(
            token.kind, f"{token.kind} {quote(token.text)}"
        )
        message = f"unexpected {what}" + (f" in {context}" if context else "")
        self.fail(token.start, message + (f", expected {expected}" if expected else ""))

    def end_of_last(self) -> int:
        return self.tokens[self.at - 1].end

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            self.fail(self.token.start, f"the expression is nested more than {DEPTH_MAX} deep")

    def one_more(self, operators: int) -> int:
        if operators == CHAIN_MAX:
            message = f"more than {CHAIN_MAX} operators in a row; put parts of the chain in parentheses"
            self.fail(self.token.start, f"{message}, or record them by rules")
        return operators + 1

    # --- expressions

    def parse(self) -> Expr:
        if self.token.kind == "end":
            self.fail(0, "no expression found in input")
        expr = self.expression(0)
        if self.token.kind != "end":
            self.unexpected("")
        return expr

    def expression(self, level_min: int) -> Expr:
        self.deeper()
        left = self.unary()
        operators = 0
        while True:
            op = self.operator()
            if op is None or PRECEDENCE[op] < level_min:
                break
            operators = self.one_more(operators)
            left = self.binary(left, op)
        self.depth -= 1
        return left

    def operator(self) -> str | None:
        token = self.token
        if token.kind == "op" and token.text in PRECEDENCE:
            return token.text
        if token.kind == "name" and token.low in _OPERATOR_WORDS:
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
            return Unary(token.text, inner, pos=pos)
        return self.postfix(self.primary())

    def binary(self, left: Expr, op: str) -> Expr:
        self.take()
        returns_bool = False
        if self.is_word("bool"):
            self.take()
            returns_bool = True
        matching = self.matching(op)
        right = self.expression(PRECEDENCE[op] + (op != "^"))
        return Binary(op, left, right, matching, returns_bool, pos=(left.pos[0], right.pos[1]))

    def matching(self, op: str) -> VectorMatching:
        matching = VectorMatching(card="many-to-many" if op in SET_OPERATORS else "one-to-one")
        if self.is_word("on", "ignoring"):
            matching.on = self.take().low == "on"
            matching.labels = self.label_list("grouping opts")
            if self.is_word("group_left", "group_right"):
                side = self.take()
                matching.card = "many-to-one" if side.low == "group_left" else "one-to-many"
                if op in SET_OPERATORS:
                    self.fail(side.start, f"no grouping allowed for {quote(op)} operation")
                if self.is_op("("):
                    matching.include = self.label_list("grouping opts")
        while self.is_word("fill", "fill_left", "fill_right") and self.is_called():
            word = self.token
            if not self.features.binop_fill_modifiers:
                self.fail(word.start, "binop fill modifiers are experimental and not enabled")
            left, right = word.low != "fill_right", word.low != "fill_left"
            if (left and matching.fill_left is not None) or (right and matching.fill_right is not None):
                self.unexpected("")
            self.take()
            value = self.fill_value()
            matching.fill_left = value if left else matching.fill_left
            matching.fill_right = value if right else matching.fill_right
        return matching

    def fill_value(self) -> float:
        self.expect("(", "fill value")
        sign = -1.0 if self.is_op("-") else 1.0
        if self.is_op("-", "+"):
            self.take()
        token = self.token
        if token.kind == "number":
            value = number_of(self.text, self.take())
        elif token.kind == "duration":
            value = duration_ms(self.text, self.take()) / 1000
        elif self.is_word("inf", "nan"):
            value = math.nan if self.take().low == "nan" else math.inf
        else:
            self.unexpected("fill value", "number")
        self.expect(")", "fill value")
        return sign * value

    def primary(self) -> Expr:
        token = self.token
        pos = (token.start, token.end)
        if token.kind == "number":
            return NumberLiteral(number_of(self.text, self.take()), pos=pos)
        if token.kind == "duration":
            return NumberLiteral(duration_ms(self.text, self.take()) / 1000, True, pos=pos)
        if token.kind == "string":
            return StringLiteral(string_of(self.text, self.take()), pos=pos)
        if self.is_op("("):
            self.take()
            inner = self.expression(0)
            close = self.expect(")", "paren expression")
            return Paren(inner, pos=(token.start, close.end))
        if self.is_op("{"):
            return self.selector(None)
        if token.kind != "name":
            self.unexpected("")
        called = self.is_called()
        following = self.tokens[self.at + 1]
        if token.low in AGGREGATORS and (called or (following.kind == "name" and following.low in ("by", "without"))):
            return self.aggregate()
        if token.low in ("inf", "nan") and not called:
            self.take()
            return NumberLiteral(math.nan if token.low == "nan" else math.inf, pos=pos)
        if called:
            return self.call()
        return self.selector(self.take())

    def postfix(self, expr: Expr) -> Expr:
        while True:
            if self.is_op("["):
                expr = self.range_of(expr)
            elif self.is_word("offset"):
                keyword = self.take()
                self.timed(expr, keyword, offset_ms=self.offset())
            elif self.is_op("@"):
                keyword = self.take()
                self.timed(expr, keyword, at=self.at_time())
            elif self.is_word("anchored", "smoothed"):
                self.extended(expr, self.take())
            else:
                return expr

    def timed(self, expr: Expr, keyword: Token, offset_ms: Duration | None = None, at: int | str | None = None) -> None:
        target = expr.vector if isinstance(expr, MatrixSelector) else expr
        if not isinstance(target, VectorSelector | Subquery):
            what = "offset modifier" if offset_ms is not None else "@ modifier"
            kinds = "an instant vector selector or range vector selector or a subquery"
            self.fail(expr.pos[0], f"{what} must be preceded by {kinds}")
        if offset_ms is not None:
            if target.offset_ms != 0:
                self.fail(keyword.start, "offset may not be set multiple times")
            target.offset_ms = offset_ms
        else:
            if target.at is not None:
                self.fail(keyword.start, "@ <timestamp> may not be set multiple times")
            target.at = at
        target.pos = (target.pos[0], self.end_of_last())
        expr.pos = (expr.pos[0], self.end_of_last())

    def extended(self, expr: Expr, keyword: Token) -> None:
        word = keyword.low
        if not self.features.extended_range_selectors:
            self.fail(expr.pos[0], f"{word} modifier is experimental and not enabled")
        if isinstance(expr, Subquery):
            self.fail(expr.pos[0], f"{word} modifier is not supported for subqueries")
        target = expr.vector if isinstance(expr, MatrixSelector) else expr
        if not isinstance(target, VectorSelector):
            self.fail(expr.pos[0], f"{word} modifier not implemented")
        if target.extension not in ("", word):
            self.fail(expr.pos[0], "anchored and smoothed modifiers cannot be used together")
        target.extension = word

    def at_time(self) -> int | str:
        if self.is_word("start", "end"):
            word = self.take().low
            self.expect("(", "@")
            self.expect(")", "@")
            return word
        sign = 1
        if self.is_op("-", "+"):
            sign = -1 if self.take().text == "-" else 1
        token = self.token
        if token.kind == "number":
            value = number_of(self.text, self.take())
        elif token.kind == "duration":
            value = duration_ms(self.text, self.take()) / 1000
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
        range_ms = self.duration("subquery or range selector", "number, duration, step(), or range()")
        if self.is_op(":"):
            self.take()
            step_ms: Duration = 0
            if not self.is_op("]"):
                step_ms = self.duration("subquery selector", 'number, duration, step(), range(), or "]"')
            close = self.expect("]", "subquery selector")
            return Subquery(expr, range_ms, step_ms, pos=(expr.pos[0], close.end))
        if not self.is_op("]"):
            self.unexpected("subquery or range", '":" or "]"')
        close = self.take()
        if not isinstance(expr, VectorSelector):
            self.fail(bracket.start, "ranges only allowed for vector selectors")
        if expr.offset_ms != 0:
            self.fail(bracket.start, "no offset modifiers allowed before range")
        if expr.at is not None:
            self.fail(bracket.start, "no @ modifiers allowed before range")
        return MatrixSelector(expr, range_ms, pos=(expr.pos[0], close.end))

    # --- durations

    def duration(self, context: str, expected: str) -> Duration:
        """A duration above 0, or an expression for one, up to ``:`` or ``]``."""
        node = self.duration_expression(0, context, expected)
        if isinstance(node, DurationExpr):
            return node
        if node.value <= 0:
            self.fail(node.pos[0], "duration must be greater than 0")
        return round(node.value * 1000)

    def offset(self) -> Duration:
        """What follows ``offset``: one operand, maybe with a sign; an operator behind it is not the offset's."""
        start = self.token.start
        sign = self.take().text if self.is_op("-", "+") else ""
        node = self.duration_operand("offset", "number, duration, step(), or range()")
        if isinstance(node, DurationExpr):
            return DurationExpr("-", None, node, pos=(start, node.pos[1])) if sign == "-" else node
        return round(node.value * 1000) * (-1 if sign == "-" else 1)

    def duration_expression(self, level_min: int, context: str, expected: str) -> DurationExpr | NumberLiteral:
        self.deeper()
        start = self.token.start
        left: DurationExpr | NumberLiteral
        if self.is_op("-", "+"):
            sign = self.take().text
            left = self.duration_expression(PRECEDENCE["*"], context, expected)
            if sign == "-" and isinstance(left, DurationExpr):
                left = DurationExpr("-", None, left, pos=(start, left.pos[1]))
            elif sign == "-" and isinstance(left, NumberLiteral):
                left = replace(left, value=-left.value, pos=(start, left.pos[1]))
        else:
            left = self.duration_operand(context, expected)
        operators = 0
        while self.is_op("+", "-", "*", "/", "%", "^") and PRECEDENCE[self.token.text] >= level_min:
            operators = self.one_more(operators)
            operator = self.take()
            level = PRECEDENCE[operator.text] + (operator.text != "^")
            right = self.duration_expression(level, context, expected)
            if operator.text in "/%" and isinstance(right, NumberLiteral) and right.value == 0:
                self.fail(operator.start, f"{'division' if operator.text == '/' else 'modulo'} by zero")
            left = DurationExpr(operator.text, left, right, pos=(left.pos[0], right.pos[1]))
        self.depth -= 1
        return left

    def duration_operand(self, context: str, expected: str) -> DurationExpr | NumberLiteral:
        token = self.token
        pos = (token.start, token.end)
        if token.kind in ("duration", "number"):
            self.take()
            value = duration_ms(self.text, token) / 1000 if token.kind == "duration" else number_of(self.text, token)
            if not abs(value) <= _SECONDS_MAX:
                self.fail(token.start, "duration out of range")
            return NumberLiteral(value, token.kind == "duration", pos=pos)
        if self.is_op("("):
            self.take()
            node = self.duration_expression(0, context, expected)
            close = self.expect(")", context)
            return replace(node, wrapped=True, pos=(token.start, close.end)) if isinstance(node, DurationExpr) else node
        if not self.is_word(*_DURATION_WORDS) or not self.is_called():
            self.unexpected(context, expected)
        self.take()
        self.expect("(", context)
        left = right = None
        if token.low in ("min_of", "max_of"):
            left = self.duration_expression(0, context, expected)
            self.expect(",", context)
            right = self.duration_expression(0, context, expected)
        close = self.expect(")", context)
        return DurationExpr(token.low, left, right, pos=(token.start, close.end))

    # --- selectors

    def selector(self, name: Token | None) -> VectorSelector:
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
        return VectorSelector(metric, tuple(matchers), pos=(start, self.end_of_last()))

    def matcher(self, metric: str, matchers: list[Matcher]) -> str:
        token = self.token
        if token.kind == "string":
            self.take()
            label = string_of(self.text, token)
            if self.is_op(",", "}"):
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
            matchers.append(Matcher(kind, label, string_of(self.text, value)))
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
                labels.append(string_of(self.text, token))
            else:
                self.unexpected(context, "label")
            self.take()
            if not self.is_op(","):
                break
            self.take()
        self.expect(")", context)
        return tuple(labels)

    # --- calls

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
        if op in EXPERIMENTAL and not self.features.experimental_functions:
            switch = "--enable-feature=promql-experimental-functions"
            self.fail(token.start, f"{op}() is experimental and must be enabled with {switch}")
        wanted = 2 if AGGREGATORS[op] is not None else 1
        if not args:
            self.fail(token.start, "no arguments for aggregate expression provided")
        if len(args) != wanted:
            message = "wrong number of arguments for aggregate expression provided"
            self.fail(token.start, f"{message}, expected {wanted}, got {len(args)}")
        node.expr = args[-1]
        node.param = args[0] if wanted == 2 else None
        return node

    def call(self) -> Expr:
        token = self.take()
        name = token.low if token.low in _DURATION_WORDS or token.low in ("start", "end") else token.text
        signature = FUNCTIONS.get(name)
        if signature is None:
            self.fail(token.start, f"unknown function with name {quote(name)}")
        if name in EXPERIMENTAL and not self.features.experimental_functions:
            self.fail(token.start, f"function {quote(name)} is not enabled")
        args = self.arguments(f"call to function {quote(name)}")
        return Call(name, tuple(args), signature.returns, pos=(token.start, self.end_of_last()))


# --- entry

_cache: OrderedDict[tuple[str, Features], Expr] = OrderedDict()
_cache_lock = Lock()


def parse(text: str, features: Features = STABLE) -> Expr:
    """The tree of an expression. Trees are shared through a bounded cache: never change one.

    Raises:
        QueryError: the text is not an expression; the message begins with ``line:column``.
    """
    key = (text, features)
    with _cache_lock:
        found = _cache.get(key)
        if found is not None:
            _cache.move_to_end(key)
            return found
    expr = _Parser(text, features).parse()
    _check_height(text, expr)
    check(text, expr)
    with _cache_lock:
        _cache[key] = expr
        while len(_cache) > CACHE_ENTRIES_MAX:
            _cache.popitem(last=False)
    return expr


def _check_height(text: str, root: Expr) -> None:
    """
    Raises:
        QueryError: the tree is deeper than can be walked over.
    """
    found = [(root, 0)]
    while found:
        node, above = found.pop()
        calls = above + (3 if isinstance(node, Binary | Unary | Paren) else 7)
        if calls > _CALLS_MAX:
            fail(text, node.pos[0], "too many operators and calls within each other; record parts of them by rules")
        found += [(child, calls) for child in node.children()]


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of a series selector (``match[]``), without a range, offset or ``@``.

    Raises:
        QueryError: the text is not a plain series selector.
    """
    expr = unwrap(parse(text))
    if not isinstance(expr, VectorSelector) or expr.offset_ms != 0 or expr.at is not None:
        raise QueryError(f'"{text}" is not a series selector; write one like up{{job="x"}}')
    return expr.matchers
