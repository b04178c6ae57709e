"""What demand will be when a pod that starts now is ready.

A linear model of the logarithm's change over the lead time, fitted by least squares in which old samples fade, anew
after each lead. Its inputs are the recent changes over several spans (trend, and its reversal: traffic overshoots) and
what followed at this time a day and a week ago (season). Each prediction is judged when its time comes (rolling
origin): ``spread`` is the root mean square of those errors, and a model that errs more than "as now" gives way to it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from flyball.scaling.types import Forecast

SPANS = (0.2, 0.4, 0.8, 2.0, 4.0, 8.0)  # of the lead
STEPS_PER_LEAD = 10
LOST = 0.00024  # of a sample's weight a step: half has faded after 290 leads, some two hours of a lead of 30 s
RIDGE = 0.01  # pulls the weights of inputs that never move to zero
HALF_LIFE_LEADS = 43.0  # of the error's mean square
FLOOR = 0.5  # replicas; below it a logarithm says nothing


class Shape:
    """The numbers of steps that follow from a lead and its seasons."""

    def __init__(self, lead_s: float, seasons_s: tuple[float, ...]) -> None:
        self.step_ms = max(1000, round(lead_s * 1000 / STEPS_PER_LEAD))
        self.lead = max(1, round(lead_s * 1000 / self.step_ms))
        self.spans = [max(1, round(span * self.lead)) for span in SPANS]
        self.seasons = [max(self.lead + 1, round(season * 1000 / self.step_ms)) for season in seasons_s]
        self.size = len(self.spans) + len(self.seasons)
        self.decay = 0.5 ** (1 / (HALF_LIFE_LEADS * self.lead))  # of the error's mean square, a step


class Forecaster:
    """Takes one demand after the other and keeps the newest Forecast.

    ``lead_s``: how far ahead, the time a pod takes to be ready. ``seasons_s``: after which times demand resembles
    itself. Holds one float for each tenth of the lead of the longest season. ``forecasts`` is the same for a whole
    series at once.
    """

    def __init__(self, lead_s: float, seasons_s: tuple[float, ...] = (86_400.0, 604_800.0)) -> None:
        self.shape = Shape(lead_s, seasons_s)
        self._keep = max([self.shape.spans[-1], *self.shape.seasons]) + self.shape.lead + 1
        self._next_ms: int | None = None
        self.forecast: Forecast | None = None
        self._forget()

    def _forget(self) -> None:
        size, lead = self.shape.size, self.shape.lead
        self._gram, self._moment = np.zeros((size, size)), np.zeros(size)
        self._weights: NDArray[np.float64] = np.zeros(size)
        self._learned = 0
        self._past = np.zeros(self._keep)  # ring of logarithms
        self._inputs = np.zeros((lead, size))  # of the predictions that wait for their time
        self._predicted = np.zeros(lead)
        self._error = self._naive_error = 0.0  # mean squares
        self._count = 0

    def due(self, at_ms: int) -> bool:
        """Whether a demand of this time would be taken in."""
        return self._next_ms is None or at_ms >= self._next_ms

    def observe(self, at_ms: int, demand: float) -> None:
        """One demand in replicas. Between steps it is ignored; over a gap the last known one is taken to have held."""
        if not math.isfinite(demand):
            return
        if self._next_ms is None:
            self._next_ms = at_ms
        missed = (at_ms - self._next_ms) // self.shape.step_ms
        if missed < 0:
            return
        if missed > self._keep:  # nothing remembered is of use
            self._forget()
            self._next_ms, missed = at_ms, 0
        value = math.log(max(demand, FLOOR))
        for _ in range(missed):
            self._step(self._back(1) if self._count else value)
        self._step(value)
        self._next_ms += (missed + 1) * self.shape.step_ms
        self.forecast = self._forecast(at_ms, value)

    def _back(self, steps: int) -> float:
        """The logarithm ``steps`` before the next one; the oldest known when there is none so old."""
        return float(self._past[(self._count - min(steps, self._count)) % self._keep])

    def _step(self, value: float) -> None:
        lead, slot = self.shape.lead, self._count % self.shape.lead
        if self._count >= lead:
            self._learn(self._inputs[slot], value - self._back(lead), float(self._predicted[slot]))
        self._past[self._count % self._keep] = value
        self._count += 1
        inputs = [value - self._back(span + 1) for span in self.shape.spans]
        for season in self.shape.seasons:
            known = self._count > season
            inputs.append(self._back(season + 1 - lead) - self._back(season + 1) if known else 0.0)
        self._inputs[slot] = inputs
        self._predicted[slot] = self._inputs[slot] @ self._weights

    def _learn(self, inputs: NDArray[np.float64], change: float, predicted: float) -> None:
        self._gram = (1 - LOST) * self._gram + np.outer(inputs, inputs)
        self._moment = (1 - LOST) * self._moment + change * inputs
        self._learned += 1
        if self._learned % self.shape.lead == 0:
            ridge = RIDGE * np.eye(self.shape.size)
            self._weights = np.asarray(np.linalg.solve(self._gram + ridge, self._moment), np.float64)
        # an average of the few errors there are, until the half-life has passed
        share = max(1 - self.shape.decay, 1 / self._learned)
        self._error += share * ((change - predicted) ** 2 - self._error)
        self._naive_error += share * (change**2 - self._naive_error)

    def _forecast(self, at_ms: int, value: float) -> Forecast:
        by_model = self._error < self._naive_error
        change = float(self._predicted[(self._count - 1) % self.shape.lead]) if by_model else 0.0
        spread = math.sqrt(min(self._error, self._naive_error))
        for_ms = at_ms + self.shape.lead * self.shape.step_ms
        return Forecast(at_ms, for_ms, math.exp(value + change), spread, by_model)
