"""Loops that numba compiles: imported by ``compiled.load`` alone, since numba is large.

Tables come flat: a table's memory and the cells from one row to the next. Each kernel does what the numpy way of
``over_time``, ``aggregation`` or ``rendering`` does, and is tested against it. All of them let go of the interpreter's
lock, and those that run over steps ask ``stop`` between two of them.
"""

from typing import Any

import numba as nb
import numpy as np

from flyball.model.frames import ABSENT_BITS, STALE_BITS

_cells = nb.types.Array(nb.float64, 1, "C", readonly=True)  # a frame may be a part of the store
_times = nb.types.Array(nb.int64, 1, "C", readonly=True)
_rows, _row, _bytes = nb.int32[::1], nb.float64[::1], nb.uint8[::1]
_ABSENT, _STALE, _LATEST = np.uint64(ABSENT_BITS), np.uint64(STALE_BITS), np.iinfo(np.int64).max
_longs, _table, _i64, _bool = nb.int64[::1], nb.float64[:, ::1], nb.int64, nb.boolean


def _compiled(*signature: Any, **options: Any) -> Any:
    return nb.njit(signature, nogil=True, cache=True, error_model="numpy", **options)


# --- windows


@_compiled(_times, _i64, _i64, _i64, _rows)
def _seek(times: Any, width: int, rows: int, edge_ms: int, at: Any) -> None:
    """Puts each target's row at the first one that is later than the edge."""
    for p in range(at.size):
        low, high = 0, rows
        while low < high:
            middle = (low + high) // 2
            if times[middle * width + p] <= edge_ms:
                low = middle + 1
            else:
                high = middle
        at[p] = low


@_compiled(_times, _i64, _i64, _i64, _rows)
def _advance(times: Any, width: int, rows: int, edge_ms: int, at: Any) -> None:
    """As ``_seek``, from where the rows are."""
    for p in range(at.size):
        row = at[p]
        while row < rows and times[row * width + p] <= edge_ms:
            row += 1
        at[p] = row


@_compiled(_cells, _i64, _i64, _i64, _longs)
def scan(values: Any, width: int, rows: int, series: int, falls: Any) -> int:
    """Counts in how many series each row is below the one before; returns how many NaN there are."""
    odd = 0
    for row in range(rows):
        here = values[row * width : row * width + series]
        for s in range(series):
            odd += here[s] != here[s]
        if row:
            before = values[(row - 1) * width : (row - 1) * width + series]
            count = 0
            for s in range(series):
                count += here[s] < before[s]
            falls[row] = count
    return odd


@_compiled(_cells, _i64, _times, _i64, _i64, _longs, _i64, _i64, _longs, _rows, nb.boolean[::1], _longs)
def close_up(
    values: Any, width: int, times: Any, times_width: int, rows: int, runs: Any, start_ms: int, end_ms: int,
    own_times: Any, row_of: Any, holed: Any, falls: Any,
) -> None:  # fmt: skip
    """Leaves out the rows of each target in which it was not scraped, or that lie outside (start, end].

    What is left of them moves up: ``own_times`` and ``row_of`` [rows * targets] are their times and where their values
    are. Marks the series that have no sample in some row that is left, and counts falls as ``scan`` does.
    """
    targets, bits = runs.size - 1, values.view(np.uint64)
    count = np.zeros(targets, np.int64)
    own_times[:] = _LATEST
    for row in range(rows):
        for p in range(targets):
            at_ms = times[row * times_width + p]
            if at_ms <= start_ms or at_ms > end_ms:
                continue
            here, first, last = row * width, runs[p], runs[p + 1]
            absent = 0
            for s in range(first, last):
                absent += bits[here + s] == _ABSENT or bits[here + s] == _STALE
            if absent == last - first:
                continue
            for s in range(first, last if absent else first):
                holed[s] |= bits[here + s] == _ABSENT or bits[here + s] == _STALE
            own = count[p]
            if own:
                before = row_of[(own - 1) * targets + p] * width
                fallen = 0
                for s in range(first, last):
                    fallen += values[here + s] < values[before + s]
                falls[own] += fallen
            own_times[own * targets + p] = at_ms
            row_of[own * targets + p] = row
            count[p] = own + 1


