"""The index of one metric: label values as integer codes, so that a matcher runs once per distinct value."""

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flyball.model.labels import METRIC_NAME, Labels, Matcher, MatchType, MetricLabels

if TYPE_CHECKING:
    from flyball.store.buffers import SeriesBuffer
    from flyball.store.matrix import Family, Ref

#: Distinct selections kept for each metric.
_SELECTIONS_MAX = 64
#: Of a selection, sets of series that are alive in some window.
_NARROWED_MAX = 4

_Codes = NDArray[np.int32]
#: In ``Metric.family_of``: the series has several places, or a buffer of its own.
SCATTERED = -1


class Entry:
    """One series: its labels and every place that holds samples of it."""

    __slots__ = ("id", "labels", "metric", "places")

    def __init__(self, labels: Labels, metric: "Metric", id_: int) -> None:
        self.labels = labels
        self.metric = metric
        self.id = id_
        self.places: list[Ref | SeriesBuffer] = []


class Picked(NamedTuple):
    """Series of one family: their columns, ascending, and their labels. ``ended`` is what ``living`` gave last."""

    family: "Family"
    columns: NDArray[np.intp]
    labels: MetricLabels
    ended: dict[bytes, tuple[NDArray[np.intp], MetricLabels]]

    def living(self, alive: NDArray[np.bool_]) -> tuple[NDArray[np.intp], MetricLabels]:
        """Columns and labels of those that are alive; while these are the same, the very same tuple of labels, by which
        queries remember what they made of it."""
        if alive.all():
            return self.columns, self.labels
        key = alive.tobytes()
        known = self.ended.get(key)
        if known is None:
            labels = MetricLabels.of(compress(self.labels, alive.tolist()), self.labels.codes, self.labels.rows[alive])
            known = self.columns[alive], labels
            if len(self.ended) >= _NARROWED_MAX:
                self.ended.clear()
            self.ended[key] = known
        return known


class Selection:
    """What a set of matchers selects of a metric, until its generation changes.

    Attributes:
        blocks: the series of one family each.
        scattered: the other series.
    """

    __slots__ = ("blocks", "generation", "scattered")

    def __init__(
        self,
        generation: int,
        blocks: list[Picked],
        scattered: list[Entry],
    ) -> None:
        self.generation = generation
        self.blocks = blocks
        self.scattered = scattered


class _LabelColumn:
    __slots__ = ("by_value", "codes", "values")

    def __init__(self, capacity: int) -> None:
        self.values: list[str] = [""]
        self.by_value: dict[str, int] = {"": 0}
        self.codes: _Codes = np.zeros(capacity, np.int32)


