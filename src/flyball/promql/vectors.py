"""Instant vectors at every step at once, and the arithmetic of their label sets."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import Floats, Histograms, Mask, has_histogram
from flyball.model.histograms import Histogram
from flyball.model.labels import METRIC_NAME, Labels, MetricLabels
from flyball.promql.aggregation import Groups, counts
from flyball.promql.syntax import quote
from flyball.promql.values import EvaluationError

DUPLICATES = "vector cannot contain metrics with the same labelset"
#: Labels that say what a metric is; they go when the result is something else.
METADATA = frozenset({METRIC_NAME, "__type__", "__unit__"})
_METADATA_NAMES = tuple(sorted(METADATA))

Index = NDArray[np.int64]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Vec:
    """An instant vector at every step.

    Attributes:
        values: [n, T]; ok: [n, T], where there is a sample.
        drop: [n], whose metadata labels are to be removed in the end; None for none.
        histograms: [n, T], the samples that are native histograms (``ok`` there, ``values`` arbitrary), None
            elsewhere; or None when all samples are floats.
    """

    labels: tuple[Labels, ...]
    values: Floats
    ok: Mask
    drop: Mask | None = None
    histograms: Histograms | None = None

    def rows(self, index: Any) -> "Vec":
        picked = np.asarray(index)
        if picked.dtype == bool:
            picked = np.flatnonzero(picked)
        return Vec(
            picked_labels(self.labels, picked),
            self.values[picked],
            self.ok[picked],
            None if self.drop is None else self.drop[picked],
            None if self.histograms is None else self.histograms[picked],
        )

    def compact(self) -> "Vec":
        """Without the rows that have no point."""
        present = self.ok.any(axis=1)
        return self if present.all() else self.rows(present)

    def float_ok(self) -> Mask:
        """Where there is a float."""
        return self.ok if self.histograms is None else self.ok & ~self.is_histogram()

    def is_histogram(self) -> Mask:
        """[n, T], where there is a native histogram."""
        if self.histograms is None:
            return np.zeros(self.ok.shape, bool)
        mask: Mask = has_histogram(self.histograms) & self.ok
        return mask

    def floats(self) -> "Vec":
        """The float samples alone."""
        return self if self.histograms is None else replace(self, ok=self.float_ok(), histograms=None)

    def cells(self) -> Iterator[tuple[int, int, Histogram]]:
        """Row, step and value of every native histogram."""
        if self.histograms is not None:
            for i, k in np.argwhere(self.is_histogram()).tolist():
                yield i, k, self.histograms[i, k]

    def with_cells(self, cells: Iterable[tuple[int, int, Histogram | None]]) -> "Vec":
        """With these histograms in place of all; None leaves no sample at a place."""
        ok = self.float_ok().copy()
        table = np.full(ok.shape, None, object)
        for i, k, h in cells:
            table[i, k] = h
            ok[i, k] = h is not None
        return replace(self, ok=ok, histograms=table)


# --- label set arithmetic, remembered by the identity of the label tuples that the store hands out

_MEMO_MAX = 16_384
_MEMO_ROWS_MAX = 1 << 22  # the rules of kube-prometheus over 100,000 series take a fifth of it
_FEW = 4
_REMEMBERED_MIN = 256  # rows from which on it pays to remember which were picked
_memo: OrderedDict[Hashable, tuple[tuple[tuple[Labels, ...], ...], Any]] = OrderedDict()
_memo_rows = 0
_memo_lock = Lock()


def remember(over: tuple[tuple[Labels, ...], ...], what: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` gives for these very objects, made once; of few, it is sooner made than looked up."""
    if len(over) == 1 and len(over[0]) <= _FEW:
        return make()
    key = (tuple(map(id, over)), what)
    with _memo_lock:
        found = _memo.get(key)
        if found is not None:
            _memo.move_to_end(key)
            return cast(T, found[1])
    made = make()
    global _memo_rows
    with _memo_lock:
        if key not in _memo:  # another thread may have been faster
            _memo[key] = (over, made)  # keeps the tuples alive, so that their ids stay theirs
            _memo_rows += sum(map(len, over))
        while len(_memo) > _MEMO_MAX or (_memo_rows > _MEMO_ROWS_MAX and len(_memo) > 1):
            _, (gone, _) = _memo.popitem(last=False)
            _memo_rows -= sum(map(len, gone))
    return made


def grouping(labels: tuple[Labels, ...], names: tuple[str, ...], without: bool) -> tuple[tuple[Labels, ...], Index]:
    """The distinct projections in order of appearance, and each label set's number among them."""

    def make() -> tuple[tuple[Labels, ...], Index]:
        wanted = frozenset(names)

        def key(series: Labels) -> Labels:
            return tuple([pair for pair in series if (pair[0] in wanted) is not without])

        if isinstance(labels, MetricLabels):
            firsts, numbers = labels.groups(wanted, without)
            return tuple([key(labels[i]) for i in firsts.tolist()]), numbers
        codes: dict[Labels, int] = {}
        out = np.empty(len(labels), np.int64)
        for i, series in enumerate(labels):
            out[i] = codes.setdefault(key(series), len(codes))
        return tuple(codes), out

    return remember((labels,), (names, without), make)


def groups_of(labels: tuple[Labels, ...], names: tuple[str, ...], without: bool) -> tuple[tuple[Labels, ...], Groups]:
    """As ``grouping``, ready to aggregate by."""

    def make() -> tuple[tuple[Labels, ...], Groups]:
        found, codes = grouping(labels, names, without)
        return found, Groups(codes, len(found))

    return remember((labels,), ("groups", names, without), make)


