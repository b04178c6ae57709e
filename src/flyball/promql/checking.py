"""The type check of a parsed tree: every operand has a type that its operator or function takes."""

from flyball.model.labels import METRIC_NAME
from flyball.promql.catalog import AGGREGATORS, FUNCTIONS
from flyball.promql.lexer import fail
from flyball.promql.syntax import (
    COMPARISONS,
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Expr,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
    quote,
)

_VALUES = (ValueType.SCALAR, ValueType.VECTOR)


def check(text: str, root: Expr) -> None:
    """Checks a whole tree; matching is taken off binary operators that have a scalar side.

    Raises:
        QueryError: a node has operands that it does not take.
    """
    nodes = list(root.walk())
    labels_only = {id(node.args[1]) for node in nodes if isinstance(node, Call) and _is_info_with_labels(node)}
    for node in reversed(nodes):  # the deepest first
        if isinstance(node, Unary) and node.type not in _VALUES:
            message = "unary expression only allowed on expressions of type scalar or instant vector"
            fail(text, node.pos[0], f"{message}, got {quote(node.type.documented)}")
        elif isinstance(node, Aggregate):
            _expect(text, node.expr, ValueType.VECTOR, "aggregation expression")
            wanted = AGGREGATORS[node.op]
            if wanted is not None and node.param is not None:
                _expect(text, node.param, wanted, "aggregation parameter")
        elif isinstance(node, Call):
            _check_call(text, node)
        elif isinstance(node, Binary):
            _check_binary(text, node)
        elif isinstance(node, Subquery) and node.expr.type is not ValueType.VECTOR:
            fail(text, node.pos[0], f"subquery is only allowed on instant vector, got {node.expr.type.value} instead")
        elif isinstance(node, VectorSelector) and id(node) not in labels_only and _selects_all(node):
            fail(text, node.pos[0], "vector selector must contain at least one non-empty matcher")


def _selects_all(selector: VectorSelector) -> bool:
    return all(m.matches("") for m in selector.matchers)


def _is_info_with_labels(call: Call) -> bool:
    return call.name == "info" and len(call.args) > 1


def _expect(text: str, expr: Expr, wanted: ValueType, context: str) -> None:
    if expr.type is not wanted:
        fail(text, expr.pos[0], f"expected type {wanted.documented} in {context}, got {expr.type.documented}")


def _check_call(text: str, call: Call) -> None:
    signature = FUNCTIONS[call.name]
    given, wanted, quoted = len(call.args), len(signature.args), quote(call.name)
    if signature.variadic == 0:
        if given != wanted:
            fail(text, call.pos[0], f"expected {wanted} argument(s) in call to {quoted}, got {given}")
    else:
        fewest = wanted - 1
        if given < fewest:
            fail(text, call.pos[0], f"expected at least {fewest} argument(s) in call to {quoted}, got {given}")
        most = fewest + signature.variadic
        if signature.variadic > 0 and given > most:
            fail(text, call.pos[0], f"expected at most {most} argument(s) in call to {quoted}, got {given}")
    if _is_info_with_labels(call):
        labels = call.args[1]
        if not isinstance(labels, VectorSelector):
            fail(text, labels.pos[0], "expected label selectors only")
        if labels.name and labels.matchers[-1].name == METRIC_NAME:
            fail(text, labels.pos[0], "expected label selectors only, got vector selector instead")
    for i, arg in enumerate(call.args):
        _expect(text, arg, signature.args[min(i, wanted - 1)], f"call to function {quoted}")


def _check_binary(text: str, node: Binary) -> None:
    at = node.left.pos[1]
    while at < len(text) and text[at].isspace():
        at += 1
    types = (node.left.type, node.right.type)
    scalar = types == (ValueType.SCALAR, ValueType.SCALAR)
    if node.bool and node.op not in COMPARISONS:
        fail(text, at, "bool modifier can only be used on comparison operators")
    if node.op in COMPARISONS and scalar and not node.bool:
        fail(text, at, "comparisons between scalars must use BOOL modifier")
    m = node.matching
    if m is not None and m.on:
        for label in m.labels:
            if label in m.include:
                fail(text, at, f"label {quote(label)} must not occur in ON and GROUP clause at once")
    for side in (node.left, node.right):
        if side.type not in _VALUES:
            fail(text, side.pos[0], "binary expression must contain only scalar and instant vector types")
    filled = m is not None and (m.fill_left is not None or m.fill_right is not None)
    if types != (ValueType.VECTOR, ValueType.VECTOR):
        if m is not None and m.labels:
            fail(text, node.pos[0], "vector matching only allowed between instant vectors")
        if filled:
            fail(text, node.pos[0], "filling in missing series only allowed between instant vectors")
        if node.op in SET_OPERATORS:
            fail(text, at, f"set operator {quote(node.op)} not allowed in binary scalar expression")
        node.matching = None
    elif filled and node.op in SET_OPERATORS:
        fail(text, node.pos[0], "filling in missing series not allowed for set operators")