@_compiled(_cells, _i64, _i64, _longs, _longs, _rows, _longs, _row)
def fallen(values: Any, width: int, rows: int, runs: Any, falls: Any, row_of: Any, columns: Any, amounts: Any) -> None:
    """Which series fall, and from what, row by row; ``falls`` says in which rows some do."""
    targets, at = runs.size - 1, 0
    for row in range(rows):
        if falls[row] == 0:
            continue
        for p in range(targets):
            here, before = row, row - 1
            if row_of.size:
                here, before = row_of[row * targets + p], row_of[(row - 1) * targets + p]
                if here < 0:
                    continue
            for s in range(runs[p], runs[p + 1]):
                if values[here * width + s] < values[before * width + s]:
                    columns[at], amounts[at] = s, values[before * width + s]
                    at += 1


# --- extremes

_BLOCK = 16  # rows of which the extreme is known at once


@_compiled(_cells, _i64, _i64, _i64, _i64, _bool, _row)
def _take_extreme(values: Any, at: int, width: int, count: int, series: int, greatest: bool, best: Any) -> None:
    """Makes ``best`` the greatest (or least) of itself and of some rows from a cell on; NaN is nothing."""
    for row in range(count):
        here = values[at + row * width : at + row * width + series]
        if greatest:
            for s in range(series):
                value, known = here[s], best[s]
                best[s] = value if (value > known) | (known != known) else known
        else:
            for s in range(series):
                value, known = here[s], best[s]
                best[s] = value if (value < known) | (known != known) else known


