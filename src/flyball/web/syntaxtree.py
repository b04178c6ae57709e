"""A parsed expression as the JSON tree that ``/parse_query`` answers (Prometheus' translateAST)."""

from typing import Any

from flyball.promql.catalog import FUNCTIONS
from flyball.promql.syntax import (
    Aggregate,
    Binary,
    Call,
    Duration,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Timing,
    Unary,
    VectorSelector,
    format_number,
)


def document(expr: Expr | None) -> dict[str, Any] | None:
    """The tree; durations and times are in ms."""
    match expr:
        case None:
            return None
        case NumberLiteral():
            return {"type": "numberLiteral", "val": format_number(expr.value)}
        case StringLiteral():
            return {"type": "stringLiteral", "val": expr.value}
        case VectorSelector():
            return {"type": "vectorSelector", **_selector(expr), **_timing(expr)}
        case MatrixSelector():
            vector = expr.vector
            return {"type": "matrixSelector", **_selector(vector), "range": _ms(expr.range_ms), **_timing(vector)}
        case Subquery():
            found = {"type": "subquery", "expr": document(expr.expr), "range": _ms(expr.range_ms)}
            found["step"] = _ms(expr.step_ms)
            return {**found, **_timing(expr)}
        case Paren():
            return {"type": "parenExpr", "expr": document(expr.expr)}
        case Unary():
            return {"type": "unaryExpr", "op": expr.op, "expr": document(expr.expr)}
        case Binary():
            return {
                "type": "binaryExpr",
                "op": expr.op,
                "lhs": document(expr.left),
                "rhs": document(expr.right),
                "matching": _matching(expr),
                "bool": expr.bool,
            }
        case Aggregate():
            return {
                "type": "aggregation",
                "op": expr.op,
                "expr": document(expr.expr),
                "param": document(expr.param),
                "grouping": list(expr.grouping),
                "without": expr.without,
            }
        case Call():
            return {"type": "call", "func": _function(expr), "args": [document(arg) for arg in expr.args]}
    raise TypeError(f"no JSON form of {type(expr).__name__}")


def _ms(duration: Duration) -> int:
    """An expression for a duration has no value before the query's step is known: 0."""
    return duration if isinstance(duration, int) else 0


def _selector(expr: VectorSelector) -> dict[str, Any]:
    matchers = [{"name": m.name, "value": m.value, "type": m.type.value} for m in expr.matchers]
    return {"name": expr.name, "matchers": matchers}


def _timing(expr: Timing) -> dict[str, Any]:
    at = expr.at
    return {
        "offset": _ms(expr.offset_ms),
        "timestamp": at if isinstance(at, int) else None,
        "startOrEnd": at if isinstance(at, str) else None,
    }


def _matching(expr: Binary) -> dict[str, Any] | None:
    found = expr.matching
    if found is None:
        return None
    return {"card": found.card, "labels": list(found.labels), "on": found.on, "include": list(found.include)}


def _function(expr: Call) -> dict[str, Any]:
    function = FUNCTIONS[expr.name]
    return {
        "name": expr.name,
        "argTypes": [kind.value for kind in function.args],
        "variadic": function.variadic,
        "returnType": function.returns.value,
    }
