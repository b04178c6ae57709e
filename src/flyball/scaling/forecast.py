"""What demand will be when a pod that starts now is ready.

A linear model of the logarithm's change over the lead time, fitted by least squares in which old samples fade, anew
after each lead. Its inputs are the recent changes over several spans (trend, and its reversal: traffic overshoots) and
what followed at this time a day and a week ago (season). A heavier model of the day (``holtwinters``) makes a second
linear model, which has what that expects as two more inputs. Each prediction is judged when its time comes (rolling
origin): ``spread`` is the root mean square of those errors, and the model that errs least counts, "as now" among them.
"""

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from flyball.scaling.types import HOLT_WINTERS, LINEAR, Forecast

Floats = NDArray[np.float64]

SPANS = (0.2, 0.4, 0.8, 2.0, 4.0, 8.0)  # of the lead
STEPS_PER_LEAD = 10
LOST = 0.00024  # of a sample's weight a step: half has faded after 290 leads, some two hours of a lead of 30 s
RIDGE = 0.01  # pulls the weights of inputs that never move to zero
HALF_LIFE_LEADS = 43.0  # of the error's mean square
BETTER = 1 - 1e-6  # of an error's mean square; less is rounding
LONG_GAP_LEADS = 20  # what is longer is not learned from
FLOOR = 0.5  # replicas; below it a logarithm says nothing

LEVELS_PER_DAY = 144  # ten minutes each
FIT_DAYS = 2  # of levels before a first fit, so that each time of day was seen twice
KEPT_DAYS = 14  # that a fit is made from
FIT_EVERY = 12  # levels
SPARE = 12  # levels that a fit reaches beyond the next one: should that be late, or fail

FEW_LEVELS = "it needs two days of demand"
NO_BETTER = "it has erred more of late"


