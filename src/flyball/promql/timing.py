"""Duration expressions: arithmetic in seconds that may use the query's own step and range."""

import math

from flyball.promql.syntax import DurationExpr, NumberLiteral
from flyball.promql.values import EvaluationError

_SECONDS_MAX = 2**63 / 1e9


def duration_ms(expr: DurationExpr, step_ms: int, range_ms: int, signed: bool) -> int:
    """The value, ms.

    Raises:
        EvaluationError: it is not a finite duration, or not above 0 and not ``signed``.
    """

    def seconds(node: DurationExpr | NumberLiteral | None) -> float:
        if node is None:
            return 0.0
        if isinstance(node, NumberLiteral):
            return node.value
        if node.op == "step":
            return step_ms / 1000
        if node.op == "range":
            return range_ms / 1000
        left, right = seconds(node.left), seconds(node.right)
        if node.op in "/%" and right == 0:
            fail(node, "division by zero" if node.op == "/" else "modulo by zero")
        match node.op:
            case "min_of":
                return min(left, right)
            case "max_of":
                return max(left, right)
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "/":
                return left / right
            case "%":
                return math.fmod(left, right)
        try:
            power = left**right
        except (OverflowError, ZeroDivisionError):
            return math.inf
        return math.nan if isinstance(power, complex) else float(power)

    def fail(node: DurationExpr, message: str) -> None:
        raise EvaluationError(f"{node.pos[0]}:{node.pos[1]}: {message}")

    value = seconds(expr)
    if not math.isfinite(value):
        fail(expr, "duration is NaN or infinite")
    if value <= 0 and not signed:
        fail(expr, "duration must be greater than 0")
    if abs(value) > _SECONDS_MAX:
        fail(expr, "duration is out of range")
    return int(value * 1000)
