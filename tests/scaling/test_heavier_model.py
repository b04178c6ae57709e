"""Forecasts with a heavier model: the same for a series at once, behind the same gate, kept over a restart."""

import importlib.util
from typing import Any

import numpy as np
import pytest

from flyball.errors import ConfigError
from flyball.scaling import governor as governors
from flyball.scaling.forecast import FEW_LEVELS, FIT_EVERY, NO_BETTER, Curve, Forecaster, Shape, Task
from flyball.scaling.forecasts import forecasts
from flyball.scaling.governor import need_extra
from flyball.scaling.types import HOLT_WINTERS, LINEAR

DAY_S = 1440.0
SEASONS = (DAY_S, 3000.0)


def series(seed: int, seconds: int = 9000) -> np.ndarray:
    """A load with a sharp rise each day."""
    rng, at = np.random.default_rng(seed), np.arange(seconds)
    shape = 12 + 6 * np.sin(2 * np.pi * at / DAY_S) + 12 * (at % DAY_S > 1300)
    return np.asarray(shape * np.exp(rng.normal(0, 0.03, seconds)))


def as_yesterday(task: Task) -> Curve:
    levels = np.array(task.levels)
    return task.curve(levels[-task.day :][np.arange(task.ahead) % task.day])


def run(forecaster: Forecaster, demand: np.ndarray, fit: Any = as_yesterday) -> list[Any]:
    found = []
    for at_s, value in enumerate(demand.tolist()):
        forecaster.observe(at_s * 1000, value)
        task = forecaster.task()
        if task is not None:
            forecaster.fitted(fit(task))
        found.append(forecaster.forecast)
    return found


@pytest.mark.parametrize("lead_s", [7.0, 25.0, 60.0])
def test_forecasts_of_a_series_are_those_of_the_forecaster(lead_s: float) -> None:
    demand = series(1)
    together = forecasts(demand, Shape(lead_s, SEASONS, HOLT_WINTERS), fit=as_yesterday)
    one = run(Forecaster(lead_s, SEASONS, HOLT_WINTERS), demand)
    assert together.by_model.tolist() == [forecast.by_model for forecast in one]
    assert together.expected == pytest.approx([forecast.expected for forecast in one], rel=1e-9)
    assert together.spread == pytest.approx([forecast.spread for forecast in one], rel=1e-9)
    assert together.heavy == pytest.approx(sum(forecast.model == HOLT_WINTERS for forecast in one) / len(one), abs=0.01)
    assert together.heavy > 0.2


def test_it_sees_what_the_linear_model_does_not() -> None:
    """A rise of each day, by a model that knows the hour of it; the linear one has the day before as it was."""
    demand = series(2, 12_000)
    known = forecasts(demand, Shape(60, SEASONS, HOLT_WINTERS), fit=as_yesterday)
    plain = forecasts(demand, Shape(60, SEASONS))
    later = np.minimum(np.arange(len(demand)) + 60, len(demand) - 1)

    def error(expected: np.ndarray) -> float:
        return float(np.sqrt(np.mean((np.log(demand[later]) - np.log(expected))[6000:] ** 2)))

    assert error(known.expected) < error(plain.expected)


def test_before_two_days_and_after_a_failure_the_linear_model_counts_and_says_why() -> None:
    demand = series(3, 6000)
    plain, asked = Forecaster(30, SEASONS), Forecaster(30, SEASONS, HOLT_WINTERS)
    tasks = 0
    for at_s, value in enumerate(demand.tolist()):
        plain.observe(at_s * 1000, value)
        asked.observe(at_s * 1000, value)
        assert plain.forecast is not None and asked.forecast is not None
        assert asked.forecast.expected == pytest.approx(plain.forecast.expected, rel=1e-9)
        if asked.forecast.at_ms == at_s * 1000:
            assert asked.forecast.trouble == ("its fit failed: why not" if tasks else FEW_LEVELS)
        assert plain.forecast.trouble == ""
        if asked.task() is not None:
            assert at_s >= 2 * DAY_S - 5
            tasks += 1
            asked.failed("its fit failed: why not")
    assert plain.forecast is not None and plain.forecast.model == LINEAR
    assert tasks == pytest.approx((6000 - 2 * DAY_S) / 9, abs=2)  # with each level of nine seconds again


