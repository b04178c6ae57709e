"""A sealed block as a source of frames. Nothing of it is in memory but what was asked for lately."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flyball.errors import StoreError
from flyball.model.frames import ABSENT_BITS, Codes, Floats, Frame, Mask, Times, is_absent
from flyball.model.labels import METRIC_NAME, Labels, Matcher, MatchType, MetricLabels
from flyball.store.blockfile import (
    SELECTIONS_MAX,
    BlockReader,
    FamilyEntry,
    Footer,
    GroupEntry,
    LabelTable,
    Selected,
)
from flyball.store.files import write_atomically

_FOOTER_BYTES_EACH = 300


class Cache:
    """What was read lately, up to a number of bytes; the least recently used goes first. Any thread."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Any, tuple[Any, int]] = OrderedDict()

    def get(self, key: Any, make: Callable[[], tuple[Any, int]]) -> Any:
        """The item, made when it is not here; ``make`` returns it with its size."""
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
                self.hits += 1
                return found[0]
            self.misses += 1
        item, size = make()
        with self._lock:
            if key not in self._items and size <= self.limit_bytes:
                self._items[key] = (item, size)
                self.bytes += size
                while self.bytes > self.limit_bytes:
                    _, (_, dropped) = self._items.popitem(last=False)
                    self.bytes -= dropped
        return item

    def forget(self, owner: Any) -> None:
        """Drops everything whose key begins with the owner."""
        with self._lock:
            for key in [key for key in self._items if key[0] == owner]:
                self.bytes -= self._items.pop(key)[1]


class Tombstone(NamedTuple):
    """Samples of matching series with start <= t <= end are deleted."""

    matchers: tuple[Matcher, ...]
    start_ms: int
    end_ms: int


