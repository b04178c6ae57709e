"""Trees and their text."""

from collections.abc import Callable

import pytest

from flyball.errors import QueryError
from flyball.promql import evaluate, parse
from flyball.promql.scenarios import MemoryStorage
from flyball.promql.syntax import Binary, NumberLiteral, Unary


@pytest.mark.parametrize(
    "text",
    [
        'sum by (pod) (rate(http_requests_total{job="a", code=~"5.."}[5m]))',
        "a + on (x) group_left (y) b",
        "a unless ignoring (x) b",
        "(a + b) * c",
        "-(2 ^ 3) ^ 2",
        "max_over_time(rate(a[1m])[10m:30s] offset -5m)",
        "a @ 1609746000.000",
        "a[5m] @ start() offset 1m",
        "histogram_quantile(0.9, sum by (le) (rate(b_bucket[5m])))",
        'label_replace(a, "x", "$1", "y", "(.*)\\\\.b")',
        "topk without (a, b) (3, c)",
        'count_values("v", a)',
        "a > bool 1e+06",
        '{"my.name", "a.b"="c"}',
        "NaN + Inf - -Inf",
    ],
)
def test_text_parses_back_to_the_same_tree(text: str) -> None:
    expr = parse(text)
    assert parse(str(expr)) == expr
    assert str(parse(str(expr))) == str(expr)


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("a + b * c", "a + (b * c)"),
        ("a * b + c", "(a * b) + c"),
        ("a - b - c", "(a - b) - c"),
        ("a ^ b ^ c", "a ^ (b ^ c)"),
        ("a or b and c", "a or (b and c)"),
        ("a and b unless c", "(a and b) unless c"),
        ("a == b + c", "a == (b + c)"),
        ("a and b > c", "a and (b > c)"),
        ("a % b atan2 c", "(a % b) atan2 c"),
    ],
)
def test_precedence_and_associativity(text: str, grouped: str) -> None:
    def shape(expr):
        expr = getattr(expr, "expr", expr) if type(expr).__name__ == "Paren" else expr
        return (expr.op, shape(expr.left), shape(expr.right)) if isinstance(expr, Binary) else str(expr)

    assert shape(parse(text)) == shape(parse(grouped))


def test_minus_binds_weaker_than_power() -> None:
    assert isinstance(parse("-a ^ 2"), Unary)
    assert isinstance(parse("a ^ -2"), Binary)


def test_durations_are_numbers_of_seconds() -> None:
    number = parse("1h30m")
    assert isinstance(number, NumberLiteral) and number.value == 5400


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no expression"),
        ("sum(", "unexpected end of input"),
        ("a[5m", "unexpected end of input"),
        ("rate(a)", "expected type range vector"),
        ("a[5m] + 1", "instant vector types"),
        ("{}", "at least one non-empty matcher"),
        ('{a=~".*"}', "at least one non-empty matcher"),
        ("nosuch(a)", "unknown function"),
        ("a =~ b", "unexpected"),
        ('a{b=~"("}', "missing"),
        ("1 and a", "set operator"),
        ("1 > 2", "BOOL"),
    ],
)
def test_bad_text_is_a_query_error(text: str, part: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert part.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("make", "most", "message"),
    [
        (lambda n: "+".join(["x"] * (n + 1)), 250, "250 operators in a row"),
        (lambda n: "sum(" * n + "x" + ")" * n, 107, "calls within each other"),
        (lambda n: "max_over_time(" * n + "x" + "[1m:1m])" * n, 53, "calls within each other"),
        (lambda n: "(" * n + "x" + ")" * n, 119, "nested more than 120 deep"),
        (lambda n: "count_over_time(x[1m" + "+1m" * n + "])", 250, "250 operators in a row"),
    ],
)
def test_what_is_too_deep_to_be_walked_over_is_refused_and_what_is_not_evaluates(
    make: Callable[[int], str], most: int, message: str
) -> None:
    evaluate(parse(make(most)), MemoryStorage(), 0, 60_000, 60_000)
    with pytest.raises(QueryError, match=message):
        parse(make(most + 2))
