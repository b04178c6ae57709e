"""Sums of rates, extremes, and answers as JSON in compiled passes where numba is installed (the extra ``fast``).

The results are the same without it.

numba takes seconds and over 100 MB to load, so it is loaded in a thread of its own once a query is large enough to gain
from it; until it is ready, numpy answers. A pass runs on several cores, some steps on each.
"""

import importlib
import importlib.util
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import Codes, Floats, Frame, Mask, Times
from flyball.promql.stopping import Stop
from flyball.promql.windows import Index, Windows

#: Series times steps from which on it pays to load numba.
CELLS_MIN = 1 << 19
_CORES_MAX = 4
#: Series times steps from which on another core pays.
_CELLS_EACH = 1 << 18
#: A number's text takes as long as so many cells of a rate.
_TEXT_CELLS = 16

_lock = threading.Lock()
_kernels: Any = None
_decimals: Any = None
_asked = False
_others: ThreadPoolExecutor | None = None


def disable() -> None:
    """Leaves numba out for the life of this process."""
    global _asked, _kernels
    with _lock:
        _asked, _kernels = True, None


def ready(cells: int) -> bool:
    """Whether compiled passes can be used; the first that would do much sees to it that they soon can."""
    global _asked
    if _kernels is not None:
        return True
    with _lock:
        if not _asked and cells >= CELLS_MIN:
            _asked = True
            if importlib.util.find_spec("numba") is not None:
                threading.Thread(target=load, name="promql-compile", daemon=True).start()
    return False


def load() -> None:
    """Compiles the passes, or loads them from numba's cache on disk."""
    global _decimals, _kernels
    _decimals = importlib.import_module("flyball.promql.decimals")
    _kernels = importlib.import_module("flyball.promql.kernels")


def _cores() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_CORES_MAX, available)


