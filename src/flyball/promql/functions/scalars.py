"""Functions between scalars and vectors, of the query itself, and of absence."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from flyball.model.frames import Floats, Mask
from flyball.model.labels import METRIC_NAME, MatchType
from flyball.promql.selecting import range_vector
from flyball.promql.syntax import Call, MatrixSelector, VectorSelector, unwrap
from flyball.promql.vectors import Vec
from flyball.promql.windows import cut

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator


def pi(ev: "Evaluator", _call: Call) -> Floats:
    return np.full(ev.ts.size, math.pi)


def time(ev: "Evaluator", _call: Call) -> Floats:
    return ev.ts / 1000


def vector(ev: "Evaluator", call: Call) -> Vec:
    return Vec(((),), ev.scalar(call.args[0])[None, :], np.ones((1, ev.ts.size), bool))


def scalar(ev: "Evaluator", call: Call) -> Floats:
    """The value of the one float; NaN when there is none or several."""
    vec = ev.vector(call.args[0]).floats()
    one = vec.ok.sum(axis=0) == 1
    return np.where(one, np.where(vec.ok, vec.values, 0.0).sum(axis=0), np.nan)


def max_of(ev: "Evaluator", call: Call) -> Floats:
    return np.maximum(ev.scalar(call.args[0]), ev.scalar(call.args[1]))


def min_of(ev: "Evaluator", call: Call) -> Floats:
    return np.minimum(ev.scalar(call.args[0]), ev.scalar(call.args[1]))


def start(ev: "Evaluator", _call: Call) -> Floats:
    return np.full(ev.ts.size, ev.run.start_ms / 1000)


def end(ev: "Evaluator", _call: Call) -> Floats:
    return np.full(ev.ts.size, ev.run.end_ms / 1000)


def range_(ev: "Evaluator", _call: Call) -> Floats:
    return np.full(ev.ts.size, (ev.run.end_ms - ev.run.start_ms) / 1000)


def step(ev: "Evaluator", _call: Call) -> Floats:
    return np.full(ev.ts.size, ev.run.step_ms / 1000 if ev.run.end_ms > ev.run.start_ms else 0.0)


# --- absence


def absent(ev: "Evaluator", call: Call) -> Vec:
    return _absence(ev, call, np.asarray(ev.vector(call.args[0]).ok.any(axis=0)))


def absent_over_time(ev: "Evaluator", call: Call) -> Vec:
    there = np.zeros(ev.ts.size, bool)
    found = range_vector(ev, call.args[0])
    for frame in found.frames:
        w = cut(frame, found.starts, found.ends)
        there |= w.full(w.count() > 0).any(axis=0)
    return _absence(ev, call, there)


def _absence(ev: "Evaluator", call: Call, there: Mask) -> Vec:
    """1 where nothing is there, labelled with what the selector asks for by equality, once."""
    arg = unwrap(call.args[0])
    selector = arg.vector if isinstance(arg, MatrixSelector) else arg
    labels: dict[str, str] = {}
    if isinstance(selector, VectorSelector):
        seen: set[str] = set()
        for m in selector.matchers:
            if m.name == METRIC_NAME:
                continue
            if m.type is MatchType.EQUAL and m.name not in seen:
                labels[m.name] = m.value
                seen.add(m.name)
            else:
                labels.pop(m.name, None)
    key = tuple(sorted((name, value) for name, value in labels.items() if value))
    return Vec((key,), np.ones((1, ev.ts.size)), ~there[None, :]).compact()


# --- order


def _sorted(ev: "Evaluator", call: Call, *, descending: bool) -> Vec:
    vec = ev.vector(call.args[0])
    if warn_of_sorting(ev, call):
        return vec.floats().compact()
    vec = vec.floats().compact()
    key = -vec.values[:, 0] if descending else vec.values[:, 0]
    return vec.rows(np.argsort(key, kind="stable"))


def warn_of_sorting(ev: "Evaluator", call: Call) -> bool:
    """Whether the query is one over a range, whose rows are sorted by label anyway."""
    if ev.ts.size > 1 or ev.run.end_ms > ev.run.start_ms:
        message = "sort is ineffective for range queries since results are always ordered by labels"
        ev.run.notes.warn(message, call)
        return True
    return False


def sort(ev: "Evaluator", call: Call) -> Vec:
    return _sorted(ev, call, descending=False)


def sort_desc(ev: "Evaluator", call: Call) -> Vec:
    return _sorted(ev, call, descending=True)


FUNCTIONS: "dict[str, Callable[[Evaluator, Call], Vec | Floats]]" = {
    "absent": absent,
    "absent_over_time": absent_over_time,
    "end": end,
    "max_of": max_of,
    "min_of": min_of,
    "pi": pi,
    "range": range_,
    "scalar": scalar,
    "sort": sort,
    "sort_desc": sort_desc,
    "start": start,
    "step": step,
    "time": time,
    "vector": vector,
}
