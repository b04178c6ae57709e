"""Window functions by hand, and frames as a store gives them."""

import numpy as np
import pytest

from flyball.model.frames import ABSENT, STALE, Frame, is_absent
from flyball.model.labels import labels_of
from flyball.promql import evaluate, over_time, parse
from flyball.promql.features import SCENARIOS
from flyball.promql.scenarios import MemoryStorage
from flyball.promql.values import Matrix, at_instant
from flyball.promql.windows import cut

UNUSED_MS = 2**62  # what a store leaves in cells of times that nothing was written to


def storage(**series: dict[float, float]) -> MemoryStorage:
    """Samples by seconds, of series named by the keywords."""
    held = MemoryStorage()
    for name, samples in series.items():
        for at, value in samples.items():
            held.add(labels_of([("__name__", name)]), round(at * 1000), value)
    return held


def value_of(text: str, held, at: float) -> float | None:
    """The one value of an instant query, None when the result is empty."""
    result = evaluate(parse(text, SCENARIOS), held, round(at * 1000), round(at * 1000), 0)
    assert isinstance(result, Matrix)
    found = list(at_instant(result, round(at * 1000)).values()) if result.labels else []
    assert len(found) <= 1
    return found[0] if found else None


EVERY_10 = {at: float(at) for at in range(0, 101, 10)}


def test_window_is_open_on_the_left_and_closed_on_the_right() -> None:
    held = storage(a=EVERY_10)
    assert value_of("count_over_time(a[10s])", held, 50) == 1
    assert value_of("first_over_time(a[20s])", held, 50) == 40
    assert value_of("last_over_time(a[20s])", held, 50) == 50
    assert value_of("count_over_time(a[20s])", held, 49.999) == 2
    assert value_of("sum_over_time(a[30s:10s])", held, 50) == 30 + 40 + 50


def test_lookback_is_left_open() -> None:
    held = storage(a={0: 7.0})
    assert value_of("a", held, 299.999) == 7
    assert value_of("a", held, 300) is None
    result = evaluate(parse("a"), held, 10_000, 10_000, 0, 10_000)
    assert isinstance(result, Matrix) and not result.labels


def test_stale_marker_ends_a_series_at_once() -> None:
    held = storage(a={0: 1.0, 10: 2.0, 20: float(STALE), 40: 4.0})
    assert value_of("a", held, 19) == 2
    assert value_of("a", held, 20) is None
    assert value_of("a", held, 39) is None
    assert value_of("a", held, 40) == 4
    assert value_of("count_over_time(a[1m])", held, 40) == 3


def test_rate_extrapolates_to_the_window() -> None:
    # Samples at 10..60 of a slope of 2/s in (5, 65]: both ends 5 s away, under 1.1 intervals, so the whole window.
    held = storage(c_total={at: 100 + 2.0 * at for at in range(10, 61, 10)})
    assert value_of("rate(c_total[60s])", held, 65) == pytest.approx(2.0)
    assert value_of("increase(c_total[60s])", held, 65) == pytest.approx(120.0)


def test_rate_extrapolates_half_an_interval_at_a_far_edge() -> None:
    # Samples at 40, 50, 60 in (0, 60]: the start is 40 s away, more than 11 s, so 5 s are added: 25 s in all.
    held = storage(c_total={40: 1000.0, 50: 1010.0, 60: 1020.0})
    assert value_of("increase(c_total[60s])", held, 60) == pytest.approx(20 * 25 / 20)
    assert value_of("rate(c_total[60s])", held, 60) == pytest.approx(20 * 25 / 20 / 60)


def test_rate_does_not_extrapolate_a_counter_below_zero() -> None:
    # 2 at 10 s, slope 1/s: it was zero 2 s before, so (20 + 2) s and not (20 + 9).
    held = storage(c_total={10: 2.0, 20: 12.0, 30: 22.0})
    assert value_of("increase(c_total[29s])", held, 30) == pytest.approx(20 * 22 / 20)
    assert value_of("delta(c_total[29s])", held, 30) == pytest.approx(20 * 29 / 20)


