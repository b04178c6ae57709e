"""Functions of each sample for itself: mathematics, clamping, rounding, parts of dates. Histograms are left out."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flyball.model.frames import Floats
from flyball.promql.catalog import DATES
from flyball.promql.selecting import samples
from flyball.promql.syntax import Call, VectorSelector, unwrap
from flyball.promql.vectors import Vec

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator

MATH: dict[str, Callable[[Floats], Floats]] = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh,
    "atan": np.arctan, "atanh": np.arctanh, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh,
    "deg": lambda v: v * 180 / math.pi, "exp": np.exp, "floor": np.floor, "ln": np.log, "log10": np.log10,
    "log2": np.log2, "rad": lambda v: v * math.pi / 180, "sgn": np.sign, "sin": np.sin, "sinh": np.sinh,
    "sqrt": np.sqrt, "tan": np.tan, "tanh": np.tanh,
}  # fmt: skip


def _floats(ev: "Evaluator", call: Call) -> Vec:
    return ev.vector(call.args[0]).floats()


def _math(of: Callable[[Floats], Floats], ev: "Evaluator", call: Call) -> Vec:
    vec = _floats(ev, call)
    return ev.unname(replace(vec, values=of(vec.values)).compact())


def round_(ev: "Evaluator", call: Call) -> Vec:
    """To the nearest multiple; halves go up."""
    nearest = ev.scalar(call.args[1]) if len(call.args) > 1 else np.ones(ev.ts.size)
    inverse = 1.0 / nearest
    return _math(lambda values: np.floor(values * inverse + 0.5) / inverse, ev, call)


def clamp(ev: "Evaluator", call: Call) -> Vec:
    vec, low, high = _floats(ev, call), ev.scalar(call.args[1]), ev.scalar(call.args[2])
    kept = replace(vec, values=np.maximum(low, np.minimum(high, vec.values)), ok=vec.ok & ~(high < low))
    return ev.unname(kept.compact())


def clamp_min(ev: "Evaluator", call: Call) -> Vec:
    bound = ev.scalar(call.args[1])
    return _math(lambda values: np.maximum(bound, values), ev, call)


def clamp_max(ev: "Evaluator", call: Call) -> Vec:
    bound = ev.scalar(call.args[1])
    return _math(lambda values: np.minimum(bound, values), ev, call)


# --- time


def _date(name: str, ev: "Evaluator", call: Call) -> Vec:
    if not call.args:
        values = date_part(name, np.floor(ev.ts / 1000))
        return Vec(((),), values[None, :], np.ones((1, ev.ts.size), bool))
    return _math(lambda values: date_part(name, values), ev, call)


def date_part(name: str, seconds_since_epoch: Floats) -> Floats:
    """The part of a date (UTC) that a function is named after; NaN for what is no time."""
    finite = np.isfinite(seconds_since_epoch) & (np.abs(seconds_since_epoch) < 1e17)
    seconds = np.where(finite, seconds_since_epoch, 0.0).astype(np.int64)
    moment = seconds.astype("datetime64[s]")
    day, month, year = (moment.astype(f"datetime64[{unit}]") for unit in "DMY")
    match name:
        case "minute":
            part = seconds // 60 % 60
        case "hour":
            part = seconds // 3600 % 24
        case "day_of_week":
            part = (day.astype(np.int64) + 4) % 7
        case "day_of_month":
            part = (day - month.astype("datetime64[D]")).astype(np.int64) + 1
        case "day_of_year":
            part = (day - year.astype("datetime64[D]")).astype(np.int64) + 1
        case "days_in_month":
            part = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)
        case "month":
            part = month.astype(np.int64) % 12 + 1
        case _:
            part = year.astype(np.int64) + 1970
    return np.where(finite, part.astype(np.float64), np.nan)


def timestamp(ev: "Evaluator", call: Call) -> Vec:
    """When each sample was taken; of a computed vector, the evaluation time."""
    arg = unwrap(call.args[0])
    if isinstance(arg, VectorSelector):
        vec, times, _ = samples(ev, arg)
        return ev.unname(replace(vec, values=times / 1000, histograms=None))
    vec = ev.vector(arg)
    values = np.broadcast_to(ev.ts / 1000, vec.values.shape)
    return ev.unname(replace(vec, values=values, histograms=None))


def start_timestamp(ev: "Evaluator", call: Call) -> Vec:
    """Since when each sample counts; only with the switch ``use-start-timestamps``."""
    arg = unwrap(call.args[0])
    if not ev.run.options.features.start_timestamps or not isinstance(arg, VectorSelector):
        ev.vector(arg)
        return ev.empty()
    vec, _, started = samples(ev, arg)
    return ev.unname(replace(vec, values=started / 1000, histograms=None))


FUNCTIONS: "dict[str, Callable[[Evaluator, Call], Vec]]" = {
    **{name: partial(_math, of) for name, of in MATH.items()},
    **{name: partial(_date, name) for name in DATES},
    "clamp": clamp,
    "clamp_max": clamp_max,
    "clamp_min": clamp_min,
    "round": round_,
    "start_timestamp": start_timestamp,
    "timestamp": timestamp,
}
