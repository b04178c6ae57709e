"""Sums of rates in one compiled pass, where numba is installed (the extra ``fast``); the same results without it.

numba takes seconds and over 100 MB to load, so it is loaded in a thread of its own once a query is large enough to gain
from it; until it is ready, numpy answers.
"""

import importlib.util
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import Floats
from flyball.promql.windows import Index, Windows

#: Series times steps from which on a query gains.
CELLS_MIN = 1 << 19

_lock = threading.Lock()
_kernel: Callable[..., None] | None = None
_asked = False


def disable() -> None:
    """Leaves numba out for the life of this process."""
    global _asked, _kernel
    with _lock:
        _asked, _kernel = True, None


def ready() -> bool:
    """Whether the compiled pass can be used; the first call sees to it that it soon can."""
    global _asked
    if _kernel is not None:
        return True
    with _lock:
        if not _asked:
            _asked = True
            if importlib.util.find_spec("numba") is not None:
                threading.Thread(target=load, name="promql-compile", daemon=True).start()
    return False


def load() -> None:
    """Compiles the pass, or loads it from numba's cache on disk."""
    global _kernel
    import numba

    any_layout = numba.types.Array(numba.float64, 2, "A", readonly=True)  # a frame may be a part of the store
    whole, row, table = numba.int64[:, ::1], numba.int64[::1], numba.float64[:, ::1]
    signature = numba.void(
        any_layout, whole, whole, whole, numba.int32[::1], row, row, row, row, numba.float64[::1], row,
        numba.boolean, numba.boolean, table, table, table,
    )  # fmt: skip
    _kernel = numba.njit(signature, nogil=True, cache=True, error_model="numpy")(_add_rates)


def rate_sums(w: Windows, codes: Index, groups: int, name: str) -> tuple[Floats, Floats, Floats]:
    """Sums of ``rate``, ``increase`` or ``delta`` by group: totals, what rounding lost, and numbers, each [T, G].

    Args:
        codes: [n] the group of each series.
    """
    assert _kernel is not None
    shape = (w.starts.size, groups)
    totals, lost, numbers = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    codes = codes.astype(np.int64)
    parts = [(w, codes)]
    if w.holed is not None:
        columns, own = w.holed
        rest = codes.copy()
        rest[columns] = -1
        parts = [(w, rest), (own, codes[columns])]
    starts, ends = np.ascontiguousarray(w.starts), np.ascontiguousarray(w.ends)
    for part, code in parts:
        first_drop, rows, fell_from = _drops(part, name)
        _kernel(
            part.values, np.ascontiguousarray(part.times), np.ascontiguousarray(part.lo.T),
            np.ascontiguousarray(part.hi.T), np.ascontiguousarray(part.target, np.int32), starts, ends,
            first_drop, rows, fell_from, code, name != "delta", name == "rate", totals, lost, numbers,
        )  # fmt: skip
    return totals, lost, numbers


def _drops(w: Windows, name: str) -> tuple[Index, Index, Floats]:
    """Where each series started anew: the first event of each [n + 1], the rows after, what it fell from."""
    n = len(w.labels)
    if name == "delta":
        return np.zeros(n + 1, np.int64), np.zeros(0, np.int64), np.zeros(0)
    rows, columns = np.nonzero(w.values[1:] < w.values[:-1])
    order = np.argsort(columns, kind="stable")
    first = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(columns, minlength=n), out=first[1:])
    return first, rows[order] + 1, np.asarray(w.values[rows[order], columns[order]])


def _add_rates(  # numba compiles this; it also runs as it is
    values: NDArray[Any],
    times: NDArray[Any],
    lo: NDArray[Any],
    hi: NDArray[Any],
    target: NDArray[Any],
    starts: NDArray[Any],
    ends: NDArray[Any],
    first_drop: NDArray[Any],
    drop_rows: NDArray[Any],
    fell_from: NDArray[Any],
    codes: NDArray[Any],
    counter: bool,
    per_second: bool,
    totals: NDArray[Any],
    lost: NDArray[Any],
    numbers: NDArray[Any],
) -> None:
    """Formula: promql/functions.go of Prometheus, extrapolatedRate; the sums are Neumaier's."""
    targets = times.shape[1]
    sampled, to_start, to_end = np.empty(targets), np.empty(targets), np.empty(targets)
    for k in range(starts.size):
        for p in range(targets):
            a, b = lo[k, p], hi[k, p] - 1
            sampled[p] = 0.0
            if b > a:
                span = (times[b, p] - times[a, p]) / 1000
                average = span / (b - a)
                before, behind = (times[a, p] - starts[k]) / 1000, (ends[k] - times[b, p]) / 1000
                sampled[p] = span
                to_start[p] = average / 2 if before >= average * 1.1 else before
                to_end[p] = average / 2 if behind >= average * 1.1 else behind
        seconds = (ends[k] - starts[k]) / 1000 if per_second else 1.0
        for s in range(target.size):
            p, group = target[s], codes[s]
            if group < 0 or sampled[p] <= 0:
                continue
            a, b = lo[k, p], hi[k, p] - 1
            first = values[a, s]
            result = values[b, s] - first
            for event in range(first_drop[s], first_drop[s + 1]):
                if a < drop_rows[event] <= b:
                    result += fell_from[event]
            start = to_start[p]
            if counter and result > 0 and first >= 0 and sampled[p] * first < start * result:
                start = min(start, sampled[p] * (first / result))
            result *= (sampled[p] + start + to_end[p]) / sampled[p] / seconds
            total = totals[k, group]
            new = total + result
            if np.isinf(new):
                lost[k, group] = 0.0
            elif abs(total) >= abs(result):
                lost[k, group] += (total - new) + result
            else:
                lost[k, group] += (result - new) + total
            totals[k, group] = new
            numbers[k, group] += 1