class Metric:
    """All series of one metric name. Everything here runs under the head's lock."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 0
        self.entries: list[Entry | None] = []
        self.dead = 0
        self.families: list[Family | None] = []
        self._capacity = 8
        self.family_of: _Codes = np.zeros(self._capacity, np.int32)
        self.column_of: _Codes = np.zeros(self._capacity, np.int32)
        self._alive = np.zeros(self._capacity, np.bool_)
        self._labels: dict[str, _LabelColumn] = {}
        self._selections: dict[tuple[Matcher, ...], Selection] = {}

    def add(self, labels: Labels) -> Entry:
        """A new series without a place yet."""
        entry = Entry(labels, self, 0)
        self._place_entry(entry)
        self.generation += 1
        return entry

    def _place_entry(self, entry: Entry) -> None:
        id_ = len(self.entries)
        if id_ >= self._capacity:
            self._capacity *= 2
            self.family_of = np.resize(self.family_of, self._capacity)
            self.column_of = np.resize(self.column_of, self._capacity)
            self._alive = np.resize(self._alive, self._capacity)
            for known in self._labels.values():
                wider = np.zeros(self._capacity, np.int32)
                wider[:id_] = known.codes[:id_]
                known.codes = wider
        entry.id = id_
        self.entries.append(entry)
        self.family_of[id_] = SCATTERED
        self._alive[id_] = True
        for name, value in entry.labels:
            if name == METRIC_NAME:
                continue
            column = self._labels.get(name)
            if column is None:
                column = self._labels[name] = _LabelColumn(self._capacity)
            code = column.by_value.get(value)
            if code is None:
                code = column.by_value[value] = len(column.values)
                column.values.append(value)
            column.codes[id_] = code

    def remove(self, entry: Entry) -> None:
        """The series is gone."""
        self.entries[entry.id] = None
        self._alive[entry.id] = False
        self.dead += 1
        self.generation += 1
        if self.dead > 64 and self.dead * 2 > len(self.entries):
            self._rebuild()

    def _rebuild(self) -> None:
        alive = [entry for entry in self.entries if entry is not None]
        self.entries, self.dead, self._labels = [], 0, {}
        self._capacity = max(8, len(alive))
        self.family_of = np.zeros(self._capacity, np.int32)
        self.column_of = np.zeros(self._capacity, np.int32)
        self._alive = np.zeros(self._capacity, np.bool_)
        self.families = []
        for entry in alive:
            self._place_entry(entry)
            self.locate(entry)

    def locate(self, entry: Entry) -> None:
        """Takes up a change of the series' places."""
        self.generation += 1
        place = entry.places[0] if len(entry.places) == 1 else None
        family: Family | None = getattr(place, "family", None)
        if family is None:
            self.family_of[entry.id] = SCATTERED
            return
        index = next((index for index, known in enumerate(self.families) if known is family), -1)
        if index < 0:
            index = next((index for index, known in enumerate(self.families) if known is None), len(self.families))
            self.families[index : index + 1] = [family]
        self.family_of[entry.id] = index
        self.column_of[entry.id] = getattr(place, "column", 0)

    def forget(self, family: "Family") -> None:
        """The family has no columns any more."""
        for index, known in enumerate(self.families):
            if known is family:
                self.families[index] = None

    def select(self, matchers: tuple[Matcher, ...]) -> Selection:
        """The series that satisfy all matchers (those on the metric name left out)."""
        found = self._selections.get(matchers)
        if found is not None and found.generation == self.generation:
            return found
        ids = self.match(matchers)
        families = self.family_of[ids]
        alike = bool((families == families[:1]).all())
        blocks, scattered = [], list[Entry]()
        for index in families[:1].tolist() if alike else np.unique(families).tolist():
            picked = ids if alike else ids[families == index]
            if index == SCATTERED:
                scattered = [entry for id_ in picked.tolist() if (entry := self.entries[id_]) is not None]
                continue
            family = self.families[index]
            assert family is not None
            columns = self.column_of[picked].astype(np.intp)
            if columns.size > 1:
                order = np.argsort(columns, kind="stable")
                picked, columns = picked[order], columns[order]
            # An entry keeps its numbers until all are made anew, and then in other arrays.
            codes = {name: column.codes for name, column in self._labels.items()}
            found_entries = map(self.entries.__getitem__, picked.tolist())
            labels = MetricLabels.of([entry.labels for entry in found_entries if entry is not None], codes, picked)
            blocks.append(Picked(family, columns, labels, {}))
        found = Selection(self.generation, blocks, scattered)
        if len(self._selections) >= _SELECTIONS_MAX:
            self._selections.pop(next(iter(self._selections)))
        self._selections[matchers] = found
        return found

    def match(self, matchers: Sequence[Matcher]) -> NDArray[np.intp]:
        """Indices of the entries that satisfy all matchers."""
        count = len(self.entries)
        ids: NDArray[np.intp] | None = None  # all of them
        for matcher in matchers:
            column = self._labels.get(matcher.name)
            if column is None:
                if not matcher.matches(""):
                    return np.empty(0, np.intp)
                continue
            codes = column.codes[:count] if ids is None else column.codes[ids]
            if matcher.type is MatchType.EQUAL:
                code = column.by_value.get(matcher.value)
                if code is None:
                    return np.empty(0, np.intp)
                hit = codes == code
            else:
                good = np.fromiter(map(matcher.matches, column.values), np.bool_, len(column.values))
                hit = good[codes]
            ids = np.flatnonzero(hit) if ids is None else ids[hit]
        return np.flatnonzero(self._alive[:count]) if ids is None else ids[self._alive[ids]]

    def label_names(self) -> Iterable[str]:
        return self._labels