def _shared(work: Callable[[slice], None], size: int, cells: int) -> None:
    """Does the work for all of ``size``, a part of it on each core when there are many cells."""
    global _others
    count = max(1, min(_cores(), cells // _CELLS_EACH, size))
    edges = [size * i // count for i in range(count + 1)]
    parts = [slice(first, last) for first, last in itertools.pairwise(edges)]
    if count > 1 and _others is None:
        with _lock:
            _others = _others or ThreadPoolExecutor(_CORES_MAX - 1, "promql-core")
    futures = [_others.submit(work, part) for part in parts[1:]] if _others is not None else []
    work(parts[0])
    for future in futures:
        future.result()


@dataclass(slots=True, eq=False)
class _Series:
    """Series as the kernels take them, those of a target one behind the other: tables are flat, with the cells from
    one row to the next. ``runs`` [p + 1] is where the series of each target begin, ``row_of`` where the values of a
    target's times are, when it is not in their row."""

    cells: Floats
    width: int
    times: Times
    times_width: int
    rows: int
    target: Codes
    runs: Index
    row_of: Codes


def _series(values: Floats, times_ms: Times, target: Codes) -> _Series:
    (cells, width), (times, times_width) = _flat(values), _flat(times_ms)
    runs = np.searchsorted(target, np.arange(times_ms.shape[1] + 1)).astype(np.int64)
    return _Series(cells, width, times, times_width, values.shape[0], target, runs, np.zeros(0, np.int32))


def _flat(table: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The memory of a table from its first cell on, and the cells from one row to the next."""
    rows, columns = table.shape
    if table.strides[1] != table.itemsize or table.strides[0] < columns * table.itemsize:
        table = np.ascontiguousarray(table)
    width = table.strides[0] // table.itemsize if rows > 1 else columns
    size = (rows - 1) * width + columns if rows else 0
    return np.lib.stride_tricks.as_strided(table, (size,), (table.itemsize,), writeable=False), width


class RateSums:
    """Sums of ``rate``, ``increase`` or ``delta`` by group, over several frames.

    Args:
        starts, ends: [T] of the windows, ascending.

    Attributes:
        totals, lost, numbers: [T, G + 1] the sums, what rounding lost of them, and how many series they are of; the
            last group is of nobody.
    """

    def __init__(self, name: str, starts: Times, ends: Times, groups: int, stop: Stop) -> None:
        self.name, self.starts, self.ends, self.stop = name, starts, ends, stop
        shape = (ends.size, groups + 1)
        self.totals, self.lost, self.numbers = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def add(self, frame: Frame, codes: Index) -> Mask:
        """Adds the series of a frame, ``codes`` [n] being their groups; returns which were used [n].

        Raises:
            QueryLimitError: nobody waits for the result any more.
        """
        target, values, order = frame.target, frame.values, None
        if not values.shape[0]:
            return np.zeros(target.size, bool)
        if (np.diff(target) < 0).any():
            order = np.argsort(target, kind="stable")
            target, values, codes = target[order], values[:, order], codes[order]
        series = _series(values, frame.times_ms, target)
        falls = np.zeros(series.rows, np.int64)
        if not _kernels.scan(series.cells, series.width, series.rows, target.size, falls):
            used = self._add(series, falls, codes)
        else:
            series, falls, holed = self._closed_up(series)
            columns = np.flatnonzero(holed)
            used = self._add(series, falls, np.where(holed, self.totals.shape[1] - 1, codes))
            if columns.size:  # what they lack, others of their target have
                own = target[columns]
                each = np.arange(columns.size, dtype=np.int32)
                apart, falls, _ = self._closed_up(_series(values[:, columns], frame.times_ms[:, own], each))
                used[columns] = self._add(apart, falls, codes[columns])
        if order is not None:
            used[order] = used.copy()
        return used

    def _closed_up(self, series: _Series) -> tuple[_Series, Index, Mask]:
        """Without the rows in which a target was not scraped; in how many series each row is below the one before, and
        which series still have holes."""
        targets = series.runs.size - 1
        times, row_of = np.empty(series.rows * targets, np.int64), np.full(series.rows * targets, -1, np.int32)
        holed, falls = np.zeros(series.target.size, bool), np.zeros(series.rows, np.int64)
        _kernels.close_up(
            series.cells, series.width, series.times, series.times_width, series.rows, series.runs,
            int(self.starts[0]), int(self.ends[-1]), times, row_of, holed, falls,
        )  # fmt: skip
        return replace(series, times=times, times_width=targets, row_of=row_of), falls, holed

    def _overlap(self) -> int:
        """After how many steps a window begins where that of the first one ends; 0 when none does, or hardly any."""
        step = int(self.ends[1] - self.ends[0]) if self.ends.size > 1 else 0
        steps, rest = divmod(int(self.ends[0] - self.starts[0]), step) if step else (0, 0)
        return steps if not rest and steps < min(64, self.ends.size) else 0

    def _add(self, series: _Series, falls: Index, codes: Index) -> Mask:
        counter, targets = self.name != "delta", series.runs.size - 1
        first_of = np.concatenate([[0], np.cumsum(falls) if counter else np.zeros_like(falls)])
        fallen, amounts = np.zeros(first_of[-1], np.int64), np.zeros(first_of[-1])
        if fallen.size:
            _kernels.fallen(series.cells, series.width, series.rows, series.runs, falls, series.row_of, fallen, amounts)
        stretches = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1], [True]]))
        used: list[Mask] = []

        def work(steps: slice) -> None:
            mine = np.zeros(targets, bool)
            used.append(mine)
            _kernels.add_rates(
                series.cells, series.width, series.times, series.times_width, series.rows, series.row_of,
                series.target, series.runs, codes, stretches, first_of, fallen, amounts, self.starts[steps],
                self.ends[steps], self._overlap(), counter, self.name == "rate", self.totals[steps], self.lost[steps],
                self.numbers[steps], mine, self.stop.flag,
            )  # fmt: skip

        _shared(work, self.ends.size, self.ends.size * codes.size)
        self.stop.check()
        found: Mask = np.logical_or.reduce(used)[series.target]
        return found


def extremes(w: Windows, *, greatest: bool) -> Floats:
    """The greatest or least value of every window [n, T], NaN where there is none but NaN.

    The series of a target lie one behind the other.
    """
    cells, width = _flat(w.values)
    (rows, series), (targets, steps) = w.values.shape, w.lo.shape
    runs = np.searchsorted(w.target, np.arange(targets + 1)).astype(np.int64)
    blocks = np.full((rows // _kernels._BLOCK, series), np.nan)
    _kernels.block_extremes(cells, width, series, greatest, blocks)
    lo, hi = np.ascontiguousarray(w.lo.T, np.int64), np.ascontiguousarray(w.hi.T, np.int64)
    out = np.full((steps, series), np.nan)
    stop = w.stop.flag if w.stop is not None else np.zeros(1, bool)

    def work(part: slice) -> None:
        _kernels.extremes(cells, width, runs, lo[part], hi[part], blocks.ravel(), greatest, out[part], stop)

    _shared(work, steps, out.size)
    w.check_stopped()
    return out.T


#: Room for a number's text: all digits of the smallest and the greatest, or of those that are not that extreme.
_TEXT_MAX, _TEXT_USUAL = 350, 28


def series_json(heads: list[bytes], values: Floats, stamps: list[bytes], tail: bytes) -> list[bytes | memoryview]:
    """``HEAD STAMP"VALUE"],...TAIL`` for every row of values [n, T], separated by commas, in some pieces."""
    values = np.ascontiguousarray(values)
    head_ends = np.cumsum([0, *map(len, heads)])
    stamp_ends = np.cumsum([0, *map(len, stamps)])
    head, stamp, end = (np.frombuffer(text, np.uint8) for text in (b"".join(heads), b"".join(stamps), tail))
    size = np.abs(values)
    usual = bool(((size < 1e15) & ((size > 1e-6) | (size == 0)) | ~np.isfinite(size)).all())
    row_max = len(tail) + 1 + stamp.size + len(stamps) * (3 + (_TEXT_USUAL if usual else _TEXT_MAX))
    found: dict[int, memoryview] = {}

    def work(rows: slice) -> None:
        own = head_ends[rows.start : rows.stop + 1]
        out = np.empty(own[-1] - own[0] + (rows.stop - rows.start) * row_max, np.uint8)
        length = _decimals.write_series(head, own, values[rows], stamp, stamp_ends, end, out)
        found[rows.start] = out.data[: length - 1]

    _shared(work, len(heads), values.size * _TEXT_CELLS)
    pieces: list[bytes | memoryview] = []
    for start in sorted(found):
        pieces += [b",", found[start]] if pieces else [found[start]]
    return pieces
