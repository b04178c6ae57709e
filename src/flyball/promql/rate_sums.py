"""Sums of ``rate`` or ``increase`` by group, for all steps at once.

How far a window is extrapolated depends on times alone, and series that are scraped together share theirs. So the
series of a target and a group are added up row by row first, as if each target had one series for each group. Two
things do not add up: a counter that fell, and one so close above zero that it must not be extrapolated past it. The few
series of which either may be true are taken out of the sums and looked at one by one. Formula: promql/functions.go of
Prometheus, extrapolatedRate.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flyball.model.frames import Floats, Frame, Mask, Times, is_absent, is_stale
from flyball.promql.aggregation import Groups, Index, group_sums
from flyball.promql.over_time import KERNELS
from flyball.promql.stopping import Stop
from flyball.promql.windows import cut, rows_up_to, width_of

#: Cells that are worked on at a time, so that they stay in the cache.
_CELLS = 1 << 16
#: Steps at a time: with more, more counters may have come close to zero between the first and the last.
_STEPS_MIN, _STEPS_MAX = 8, 24
#: Whole numbers up to this add up exactly in any order.
_EXACT = 2.0**52
#: Greater values could overflow on the way.
_VALUE_MAX = 2.0**900
#: So many sets of targets whose windows hold the same rows at every step are taken together each; the windows of others
#: are looked up step by step.
_STEADY_MAX = 4
_NEVER = -(1 << 62)


@dataclass(slots=True, eq=False)
class _Samples:
    """Series without holes, those of a target one behind the other.

    Attributes:
        values: [R, n]; times_ms: [R, p]; target, codes: [n] the column of times and the group of each series.
        counted: [R + 1, p] how many rows before each hold a sample of their own, when some repeat the one before.
    """

    values: Floats
    times_ms: Times
    target: Index
    codes: Index
    counted: Index | None = None


@dataclass(slots=True, eq=False)
class _Falls:
    """Where counters fell, row by row: the row after, the series, and what it fell from."""

    rows: Index
    series: Index
    amounts: Floats


@dataclass(slots=True, eq=False)
class _Sums:
    """The series of each target and group added up, [R, m].

    Attributes:
        parts: what adds up to the sums: themselves where that is exact, else multiples of ``unit``, and the small rest.
        target, codes, sizes: [m] whose and of which group a column is, and of how many series.
        column: [n] where each series went.
    """

    parts: list[Floats]
    unit: float
    target: Index
    codes: Index
    sizes: Index
    column: Index

    def split(self, values: Floats) -> list[Floats]:
        """Values as they are in the parts."""
        if len(self.parts) == 1:
            return [values]
        upper = _multiples(values, self.unit)
        return [upper, values - upper]


def _multiples(values: Floats, unit: float) -> Floats:
    """The nearest multiples of a power of two; values are below 2**51 of it."""
    big = 1.5 * 2.0**52 * unit
    return (values + big) - big


@dataclass(slots=True, eq=False)
class _Extent:
    """Of the windows of some targets: the seconds between the first and the last sample, and how far to extend them to
    either side; ``ok`` where there are two. All [K, p], or [1, p] when it is the same at every step."""

    ok: Mask
    sampled: Floats
    to_start: Floats
    to_end: Floats

    def factor(self, to_start: Floats, at: Index | slice) -> Floats:
        """What to multiply a growth with."""
        sampled = self.sampled[:, at]
        return (sampled + to_start + self.to_end[:, at]) / np.where(self.ok[:, at], sampled, 1.0)


def _extent(first: Floats, last: Floats, count: Index, length: float) -> _Extent:
    """``first``, ``last``: seconds from the window's start on; ``length`` of the window in seconds."""
    sampled = last - first
    ok = (count >= 2) & (sampled > 0)
    average = sampled / np.maximum(count - 1, 1)
    threshold, half = average * 1.1, average / 2
    to_end = length - last
    return _Extent(ok, sampled, np.where(first >= threshold, half, first), np.where(to_end >= threshold, half, to_end))


