"""What demand will be when a pod that starts now is ready.

A linear model of the logarithm's change over the lead time, fitted as samples arrive by recursive least squares with
forgetting (Haykin, Adaptive Filter Theory, chapter on RLS). Its inputs are the recent changes over several spans
(trend, and its reversal: traffic overshoots) and what followed at this time a day and a week ago (season). Each
prediction is judged when its time comes: ``spread`` is the root mean square of those errors (rolling origin), and a
model that errs more than "as now" gives way to it.
"""

import math

import numpy as np

from flyball.scaling.types import Forecast

_SPANS = (0.2, 0.4, 0.8, 2.0, 4.0, 8.0)  # of the lead
_STEPS_PER_LEAD = 10
_FORGET = 0.9999  # a step: half is forgotten after 700 leads, some six hours of a lead of 30 s
_HALF_LIFE_LEADS = 30.0  # of the error's mean square
_FLOOR = 0.5  # replicas; below it a logarithm says nothing


class Forecaster:
    """Takes one demand after the other and keeps the newest Forecast.

    ``lead_s``: how far ahead, the time a pod takes to be ready. ``seasons_s``: after which times demand resembles
    itself. Holds one float for each tenth of the lead of the longest season.
    """

    def __init__(self, lead_s: float, seasons_s: tuple[float, ...] = (86_400.0, 604_800.0)) -> None:
        self.step_ms = max(1000, round(lead_s * 1000 / _STEPS_PER_LEAD))
        self._lead = max(1, round(lead_s * 1000 / self.step_ms))
        self._spans = [max(1, round(span * self._lead)) for span in _SPANS]
        self._seasons = [max(self._lead + 1, round(season * 1000 / self.step_ms)) for season in seasons_s]
        self._keep = max([self._spans[-1], *self._seasons]) + self._lead + 1
        self._decay = 0.5 ** (1 / (_HALF_LIFE_LEADS * self._lead))
        self._next_ms: int | None = None
        self.forecast: Forecast | None = None
        self._forget()

    def _forget(self) -> None:
        size = len(self._spans) + len(self._seasons)
        self._weights = np.zeros(size)
        self._covariance = np.eye(size)
        self._past = np.zeros(self._keep)  # ring of logarithms
        self._inputs = np.zeros((self._lead, size))  # of the predictions that wait for their time
        self._predicted = np.zeros(self._lead)
        self._error = self._naive_error = 0.0  # mean squares
        self._judged = 0
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
        missed = (at_ms - self._next_ms) // self.step_ms
        if missed < 0:
            return
        if missed > self._keep:  # nothing remembered is of use
            self._forget()
            self._next_ms, missed = at_ms, 0
        value = math.log(max(demand, _FLOOR))
        for _ in range(missed):
            self._step(self._back(1) if self._count else value)
        self._step(value)
        self._next_ms += (missed + 1) * self.step_ms
        self.forecast = self._forecast(at_ms, value)

    def _back(self, steps: int) -> float:
        """The logarithm ``steps`` before the next one; the oldest known when there is none so old."""
        return float(self._past[(self._count - min(steps, self._count)) % self._keep])

    def _step(self, value: float) -> None:
        slot = self._count % self._lead
        if self._count >= self._lead:
            self._learn(self._inputs[slot], value - self._back(self._lead), self._predicted[slot])
        self._past[self._count % self._keep] = value
        self._count += 1
        inputs = [value - self._back(span + 1) for span in self._spans]
        for season in self._seasons:
            known = self._count > season
            inputs.append(self._back(season + 1 - self._lead) - self._back(season + 1) if known else 0.0)
        self._inputs[slot] = inputs
        self._predicted[slot] = self._inputs[slot] @ self._weights

    def _learn(self, inputs: "np.ndarray[tuple[int], np.dtype[np.float64]]", change: float, predicted: float) -> None:
        gain = self._covariance @ inputs
        scale = _FORGET + inputs @ gain
        self._weights += gain * ((change - inputs @ self._weights) / scale)
        self._covariance = (self._covariance - np.outer(gain, gain) / scale) / _FORGET
        # an average of the few errors there are, until the half-life has passed
        self._judged += 1
        share = max(1 - self._decay, 1 / self._judged)
        self._error += share * ((change - predicted) ** 2 - self._error)
        self._naive_error += share * (change**2 - self._naive_error)

    def _forecast(self, at_ms: int, value: float) -> Forecast:
        by_model = bool(self._error < self._naive_error)
        change = float(self._predicted[(self._count - 1) % self._lead]) if by_model else 0.0
        spread = math.sqrt(min(self._error, self._naive_error))
        return Forecast(at_ms, at_ms + self._lead * self.step_ms, math.exp(value + change), spread, by_model)