class Block:
    """One sealed block.

    Args:
        canonical: maps a label set to an equal one that is in memory already.

    Raises:
        StoreError: the file cannot be read. Damage of a section is raised by the read that meets it.
    """

    def __init__(self, path: Path, cache: Cache, canonical: Callable[[Labels], Labels] | None = None) -> None:
        self.path = path
        self.reader = BlockReader(path)
        self._cache = cache
        self._canonical = canonical
        footer = self.reader.footer()
        self.min_ms, self.max_ms = footer.min_ms, footer.max_ms
        self.series_count, self.samples, self.origin = footer.series, footer.samples, footer.origin
        self.tombstones_path = path.with_suffix(".tombstones")
        self.tombstones = _read_tombstones(self.tombstones_path)

    @property
    def number(self) -> int:
        return int(self.path.stem)

    @property
    def size(self) -> int:
        return self.reader.size

    def overlaps(self, start_ms: int, end_ms: int) -> bool:
        """Whether the block has samples with start < t <= end."""
        return self.min_ms <= end_ms and self.max_ms > start_ms

    # Reading.

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """As ``Head.select``."""
        return [
            frame
            for group, family, table, selected in self._matching(matchers)
            if (frame := self._frame(group, family, table, selected, start_ms, end_ms)) is not None
        ]

    def series(self, matchers: Sequence[Matcher]) -> set[Labels]:
        """The label sets that match."""
        return {labels for _, _, _, selected in self._matching(matchers) for labels in selected.labels}

    def label_names(self, matchers: Sequence[Matcher]) -> set[str]:
        """Label names of the series that match."""
        found = set()
        for _, _, table, selected in self._matching(matchers):
            found.add(METRIC_NAME)
            found.update(name for name, (_, codes) in table.labels.items() if codes[selected.columns].any())
        return found

    def label_values(self, name: str, matchers: Sequence[Matcher]) -> set[str]:
        """Values of one label among the series that match."""
        found = set()
        for _, _, table, selected in self._matching(matchers):
            if name == METRIC_NAME:
                found.add(table.name)
            elif name in table.labels:
                values, codes = table.labels[name]
                found.update(values[code] for code in np.unique(codes[selected.columns]).tolist() if code)
        return found

    def footer(self) -> Footer:
        """The table of contents."""

        def make() -> tuple[Footer, int]:
            footer = self.reader.footer()
            return footer, _FOOTER_BYTES_EACH * sum(
                1 + sum(1 + len(family.chunks) for family in group.families) for group in footer.groups
            )

        found: Footer = self._cache.get((self.number, "footer"), make)
        return found

    def _table(self, family: FamilyEntry) -> LabelTable:
        def make() -> tuple[LabelTable, int]:
            table = self.reader.labels(family)
            return table, table.nbytes

        found: LabelTable = self._cache.get((self.number, family.labels.offset), make)
        return found

    def _times(self, group: GroupEntry) -> Times:
        def make() -> tuple[Times, int]:
            times = self.reader.times(group)
            return times, times.nbytes

        found: Times = self._cache.get((self.number, group.times.offset), make)
        return found

    def _matching(self, matchers: Sequence[Matcher]) -> Iterator[tuple[GroupEntry, FamilyEntry, LabelTable, Selected]]:
        on_name = [matcher for matcher in matchers if matcher.name == METRIC_NAME]
        others = tuple(matcher for matcher in matchers if matcher.name != METRIC_NAME)
        for group in self.footer().groups:
            for family in group.families:
                if all(matcher.matches(family.name) for matcher in on_name):
                    table = self._table(family)
                    selected = table.selections.get(others) or self._selected(table, others)
                    if len(selected.columns):
                        yield group, family, table, selected

    def _selected(self, table: LabelTable, matchers: tuple[Matcher, ...]) -> Selected:
        """Found, and kept with the table: its labels stay the very same tuple."""
        columns = np.flatnonzero(matching(table, matchers))
        labels = MetricLabels.of(
            [table.at(column, self._canonical) for column in columns.tolist()],
            {name: codes for name, (_, codes) in table.labels.items()},
            columns,
        )
        used, target = np.unique(table.target[columns], return_inverse=True)
        found = Selected(columns, labels, used, target.astype(np.int32))
        if len(table.selections) >= SELECTIONS_MAX:
            table.selections.clear()
        table.selections[matchers] = found
        return found

    def _frame(
        self,
        group: GroupEntry,
        family: FamilyEntry,
        table: LabelTable,
        selected: Selected,
        start_ms: int,
        end_ms: int,
    ) -> Frame | None:
        times = self._times(group)
        columns, target = selected.columns, selected.target
        if len(selected.used) < times.shape[1]:
            times = times[:, selected.used]
        inside = np.flatnonzero(((times > start_ms) & (times <= end_ms)).any(axis=1))
        if not len(inside):
            return None
        first, last = int(inside[0]), int(inside[-1]) + 1
        times = times[first:last]
        values = self._cells(family, columns, first, last)
        values = values.copy() if self.tombstones else values
        self._bury(table, columns, times, target, values)
        histograms = None
        if family.histograms is not None:
            histograms = np.full((last - first, family.columns), None, object)
            for row, column, histogram in self.reader.histograms(family):
                if first <= row < last:
                    histograms[row - first, column] = histogram
            histograms = histograms[:, columns]
            histograms[is_absent(values)] = None  # deleted
        return Frame(
            labels=selected.labels,
            times_ms=times,
            target=target,
            values=values,
            histograms=histograms,
        )

    def _cells(self, family: FamilyEntry, columns: NDArray[np.intp], first: int, last: int) -> Floats:
        """[rows first to last, columns], maybe a view of what is in the cache: to be read only."""
        if len(family.chunks) == 1:
            chunk = family.chunks[0]
            whole = len(columns) == chunk.columns and columns[0] == chunk.column and last <= chunk.row + chunk.rows
            if whole and columns[-1] == chunk.column + chunk.columns - 1 and first >= chunk.row:
                return self._decoded(chunk)[first - chunk.row : last - chunk.row]
        cells = np.full((len(columns), last - first), ABSENT_BITS, np.uint64).view(np.float64)
        for chunk in family.chunks:
            row, end = max(first, chunk.row), min(last, chunk.row + chunk.rows)
            begin, stop = np.searchsorted(columns, (chunk.column, chunk.column + chunk.columns)).tolist()
            if row >= end or begin == stop:
                continue
            found = self._decoded(chunk).T
            rows = slice(row - chunk.row, end - chunk.row)
            if stop - begin == chunk.columns:
                cells[begin:stop, row - first : end - first] = found[:, rows]
            else:
                cells[begin:stop, row - first : end - first] = found[columns[begin:stop] - chunk.column, rows]
        return cells.T

    def _decoded(self, chunk: Any) -> Floats:
        def make() -> tuple[Floats, int]:
            decoded = self.reader.chunk(chunk)
            return decoded, decoded.nbytes

        found: Floats = self._cache.get((self.number, chunk.section.offset), make)
        return found

    def _bury(self, table: LabelTable, columns: NDArray[np.intp], times: Times, target: Codes, values: Floats) -> None:
        for tombstone in self.tombstones:
            others = [matcher for matcher in tombstone.matchers if matcher.name != METRIC_NAME]
            if not all(matcher.matches(table.name) for matcher in tombstone.matchers if matcher.name == METRIC_NAME):
                continue
            hit = np.flatnonzero(matching(table, others)[columns])
            deleted = (times >= tombstone.start_ms) & (times <= tombstone.end_ms)
            for column in hit.tolist():
                values[deleted[:, target[column]], column] = np.uint64(ABSENT_BITS).view(np.float64)

    # Whole, for compaction: nothing of it goes through the cache.

    def targets(self, group: GroupEntry) -> list[Any]:
        """The keys of the group's targets."""
        return self.reader.targets(group)

    def times(self, group: GroupEntry) -> Times:
        """[rows, targets] of the group."""
        return self.reader.times(group)

    def labels(self, family: FamilyEntry) -> tuple[list[Labels], Codes]:
        """The label sets of a family, and the target of each."""
        table = self.reader.labels(family)
        return [table.at(column, self._canonical) for column in range(family.columns)], table.target

    def whole(self, group: GroupEntry, family: FamilyEntry, times: Times) -> Frame:
        """All of a family, dated by the group's times; what is deleted is ABSENT."""
        table = self.reader.labels(family)
        values = np.full((group.rows, family.columns), ABSENT_BITS, np.uint64).view(np.float64)
        for chunk in family.chunks:
            rows, columns = slice(chunk.row, chunk.row + chunk.rows), slice(chunk.column, chunk.column + chunk.columns)
            values[rows, columns] = self.reader.chunk(chunk)
        self._bury(table, np.arange(family.columns), times, table.target, values)
        histograms = None
        if family.histograms is not None:
            histograms = np.full(values.shape, None, object)
            for row, column, histogram in self.reader.histograms(family):
                histograms[row, column] = histogram
            histograms[is_absent(values)] = None  # deleted
        labels = tuple([table.at(column, self._canonical) for column in range(family.columns)])
        return Frame(labels, times, table.target, values, histograms)

    # Deleting.

    def bury(self, tombstone: Tombstone) -> None:
        """Deletes samples: they are not read any more, and are gone after the next compaction."""
        kept = [*self.tombstones, tombstone]
        text = json.dumps(
            [
                {
                    "matchers": [(matcher.name, matcher.type.value, matcher.value) for matcher in one.matchers],
                    "start_ms": one.start_ms,
                    "end_ms": one.end_ms,
                }
                for one in kept
            ]
        )
        write_atomically(self.tombstones_path, text.encode())
        self.tombstones = tuple(kept)

    def delete(self) -> None:
        """Removes the files."""
        self._cache.forget(self.number)
        self.path.unlink(missing_ok=True)
        self.tombstones_path.unlink(missing_ok=True)


def matching(table: LabelTable, matchers: Sequence[Matcher]) -> Mask:
    """Which columns satisfy the matchers; each runs once per distinct value."""
    mask = np.ones(table.columns, np.bool_)
    for matcher in matchers:
        known = table.labels.get(matcher.name)
        if known is None:
            if not matcher.matches(""):
                mask[:] = False
            continue
        values, codes = known
        good = np.fromiter(map(matcher.matches, values), np.bool_, len(values))
        mask &= good[codes]
    return mask


def _read_tombstones(path: Path) -> tuple[Tombstone, ...]:
    if not path.exists():
        return ()
    try:
        return tuple(
            Tombstone(
                tuple(Matcher(MatchType(type_), name, value) for name, type_, value in one["matchers"]),
                one["start_ms"],
                one["end_ms"],
            )
            for one in json.loads(path.read_text())
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise StoreError(f"{path}: {exc}; delete the file to have the deleted samples back") from exc