class Shape:
    """The numbers of steps that follow from a lead and its seasons; the first of them is the day."""

    def __init__(self, lead_s: float, seasons_s: tuple[float, ...], model: str = LINEAR) -> None:
        self.lead_s, self.seasons_s, self.model = lead_s, seasons_s, model
        self.step_ms = max(1000, round(lead_s * 1000 / STEPS_PER_LEAD))
        self.lead = max(1, round(lead_s * 1000 / self.step_ms))
        self.spans = [max(1, round(span * self.lead)) for span in SPANS]
        self.seasons = [max(self.lead + 1, round(season * 1000 / self.step_ms)) for season in seasons_s]
        self.size = len(self.spans) + len(self.seasons)
        self.decay = 0.5 ** (1 / (HALF_LIFE_LEADS * self.lead))  # of the error's mean square, a step
        self.heavy = model != LINEAR and bool(seasons_s)
        # a level is a mean of so many steps, a day so many levels
        self.bucket = max(1, round(self.seasons[0] / LEVELS_PER_DAY)) if self.heavy else 0
        self.day = round(self.seasons[0] / self.bucket) if self.heavy else 0
        self.reach = FIT_EVERY + SPARE + -(-self.lead // self.bucket) if self.heavy else 0


class Curve(msgspec.Struct, frozen=True):
    """What a heavier model expects: logarithms in the middles of levels, from level ``first`` on."""

    first: int
    values: tuple[float, ...]

    def inputs(self, shape: Shape, steps: Floats, values: Floats) -> Floats:
        """[steps, 2]: the change it expects over the lead, and from the logarithm of now; zeros beyond its end."""
        middles = (self.first + np.arange(len(self.values)) + 0.5) * shape.bucket - 0.5
        now, then = (np.interp(at, middles, self.values) for at in (steps, steps + shape.lead))
        known = (steps >= middles[0]) & (steps + shape.lead <= middles[-1])
        return np.stack([np.where(known, then - now, 0.0), np.where(known, then - values, 0.0)], axis=1)


class Task(msgspec.Struct, frozen=True):
    """A fit to be made: of ``levels``, logarithms up to now, whose season has ``day`` of them."""

    first: int
    levels: tuple[float, ...]
    day: int
    ahead: int

    def curve(self, expected: Floats) -> Curve:
        """From the last known level on."""
        return Curve(self.first, (self.levels[-1], *expected.tolist()))


class _Model(msgspec.Struct):
    """A linear model: its sums, its weights, its predictions that wait for their time, and its error's mean square."""

    gram: Floats
    moment: Floats
    weights: Floats
    inputs: Floats
    predicted: Floats
    error: float = 0.0

    @classmethod
    def new(cls, size: int, lead: int) -> "_Model":
        zeros = np.zeros
        return cls(zeros((size, size)), zeros(size), zeros(size), zeros((lead, size)), zeros(lead))

    def predict(self, slot: int, inputs: Floats) -> None:
        self.inputs[slot] = inputs
        self.predicted[slot] = inputs @ self.weights

    def learn(self, slot: int, change: float, share: float, *, fit: bool) -> None:
        inputs = self.inputs[slot]
        self.gram = (1 - LOST) * self.gram + np.outer(inputs, inputs)
        self.moment = (1 - LOST) * self.moment + change * inputs
        self.error += share * ((change - float(self.predicted[slot])) ** 2 - self.error)
        if fit:
            ridge = RIDGE * np.eye(len(self.moment))
            self.weights = np.asarray(np.linalg.solve(self.gram + ridge, self.moment), np.float64)


class _Saved(msgspec.Struct, array_like=True):
    """A forecaster without its past."""

    lead_s: float
    seasons_s: tuple[float, ...]
    model: str
    next_ms: int | None
    count: int
    learned: int
    naive_error: float
    models: list[tuple[list[bytes], float]]
    curve: Curve | None
    forecast: Forecast | None


_PIECE = 1024  # logarithms of the past that are kept together


class Forecaster:
    """Takes one demand after the other and keeps the newest Forecast.

    ``lead_s``: how far ahead, the time a pod takes to be ready. ``seasons_s``: after which times demand resembles
    itself. ``model``: "holt-winters" asks for fits, see ``task``. Holds one float for each tenth of the lead of the
    longest season. ``forecasts`` is the same for a whole series at once.
    """

    def __init__(
        self, lead_s: float, seasons_s: tuple[float, ...] = (86_400.0, 604_800.0), model: str = LINEAR
    ) -> None:
        self.shape = Shape(lead_s, seasons_s, model)
        self._keep = max([self.shape.spans[-1], self.shape.bucket, *self.shape.seasons]) + self.shape.lead + 1
        self._next_ms: int | None = None
        self.forecast: Forecast | None = None
        self._forget()

    def _forget(self) -> None:
        size, lead = self.shape.size, self.shape.lead
        self._models = [_Model.new(size, lead)] + [_Model.new(size + 2, lead)] * self.shape.heavy
        self._learned = 0
        self._past = np.zeros(self._keep)  # ring of logarithms
        self._naive_error = 0.0  # a mean square
        self._count = self._saved_count = 0
        self._levels: list[float] = []
        self._curve: Curve | None = None
        self._trouble = FEW_LEVELS
        self._asked = False

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
        if self._count and missed > LONG_GAP_LEADS * self.shape.lead:
            self._bridge(missed - self.shape.lead)
            self._next_ms += (missed - self.shape.lead) * self.shape.step_ms
            missed = self.shape.lead
        for _ in range(missed):
            self._step(self._back(1) if self._count else value)
        self._step(value)
        self._next_ms += (missed + 1) * self.shape.step_ms
        self.forecast = self._forecast(at_ms, value)

    def _bridge(self, steps: int) -> None:
        """Over a long gap at once: nothing is learned from it, and what was predicted before it is not judged."""
        begin, held = self._count, self._back(1)
        self._past[np.arange(begin, begin + steps) % self._keep] = held
        self._count += steps
        for model in self._models:
            model.inputs[:], model.predicted[:] = 0.0, 0.0
        if self.shape.heavy:
            for level in range(begin // self.shape.bucket, self._count // self.shape.bucket):
                self._end_level(level)

    def _end_level(self, level: int) -> None:
        steps = np.arange(level * self.shape.bucket, (level + 1) * self.shape.bucket)
        self._levels.append(float(self._past[steps % self._keep].mean()))
        self._asked = False

    def _back(self, steps: int) -> float:
        """The logarithm ``steps`` before the next one; the oldest known when there is none so old."""
        return float(self._past[(self._count - min(steps, self._count)) % self._keep])

    def _step(self, value: float) -> None:
        lead, slot = self.shape.lead, self._count % self.shape.lead
        if self._count >= lead:
            self._learn(slot, value - self._back(lead))
        self._past[self._count % self._keep] = value
        self._count += 1
        inputs = [value - self._back(span + 1) for span in self.shape.spans]
        for season in self.shape.seasons:
            known = self._count > season
            inputs.append(self._back(season + 1 - lead) - self._back(season + 1) if known else 0.0)
        self._models[0].predict(slot, np.array(inputs))
        if self.shape.heavy:
            self._models[1].predict(slot, np.concatenate([inputs, self._expected(value)]))
            if self._count % self.shape.bucket == 0:
                self._end_level(self._count // self.shape.bucket - 1)

    def _expected(self, value: float) -> Floats:
        if self._curve is None:
            return np.zeros(2)
        found = self._curve.inputs(self.shape, np.array([self._count - 1.0]), np.array([value]))
        return np.asarray(found[0], np.float64)

    def _learn(self, slot: int, change: float) -> None:
        self._learned += 1
        # an average of the few errors there are, until the half-life has passed
        share = max(1 - self.shape.decay, 1 / self._learned)
        for model in self._models:
            model.learn(slot, change, share, fit=self._learned % self.shape.lead == 0)
        self._naive_error += share * (change**2 - self._naive_error)

    def _forecast(self, at_ms: int, value: float) -> Forecast:
        best = self._models[0]
        if self.shape.heavy and self._models[1].error < best.error * BETTER:
            best = self._models[1]
        by_model = best.error < self._naive_error
        change = float(best.predicted[(self._count - 1) % self.shape.lead]) if by_model else 0.0
        spread = math.sqrt(min(best.error, self._naive_error))
        for_ms = at_ms + self.shape.lead * self.shape.step_ms
        heavy, asked = best is not self._models[0], self.shape.model != LINEAR
        name = (HOLT_WINTERS if heavy else LINEAR) if by_model else ""
        trouble = "" if not asked or (heavy and by_model) else self._trouble or NO_BETTER
        return Forecast(at_ms, for_ms, math.exp(value + change), spread, by_model, name, trouble)

    # --- the heavier model ---

    def task(self) -> Task | None:
        """The fit that is due, once; to be answered with ``fitted`` or ``failed``."""
        shape, levels = self.shape, self._levels
        if not shape.heavy or self._asked or len(levels) < FIT_DAYS * shape.day:
            return None
        made = self._count // shape.bucket
        if self._curve is not None and made - 1 - self._curve.first < FIT_EVERY:
            return None
        self._asked = True
        del levels[: -KEPT_DAYS * shape.day]
        return Task(made - 1, tuple(levels), shape.day, shape.reach)

    def fitted(self, curve: Curve) -> None:
        """What a fit expects, from the next demand on."""
        self._curve, self._trouble = curve, ""

    def failed(self, why: str) -> None:
        """No fit could be made; it is tried again with the next level."""
        self._trouble = why

    # --- kept over a restart ---

    def unsaved(self, *, everything: bool = False) -> dict[str, bytes]:
        """What has changed since the last call, by name of its piece; nothing until another lead has been learned."""
        if not everything and self._count - self._saved_count < self.shape.lead:
            return {}
        fresh = self._keep if everything else min(self._keep, self._count - self._saved_count)
        touched = np.unique(np.arange(max(0, self._count - fresh), self._count) % self._keep // _PIECE)
        pieces = {f"past/{at}": self._past[at * _PIECE : (at + 1) * _PIECE].tobytes() for at in touched}
        if self.shape.heavy:
            del self._levels[: -KEPT_DAYS * self.shape.day]
            pieces["levels"] = np.array(self._levels).tobytes()
        models = [
            ([part.tobytes() for part in (m.gram, m.moment, m.weights, m.inputs, m.predicted)], m.error)
            for m in self._models
        ]
        shape = self.shape
        state = _Saved(
            shape.lead_s, shape.seasons_s, shape.model, self._next_ms, self._count, self._learned, self._naive_error,
            models, self._curve, self.forecast,
        )  # fmt: skip
        self._saved_count = self._count
        return pieces | {"state": msgspec.msgpack.encode(state)}

    @classmethod
    def restored(cls, pieces: Mapping[str, bytes], now_ms: int) -> "Forecaster":
        """The one whose pieces these are; a forecast of a time that has passed is left out.

        Raises:
            ValueError: they do not belong together.
        """
        try:
            state = msgspec.msgpack.decode(pieces["state"], type=_Saved)
        except (KeyError, msgspec.MsgspecError) as error:
            raise ValueError(f"no forecaster can be read: {error!r}") from None
        found = cls(state.lead_s, state.seasons_s, state.model)
        if len(state.models) != len(found._models):
            raise ValueError(f"{len(state.models)} models where {len(found._models)} belong")
        for model, (parts, mean_square) in zip(found._models, state.models, strict=True):
            model.error = mean_square
            for name, part in zip(("gram", "moment", "weights", "inputs", "predicted"), parts, strict=True):
                setattr(model, name, np.frombuffer(part).reshape(getattr(model, name).shape).copy())
        for name, body in pieces.items():
            if name.startswith("past/"):
                begin = int(name.removeprefix("past/")) * _PIECE
                known = np.frombuffer(body)
                found._past[begin : begin + len(known)] = known
        found._levels = np.frombuffer(pieces.get("levels", b"")).tolist()
        found._next_ms, found._count, found._saved_count = state.next_ms, state.count, state.count
        found._learned, found._naive_error, found._curve = state.learned, state.naive_error, state.curve
        found._trouble = FEW_LEVELS if state.curve is None else ""
        if state.forecast is not None and now_ms <= state.forecast.for_ms:
            found.forecast = state.forecast
        return found
