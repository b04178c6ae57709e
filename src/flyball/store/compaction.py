"""Compaction: small neighbouring blocks become one, without what was deleted. The plan is pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from flyball.model.frames import ABSENT_BITS, Frame, Times, is_absent
from flyball.model.labels import Labels
from flyball.store.block import Block
from flyball.store.blockfile import FamilyEntry, GroupEntry, Sheet, Slab, as_key
from flyball.store.pieces import Piece, merged
from flyball.store.sealing import Natives, ascending, dense, scattered_sheets

_HOUR_MS = 3_600_000
#: Blocks grow by these steps, as far as a tenth of the retention.
RANGES_MS = (2 * _HOUR_MS, 8 * _HOUR_MS, 32 * _HOUR_MS)


class Span(Protocol):
    """What planning needs of a block."""

    min_ms: int
    max_ms: int


AnySpan = TypeVar("AnySpan", bound=Span)


def next_compaction(blocks: Sequence[AnySpan], sealed_ms: int, retention_ms: int | None) -> list[AnySpan]:
    """The blocks to merge next: those of the smallest aligned range that is over and holds several. Often none."""
    for range_ms in RANGES_MS:
        if retention_ms is not None and range_ms > max(RANGES_MS[0], retention_ms // 10):
            break
        windows: dict[int, list[AnySpan]] = {}
        for block in blocks:
            window = block.min_ms // range_ms
            if block.max_ms // range_ms == window and (window + 1) * range_ms <= sealed_ms:
                windows.setdefault(window, []).append(block)
        for _, members in sorted(windows.items()):
            if len(members) > 1:
                return members
    return []


class _Pieces(NamedTuple):
    """Series that one matrix cannot hold, piece by piece."""

    floats: dict[Labels, list[Piece]]
    histograms: Natives


class _Source(NamedTuple):
    block: Block
    group: GroupEntry


def compacted(blocks: Iterable[Block]) -> Iterator[Sheet]:
    """The sheets of one block with the samples of all. One family at a time is in memory."""
    groups: dict[tuple[Any, int], list[_Source]] = {}
    for block in blocks:
        for group in block.footer().groups:
            groups.setdefault((as_key(group.key), group.interval_ms), []).append(_Source(block, group))
    apart = _in_several_groups(groups)
    pieces = _Pieces({}, {})
    for (key, interval_ms), sources in groups.items():
        if interval_ms and not _overlapping(sources):
            yield _stacked(key, interval_ms, sources, apart, pieces)
        else:
            for source in sources:
                times = source.block.times(source.group)
                for family in source.group.families:
                    _scatter(source.block.whole(source.group, family, times), None, pieces)
    cut = ((labels, merged(found, -(1 << 62), 1 << 62)) for labels, found in pieces.floats.items())
    yield from scattered_sheets(cut, pieces.histograms)


def _in_several_groups(groups: dict[tuple[Any, int], list[_Source]]) -> set[Labels]:
    """Series that one matrix cannot hold: they moved to another group or target, or have late samples."""
    owner: dict[Labels, tuple[Any, Any]] = {}
    apart: set[Labels] = set()
    for key, sources in groups.items():
        for block, group in sources:
            targets = block.targets(group) if key[1] else []
            for family in group.families:
                labels, target = block.labels(family)
                for one, code in zip(labels, target.tolist(), strict=True):
                    here = (key, targets[code] if key[1] else None)
                    if owner.setdefault(one, here) != here:
                        apart.add(one)
    return apart


def _overlapping(sources: list[_Source]) -> bool:
    """Whether rounds of the sources lie between each other, as after a clock that went back."""
    spans = sorted((int(times.min()), int(times.max())) for times in (block.times(group) for block, group in sources))
    return any(later[0] <= earlier[1] for earlier, later in pairwise(spans))


def _scatter(frame: Frame, only: set[Labels] | None, pieces: _Pieces) -> None:
    for column, labels in enumerate(frame.labels):
        if only is None or labels in only:
            values = np.ascontiguousarray(frame.values[:, column])
            kept = ~is_absent(values)
            times = frame.times_ms[kept, frame.target[column]]
            pieces.floats.setdefault(labels, []).append((times, values[kept]))
            if frame.histograms is not None:
                for at_ms, histogram in zip(times.tolist(), frame.histograms[kept, column], strict=True):
                    if histogram is not None:
                        pieces.histograms.setdefault(labels, {}).setdefault(at_ms, histogram)


def _stacked(key: Any, interval_ms: int, sources: list[_Source], apart: set[Labels], pieces: _Pieces) -> Sheet:
    """The group's rounds one below the other; ``slabs`` fills ``pieces`` on the way."""
    target_of: dict[Any, int] = {}
    dated = sorted(((source.block.times(source.group), source) for source in sources), key=lambda one: one[0].min())
    tables, sources = [times for times, _ in dated], [source for _, source in dated]
    targets = []
    for block, group in sources:
        targets.append(np.array([target_of.setdefault(one, len(target_of)) for one in block.targets(group)], np.int32))
    rows = sum(map(len, tables))
    times: Times = np.zeros((rows, len(target_of)), np.int64)
    valid = np.zeros(times.shape, np.bool_)
    starts = np.cumsum([0, *map(len, tables)]).tolist()
    for start, table, here in zip(starts, tables, targets, strict=False):
        times[start : start + len(table), here] = table
        valid[start : start + len(table), here] = True

    def slabs() -> Iterator[Slab]:
        names = dict.fromkeys(family.name for source in sources for family in source.group.families)
        for name in names:
            columns: dict[Labels, tuple[int, int]] = {}
            parts: list[tuple[int, Frame, list[int], list[int]]] = []
            for start, table, here, (block, group) in zip(starts, tables, targets, sources, strict=False):
                family = _family(group, name)
                if family is None:
                    continue
                frame = block.whole(group, family, table)
                _scatter(frame, apart, pieces)
                kept = [column for column, labels in enumerate(frame.labels) if labels not in apart]
                placed = [
                    columns.setdefault(frame.labels[column], (len(columns), int(here[frame.target[column]])))[0]
                    for column in kept
                ]
                parts.append((start, frame, kept, placed))
            values = np.full((rows, len(columns)), ABSENT_BITS, np.uint64).view(np.float64)
            histograms = None
            for start, frame, kept, placed in parts:
                values[start : start + len(frame.values), placed] = frame.values[:, kept]
                if frame.histograms is not None:
                    if histograms is None:
                        histograms = np.full(values.shape, None, object)
                    histograms[start : start + len(frame.values), placed] = frame.histograms[:, kept]
            target = np.array([target for _, target in columns.values()], np.int32)
            slab = dense(name, list(columns), target, values, histograms)
            if slab is not None:
                yield slab

    return Sheet(key, interval_ms, list(target_of), ascending(times, valid), slabs())


def _family(group: GroupEntry, name: str) -> FamilyEntry | None:
    return next((family for family in group.families if family.name == name), None)
