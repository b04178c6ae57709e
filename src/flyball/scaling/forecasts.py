"""The forecasts of ``Forecaster`` for a whole series at once, and what profile ``fast`` makes of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flyball.scaling.fast import DEAD_BAND, HEADROOM, MARGIN, MAX_SPREAD
from flyball.scaling.forecast import BETTER, FIT_DAYS, FIT_EVERY, FLOOR, KEPT_DAYS, LOST, RIDGE, Curve, Shape, Task
from flyball.scaling.types import MAX_INT32

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_BLOCKS_AT_ONCE = 8_192  # leads whose sums are made together
_SHORTEST, _LONGEST = 16, 4_096  # seconds whose sizes are tried together


#: What makes a heavier model of a task.
Fit = Callable[[Task], Curve]


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What was forecast at each second: ``expected`` replicas, typical error ``spread``, and whether by the model.

    ``heavy``: the share of the seconds in which the heavier model counted.
    """

    expected: Floats
    spread: Floats
    by_model: NDArray[np.bool_]
    heavy: float = 0.0


def forecasts(
    demand: Floats, shape: Shape, distort: Callable[[Floats], Floats] | None = None, fit: Fit | None = None
) -> Forecasts:
    """Of a demand in replicas, one a second.

    ``distort``: what becomes of the model's predictions (changes of the logarithm, one a step; NaN is none) on their
    way to be used, to try how a wrong forecast is taken. ``fit``: makes the fits that the shape's heavier model asks
    for, each of them at once.
    """
    steps = -(-np.arange(0, len(demand) * 1000, shape.step_ms) // 1000)
    steps = steps[steps < len(demand)]
    values = np.log(np.maximum(demand[steps], FLOOR))
    changes = values[shape.lead :] - values[: -shape.lead]
    inputs = _inputs(values, shape)
    naive = _faded(changes**2, shape)
    found = _predicted(inputs, changes, shape, distort)
    by_heavy = np.zeros(len(values), bool)
    if fit is not None and shape.heavy:
        heavy = _predicted(np.concatenate([inputs, _expected(values, shape, fit)], axis=1), changes, shape, distort)
        by_heavy = heavy.error < found.error * BETTER
        found = _Predicted(*(np.where(by_heavy, *pair) for pair in zip(heavy, found, strict=True)))
    by_model = (found.error < naive) & np.isfinite(found.change)
    expected = np.exp(values + np.where(by_model, found.change, 0.0))
    spread = np.sqrt(np.minimum(found.error, naive))
    counts = np.diff(np.append(steps, len(demand)))
    share = float((by_model & by_heavy).mean())
    return Forecasts(np.repeat(expected, counts), np.repeat(spread, counts), np.repeat(by_model, counts), share)


class _Predicted(NamedTuple):
    """One linear model: the change it predicts at each step (NaN for none), its error's mean square."""

    change: Floats
    error: Floats


def _predicted(inputs: Floats, changes: Floats, shape: Shape, distort: Callable[[Floats], Floats] | None) -> _Predicted:
    weights = _weights(inputs[: len(changes)], changes, shape)
    # those of the newest block whose samples were all known
    block = (np.arange(len(inputs)) + 1) // shape.lead - 2
    change = np.where(block < 0, 0.0, np.einsum("ij,ij->i", inputs, weights[np.maximum(block, 0)]))
    if distort is not None:
        change = distort(change)
    used = np.where(np.isfinite(change), change, 0.0)
    return _Predicted(change, _faded((changes - used[: len(changes)]) ** 2, shape))


def _expected(values: Floats, shape: Shape, fit: Fit) -> Floats:
    """[steps, 2]: what the curve of the time expects, see ``Curve.inputs``."""
    found = np.zeros((len(values), 2))
    levels = values[: len(values) // shape.bucket * shape.bucket].reshape(-1, shape.bucket).mean(axis=1)
    for known in range(FIT_DAYS * shape.day, len(levels) + 1, FIT_EVERY):
        task = Task(known - 1, tuple(levels[max(0, known - KEPT_DAYS * shape.day) : known]), shape.day, shape.reach)
        # from the step after the one that ended the level, when the fit was made
        part = slice(known * shape.bucket, (known + FIT_EVERY) * shape.bucket)
        steps = np.arange(len(values), dtype=float)[part]
        found[part] = fit(task).inputs(shape, steps, values[part])
    return found


def _inputs(values: Floats, shape: Shape) -> Floats:
    at = np.arange(len(values))
    columns = [values - values[np.maximum(at - span, 0)] for span in shape.spans]
    for season in shape.seasons:
        known = at >= season
        change = (
            values[np.maximum(at - season + shape.lead, 0).clip(max=len(values) - 1)]
            - values[np.maximum(at - season, 0)]
        )
        columns.append(np.where(known, change, 0.0))
    return np.stack(columns, axis=1)


def _weights(inputs: Floats, changes: Floats, shape: Shape) -> Floats:
    """[blocks, inputs]: the fit after each block of ``lead`` samples; one row of zeros when there is no block."""
    lead, size = shape.lead, inputs.shape[1]
    blocks = len(changes) // lead
    fade = (1 - LOST) ** np.arange(lead - 1, -1, -1.0)
    found = np.zeros((max(1, blocks), size))
    gram, moment, whole = np.zeros((size, size)), np.zeros(size), (1 - LOST) ** lead
    ridge = RIDGE * np.eye(size)
    for begin in range(0, blocks, _BLOCKS_AT_ONCE):
        end = min(blocks, begin + _BLOCKS_AT_ONCE)
        part = inputs[begin * lead : end * lead].reshape(-1, lead, size)
        faded = part * fade[:, None]
        grams = np.matmul(part.transpose(0, 2, 1), faded)
        moments = np.einsum("bli,bl->bi", faded, changes[begin * lead : end * lead].reshape(-1, lead))
        for at in range(end - begin):
            gram, moment = whole * gram + grams[at], whole * moment + moments[at]
            grams[at], moments[at] = gram, moment
        found[begin:end] = np.linalg.solve(grams + ridge, moments[:, :, None])[:, :, 0]
    return found


def _faded(squares: Floats, shape: Shape) -> Floats:
    """The fading mean of errors at each step; the first of them are known after one lead."""
    found, mean, least = [], 0.0, 1 - shape.decay
    settled = math.ceil(1 / least)
    for count, square in enumerate(squares[:settled].tolist(), 1):
        mean += max(least, 1 / count) * (square - mean)
        found.append(mean)
    for square in squares[settled:].tolist():
        mean += least * (square - mean)
        found.append(mean)
    return np.concatenate([np.zeros(shape.lead), found])


def needs(demand: Floats, known: Forecasts | None, ceiling: float = float(MAX_INT32)) -> Floats:
    """``fast.needed`` for each second; a forecast asks for at most ``ceiling``."""
    if known is None:
        return demand
    asked = np.where(known.spread > MAX_SPREAD, 0.0, known.expected * np.exp(MARGIN * np.sqrt(known.spread)))
    return np.maximum(demand, np.minimum(asked, ceiling))


#: ``(second, current, wanted) -> desired``: the user's policies; asked only where something is to be written.
Limit = Callable[[int, int, int], int]


def sizes(
    need: Floats,
    hold_s: int,
    first: int,
    low: Counts | int,
    high: Counts | int,
    *,
    foreseen: bool,
    limit: Limit | None = None,
) -> Counts:
    """``fast.sized`` second by second from ``first`` replicas on, within bounds.

    A stretch of seconds is tried as if nothing were written; the first write in it ends the stretch.
    """
    whole = np.ceil(need).astype(np.int64)
    up = np.minimum(np.ceil(need * (1 + HEADROOM)), MAX_INT32).astype(np.int64)
    up = np.where(foreseen & (whole < up * (1 - DEAD_BAND)), whole, up)
    highest = _highest(whole, hold_s)
    down = highest if foreseen else np.ceil(highest * (1 + HEADROOM)).astype(np.int64)
    lows, highs = np.broadcast_to(low, need.shape), np.broadcast_to(high, need.shape)
    found = np.empty(len(need), np.int64)
    current, at, stretch = first, 0, 64
    while at < len(need):
        part = slice(at, at + stretch)
        fewer = np.where(down[part] < current * (1 - DEAD_BAND), down[part], current)
        wanted = np.clip(np.where(whole[part] > current, up[part], fewer), lows[part], highs[part])
        moved = wanted != current
        taken = int(moved.argmax())
        if not moved[taken]:
            found[part] = current
            at, stretch = at + len(wanted), min(_LONGEST, 2 * stretch)
            continue
        found[at : at + taken] = current
        at += taken
        current = int(wanted[taken]) if limit is None else limit(at, current, int(wanted[taken]))
        found[at] = current
        at, stretch = at + 1, max(_SHORTEST, min(_LONGEST, 2 * taken))
    return found


def _highest(whole: Counts, hold_s: int) -> Counts:
    """The largest of the last ``hold_s`` seconds and this one (van Herk's sliding maximum)."""
    window = hold_s + 1
    padding = np.full(-(-(len(whole) + hold_s) // window) * window - len(whole), np.iinfo(np.int64).min)
    padded = np.concatenate([padding[:hold_s], whole, padding[hold_s:]]).reshape(-1, window)
    before = np.maximum.accumulate(padded, axis=1).ravel()
    after = np.maximum.accumulate(padded[:, ::-1], axis=1)[:, ::-1].ravel()
    return np.maximum(after[: len(whole)], before[hold_s : hold_s + len(whole)])
