"""Operators, matching and aggregators."""

import math

import pytest

from flyball.errors import QueryError
from flyball.model.histograms import Histogram
from flyball.model.labels import labels_of
from flyball.promql import EvaluationError, Options, Scalar, Stop, evaluate, parse
from flyball.promql.histograms import upper_bound
from flyball.promql.scenarios import MemoryStorage
from flyball.promql.values import Matrix, at_instant


def storage(**samples: float) -> MemoryStorage:
    """One sample at 0 s of each: ``a_x_1`` is ``a{x="x", n="1"}``."""
    held = MemoryStorage()
    for key, value in samples.items():
        name, x, n = key.split("_")
        held.add(labels_of([("__name__", name), ("x", x), ("n", n)]), 0, value)
    return held


HELD = storage(a_p_1=1, a_p_2=2, a_q_1=3, a_q_2=6, b_p_1=10, b_q_1=20, c_p_1=0)


def result(text: str, held: MemoryStorage = HELD) -> dict[str, float]:
    """Values by name, x and n, joined."""
    value = evaluate(parse(text), held, 0, 0, 0)
    assert isinstance(value, Matrix)
    found = at_instant(value, 0) if value.labels else {}
    return {
        "_".join(pairs.get(k, "") for k in ("__name__", "x", "n")): number
        for pairs, number in ((dict(labels), number) for labels, number in found.items())
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(a)", {"__": 12}),
        ("sum by (x) (a)", {"_p_": 3, "_q_": 9}),
        ("avg without (n) (a)", {"_p_": 1.5, "_q_": 4.5}),
        ("min(a)", {"__": 1}),
        ("max by (n) (a)", {"__1": 3, "__2": 6}),
        ("count(a)", {"__": 4}),
        ("group(a)", {"__": 1}),
        ("stddev(a)", {"__": math.sqrt(3.5)}),
        ("stdvar(a)", {"__": 3.5}),
        ("quantile(0.5, a)", {"__": 2.5}),
        ("topk(1, a)", {"a_q_2": 6}),
        ("bottomk by (x) (1, a)", {"a_p_1": 1, "a_q_1": 3}),
        ("sum(nosuch)", {}),
        ("count(nosuch)", {}),
        ("absent(nosuch)", {"__": 1}),
        ("absent(a)", {}),
        ("a > 2", {"a_q_1": 3, "a_q_2": 6}),
        ("a > bool 2", {"_p_1": 0, "_p_2": 0, "_q_1": 1, "_q_2": 1}),
        ("a + b", {"_p_1": 11, "_q_1": 23}),
        ("a / on (x) group_left () b", {"_p_1": 0.1, "_p_2": 0.2, "_q_1": 0.15, "_q_2": 0.3}),
        ("b * on (x) group_right () a", {"_p_1": 10, "_p_2": 20, "_q_1": 60, "_q_2": 120}),
        ("b < on (x) group_right () a", {}),
        ("b > on (x) group_right () a", {"a_p_1": 10, "a_p_2": 10, "a_q_1": 20, "a_q_2": 20}),
        ("a and on (x, n) b", {"a_p_1": 1, "a_q_1": 3}),
        ("a unless on (x, n) b", {"a_p_2": 2, "a_q_2": 6}),
        ("b or on (x) a", {"b_p_1": 10, "b_q_1": 20}),
        ("a{n='1'} or b", {"a_p_1": 1, "a_q_1": 3}),
        ("-a{n='1',x='p'}", {"_p_1": -1}),
        ("b % 7", {"_p_1": 3, "_q_1": 6}),
        ("a{x='q'} ^ 2", {"_q_1": 9, "_q_2": 36}),
        ("b / c", {"_p_1": math.inf}),
        ("vector(7) + 1", {"__": 8}),
        ("clamp(a, 2, 3)", {"_p_1": 2, "_p_2": 2, "_q_1": 3, "_q_2": 3}),
    ],
)
def test_value(text: str, expected: dict[str, float]) -> None:
    assert result(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a + on (x) b", "many-to-one matching must be explicit"),
        ("b + on (x) a", "many-to-many matching not allowed"),
        ("a > on (x) b", "many-to-one matching must be explicit"),  # though the filter would remove all
        ("a + on (x) group_left () a", "many-to-many matching not allowed"),
        ("a > on (x) group_left (n) b", "grouping labels must ensure unique matches"),
        ('label_replace(a, "n", "", "n", ".*")', "same labelset"),
        ("topk(NaN, a)", "NaN"),
    ],
)
def test_error(text: str, part: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        result(text)
    assert part in str(caught.value)


def test_scalar_of_one_series_and_of_several() -> None:
    one = evaluate(parse("scalar(c)"), HELD, 0, 0, 0)
    several = evaluate(parse("scalar(a)"), HELD, 0, 0, 0)
    assert isinstance(one, Scalar) and one.values[0] == 0
    assert isinstance(several, Scalar) and math.isnan(several.values[0])


def test_the_average_of_great_numbers_does_not_overflow() -> None:
    held = storage(a_p_1=1.7e308, a_p_2=1.7e308, b_p_1=1.7e308, b_p_2=1.7e308, b_q_1=-1.7e308, b_q_2=-1.7e308)
    assert result("avg(a)", held) == pytest.approx({"__": 1.7e308})
    assert result("avg(b)", held) == {"__": 0}


def test_sums_keep_small_terms_beside_great_ones() -> None:
    held = storage(a_p_1=1e100, a_p_2=1.0, a_q_1=-1e100)
    assert result("sum(a)", held) == {"__": 1.0}


def test_a_range_has_rows_sorted_and_no_more_steps_than_allowed() -> None:
    value = evaluate(parse("a"), HELD, 0, 60_000, 30_000)
    assert isinstance(value, Matrix)
    assert list(value.labels) == sorted(value.labels) and value.values.shape == (4, 3)
    with pytest.raises(QueryError, match="exceeded maximum resolution"):
        evaluate(parse("a"), HELD, 0, 60_000, 1, options=Options(steps_max=100))


def test_a_stopped_query_ends() -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(QueryError):
        evaluate(parse("sum(a) + sum(b)"), HELD, 0, 60_000, 30_000, options=Options(stop=stop))


def test_histogram_quantile_interpolates_within_the_bucket() -> None:
    held = MemoryStorage()
    for le, count in (("1", 10.0), ("2", 30.0), ("+Inf", 40.0)):
        held.add(labels_of([("__name__", "h_bucket"), ("le", le)]), 0, count)
    # rank 20 is the 10th of the 20 in (1, 2]; rank 36 is in the last bucket, whose lower bound is the answer
    assert result("histogram_quantile(0.5, h_bucket)", held) == pytest.approx({"__": 1.5})
    assert result("histogram_quantile(0.9, h_bucket)", held) == pytest.approx({"__": 2})
    assert result("histogram_fraction(0, 1.5, h_bucket)", held) == pytest.approx({"__": 0.5})


def test_pairs_that_an_operator_does_not_go_with_are_no_matches() -> None:
    held = MemoryStorage()
    held.add(labels_of([("__name__", "f"), ("run", "r")]), 0, 1.0)
    for pod in "ab":
        held.add(labels_of([("__name__", "h"), ("run", "r"), ("pod", pod)]), 0, Histogram(schema=0, count=1, sum=1))
    assert result("h < on (run) f", held) == {}
    with pytest.raises(EvaluationError, match="many-to-one matching must be explicit"):
        result("h * on (run) f", held)


def test_among_equals_topk_keeps_what_upstream_s_heap_keeps() -> None:
    held = storage(m_0_0=5, m_1_0=5, m_2_0=7, m_3_0=5)
    # a better one takes the place of the heap's top: of the first of the two equals
    assert result("topk(2, m)", held) == {"m_1_0": 5, "m_2_0": 7}
    assert result("bottomk(3, m)", held) == {"m_0_0": 5, "m_1_0": 5, "m_3_0": 5}


def test_bounds_of_histograms_are_those_of_upstream_s_table() -> None:
    # of schemas 1, 2, 8 (of the last the one that is farthest from the rounded power) and below 0
    bounds = [upper_bound(-1, 1), upper_bound(3, 2), upper_bound(-6, 8), upper_bound(5, -1), upper_bound(1024, 0)]
    assert bounds == [0.7071067811865475, 1.6817928305074288, 0.9838856116165875, 1024.0, 1.7976931348623157e308]


@pytest.mark.parametrize("step_ms", [0, 15_000])
def test_an_aggregation_selects_once_even_where_it_is_of_histograms(step_ms: int) -> None:
    asked = []

    class Counting(MemoryStorage):
        def select(self, matchers, start_ms, end_ms):
            asked.append(matchers)
            return super().select(matchers, start_ms, end_ms)

    held = Counting()
    for i in range(10):
        held.add(labels_of([("__name__", "h")]), i * 15_000, Histogram(count=i, sum=i, zero_count=i))
    end_ms = 9 * 15_000
    value = evaluate(parse("sum(rate(h[1m]))"), held, end_ms - 2 * step_ms, end_ms, step_ms)
    assert isinstance(value, Matrix) and len(value.labels) == 1
    assert len(asked) == 1