@dataclass(slots=True, eq=False)
class _Piece:
    """Some targets, their columns of the sums, and their series, by column.

    Attributes:
        columns: of the sums, None for all; parts: [R, m] each, those of all columns when it is steady.
        seconds: [R, p] since the first window began, or [2, p] the first and the last sample of it when it is steady.
        target: [m], column: [n], target_of: [n] places in the piece's own targets and columns.
        steady: the samples of all windows lie alike.
        lo, hi: the rows lo <= r < hi of the windows, [T, p], or [T, 1] when it is steady.
        falls: of its own series.
        present, groups: the groups that there are.
    """

    steady: bool
    columns: Index | None
    series: Index
    target: Index
    column: Index
    target_of: Index
    parts: list[Floats]
    seconds: Floats
    counted: Index | None
    lo: Index
    hi: Index
    falls: _Falls
    sizes: Index
    present: Index
    groups: Groups

    def extent(self, steps: slice, begin_s: Floats, length_s: float) -> _Extent:
        """Of the windows that begin so many seconds [K] after the first one."""
        if self.steady:
            return _extent(self.seconds[:1], self.seconds[1:], self.hi[:1] - self.lo[:1], length_s)
        lo, hi = self.lo[steps], self.hi[steps]
        count = hi - lo
        if self.counted is not None:
            each = np.arange(lo.shape[1])
            count = self.counted[hi, each] - self.counted[lo, each]
        since = begin_s[:, None]
        return _extent(_at(self.seconds, lo) - since, _at(self.seconds, hi - 1) - since, count, length_s)

    def growth(self, steps: slice) -> list[Floats]:
        """What the columns have grown from the first to the last sample of the windows, by part."""
        lo, hi = self.lo[steps], self.hi[steps]
        if self.steady:
            grown = [_stretch(part, hi[:, 0] - 1) - _stretch(part, lo[:, 0]) for part in self.parts]
            return grown if self.columns is None else [table.take(self.columns, axis=1) for table in grown]
        lo, hi = lo[:, self.target], hi[:, self.target]
        return [_at(part, hi - 1) - _at(part, lo) for part in self.parts]


def _at(table: Floats, rows: Index) -> Floats:
    """Cells of [R, m] at rows [K, m]; rows that there are not give arbitrary ones."""
    height, width = table.shape
    inside = np.minimum(np.maximum(rows, 0), height - 1) * width + np.arange(width)
    cells: Floats = table.reshape(-1).take(inside)
    return cells


def _stretch(table: Floats, rows: Index) -> Floats:
    """Rows at even distances."""
    if rows.size == 1:
        return table[rows]
    return table[rows[0] : rows[-1] + 1 : rows[1] - rows[0]]