def distinct(labels: tuple[Labels, ...]) -> bool:
    """Whether no label set is there twice."""
    if len(labels) < 2 or isinstance(labels, MetricLabels):
        return True
    return remember((labels,), "distinct", lambda: len(set(labels)) == len(labels))


def unnamed_groups_of(
    labels: tuple[Labels, ...], names: tuple[str, ...], without: bool
) -> tuple[tuple[Labels, ...], Groups] | None:
    """The groups of ``unnamed`` label sets; None where two of these are the same."""
    if isinstance(labels, MetricLabels) and len(grouping(labels, _METADATA_NAMES, False)[0]) == 1:
        names = (*names, *_METADATA_NAMES) if without else tuple(name for name in names if name not in METADATA)
        return groups_of(labels, names, without)
    bare, clash = unnamed(labels)
    return None if clash else groups_of(bare, names, without)


def unnamed(labels: tuple[Labels, ...]) -> tuple[tuple[Labels, ...], bool]:
    """Without metadata labels, and whether two became the same."""

    def make() -> tuple[tuple[Labels, ...], bool]:
        bare = tuple([without(series, METADATA) for series in labels])
        return bare, len(set(bare)) != len(bare)

    return remember((labels,), "unnamed", make)


def picked_labels(labels: tuple[Labels, ...], rows: Index) -> tuple[Labels, ...]:
    """Some of the label sets."""

    def make() -> tuple[Labels, ...]:
        return tuple(map(labels.__getitem__, rows.tolist()))

    return remember((labels,), ("rows", rows.tobytes()), make) if rows.size >= _REMEMBERED_MIN else make()


def in_order(labels: tuple[Labels, ...]) -> tuple[Index, tuple[Labels, ...]]:
    """Which row comes where when rows are sorted by labels, and the labels sorted."""

    def make() -> tuple[Index, tuple[Labels, ...]]:
        order = sorted(range(len(labels)), key=labels.__getitem__)
        return np.array(order, np.int64), tuple(map(labels.__getitem__, order))

    return remember((labels,), "sorted", make)


def joined(parts: tuple[tuple[Labels, ...], ...]) -> tuple[Labels, ...]:
    if len(parts) == 1:
        return parts[0]
    return remember(parts, "joined", lambda: tuple([series for part in parts for series in part]))


def without(labels: Labels, names: Iterable[str]) -> Labels:
    return tuple([pair for pair in labels if pair[0] not in names])


def label_value(labels: Labels, name: str) -> str:
    """The value, ``""`` when there is none."""
    for key, value in labels:
        if key == name:
            return value
    return ""


def metric_name(labels: Labels) -> str:
    return label_value(labels, METRIC_NAME)


def label_text(labels: Iterable[tuple[str, str]]) -> str:
    """A label set as messages print it."""
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in labels) + "}"


def with_label(labels: Labels, name: str, value: str) -> Labels:
    """With one label set; an empty value removes it."""
    kept = [pair for pair in labels if pair[0] != name]
    if value:
        kept.append((name, value))
        kept.sort()
    return tuple(kept)


# --- rows


def dense(codes: Index) -> tuple[Index, int]:
    """The codes numbered anew without holes, and how many there are."""
    distinct, numbered = np.unique(codes, return_inverse=True)
    return numbered.astype(np.int64), int(distinct.size)


def joined_histograms(parts: list[tuple[Histograms | None, tuple[int, ...]]]) -> Histograms | None:
    """Tables below each other, given with their shapes; None when all are."""
    if all(table is None for table, _ in parts):
        return None
    return np.concatenate([np.full(shape, None, object) if table is None else table for table, shape in parts])


def stack(top: Vec, bottom: Vec) -> Vec:
    if not bottom.labels:
        return top
    drop = None
    if top.drop is not None or bottom.drop is not None:
        drop = np.concatenate([v.drop if v.drop is not None else np.zeros(len(v.labels), bool) for v in (top, bottom)])
    return Vec(
        top.labels + bottom.labels,
        np.concatenate([top.values, bottom.values]),
        np.concatenate([top.ok, bottom.ok]),
        drop,
        joined_histograms([(v.histograms, v.ok.shape) for v in (top, bottom)]),
    )


def merge(vec: Vec, message: str = DUPLICATES) -> Vec:
    """Rows with one label set become one row.

    Raises:
        EvaluationError: two of them have a point at the same step.
    """
    if distinct(vec.labels):
        return vec
    codes: dict[Labels, int] = {}
    code = np.array([codes.setdefault(labels, len(codes)) for labels in vec.labels], np.int64)
    groups = Groups(code, len(codes))
    number = counts(vec.ok, groups)
    if (number > 1).any():
        raise EvaluationError(message)
    values = np.add.reduceat(groups.arrange(np.where(vec.ok, vec.values, 0.0)), groups.starts, axis=0)
    drop = None
    if vec.drop is not None:
        drop = np.zeros(len(codes), bool)
        drop[code[vec.drop]] = True
    merged = Vec(tuple(codes), np.asarray(values, np.float64), number > 0, drop)
    if vec.histograms is not None:
        merged.histograms = np.full(merged.ok.shape, None, object)
        for i, k, h in vec.cells():
            merged.histograms[code[i], k] = h
    return merged