@pytest.mark.parametrize("kind", ["noise", "opposite", "huge"])
def test_a_model_that_errs_gives_way(kind: str) -> None:
    demand = series(4, 12_000)
    rng = np.random.default_rng(5)

    def wrong(task: Task) -> Curve:
        right = np.array(as_yesterday(task).values[1:])
        mean = float(np.mean(task.levels))
        return task.curve(
            {"noise": mean + rng.normal(0, 2, task.ahead), "opposite": 2 * mean - right, "huge": right + 50}[kind]
        )

    plain = forecasts(demand, Shape(30, SEASONS))
    misled = forecasts(demand, Shape(30, SEASONS, HOLT_WINTERS), fit=wrong)
    # chosen by the smaller error, it is never believed to be worse, nor is it
    assert (misled.spread <= plain.spread * (1 + 1e-9)).all()
    later = np.minimum(np.arange(len(demand)) + 30, len(demand) - 1)

    def error(expected: np.ndarray) -> float:
        return float(np.sqrt(np.mean((np.log(demand[later]) - np.log(expected))[4000:] ** 2)))

    assert error(misled.expected) < 1.03 * error(plain.expected)


def test_why_another_counts_is_said() -> None:
    rng = np.random.default_rng(6)
    noise = 12 * np.exp(rng.normal(0, 0.1, 6000))
    found = run(Forecaster(30, SEASONS, HOLT_WINTERS), noise, lambda task: task.curve(np.full(task.ahead, 9.0)))
    assert {f.trouble for f in found if f.model != HOLT_WINTERS} == {FEW_LEVELS, NO_BETTER}
    assert all(f.trouble == "" for f in found if f.model == HOLT_WINTERS)


@pytest.mark.parametrize("model", [LINEAR, HOLT_WINTERS])
def test_a_restored_forecaster_goes_on_where_it_was(model: str) -> None:
    demand = series(7)
    never, often = Forecaster(25, SEASONS, model), Forecaster(25, SEASONS, model)
    kept: dict[str, bytes] = {}
    for at_s, value in enumerate(demand.tolist()):
        for forecaster in (never, often):
            forecaster.observe(at_s * 1000, value)
            task = forecaster.task()
            if task is not None:
                forecaster.fitted(as_yesterday(task))
        changed = often.unsaved()
        kept |= changed
        if changed and at_s % 3 == 0:
            often = Forecaster.restored(kept, at_s * 1000)
        assert often.forecast == never.forecast
    assert max(map(len, kept.values())) < 30_000


def test_what_is_kept_must_belong_together_and_an_old_forecast_is_left_out() -> None:
    forecaster = Forecaster(25, SEASONS)
    for at_s in range(300):
        forecaster.observe(at_s * 1000, 5.0 + at_s % 7)
    kept = forecaster.unsaved(everything=True)
    assert Forecaster.restored(kept, 299_000).forecast == forecaster.forecast
    assert Forecaster.restored(kept, 900_000).forecast is None
    for broken in ({}, {"state": b"?"}, {"state": kept["state"][:50]}):
        with pytest.raises(ValueError, match="no forecaster can be read"):
            Forecaster.restored(broken, 0)


def test_a_long_gap_is_bridged_at_once_and_teaches_nothing() -> None:
    demand = series(8)
    forecaster = Forecaster(25, SEASONS, HOLT_WINTERS)
    run(forecaster, demand[:6000])
    weights = forecaster._models[0].weights.copy()
    forecaster.observe(8_000_000, 10.0)
    assert forecaster.forecast is not None
    # one lead of the gap is stepped through
    assert forecaster._models[0].weights == pytest.approx(weights, abs=0.05)
    task = forecaster.task()
    assert task is not None
    assert task.levels[-150:] == pytest.approx([task.levels[-1]] * 150)  # the last known one held
    assert task.first == forecaster._count // forecaster.shape.bucket - 1 == len(task.levels) - 1


def test_the_extra_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governors, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"spec.forecast.model: .*pip install 'flyball\[forecast\]', or use \"linear\""
    ):
        need_extra(HOLT_WINTERS)
    need_extra(LINEAR)
    need_extra(None)


@pytest.mark.skipif(not importlib.util.find_spec("statsmodels"), reason="the extra forecast is not installed")
def test_holt_winters_finds_the_day() -> None:
    from flyball.scaling.holtwinters import fit

    at = np.arange(4 * 144)
    levels = 2 + np.sin(2 * np.pi * at / 144) + np.random.default_rng(9).normal(0, 0.02, len(at))
    curve = fit(Task(len(at) - 1, tuple(levels), 144, 2 * FIT_EVERY))
    ahead = np.arange(len(at), len(at) + 2 * FIT_EVERY)
    assert curve.values[1:] == pytest.approx(2 + np.sin(2 * np.pi * ahead / 144), abs=0.1)
    with pytest.raises(ConfigError, match="its fit failed"):
        fit(Task(4, (1.0, 2.0, 3.0, 4.0), 144, 5))