def test_counter_reset_adds_what_was_before_it() -> None:
    # 100 -> 110 -> (reset) 5 -> 15: 15 - 100 + 110 = 25 over 30 s, 30 s window edges exactly on the samples.
    held = storage(c_total={0.001: 100.0, 10.001: 110.0, 20.001: 5.0, 30.001: 15.0})
    assert value_of("increase(c_total[30001ms])", held, 30.001) == pytest.approx(25 * 30.001 / 30)
    assert value_of("resets(c_total[1m])", held, 30.001) == 1
    assert value_of("changes(c_total[1m])", held, 30.001) == 3
    assert value_of("irate(c_total[1m])", held, 20.001) == pytest.approx(0.5)  # from zero: 5 in 10 s


def test_rate_needs_two_samples() -> None:
    held = storage(c_total={10: 2.0})
    assert value_of("rate(c_total[1m])", held, 30) is None


def test_statistics_of_a_window() -> None:
    held = storage(a={10: 1.0, 20: 5.0, 30: 3.0, 40: 7.0})
    expected = {
        "sum_over_time(a[1m])": 16, "avg_over_time(a[1m])": 4, "min_over_time(a[1m])": 1, "max_over_time(a[1m])": 7,
        "stdvar_over_time(a[1m])": 5, "quantile_over_time(0.5, a[1m])": 4, "idelta(a[1m])": 4,
        "mad_over_time(a[1m])": 2,
        "present_over_time(a[1m])": 1, "deriv(a[1m])": 0.16, "predict_linear(a[1m], 10)": 0.16 * 25 + 4,
    }  # fmt: skip
    assert {text: value_of(text, held, 40) for text in expected} == pytest.approx(expected)


def test_double_exponential_smoothing_by_hand() -> None:
    # factors 0.5, 0.5 over 1, 3, 8: level 1, trend 2; then 0.5*3 + 0.5*(1+2) = 3;
    # trend 0.5*(3-1) + 0.5*2 = 2; then 0.5*8 + 0.5*(3+2) = 6.5.
    held = storage(a={10: 1.0, 20: 3.0, 30: 8.0})
    assert value_of("double_exponential_smoothing(a[1m], 0.5, 0.5)", held, 30) == pytest.approx(6.5)


@pytest.mark.parametrize("name", ["min_over_time", "max_over_time", "sum_over_time", "count_over_time", "changes"])
def test_many_steps_equal_one_step_at_a_time(name: str) -> None:
    """Long ranges take other paths (sparse table, running sums) than instants."""
    random = np.random.default_rng(7)
    held = storage(a={at: float(random.integers(0, 9)) for at in range(0, 600, 7) if at % 5})
    text = f"{name}(a[100s])"
    result = evaluate(parse(text), held, 0, 600_000, 3_000)
    assert isinstance(result, Matrix)
    for at in range(0, 601, 3):
        found = at_instant(result, at * 1000)
        assert (list(found.values()) or [None]) == [value_of(text, held, at)]


class Frames:
    """A storage of given frames."""

    def __init__(self, *frames: Frame) -> None:
        self.frames = list(frames)

    def select(self, matchers, start_ms: int, end_ms: int) -> list[Frame]:
        return self.frames


def two_targets() -> Frames:
    """Two targets, scraped 3 s apart, the second only twice; its last row was never written."""
    times = np.array([[10_000, 13_000], [20_000, 23_000], [30_000, UNUSED_MS]], np.int64)
    values = np.array([[1.0, 10.0, 5.0], [2.0, 20.0, ABSENT], [3.0, ABSENT, ABSENT]])
    labels = tuple(labels_of([("__name__", "a"), ("i", str(i))]) for i in range(3))
    return Frames(Frame(labels, times, np.array([0, 1, 1], np.int32), values))


def by_label(text: str, held: Frames, at_ms: int) -> dict[str, float]:
    result = evaluate(parse(text), held, at_ms, at_ms, 0)
    assert isinstance(result, Matrix)
    return {dict(labels)["i"]: v for labels, v in at_instant(result, at_ms).items()} if result.labels else {}