@_compiled(_cells, _i64, _i64, _bool, _table)
def block_extremes(values: Any, width: int, series: int, greatest: bool, blocks: Any) -> None:
    """The extremes of every ``_BLOCK`` rows; ``blocks`` [rows / _BLOCK, n] are NaN before."""
    for row in range(blocks.shape[0] * _BLOCK):
        _take_extreme(values, row * width, width, 1, series, greatest, blocks[row // _BLOCK])


@_compiled(_cells, _i64, _cells, _i64, _i64, _i64, _i64, _bool, _row)
def _take_window(
    values: Any, width: int, blocks: Any, blocks_width: int, first: int, row: int, end: int, greatest: bool, best: Any
) -> None:
    """``_take_extreme`` of the rows from ``row`` to ``end`` of the series from ``first`` on, by blocks where it can."""
    begin, last = -(-row // _BLOCK), end // _BLOCK
    if begin < last:
        _take_extreme(values, row * width + first, width, begin * _BLOCK - row, best.size, greatest, best)
        _take_extreme(blocks, begin * blocks_width + first, blocks_width, last - begin, best.size, greatest, best)
        row = last * _BLOCK
    _take_extreme(values, row * width + first, width, end - row, best.size, greatest, best)


@_compiled(_cells, _i64, _longs, nb.int64[:, ::1], nb.int64[:, ::1], _cells, _bool, _table, nb.boolean[::1])
def extremes(
    values: Any, width: int, runs: Any, lo: Any, hi: Any, blocks: Any, greatest: bool, out: Any, stop: Any
) -> None:
    """The extremes of all windows: ``lo`` and ``hi`` [T, p], ``out`` [T, n] (NaN before, arbitrary where a window is
    empty). Most rows are in the windows of all targets, and taken for all series at once."""
    series, targets = out.shape[1], lo.shape[1]
    for k in range(lo.shape[0]):
        if stop[0]:
            return
        low, high = 0, np.iinfo(np.int64).max
        for p in range(targets):
            if lo[k, p] < hi[k, p]:
                low, high = max(low, lo[k, p]), min(high, hi[k, p])
        shared = low < high and high < np.iinfo(np.int64).max
        if shared:
            _take_window(values, width, blocks, series, 0, low, high, greatest, out[k])
        for p in range(targets):
            best = out[k, runs[p] : runs[p + 1]]
            row, end = lo[k, p], hi[k, p]
            if row < end and shared:
                _take_window(values, width, blocks, series, runs[p], row, low, greatest, best)
                row = high
            if row < end:
                _take_window(values, width, blocks, series, runs[p], row, end, greatest, best)


# --- sums of rates


@_compiled(_times, _i64, _rows, _rows, _i64, _i64, _row, _row, _row)
def _reach(
    times: Any, width: int, lo: Any, hi: Any, start_ms: int, end_ms: int, sampled: Any, to_start: Any, to_end: Any
) -> int:
    """Of each target: the seconds between its first and last sample of a window (0 without two), and how far to extend
    them to either side. Returns how many targets have two."""
    for p in range(lo.size):  # apart from the arithmetic, and unsigned, so that both loops become vectors
        last = np.uint64(max(hi[p] - 1, 0))
        first = min(np.uint64(lo[p]), last)
        to_start[p] = times[first * np.uint64(width) + np.uint64(p)] - start_ms
        to_end[p] = end_ms - times[last * np.uint64(width) + np.uint64(p)]
    several, length = 0, float(end_ms - start_ms)
    for p in range(lo.size):
        steps = hi[p] - 1 - lo[p]
        before, behind = to_start[p] / 1000, to_end[p] / 1000
        span = (length - to_start[p] - to_end[p]) / 1000 if steps > 0 else 0.0
        average = span / steps
        sampled[p] = span
        to_start[p] = average / 2 if before >= average * 1.1 else before
        to_end[p] = average / 2 if behind >= average * 1.1 else behind
        several += span > 0
    return several


@_compiled(_cells, _i64, _rows, _rows, _rows, _longs, _row, _row)
def _grown(values: Any, width: int, row_of: Any, lo: Any, hi: Any, runs: Any, firsts: Any, grown: Any) -> None:
    """The first values of all series, and their last less their first; ``runs`` is where each target's begin."""
    targets = lo.size
    for p in range(targets):
        a, b = np.int64(lo[p]), np.int64(hi[p]) - 1
        if b > a:
            if row_of.size:
                a, b = np.int64(row_of[a * targets + p]), np.int64(row_of[b * targets + p])
            a, b = a * width, b * width
            for s in range(runs[p], runs[p + 1]):
                first = values[a + s]
                firsts[s] = first
                grown[s] = values[b + s] - first


@_compiled(_longs, _longs, _row, _rows, _rows, _rows, _row)
def _regain(first_of: Any, columns: Any, amounts: Any, target: Any, lo: Any, hi: Any, grown: Any) -> None:
    """Adds what each fall within a window hid; ``first_of`` is where those of each row begin."""
    low, high = first_of.size, 0
    for p in range(lo.size):
        if lo[p] < hi[p]:
            low, high = min(low, lo[p]), max(high, hi[p])
    for row in range(low + 1, high):
        for event in range(first_of[row], first_of[row + 1]):
            s = columns[event]
            if lo[target[s]] < row < hi[target[s]]:
                grown[s] += amounts[event]


@_compiled(_row, _row, _row, _longs, _row, _bool, nb.float64, _row)
def _extend(
    sampled: Any, to_start: Any, to_end: Any, runs: Any, firsts: Any, counter: bool, seconds: float, grown: Any
) -> None:
    """Extrapolates what has grown to the edges of the window; a counter not past where it would have been zero."""
    for p in range(sampled.size):
        span, start = sampled[p], to_start[p]
        if span <= 0:
            for s in range(runs[p], runs[p + 1]):
                grown[s] = 0.0
            continue
        factor = (span + start + to_end[p]) / span / seconds
        near = 0
        if counter:
            for s in range(runs[p], runs[p + 1]):
                near += firsts[s] >= 0 and span * firsts[s] < start * grown[s]
        if near:
            for s in range(runs[p], runs[p + 1]):
                own = start
                if firsts[s] >= 0 and span * firsts[s] < start * grown[s]:
                    own = min(start, span * (firsts[s] / grown[s]))
                grown[s] *= (span + own + to_end[p]) / span / seconds
        else:
            for s in range(runs[p], runs[p + 1]):
                grown[s] *= factor


@_compiled(_row, fastmath={"reassoc"})
def _sum(items: Any) -> float:
    total = 0.0
    for s in range(items.size):
        total += items[s]
    return total


@_compiled(_row, _longs, _longs, _row, _row)
def _add(items: Any, codes: Any, stretches: Any, totals: Any, lost: Any) -> None:
    """Sums by group, and what rounding lost where signs are mixed (Neumaier's); ``stretches`` is where series that
    follow each other and are of one group begin."""
    negative = 0
    for s in range(items.size):
        negative += items[s] < 0
    if negative == 0:
        if stretches.size * 8 <= items.size:
            for i in range(stretches.size - 1):
                totals[codes[stretches[i]]] += _sum(items[stretches[i] : stretches[i + 1]])
        else:
            for s in range(items.size):
                totals[codes[s]] += items[s]
        return
    for s in range(items.size):
        item, group = items[s], codes[s]
        total = totals[group]
        new = total + item
        if np.isinf(new):
            lost[group] = 0.0
        elif abs(total) >= abs(item):
            lost[group] += (total - new) + item
        else:
            lost[group] += (item - new) + total
        totals[group] = new


@_compiled(
    _cells, _i64, _times, _i64, _i64, _rows, _rows, _longs, _longs, _longs, _longs, _longs, _row, _longs, _longs,
    _i64, _bool, _bool, _table, _table, _table, nb.boolean[::1], nb.boolean[::1],
)  # fmt: skip
def add_rates(
    values: Any,
    width: int,
    times: Any,
    times_width: int,
    rows: int,
    row_of: Any,
    target: Any,
    runs: Any,
    codes: Any,
    stretches: Any,
    first_of: Any,
    columns: Any,
    amounts: Any,
    starts: Any,
    ends: Any,
    overlap: int,
    counter: bool,
    per_second: bool,
    totals: Any,
    lost: Any,
    numbers: Any,
    used: Any,
    stop: Any,
) -> None:
    """Adds the rates of all series at every step to the sums of their groups; ``used`` are the targets with any.

    ``overlap``: a window begins where that of so many steps before ends; 0 when there is none.
    Formula: promql/functions.go of Prometheus, extrapolatedRate.
    """
    targets, series = runs.size - 1, codes.size
    lo, hi = np.zeros(targets, np.int32), np.zeros(targets, np.int32)
    sampled, to_start, to_end = np.zeros(targets), np.zeros(targets), np.zeros(targets)
    firsts, grown = np.zeros(series), np.zeros(series)
    earlier = np.zeros((overlap, targets), np.int32)
    sizes = np.zeros(totals.shape[1])
    for s in range(series):
        sizes[codes[s]] += 1
    for k in range(starts.size):
        if stop[0]:
            return
        if k == 0:
            _seek(times, times_width, rows, starts[0], lo)
            _seek(times, times_width, rows, ends[0], hi)
        else:
            if overlap and k >= overlap:
                lo[:] = earlier[k % overlap]
            else:
                _advance(times, times_width, rows, starts[k], lo)
            _advance(times, times_width, rows, ends[k], hi)
        if overlap:
            earlier[k % overlap] = hi
        several = _reach(times, times_width, lo, hi, starts[k], ends[k], sampled, to_start, to_end)
        if several == 0:
            continue
        seconds = (ends[k] - starts[k]) / 1000 if per_second else 1.0
        _grown(values, width, row_of, lo, hi, runs, firsts, grown)
        if counter and amounts.size:
            _regain(first_of, columns, amounts, target, lo, hi, grown)
        _extend(sampled, to_start, to_end, runs, firsts, counter, seconds, grown)
        _add(grown, codes, stretches, totals[k], lost[k])
        if several == targets:
            numbers[k] += sizes
            used[:] = True
        else:
            for p in range(targets):
                used[p] |= sampled[p] > 0
            for s in range(series):
                numbers[k, codes[s]] += sampled[target[s]] > 0
