"""From the head's arrays to the sheets of a block."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import ABSENT_BITS, Codes, Floats, Mask, Times, is_absent
from flyball.model.histograms import Histogram
from flyball.model.labels import METRIC_NAME, Labels
from flyball.store.blockfile import Sheet, Slab
from flyball.store.buffers import SeriesBuffer
from flyball.store.head import Head, histograms_of, pieces
from flyball.store.index import SCATTERED
from flyball.store.matrix import BEFORE, Group, Ref
from flyball.store.pieces import Piece, merged

#: Native histograms by series and time.
Natives = dict[Labels, dict[int, Histogram]]
#: (family name, labels, slot of each column, values): views of the head, and which columns to leave out.
_FamilyView = tuple[str, list[Ref], NDArray[np.int32], Floats]


def sheets_of(
    head: Head, start_ms: int, end_ms: int, taken: list[tuple[SeriesBuffer, Piece]] | None = None
) -> Iterator[Sheet]:
    """Everything that the head holds with start <= t < end.

    From now on the head must refuse samples of scrapes before ``end_ms``. Runs beside the writing thread.

    Args:
        taken: filled with the buffers and those of their samples that are before ``end_ms``.
    """
    with head.lock:
        scattered: list[tuple[Labels, list[Piece]]] = []
        histograms: Natives = {}
        elsewhere: set[int] = set()
        for metric in head.metrics():
            for index in np.flatnonzero(metric.family_of[: len(metric.entries)] == SCATTERED).tolist():
                entry = metric.entries[index]
                if entry is not None:
                    elsewhere.update(id(place) for place in entry.places)
                    for place in entry.places:
                        if taken is not None and isinstance(place, SeriesBuffer):
                            times, values, count = place.view
                            count = int(np.searchsorted(times[:count], end_ms))
                            taken.append((place, (times[:count], values[:count])))
                    if natives := histograms_of(entry):
                        histograms[entry.labels] = natives
                    scattered.append((entry.labels, pieces(entry, BEFORE, end_ms, start_ms)))
        groups = [_view(group, start_ms, end_ms) for group in head.groups()]
    for group, targets, times, families in groups:
        sheet = _sheet(group, targets, times, families, elsewhere, start_ms, end_ms)
        if sheet is not None:
            yield sheet
    cut = ((labels, merged(found, start_ms - 1, end_ms - 1)) for labels, found in scattered)
    yield from scattered_sheets(cut, histograms)


def late_sheets(taken: list[tuple[SeriesBuffer, Piece]], start_ms: int, range_ms: int) -> dict[int, list[Sheet]]:
    """Samples that came after their time was sealed, by the range they belong to."""
    late = []
    for buffer, (times, values) in taken:
        count = int(np.searchsorted(times, start_ms))
        if count:
            late.append((buffer.labels, (times[:count], values[:count])))
    return by_range(late, range_ms, {buffer.labels: buffer.histograms for buffer, _ in taken if buffer.histograms})


def by_range(
    found: Iterable[tuple[Labels, Piece]], range_ms: int, histograms: Natives | None = None
) -> dict[int, list[Sheet]]:
    """Sheets for each aligned range that holds samples."""
    ranges: dict[int, list[tuple[Labels, Piece]]] = {}
    for labels, (times, values) in found:
        indices = times // range_ms
        for index in np.unique(indices).tolist():
            here = indices == index
            ranges.setdefault(index, []).append((labels, (times[here], values[here])))
    return {index: list(scattered_sheets(members, histograms)) for index, members in sorted(ranges.items())}


def _view(group: Group, start_ms: int, end_ms: int) -> tuple[Group, list[Any], Times, list[_FamilyView]]:
    first, last = group.window(start_ms - 1, end_ms)
    families = [
        (family.name, list(family.refs), family.slot_of[: family.count], family.values[first:last, : family.count])
        for family in group.families.values()
    ]
    targets = [writer.key for writer in group.writers]
    return group, targets, group.times_ms[first:last, : len(targets)], families


def _sheet(
    group: Group,
    targets: list[Any],
    times: Times,
    families: list[_FamilyView],
    elsewhere: set[int],
    start_ms: int,
    end_ms: int,
) -> Sheet | None:
    valid = (times >= start_ms) & (times < end_ms)
    rows, used = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if not len(rows):
        return None
    valid = valid[np.ix_(rows, used)]
    slot_to_target = np.full(len(targets), -1, np.int32)
    slot_to_target[used] = np.arange(len(used))

    def slabs() -> Iterator[Slab]:
        for name, refs, slots, values in families:
            columns = np.array(
                [
                    index
                    for index, (ref, target) in enumerate(zip(refs, slot_to_target[slots].tolist(), strict=True))
                    if target >= 0 and id(ref) not in elsewhere
                ],
                np.intp,
            )
            if len(columns):
                target = slot_to_target[slots[columns]]
                cells = values[rows[:, None], columns]
                cells.view(np.uint64)[~valid[:, target]] = ABSENT_BITS
                slab = dense(name, [refs[index].labels for index in columns.tolist()], target, cells)
                if slab is not None:
                    yield slab

    group_key, interval_ms = group.key
    return Sheet(
        group_key,
        interval_ms,
        [targets[slot] for slot in used.tolist()],
        ascending(times[np.ix_(rows, used)], valid),
        slabs(),
    )


def dense(name: str, labels: list[Labels], target: Codes, values: Floats, histograms: Any = None) -> Slab | None:
    """The slab without columns that hold nothing, sorted by target; None when nothing is left."""
    kept = np.flatnonzero((~is_absent(np.ascontiguousarray(values))).any(axis=0))
    if not len(kept):
        return None
    kept = kept[np.argsort(target[kept], kind="stable")]
    return Slab(
        name,
        [labels[column] for column in kept.tolist()],
        target[kept],
        values[:, kept],
        histograms[:, kept] if histograms is not None else None,
    )


def ascending(times: Times, valid: Mask) -> Times:
    """The times with those of empty cells replaced, so that every column ascends and compresses well."""
    filled = np.maximum.accumulate(np.where(valid, times, BEFORE), axis=0)
    first = np.where(valid, times, 1 << 62).min(axis=0)
    return np.where(filled == BEFORE, first, filled)


def scattered_sheets(found: Iterable[tuple[Labels, Piece]], histograms: Natives | None = None) -> Iterator[Sheet]:
    """Sheets of series that have their own times. Series that share all their times share a target."""
    buckets: dict[int, list[tuple[Labels, Times, Floats]]] = {}
    for labels, (times, values) in found:
        if len(times):
            buckets.setdefault(len(times).bit_length(), []).append((labels, times, values))
    for members in buckets.values():
        rows = max(len(times) for _, times, _ in members)
        target_of: dict[bytes, int] = {}
        columns: list[Times] = []
        by_name: dict[str, list[tuple[Labels, int, Floats]]] = {}
        for labels, times, values in members:
            target = target_of.setdefault(times.tobytes(), len(columns))
            if target == len(columns):
                columns.append(np.concatenate([np.full(rows - len(times), times[0]), times]))
            name = next(value for label, value in labels if label == METRIC_NAME)
            by_name.setdefault(name, []).append((labels, target, values))
        times_ms = np.stack(columns, axis=1)
        slabs = [_padded(name, series, times_ms, histograms or {}) for name, series in by_name.items()]
        yield Sheet("", 0, list(range(len(columns))), times_ms, slabs)


def _padded(name: str, members: list[tuple[Labels, int, Floats]], times_ms: Times, histograms: Natives) -> Slab:
    values = np.full((len(times_ms), len(members)), ABSENT_BITS, np.uint64)
    table = None
    for column, (labels, target, samples) in enumerate(members):
        first = len(times_ms) - len(samples)
        values[first:, column] = samples.view(np.uint64)
        natives = histograms.get(labels)
        if natives:
            if table is None:
                table = np.full(values.shape, None, object)
            table[first:, column] = [natives.get(at_ms) for at_ms in times_ms[first:, target].tolist()]
    target_codes = np.array([target for _, target, _ in members], np.int32)
    made = dense(name, [labels for labels, _, _ in members], target_codes, values.view(np.float64), table)
    assert made is not None
    return made