class RateSums:
    """
    Args:
        name: rate or increase.
        starts, ends: [T] of the windows, at even distances.

    Attributes:
        totals, lost, numbers: [T, G] the sums, what rounding lost of them, and how many series they are of.
    """

    def __init__(self, name: str, starts: Times, ends: Times, groups: int, stop: Stop) -> None:
        self.name, self.starts, self.ends, self.stop = name, starts, ends, stop
        self.length_s = float(ends[0] - starts[0]) / 1000
        self.step_ms = int(ends[1] - ends[0]) if ends.size > 1 else 0
        shape = (ends.size, groups)
        self.totals, self.lost, self.numbers = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def add(self, frame: Frame, codes: Index) -> Mask:
        """Adds the series of a frame, ``codes`` [n] being their groups; returns which were used [n].

        Raises:
            QueryLimitError: nobody waits for the result any more.
        """
        used = np.zeros(codes.size, bool)
        if not frame.values.shape[0]:
            return used
        target, values, order = frame.target.astype(np.int64), frame.values, np.arange(codes.size)
        if (np.diff(target) < 0).any():
            order = np.argsort(target, kind="stable")
            target, values, codes = target[order], values[:, order], codes[order]
        holed = np.ones(frame.times_ms.shape[1], bool)
        holed[target] = False
        holed[target[~(np.abs(values.sum(axis=0)) < _VALUE_MAX)]] = True
        samples = _Samples(values, frame.times_ms, target, codes)
        if not holed.all():
            used[order] = self._add(samples, ~holed)
        at = np.flatnonzero(holed[target])
        if at.size:
            filled, odd = _filled(samples, at)
            if not odd.all():
                used[order[at[~odd]]] = self._add(filled, np.ones(filled.times_ms.shape[1], bool))
            if odd.any():
                used[order[at[odd]]] = self._add_one_by_one(frame, order[at[odd]], codes[at[odd]])
        return used

    def _add_one_by_one(self, frame: Frame, series: Index, codes: Index) -> Mask:
        """Adds series that lack samples where others of their target have some, or of which some are no numbers."""
        labels = tuple([frame.labels[i] for i in series.tolist()])
        w = cut(
            Frame(labels, frame.times_ms, frame.target[series], frame.values[:, series]),
            self.starts,
            self.ends,
            stop=self.stop,
        )
        present, dense = np.unique(codes, return_inverse=True)
        groups = Groups(dense, present.size)
        used = np.zeros(series.size, bool)
        for steps in self._steps(series.size):
            values, ok = KERNELS[self.name](w.steps(steps.start, steps.stop))
            used |= ok.any(axis=1)
            self._into_groups(steps, np.where(ok, values, 0.0).T, present, groups)
            self.numbers[steps, present] += _numbers(ok.T.astype(np.int64), groups)
        return used

    def _steps(self, width: int) -> Iterator[slice]:
        size = min(max(_STEPS_MIN, _CELLS // max(1, width)), _STEPS_MAX)
        for first in range(0, self.ends.size, size):
            self.stop.check()
            yield slice(first, min(first + size, self.ends.size))

    def _into_groups(self, steps: slice, values: Floats, present: Index, groups: Groups) -> None:
        """Adds values [K, m] to the sums of their groups; ``present`` are these groups' numbers."""
        table = values.T
        total, lost = group_sums(table, np.ones((1, 1), bool), groups)
        old = self.totals[steps, present]
        new = old + total.T
        part = new - old
        error = (old - (new - part)) + (total.T - part)
        self.totals[steps, present] = new
        self.lost[steps, present] += lost.T + np.where(np.isfinite(error), error, 0.0)

    # --- series without holes

    def _add(self, samples: _Samples, wanted: Mask) -> Mask:
        """Adds the series of the wanted targets; returns which were used."""
        times = samples.times_ms
        edges = np.array([self.starts[0], self.ends[0], self.starts[-1], self.ends[-1]])
        lo, hi, last_lo, last_hi = rows_up_to(times, edges).T
        base, top = int(lo[wanted].min()), int(last_hi[wanted].max())
        used = np.zeros(times.shape[1], bool)
        if top <= base:
            return used[samples.target]
        counted = None if samples.counted is None else samples.counted[base : top + 1]
        samples = _Samples(samples.values[base:top], times[base:top], samples.target, samples.codes, counted)
        sums, falls = _added_up(samples, wanted)
        steps, rest = np.arange(self.ends.size)[:, None], wanted.copy()
        stride = _stride(samples.times_ms, wanted, self.step_ms) if counted is None else 0
        if stride:
            ahead = stride * (self.ends.size - 1)
            steady = wanted & (last_lo - lo == ahead) & (last_hi - hi == ahead) & (hi > lo)
            steady &= _repeats(samples.times_ms, stride, self.step_ms)
            pairs, number = np.unique(np.stack([lo, hi])[:, steady], axis=1, return_counts=True)
            for first, behind in pairs[:, np.argsort(-number, kind="stable")[:_STEADY_MAX]].T.tolist():
                chosen = steady & (lo == first) & (hi == behind)
                rest &= ~chosen
                targets, rows = np.flatnonzero(chosen), stride * steps - base
                piece = self._piece(samples, sums, falls, targets, first + rows, behind + rows, True)
                used[targets] = self._add_piece(samples, sums, piece)
        targets = np.flatnonzero(rest)
        if targets.size:
            own = samples.times_ms.take(targets, axis=1)
            lo, hi = (np.ascontiguousarray(rows_up_to(own, edges).T) for edges in (self.starts, self.ends))
            piece = self._piece(samples, sums, falls, targets, lo, hi, False)
            used[targets] = self._add_piece(samples, sums, piece)
        return used[samples.target]

    def _add_piece(self, samples: _Samples, sums: _Sums, piece: _Piece) -> Mask:
        """Returns which targets have any rate."""
        begin_s = (self.starts - self.starts[0]) / 1000
        used = np.zeros(piece.seconds.shape[1], bool)
        extent = numbers = None
        for steps in self._steps(piece.sizes.size):
            if extent is None or not piece.steady:
                extent = piece.extent(steps, begin_s[steps], self.length_s)
                used |= extent.ok.any(axis=0)
            growth = piece.growth(steps)
            self._single_out(samples, sums, piece, steps, extent, growth)
            total = growth[0] if len(growth) == 1 else growth[0] + growth[1]
            np.maximum(total, 0.0, out=total)
            factor = np.where(extent.ok, extent.factor(extent.to_start, np.s_[:]), 0.0)
            if self.name == "rate":
                factor /= self.length_s
            total *= factor[:, piece.target]
            self._into_groups(steps, total, piece.present, piece.groups)
            if numbers is None or not piece.steady:
                numbers = _numbers(extent.ok[:, piece.target] * piece.sizes, piece.groups)
            self.numbers[steps, piece.present] += numbers
        return used

    def _piece(
        self, samples: _Samples, sums: _Sums, falls: _Falls, targets: Index, lo: Index, hi: Index, steady: bool
    ) -> _Piece:
        times = samples.times_ms
        if steady:
            times = times[[lo[0, 0], hi[0, 0] - 1]]
        place = np.full(samples.times_ms.shape[1], -1)
        place[targets] = np.arange(targets.size)
        columns = np.flatnonzero(place[sums.target] >= 0)
        columns = columns[np.argsort(sums.codes[columns], kind="stable")]  # so that groups need not be gathered later
        column_place = np.full(sums.codes.size, -1)
        column_place[columns] = np.arange(columns.size)
        series = np.flatnonzero(column_place[sums.column] >= 0)
        series = series[np.argsort(column_place[sums.column[series]], kind="stable")]
        series_place = np.full(samples.target.size, -1)
        series_place[series] = np.arange(series.size)
        own = series_place[falls.series]
        mine = own >= 0
        present, dense = np.unique(sums.codes[columns], return_inverse=True)
        return _Piece(
            steady,
            None if columns.size == sums.codes.size and (np.diff(columns) == 1).all() else columns,
            series,
            place[sums.target[columns]],
            column_place[sums.column[series]],
            place[samples.target[series]],
            sums.parts if steady else [part.take(columns, axis=1) for part in sums.parts],
            (times.take(targets, axis=1) - self.starts[0]) / 1000,
            None if samples.counted is None else samples.counted.take(targets, axis=1),
            lo,
            hi,
            _Falls(falls.rows[mine], own[mine], falls.amounts[mine]),
            sums.sizes[columns],
            present,
            Groups(dense, present.size),
        )

    def _single_out(
        self, samples: _Samples, sums: _Sums, piece: _Piece, steps: slice, extent: _Extent, growth: list[Floats]
    ) -> None:
        """Takes the series that may have fallen, or that may be too close to zero, out of ``growth``, and adds what
        they give."""
        lo, hi, height = piece.lo[steps], piece.hi[steps], samples.values.shape[0]
        first_row, last_row = np.clip(lo[0], 0, height - 1), np.clip(hi[-1] - 1, 0, height - 1)
        # Between these rows a counter that did not fall only grew: no window begins lower, none grows more.
        if piece.steady:
            lowest = samples.values[first_row[0]].take(piece.series)
            most = samples.values[last_row[0]].take(piece.series) - lowest
        else:
            lowest = samples.values[first_row[piece.target_of], piece.series]
            most = samples.values[last_row[piece.target_of], piece.series] - lowest
        share = np.where(extent.ok, extent.to_start / np.where(extent.ok, extent.sampled, 1.0), 0.0).max(axis=0)
        near = lowest < share[piece.target_of] * most
        falls = piece.falls
        here = slice(*np.searchsorted(falls.rows, [int(first_row.min()) + 1, int(last_row.max()) + 1]))
        own = _Falls(falls.rows[here], falls.series[here], falls.amounts[here])
        near[own.series] = True
        odd = np.flatnonzero(near)
        size = max(1, 4 * _CELLS // lo.shape[0])
        for begin in range(0, odd.size, size):
            self.stop.check()
            self._take_out(samples, sums, piece, steps, extent, growth, odd[begin : begin + size], own)

    def _take_out(
        self,
        samples: _Samples,
        sums: _Sums,
        piece: _Piece,
        steps: slice,
        extent: _Extent,
        growth: list[Floats],
        odd: Index,
        falls: _Falls,
    ) -> None:
        """Takes these series out of ``growth``, and adds their own rates to the groups."""
        height = samples.values.shape[0]
        series, target, column = piece.series[odd], piece.target_of[odd], piece.column[odd]
        lo, hi = (rows[steps] if piece.steady else rows[steps][:, target] for rows in (piece.lo, piece.hi))
        first = samples.values[np.clip(lo, 0, height - 1), series]
        last = samples.values[np.clip(hi - 1, 0, height - 1), series]
        runs = np.flatnonzero(np.diff(column, prepend=-1))
        for table, ends, begins in zip(growth, sums.split(last), sums.split(first), strict=True):
            table[:, column[runs]] -= np.add.reduceat(ends - begins, runs, axis=1)
        grown = last - first
        place = np.minimum(np.searchsorted(odd, falls.series), odd.size - 1)
        mine = odd[place] == falls.series
        rows, place, amounts = falls.rows[mine], place[mine], falls.amounts[mine]
        at = np.zeros(1, np.int64) if piece.steady else place
        step, which = np.nonzero((lo[:, at] < rows) & (rows < hi[:, at]))
        np.add.at(grown, (step, place[which]), amounts[which])
        to_start = extent.to_start[:, target]
        to_zero = extent.sampled[:, target] * (first / grown)
        bounded = np.where((grown > 0) & (first >= 0) & (to_zero < to_start), to_zero, to_start)
        rates = np.where(extent.ok[:, target], grown * extent.factor(bounded, target), 0.0)
        if self.name == "rate":
            rates /= self.length_s
        codes, dense = np.unique(piece.groups.code[column], return_inverse=True)
        self._into_groups(steps, rates, piece.present[codes], Groups(dense, codes.size))


def _numbers(table: Index, groups: Groups) -> Index:
    """Sums of a table [K, m] by group."""
    return np.asarray(np.add.reduceat(table.take(groups.order, axis=1), groups.starts, axis=1))


def _added_up(samples: _Samples, wanted: Mask) -> tuple[_Sums, _Falls]:
    """The sums of each target and group, and where counters of wanted targets fell."""
    values, target, codes = samples.values, samples.target, samples.codes
    rows, n = values.shape
    targets = samples.times_ms.shape[1]
    starts = np.flatnonzero((np.diff(target, prepend=-1) != 0) | (np.diff(codes, prepend=-1) != 0))
    width = width_of(target.astype(np.int32), targets)
    sums = _Sums([values], 0.0, target, codes, np.ones(n, np.int64), np.arange(n))
    add = None
    if starts.size * 2 <= n:
        column = np.cumsum(np.isin(np.arange(n), starts)) - 1
        sums = _Sums([], 0.0, target[starts], codes[starts], np.bincount(column), column)

        def add(v: Floats) -> Floats:
            return np.add.reduceat(v, starts, axis=1)

    elif width > 1:
        layout = codes.reshape(targets, width)
        _, kinds, kind = np.unique(layout[0], return_index=True, return_inverse=True)
        if kinds.size * 2 <= width and (layout == layout[:, kinds[kind]]).all():
            column = (np.arange(targets)[:, None] * kinds.size + kind).ravel()
            sums = _Sums(
                [],
                0.0,
                np.repeat(np.arange(targets), kinds.size),
                layout[:, kinds].ravel(),
                np.tile(np.bincount(kind), targets),
                column,
            )
            each = np.eye(kinds.size)[kind]

            def add(v: Floats) -> Floats:
                return (v.reshape(len(v), targets, width) @ each).reshape(len(v), -1)

    use = wanted[target]
    found: list[tuple[Index, Index, Floats]] = []
    whole = True
    total = np.empty((rows, sums.codes.size)) if add is not None else values
    size = max(2, _CELLS // n)
    for first in range(0, rows, size):
        v = values[first : first + size]
        if add is not None:
            total[first : first + size] = add(v)
            same = np.rint(v) == v
            whole = whole and (bool(same.all()) or bool(same.all(axis=0)[use].all()))
        if first + 1 < rows:
            before, after = values[first : min(first + size, rows - 1)], values[first + 1 : first + size + 1]
            row, series = np.divmod(np.flatnonzero(after < before), n)
            kept = use[series]
            found.append((row[kept] + first + 1, series[kept], before[row[kept], series[kept]]))
    falls = _NO_FALLS
    if found:
        falls = _Falls(*(np.concatenate([each[i] for each in found]) for i in range(3)))
    if add is None:
        return sums, falls
    ends = (values[0, use], values[-1, use], falls.amounts, values[falls.rows, falls.series])  # extremes lie here
    bound = max(float(np.abs(some).max(initial=0.0)) for some in ends) * int(sums.sizes.max())
    sums.parts = [total]
    if not whole or bound > _EXACT:
        sums.unit = 2.0 ** (np.frexp(bound)[1] - 50)
        rest = np.empty_like(total)
        for first in range(0, rows, size):
            v = values[first : first + size]
            upper = _multiples(v, sums.unit)
            total[first : first + size] = add(upper)
            rest[first : first + size] = add(v - upper)
        sums.parts.append(rest)
    return sums, falls


_NO_FALLS = _Falls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _stride(times: Times, wanted: Mask, step_ms: int) -> int:
    """After how many rows the scrapes of most targets lie one step later; 0 when that is after none."""
    middle = times.shape[0] // 2
    if not middle:
        return 0
    apart = np.sort((times[middle] - times[middle - 1])[wanted])
    interval = int(apart[apart.size // 2])
    return step_ms // interval if interval > 0 and step_ms % interval == 0 else 0


def _repeats(times: Times, stride: int, step_ms: int) -> Mask:
    """Of which targets every row is one step before the row so many behind it."""
    found = np.ones(times.shape[1], bool)
    size = max(1, _CELLS // times.shape[1])
    for first in range(0, times.shape[0] - stride, size):
        later = times[first + stride : first + stride + size]
        same = later - times[first : first + len(later)] == step_ms
        if not same.all():
            found &= same.all(axis=0)
    return found


def _filled(samples: _Samples, at: Index) -> tuple[_Samples, Mask]:
    """Some series, with the sample before in rows in which their target was not scraped; and which of them are odd:
    they lack samples where others have some, or have some that are no numbers. The odd ones are left out."""
    values, codes = samples.values, samples.codes[at]
    if at.size < samples.codes.size:
        values = values.take(at, axis=1)
    targets, target = np.unique(samples.target[at], return_inverse=True)
    rows = values.shape[0]
    hole: Mask = is_absent(values)
    hole |= is_stale(values)
    width = width_of(target.astype(np.int32), targets.size)
    missed: Mask
    if width:
        runs = hole.reshape(rows, -1, width)
        missed = np.all(runs, axis=2)
        odd = (runs != missed[:, :, None]).any(axis=0).ravel()
    else:
        missed = np.logical_and.reduceat(hole, np.flatnonzero(np.diff(target, prepend=-1)), axis=1)
        odd = (hole != missed[:, target]).any(axis=0)
    own = np.where(missed, -1, np.arange(rows)[:, None])
    np.maximum.accumulate(own, axis=0, out=own)
    times = np.where(own >= 0, samples.times_ms[np.maximum(own, 0), targets], _NEVER)
    own = np.where(own >= 0, own, np.argmin(missed, axis=0))
    counted = np.zeros((rows + 1, targets.size), np.int64)
    np.cumsum(~missed, axis=0, out=counted[1:])
    if width:
        values = values.reshape(rows, -1, width)[own, np.arange(targets.size)].reshape(rows, -1)
    else:
        values = values[own[:, target], np.arange(target.size)]
    values[:, counted[-1, target] == 0] = 0.0
    odd |= ~(np.abs(values.sum(axis=0)) < _VALUE_MAX)
    if odd.any():
        values, target, codes = values[:, ~odd], target[~odd], codes[~odd]
    return _Samples(values, times, target, codes, counted), odd
