"""The scrape matrix: groups of targets, and one float64 matrix for each metric family of a group.

A group holds the targets of one job with one interval: ``times_ms`` [rows, slots], one slot a target. A family
holds ``values`` [rows, columns], the series of one metric name of all these targets, so that ten thousand pods
with one series each are one matrix. A row is a scrape round; a target that was not scraped in it is ABSENT.

Readers never wait for appends. An append writes a target's values first and its time last; a cell of
``times_ms`` without a sample yet holds NOT_YET, later than any query, so a half-written row is not seen.
Arrays are never rearranged in place: growing, dropping old rows and reclaiming columns all make new arrays,
and a reader keeps the ones it has. Everything but appends happens under the head's lock.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.errors import StoreError
from flyball.model.frames import ABSENT_BITS, STALE_BITS, Floats, Times
from flyball.model.labels import Labels

#: The time of a cell whose target has no sample in this row or any later one.
NOT_YET = 1 << 62
#: The time of a cell above its target's first sample.
BEFORE = -(1 << 62)

_ROWS_MIN = 16
#: Rows are made ABSENT so many at a time, shortly before they are needed: memory is taken as it is used, and no scrape
#: waits until all of a larger matrix is written.
_ROWS_AT_ONCE = 16
#: New series are admitted only with room for so much time of all of their group, so that known ones can go on.
_RESERVED_MS = 120_000
#: With blocks, no more than so many retentions of empty rows are made for a clock that jumped ahead.
_GAP_MAX = 8

_Take = slice | NDArray[np.intp]


class Host(Protocol):
    """What a group needs of its head."""

    lock: Any
    retention_ms: int
    refused: int
    sealed_ms: int | None
    floor_ms: int
    wants_sealing: bool
    wal: Any

    def horizon_ms(self, at_ms: int) -> int: ...

    def grant(self, extra_bytes: int, at_ms: int, *, new: bool = False) -> bool: ...
    def account(self, extra_bytes: int) -> None: ...
    def placed(self, ref: "Ref") -> None: ...
    def moved(self, family: "Family") -> None: ...
    def dropped(self, refs: Iterable["Ref"], family: "Family") -> None: ...
    def committed(self, samples: int, at_ms: int) -> None: ...
    def out_of_order(self, samples: int) -> None: ...


class Ref:
    """One series of one target: where its values go. ``family`` is None once the column was reclaimed."""

    __slots__ = ("column", "ended", "entry", "family", "first_ms", "labels", "number", "slot")

    def __init__(self, labels: Labels, family: "Family", column: int, slot: int) -> None:
        self.labels = labels
        self.family: Family | None = family
        self.column = column
        self.slot = slot
        self.number = 0  # in the write-ahead log
        self.entry: Any = None
        self.ended = True
        self.first_ms = NOT_YET

    def end_ms(self) -> int:
        """The time of the staleness marker; NOT_YET while the series lives."""
        return int(self.family.end_ms[self.column]) if self.family is not None else BEFORE

    def delete(self, start_ms: int, end_ms: int) -> None:
        """Makes the samples with start <= t <= end ABSENT."""
        if self.family is not None:
            group = self.family.group
            first, last = group.window(start_ms - 1, end_ms)
            times = group.times_ms[first:last, self.slot]
            rows = first + np.flatnonzero((times >= start_ms) & (times <= end_ms))
            self.family.values.view(np.uint64)[rows, self.column] = ABSENT_BITS


class Family:
    """The matrix of one metric name in one group."""

    __slots__ = ("count", "end_ms", "group", "name", "refs", "slot_of", "values")

    def __init__(self, name: str, group: "Group") -> None:
        self.name = name
        self.group = group
        self.count = 0
        self.values: Floats = np.empty((group.capacity, 0))
        self.slot_of: NDArray[np.int32] = np.empty(0, np.int32)
        self.end_ms: Times = np.empty(0, np.int64)
        self.refs: list[Ref] = []

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.slot_of.nbytes + self.end_ms.nbytes

    def add(self, refs: Sequence[Ref]) -> None:
        """New columns at the right; the lock is held."""
        need = self.count + len(refs)
        if need > self.values.shape[1]:
            width = max(need, self.count + self.count // 8)
            values = np.empty((self.group.capacity, width))
            _make_absent(values[: self.group.filled])
            values[: self.group.rows, : self.count] = self.values[: self.group.rows, : self.count]
            self.slot_of = _widened(self.slot_of, self.count, width)
            self.end_ms = _widened(self.end_ms, self.count, width)
            self.values = values
        for ref in refs:
            ref.column = len(self.refs)
            self.slot_of[ref.column] = ref.slot
            self.end_ms[ref.column] = NOT_YET
            self.refs.append(ref)
        self.count = need


class Plan:
    """The order in which a target's values arrive, resolved to columns.

    ``refs[i]`` takes ``values[i]``; None drops the value. A series that occurs twice keeps its first value;
    ``duplicates`` counts the others.
    """

    __slots__ = ("duplicates", "generation", "logged", "parts", "refs", "size", "unique")

    def __init__(self, refs: Sequence[Ref | None]) -> None:
        self.refs = list(refs)
        self.generation = -1
        self.logged: tuple[int, int] | None = None  # (segment, layout) of the write-ahead log
        self.size = len(self.refs)
        self.duplicates = 0
        self.parts: list[tuple[Family, _Take, _Take]] = []
        self.unique: frozenset[Ref] = frozenset()

    def resolve(self, generation: int) -> None:
        by_family: dict[int, tuple[Family, list[int], list[int]]] = {}
        seen: set[Ref] = set()
        self.duplicates = 0
        for source, ref in enumerate(self.refs):
            if ref is None:
                continue
            if ref in seen:
                self.duplicates += 1
                continue
            seen.add(ref)
            family = ref.family
            assert family is not None
            part = by_family.get(id(family))
            if part is None:
                part = by_family[id(family)] = (family, [], [])
            part[1].append(ref.column)
            part[2].append(source)
        self.parts = [(family, _take(columns), _take(sources)) for family, columns, sources in by_family.values()]
        self.unique = frozenset(seen)
        self.generation = generation


class Group:
    """Targets that are scraped in the same rounds. Row r is round ``base + r`` of ``interval_ms`` or later."""

    def __init__(self, key: tuple[Any, int], interval_ms: int, host: Host) -> None:
        self.key = key
        self.interval_ms = interval_ms
        self.host = host
        self.base = 0
        self.rows = 0
        self.filled = 0  # rows from here on hold anything
        self.capacity = _ROWS_MIN
        self.ahead = 0
        self.generation = 0
        self.times_ms: Times = np.full((self.capacity, 0), NOT_YET, np.int64)
        self.writers: list[Writer] = []
        self.families: dict[str, Family] = {}

    @property
    def nbytes(self) -> int:
        return self.times_ms.nbytes + sum(family.nbytes for family in self.families.values())

    @property
    def width(self) -> int:
        """Columns of values and of times."""
        return sum(family.count for family in self.families.values()) + len(self.writers)

    def join(self, writer: "Writer") -> int:
        """A new slot; the lock is held."""
        slot = len(self.writers)
        if slot >= self.times_ms.shape[1]:
            width = max(slot + 1, slot + slot // 2)
            times = np.full((self.capacity, width), NOT_YET, np.int64)
            times[: self.rows, :slot] = self.times_ms[: self.rows, :slot]
            self.host.account(times.nbytes - self.times_ms.nbytes)
            self.times_ms = times
        self.writers.append(writer)
        return slot

    def window(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        """Rows that can hold samples with start < t <= end. Row r never holds a sample before round base + r
        begins, and none later than ``ahead`` rounds behind it."""
        first = max(0, start_ms // self.interval_ms - self.base)
        last = min(self.rows, end_ms // self.interval_ms - self.base + 1 + self.ahead)
        return first, max(first, last)

    def fill(self, row: int) -> None:
        """Rows up to this one and some more hold nothing until something is written to them."""
        end = min(self.capacity, row + _ROWS_AT_ONCE)
        for family in self.families.values():
            _make_absent(family.values[self.filled : end])
        self.filled = end

    def make_room(self, at_ms: int, writer: "Writer") -> int:
        """Drops rows and columns behind the retention and grows; returns the row for the writer's sample."""
        with self.host.lock:
            return self._make_room(at_ms, writer)

    def _make_room(self, at_ms: int, writer: "Writer") -> int:
        drop, row, capacity = self._sizes(at_ms, writer)
        gap_max = _GAP_MAX * (self.host.retention_ms // self.interval_ms + 2)
        if self.host.sealed_ms is not None and row > max(0, self.rows - drop) + gap_max:
            self.host.wants_sealing = True
            raise StoreError(
                f"the clock is far ahead of the last scrape of {writer.key}; older samples are sealed first"
            )
        width = self.width
        extra = width * 8 * (capacity - self.capacity)
        if extra > 0:
            granted = self.host.grant(extra, at_ms)  # may compact this very group
            drop, row, capacity = self._sizes(at_ms, writer)
            if not granted and self.host.sealed_ms is not None:  # in small steps, until sealing gives memory back
                capacity = max(self.capacity, row + 1 + row // 8)
                granted = self.host.grant(width * 8 * (capacity - self.capacity), at_ms)
            if not granted and self.host.sealed_ms is not None:
                raise StoreError("the store's memory limit is reached before older samples are in blocks; raise it")
            if not granted:  # keep the size and slide by a quarter instead of growing
                capacity = self.capacity
                force = max(0, row + 1 - max(1, capacity * 3 // 4))
                drop += force
                row -= force
        self.rebuild(drop, capacity, self.host.horizon_ms(at_ms))
        return row

    def _sizes(self, at_ms: int, writer: "Writer") -> tuple[int, int, int]:
        """Rows to drop, the row of the writer's next sample after that, and the capacity to have."""
        drop = self._droppable(self.host.horizon_ms(at_ms))
        row = max(writer.last_row - drop + 1, at_ms // self.interval_ms - self.base - drop, 0)
        rows_kept = self.host.retention_ms // self.interval_ms + 2
        need = row + 1
        if need <= rows_kept // 2:
            return drop, row, max(_ROWS_MIN, 2 * need)
        return drop, row, max(need, rows_kept) + rows_kept // 16 + 4

    def compact(self, horizon_ms: int) -> None:
        """Drops what lies before the horizon and gives the memory back; the lock is held."""
        drop = self._droppable(horizon_ms)
        used = max(0, self.rows - drop)
        self.rebuild(drop, max(_ROWS_MIN, used + used // 8), horizon_ms)

    def empty(self, now_ms: int) -> None:
        """Lets go of all rows, after the clock went back to ``now_ms``; the lock is held."""
        for family in self.families.values():
            ends = family.end_ms[: family.count]
            family.end_ms[: family.count] = np.where((ends > now_ms) & (ends < NOT_YET), now_ms, ends)
        self.rebuild(self.rows, _ROWS_MIN, BEFORE)
        self.ahead = 0
        for writer in self.writers:
            writer.start_anew(now_ms)

    def _droppable(self, horizon_ms: int) -> int:
        by_round = horizon_ms // self.interval_ms - self.base  # rows below hold only samples before the horizon
        if by_round >= self.rows or self.rows == 0:
            return max(0, by_round)
        times = self.times_ms[: self.rows, : len(self.writers)]
        newest = np.where(times == NOT_YET, BEFORE, times).max(axis=1, initial=BEFORE)
        recent = np.flatnonzero(newest >= horizon_ms)
        by_time = int(recent[0]) if len(recent) else self.rows
        return max(0, by_round, by_time)

    def rebuild(self, drop: int, capacity: int, horizon_ms: int) -> None:
        """New arrays without the first ``drop`` rows, dead columns and dead slots; the lock is held."""
        before = self.nbytes
        used = max(0, self.rows - drop)
        gone = min(drop, self.rows)
        keep_slot = [not writer.closed for writer in self.writers]
        kept_columns: dict[str, NDArray[np.intp] | None] = {}
        for family in list(self.families.values()):
            alive = family.end_ms[: family.count] >= horizon_ms
            slots = family.slot_of[: family.count]
            tidy = family.count < 2 or bool((np.diff(slots) >= 0).all())
            if alive.all() and tidy:
                kept_columns[family.name] = None
            else:
                kept = np.flatnonzero(alive)
                kept_columns[family.name] = kept[np.argsort(slots[kept], kind="stable")]
            for slot in np.unique(slots[alive]):
                keep_slot[int(slot)] = True
        renumber = not all(keep_slot)
        new_slot = np.cumsum(keep_slot) - 1 if keep_slot else np.empty(0, np.intp)
        slots_kept = np.flatnonzero(keep_slot)
        changed = renumber
        reclaimed = False
        for family in list(self.families.values()):
            columns = kept_columns[family.name]
            count = family.count if columns is None else len(columns)
            source: _Take = slice(0, count) if columns is None else columns
            values = np.empty((capacity, count))
            values[:used] = family.values[gone : self.rows, source]
            if columns is None and not renumber:
                family.values = values
                family.slot_of, family.end_ms = family.slot_of[:count].copy(), family.end_ms[:count].copy()
                continue
            changed = True
            refs = [family.refs[index] for index in columns] if columns is not None else family.refs
            lost = set(family.refs).difference(refs)
            family.values = values
            family.slot_of = new_slot[family.slot_of[: family.count][source]].astype(np.int32)
            family.end_ms = family.end_ms[: family.count][source].copy()
            family.refs, family.count = refs, count
            for index, ref in enumerate(refs):
                ref.column = index
                ref.slot = int(family.slot_of[index])
            if lost:
                for ref in lost:
                    ref.family = None
                    ref.ended = True
                self.host.dropped(lost, family)
                reclaimed = True
            self.host.moved(family)
            if count == 0:
                del self.families[family.name]
        times = np.full((capacity, len(slots_kept)), NOT_YET, np.int64)
        times[:used] = self.times_ms[gone : self.rows, slots_kept]
        self.times_ms = times
        for writer in self.writers:
            writer.last_row = max(-1, writer.last_row - drop)
            if reclaimed:
                writer.forget_reclaimed()
        if renumber:
            for writer, kept_slot in zip(self.writers, keep_slot, strict=True):
                if not kept_slot:
                    writer.slot = -1
            self.writers = [self.writers[int(slot)] for slot in slots_kept]
            for slot, writer in enumerate(self.writers):
                writer.slot = slot
        self.base += drop
        self.rows = self.filled = used
        self.capacity = capacity
        if changed:
            self.generation += 1
        self.host.account(self.nbytes - before)


class Writer:
    """One target's way into a group. Used from the writing thread only."""

    def __init__(self, group: Group, key: object) -> None:
        self.group = group
        self.key = key
        self.last_ms = BEFORE
        self.last_row = -1
        self.closed = False
        self.logged: tuple[int, int] | None = None  # log segment and the number that it gave the target
        self.slot = group.join(self)
        self._refs: dict[Labels, Ref] = {}

    def refs(self, label_sets: Sequence[Labels]) -> list[Ref]:
        """The places of these series (metric name included), new ones registered in one step.

        Raises:
            StoreError: the memory limit is reached; no series was registered.
        """
        found: dict[Labels, Ref] = {}
        fresh: dict[str, list[Ref]] = {}
        group = self.group
        for labels in label_sets:
            ref = self._refs.get(labels)
            if (ref is None or ref.family is None) and labels not in found:
                name = _metric_name(labels)
                family = group.families.get(name) or Family(name, group)
                ref = Ref(labels, family, -1, self.slot)
                fresh.setdefault(name, []).append(ref)
                found[labels] = ref
            elif ref is not None and labels not in found:
                found[labels] = ref
        if fresh:
            self._register(fresh)
        return [found[labels] for labels in label_sets]

    def _register(self, fresh: dict[str, list[Ref]]) -> None:
        group = self.group
        count = sum(len(refs) for refs in fresh.values())
        with group.host.lock:
            rows = max(group.capacity, _RESERVED_MS // group.interval_ms)
            wanted = count * (rows * 8 + 400) + group.width * 8 * (rows - group.capacity)
            if not group.host.grant(wanted, max(self.last_ms, 0), new=True):
                group.host.refused += count
                raise StoreError(
                    f"the store's memory limit is reached: {count} new series of {self.key} were refused; "
                    "raise the limit, scrape less, or drop series with metric_relabel_configs"
                )
            before = group.nbytes
            for name, refs in fresh.items():
                family = group.families.setdefault(name, Family(name, group))
                for ref in refs:
                    ref.family, ref.slot = family, self.slot
                family.add(refs)
                for ref in refs:
                    self._refs[ref.labels] = ref
                    group.host.placed(ref)
            group.host.account(group.nbytes - before)

    def commit(self, at_ms: int, plan: Plan | None, values: Floats | None = None, stale: Iterable[Ref] = ()) -> bool:
        """One scrape, visible all at once: ``plan.refs[i]`` gets ``values[i]``, every ref of ``stale`` ends.

        Returns:
            False when the time is not later than that of the last scrape; nothing is written then.
        """
        group = self.group
        if at_ms <= self.last_ms or at_ms < group.host.floor_ms:
            group.host.out_of_order(plan.size if plan is not None else 0)
            return False
        if self.closed:
            raise StoreError(f"the writer of {self.key} is closed")
        stale = list(stale)
        for _ in range(4):  # making room may reclaim columns, and registering series may make room
            if plan is not None and plan.generation != group.generation:
                self._revive(plan)
                plan.resolve(group.generation)
            if any(ref.family is None for ref in stale):
                stale = self.refs([ref.labels for ref in stale])
            if group.rows == 0:
                group.base = at_ms // group.interval_ms
                for writer in group.writers:
                    writer.last_row = -1
            natural = at_ms // group.interval_ms - group.base
            row = max(self.last_row + 1, natural, 0)
            if row < group.capacity:
                break
            group.make_room(at_ms, self)
        else:
            raise StoreError(f"the store's memory limit leaves no room for {self.key}; raise the limit or scrape less")
        if group.host.wal is not None:
            group.host.wal.write_row(self, at_ms, plan, values, stale)
        if row >= group.filled:
            group.fill(row)
        group.ahead = max(group.ahead, row - natural)
        slot = self.slot
        if row > self.last_row + 1:
            group.times_ms[self.last_row + 1 : row, slot] = self.last_ms
        count = 0
        if plan is not None and values is not None:
            count = plan.size
            for family, columns, sources in plan.parts:
                family.values[row, columns] = values[sources]
            for ref in plan.unique if self._ended(plan) else ():
                if ref.ended and ref.family is not None:
                    ref.ended = False
                    ref.first_ms = min(ref.first_ms, at_ms)
                    ref.family.end_ms[ref.column] = NOT_YET
        for ref in stale:
            if ref.family is not None:
                ref.first_ms = min(ref.first_ms, at_ms)
                ref.family.values.view(np.uint64)[row, ref.column] = STALE_BITS
                ref.family.end_ms[ref.column] = at_ms
                ref.ended = True
                count += 1
                self._plan = None
        group.times_ms[row, slot] = at_ms
        self.last_ms, self.last_row = at_ms, row
        if row >= group.rows:
            group.rows = row + 1
        group.host.committed(count, at_ms)
        return True

    _plan: Plan | None = None

    def _ended(self, plan: Plan) -> bool:
        """Whether the plan may hold a ref that is not alive: it is not the plan of the last commit."""
        if plan is self._plan:
            return False
        self._plan = plan
        return True

    def _revive(self, plan: Plan) -> None:
        """Columns that were reclaimed while the plan slept are registered again."""
        while lost := [ref.labels for ref in plan.refs if ref is not None and ref.family is None]:
            fresh = {ref.labels: ref for ref in self.refs(lost)}
            plan.refs = [fresh[ref.labels] if ref is not None and ref.family is None else ref for ref in plan.refs]
            self._plan = None

    def reopen(self) -> None:
        """Back into service, with a new slot when the old one was reclaimed."""
        if self.slot < 0:
            with self.group.host.lock:
                self.slot = self.group.join(self)
                self.last_row = -1
                self._refs = {}
        self.closed = False

    def close(self, stale_ms: int | None = None) -> None:
        """Ends the target. With ``stale_ms`` every live series gets a staleness marker at that time; without,
        the series may go on elsewhere. The columns are reclaimed once their data is behind the retention."""
        if self.closed:
            return
        live = [ref for ref in self._refs.values() if ref.family is not None and not ref.ended]
        if stale_ms is not None:
            self.commit(max(stale_ms, self.last_ms + 1), None, None, live)
        else:
            for ref in live:
                assert ref.family is not None
                ref.family.end_ms[ref.column] = self.last_ms
                ref.ended = True
        self._plan = None
        self.closed = True
        for ref in self._refs.values():  # registered, never written
            if ref.family is not None and ref.family.end_ms[ref.column] == NOT_YET:
                ref.family.end_ms[ref.column] = self.last_ms

    def start_anew(self, now_ms: int) -> None:
        """The next scrape may be older than the last one; the group has no rows any more."""
        self.last_ms, self.last_row = BEFORE, -1
        for ref in self._refs.values():
            ref.first_ms = min(ref.first_ms, now_ms)

    def live(self) -> list[Ref]:
        """The series that have no staleness marker yet."""
        return [ref for ref in self._refs.values() if not ref.ended]

    def forget_reclaimed(self) -> None:
        """Lets go of refs whose columns were reclaimed."""
        self._refs = {labels: ref for labels, ref in self._refs.items() if ref.family is not None}


def _make_absent(cells: Floats) -> None:
    # Through integers: ABSENT is a signalling NaN, and float conversions may set its quiet bit.
    cells.view(np.uint64)[:] = ABSENT_BITS


def _widened(array: NDArray[Any], count: int, width: int) -> NDArray[Any]:
    wider = np.zeros(width, array.dtype)
    wider[:count] = array[:count]
    return wider


def _take(indices: list[int]) -> _Take:
    first = indices[0]
    if indices[-1] - first == len(indices) - 1 and indices == list(range(first, first + len(indices))):
        return slice(first, first + len(indices))
    return np.array(indices, np.intp)


def _metric_name(labels: Labels) -> str:
    for name, value in labels:
        if name == "__name__":
            return value
    raise StoreError(f"the series {dict(labels)} has no metric name; add __name__")