def test_unused_cells_of_a_frame_are_no_samples() -> None:
    held = two_targets()
    assert by_label("a", held, 30_000) == {"0": 3.0, "1": 20.0, "2": 5.0}
    assert by_label("a", held, 22_999) == {"0": 2.0, "1": 10.0, "2": 5.0}
    assert by_label("count_over_time(a[25s])", held, 35_000) == {"0": 2, "1": 2, "2": 1}
    assert by_label("rate(a[1m])", held, 40_000) == pytest.approx({"0": 2 * 35 / 20 / 60, "1": 10 * 20 / 10 / 60})


def test_frame_without_holes_but_with_far_times() -> None:
    """No NaN in the values of the first; many targets in the second, whose search must not overflow."""
    times = np.array([[10_000, 13_000], [20_000, UNUSED_MS]], np.int64)
    frame = Frame(
        (labels_of([("__name__", "a"), ("i", "0")]),), times, np.array([0], np.int32), np.array([[1.0], [2.0]])
    )
    assert by_label("sum_over_time(a[1m])", Frames(frame), 20_000) == {"0": 3.0}
    many = Frame(
        tuple(labels_of([("__name__", "a"), ("i", str(i))]) for i in range(40)),
        np.concatenate([np.full((1, 40), 10_000), np.full((1, 40), UNUSED_MS)]).astype(np.int64),
        np.arange(40, dtype=np.int32),
        np.stack([np.arange(40.0), np.full(40, ABSENT)]),
    )
    assert by_label("last_over_time(a[1m])", Frames(many), 15_000) == {str(i): float(i) for i in range(40)}


def test_an_ordinary_nan_is_a_sample() -> None:
    held = storage(a={10: 1.0, 20: float("nan")})
    assert value_of("count_over_time(a[1m])", held, 30) == 2
    assert np.isnan(value_of("a", held, 30))
    assert value_of("max_over_time(a[1m])", held, 30) == 1


def test_a_row_that_is_being_filled_makes_no_holes() -> None:
    """The second target is not scraped yet in the last row; nothing of its windows is missing."""
    times = np.array([[0, 1], [10, 11], [20, UNUSED_MS]])
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, ABSENT]])
    labels = tuple(labels_of({"__name__": "a", "i": str(i)}) for i in range(2))
    frame = Frame(labels, times, np.arange(2, dtype=np.int32), values)
    with np.errstate(invalid="ignore"):  # as in an evaluation
        w = cut(frame, np.array([-1]), np.array([20]), apart=True)
    assert w.holed is None
    assert w.counts()[:, 0].tolist() == [3, 2]
    missed = Frame(labels, np.array([[0, 1], [10, 1], [20, 21]]), frame.target, values[[0, 2, 1]])
    with np.errstate(invalid="ignore"):
        w = cut(missed, np.array([-1]), np.array([21]), apart=True)
    assert w.holed is not None and w.holed[0].tolist() == [1]
    assert over_time.sum_over_time(w.holed[1])[0].tolist() == [[6.0]]


@pytest.mark.parametrize("series", [3, 600])
@pytest.mark.parametrize("steps", [1, 4])
def test_holes_are_those_within_windows(series: int, steps: int) -> None:
    """Some targets are scraped after the end, some have a row less, some missed one, and a value is NaN."""
    rng = np.random.default_rng(series)
    rows = 12
    times = 10 * np.arange(rows)[:, None] + np.arange(series) % 10
    values = rng.random((rows, series))
    values[-1, ::3] = ABSENT
    values[0, ::4] = ABSENT
    values[rng.integers(1, rows - 1, series // 3), rng.integers(0, series, series // 3)] = ABSENT
    values[5, 1] = np.nan
    labels = tuple(labels_of({"__name__": "a", "i": str(i)}) for i in range(series))
    frame = Frame(labels, times, np.arange(series, dtype=np.int32), values)
    ends = 108 - 10 * np.arange(steps)[::-1]
    with np.errstate(invalid="ignore"):
        w = cut(frame, ends - 85, ends, apart=True)
    first, last = ends[0] - 85, ends[-1]
    inside = (times > first) & (times <= last)
    expected = np.flatnonzero((is_absent(values) & inside).any(axis=0))
    found = np.zeros(0, np.int64) if w.holed is None else w.holed[0]
    assert found.tolist() == expected.tolist()
