"""What is done for a whole series at once is what is done one demand after the other."""

import math
from collections import deque

import numpy as np
import pytest

from flyball.scaling.fast import needed, sized
from flyball.scaling.forecast import Forecaster, Shape
from flyball.scaling.forecasts import Forecasts, forecasts, needs, sizes

SEASONS = (600.0, 1500.0)


def series(seed: int, seconds: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    at = np.arange(seconds)
    return np.maximum(0.0, (12 + 9 * np.sin(at / 95) + 30 * (at % 1500 > 1300)) * np.exp(rng.normal(0, 0.03, seconds)))


@pytest.mark.parametrize("lead_s", [7.0, 25.0, 30.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_forecasts_are_those_of_the_forecaster(lead_s: float, seed: int) -> None:
    demand = series(seed)
    together, forecaster = forecasts(demand, Shape(lead_s, SEASONS)), Forecaster(lead_s, SEASONS)
    models = 0
    for at_s, value in enumerate(demand.tolist()):
        forecaster.observe(at_s * 1000, value)
        one = forecaster.forecast
        assert one is not None
        models += one.by_model
        assert together.by_model[at_s] == one.by_model
        assert together.expected[at_s] == pytest.approx(one.expected, rel=1e-9)
        assert together.spread[at_s] == pytest.approx(one.spread, rel=1e-9)
        assert needs(demand, together)[at_s] == pytest.approx(needed(value, one), rel=1e-9)
    assert 0 < models < len(demand)


@pytest.mark.parametrize("foreseen", [True, False])
@pytest.mark.parametrize("hold_s", [1, 30, 400])
def test_sizes_are_those_of_one_second_after_the_other(foreseen: bool, hold_s: int) -> None:
    need = series(3)
    low = np.where(np.arange(len(need)) < 2000, 2, 9)
    current, past, expected = 5, deque(maxlen=hold_s + 1), []
    for at_s, value in enumerate(need.tolist()):
        past.append(math.ceil(value))
        current = max(int(low[at_s]), min(33, sized(current, value, max(past), foreseen=foreseen)))
        expected.append(current)
    assert sizes(need, hold_s, 5, low, 33, foreseen=foreseen).tolist() == expected
    assert len(set(expected)) > 3


def test_a_limit_is_asked_again_until_it_lets_go() -> None:
    need = np.array([1.0] * 5 + [10.0] * 10)
    found = sizes(need, 3, 1, 1, 99, foreseen=True, limit=lambda _, current, wanted: min(wanted, current + 2))
    assert found.tolist() == [1] * 5 + [3, 5, 7, 9, 10, 10, 10, 10, 10, 10]


@pytest.mark.parametrize("kind", ["shuffled", "shifted", "missing", "opposite"])
def test_a_wrong_forecast_gives_way_to_as_now(kind: str) -> None:
    demand = series(4, 20_000)
    rng = np.random.default_rng(5)

    def distort(predicted: np.ndarray) -> np.ndarray:
        if kind == "missing":
            return np.full_like(predicted, np.nan)
        return {"shuffled": rng.permutation(predicted), "shifted": np.roll(predicted, 70), "opposite": -predicted}[kind]

    def trusted(found: Forecasts) -> float:
        return float(found.by_model[5000:].mean())

    shape = Shape(30, SEASONS)
    assert trusted(forecasts(demand, shape)) > 0.9
    wrong = forecasts(demand, shape, distort)
    assert trusted(wrong) < 0.01
    assert np.allclose(wrong.expected[-3000:], demand[np.arange(17_000, 20_000) // 3 * 3])
