"""Aggregators over groups of series, for all steps at once. Formulas: promql/engine.go of Prometheus."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import Floats, Mask
from flyball.promql.over_time import quantile_of_sorted

Index = NDArray[np.int64]
_BLOCK = 1 << 16  # elements summed at a time, so that the work stays in the cache


@dataclass(eq=False)
class Groups:
    """``code`` [n] the group of each series; groups are numbered in order of first appearance."""

    code: Index
    count: int

    def __post_init__(self) -> None:
        self.order: Index = np.argsort(self.code, kind="stable")
        sizes = np.bincount(self.code, minlength=self.count)
        self.sizes: Index = sizes
        self.starts: Index = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        self.sorted = bool((self.order == np.arange(self.order.size)).all())

    def arrange(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Rows in group order."""
        return rows if self.sorted else rows[self.order]


def _tree_sum(rows: Floats, sizes: Index) -> tuple[Floats, Floats]:
    """Sums of consecutive runs of rows and what rounding lost: a pairwise tree of error-free additions."""
    total, lost = rows, np.zeros(rows.shape)
    sizes = sizes.copy()
    while sizes.max(initial=1) > 1:
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        position = np.arange(int(sizes.sum())) - starts
        left = np.flatnonzero(position % 2 == 0)
        paired = position[left] + 1 < np.repeat(sizes, (sizes + 1) // 2)
        if paired.all():
            a, b = total[left], total[left + 1]
            new_total, new_lost = a + b, lost[left] + lost[left + 1]
            part = new_total - a
            error = (a - (new_total - part)) + (b - part)
            new_lost += np.where(np.isfinite(error), error, 0.0)
        else:
            new_total, new_lost = total[left], lost[left]
            left, at = left[paired], np.flatnonzero(paired)
            a, b = total[left], total[left + 1]
            sums = a + b
            part = sums - a
            error = (a - (sums - part)) + (b - part)
            new_total[at] = sums
            new_lost[at] += lost[left + 1] + np.where(np.isfinite(error), error, 0.0)
        total, lost = new_total, new_lost
        sizes = (sizes + 1) // 2
    return total, lost


def group_sums(values: Floats, ok: Mask, groups: Groups) -> tuple[Floats, Floats]:
    """[G, T] totals and lost parts; absent points count as nothing."""
    n, steps = values.shape
    block = max(1, _BLOCK // max(1, n))
    totals, losts = np.empty((steps, groups.count)), np.zeros((steps, groups.count))
    whole = bool(ok.all())
    for a in range(0, steps, block):
        rows = values[:, a : a + block].T
        if not whole:
            rows = np.where(ok[:, a : a + block].T, rows, 0.0)
        rows = rows if groups.sorted else rows.take(groups.order, axis=1)
        if rows.min(initial=0.0) >= 0:  # nothing cancels out: plain sums in pairs are as good
            totals[a : a + block] = np.add.reduceat(rows, groups.starts, axis=1)
        else:
            total, lost = _tree_sum(np.ascontiguousarray(rows.T), groups.sizes)
            totals[a : a + block], losts[a : a + block] = total.T, lost.T
    return totals.T, np.where(np.isfinite(totals), losts, 0.0).T


def counts(ok: Mask, groups: Groups) -> Index:
    """[G, T] points in each group."""
    if groups.count == 0:
        return np.zeros((0, ok.shape[1]), np.int64)
    if ok.all():
        return np.broadcast_to(groups.sizes[:, None], (groups.count, ok.shape[1]))
    return np.add.reduceat(groups.arrange(ok), groups.starts, axis=0, dtype=np.int64)


def aggregate(op: str, values: Floats, ok: Mask, groups: Groups) -> tuple[Floats, Mask]:
    """sum, avg, min, max, count, group, stddev or stdvar: [G, T]."""
    number = counts(ok, groups)
    present = number > 0
    if op == "count":
        return number.astype(np.float64), present
    if op == "group":
        return np.ones(number.shape), present
    if groups.count == 0:
        return np.zeros(number.shape), present
    if op in ("min", "max"):
        pick = np.fmin if op == "min" else np.fmax
        rows = groups.arrange(np.where(ok, values, np.nan))
        return np.asarray(pick.reduceat(rows, groups.starts, axis=0)), present
    total, lost = group_sums(values, ok, groups)
    if op == "sum":
        return total + lost, present
    safe = np.maximum(number, 1)
    mean = total / safe + lost / safe
    overflow = ~np.isfinite(total)
    if overflow.any():  # finite samples whose sum is not: add up their shares instead
        shares, rest = group_sums(values / safe[groups.code], ok, groups)
        mean = np.where(overflow, shares + rest, mean)
    if op == "avg":
        return mean, present
    squares, lost = group_sums((values - mean[groups.code]) ** 2, ok, groups)
    variance = (squares + lost) / safe
    rows = groups.arrange(np.where(ok, values, np.nan))
    low = np.fmin.reduceat(rows, groups.starts, axis=0)
    high = np.fmax.reduceat(rows, groups.starts, axis=0)
    variance = np.where((low == high) & ~np.isnan(variance), 0.0, variance)
    return (np.sqrt(variance) if op == "stddev" else variance), present


def quantile(q: Floats, values: Floats, ok: Mask, groups: Groups) -> tuple[Floats, Mask]:
    """``q`` [T]; result [G, T]."""
    number = counts(ok, groups)
    result = np.zeros(number.shape)
    rows, present = groups.arrange(np.where(ok, values, np.nan)), groups.arrange(ok)
    for size in np.unique(groups.sizes).tolist():  # groups of one size are one array
        which = np.flatnonzero(groups.sizes == size)
        index = groups.starts[which][:, None] + np.arange(size)
        stack = np.asarray(rows[index], np.float64).transpose(0, 2, 1).copy()  # [g, T, size]
        here = number[which]
        nans = (np.isnan(stack) & present[index].transpose(0, 2, 1)).sum(axis=2)
        stack.sort(axis=2)
        result[which] = quantile_of_sorted(np.broadcast_to(q, here.shape), stack, nans, here)
    return result, number > 0


def ranks(values: Floats, ok: Mask, groups: Groups, *, descending: bool) -> Index:
    """[n, T] each point's place in its group, 0 first; NaN behind numbers, absent behind NaN, ties in row order."""
    key = -values if descending else values
    low = np.where(ok, np.where(np.isnan(key), 1, 0), 2)
    key = np.where(low == 0, key, 0.0)
    code = np.broadcast_to(groups.code[:, None], values.shape)
    order = np.lexsort((key, low, code), axis=0)
    place = np.arange(values.shape[0])[:, None] - np.repeat(groups.starts, groups.sizes)[:, None]
    result = np.empty(values.shape, np.int64)
    np.put_along_axis(result, order, np.broadcast_to(place, values.shape), axis=0)
    return result


def chosen_among_equals(
    values: Floats, ok: Mask, groups: Groups, place: Index, k: Floats, *, descending: bool
) -> Index:
    """``place`` [n, T] corrected where the k-th and the next of a group are equal: which of the equals upstream keeps
    depends on how its heap lies. ``k`` [T]."""
    shape = (groups.count, values.shape[1])
    last, after = np.full(shape, np.inf), np.full(shape, -np.inf)
    for table, wanted in ((last, k - 1), (after, k)):
        rows, steps = np.nonzero(ok & (place == wanted))
        table[groups.code[rows], steps] = values[rows, steps]
    tied = (last == after) | (np.isnan(last) & np.isnan(after))
    for g, t in np.argwhere(tied).tolist():
        rows = np.flatnonzero((groups.code == g) & ok[:, t])
        kept = _heap(values[rows, t].tolist(), int(k[t]), descending)
        order = rows[kept][np.argsort(place[rows[kept], t], kind="stable")]
        place[rows, t] = rows.size
        place[order, t] = np.arange(order.size)
    return place


def _heap(values: list[float], k: int, descending: bool) -> list[int]:
    """Which of the values are kept by a heap of k, as Go's container/heap makes it, with the worst kept on top."""

    def worse(i: int, j: int) -> bool:
        a, b = values[heap[i]], values[heap[j]]
        return a != a or (a < b if descending else a > b)

    heap: list[int] = []
    for i, value in enumerate(values):
        if len(heap) < k:
            heap.append(i)
            at = len(heap) - 1
            while at and worse(at, (at - 1) // 2):
                heap[at], heap[(at - 1) // 2] = heap[(at - 1) // 2], heap[at]
                at = (at - 1) // 2
            continue
        top = values[heap[0]]
        if not ((top < value if descending else top > value) or (top != top and value == value)):
            continue
        heap[0], at = i, 0
        while (child := 2 * at + 1) < k:
            if child + 1 < k and worse(child + 1, child):
                child += 1
            if not worse(child, at):
                break
            heap[at], heap[child] = heap[child], heap[at]
            at = child
    return heap
