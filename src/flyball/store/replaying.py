"""Replaying the write-ahead log into a head on start."""

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flyball.errors import StoreError
from flyball.model.labels import Labels, Matcher, MatchType
from flyball.store.blockfile import as_key
from flyball.store.exemplars import Exemplar
from flyball.store.head import Head
from flyball.store.matrix import BEFORE, Plan, Writer
from flyball.store.records import Record, RecordType
from flyball.store.wal import SEQUENCE_BITS, Segment, decoded, histograms_of, mend, row_of, samples_of, segment_numbers

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Replay:
    """What a replay found.

    Attributes:
        newest_ms: the newest sample of each segment.
        damaged_bytes: of records that could not be read.
        unexplained: records whose definitions were lost.
        refused: records that the head did not take (memory limit).
    """

    segments: int = 0
    records: int = 0
    samples: int = 0
    damaged_segments: int = 0
    torn_segments: int = 0
    damaged_bytes: int = 0
    unexplained: int = 0
    refused: int = 0
    newest_ms: dict[int, int] = field(default_factory=dict)
    last: "LastSegment | None" = None


@dataclass(slots=True)
class LastSegment:
    """What the log must know to go on in it."""

    number: int
    series: dict[int, Labels]
    targets_last: int
    layouts_last: int
    sequence: int


def replay(head: Head, directory: Path, sealed_sequence: int = 0, *, mending: bool = True) -> Replay:
    """Takes every intact record of the log; damage is logged, put aside and never met again.

    The head must not log yet. Scrapes before ``head.sealed_ms`` are in blocks and are passed over, and so are single
    samples before it that were logged no later than ``sealed_sequence``.

    Args:
        mending: damaged segments are written again without the damage.
    """
    found = Replay()
    collecting = gc.isenabled()
    gc.disable()  # a hundred thousand new series and no garbage among them
    try:
        _replay(head, directory, sealed_sequence, mending, found)
    finally:
        if collecting:
            gc.enable()
    head.close_writers()
    if found.unexplained or found.refused:
        log.error("the log: %d records refer to lost definitions, %d were refused", found.unexplained, found.refused)
    return found


def _replay(head: Head, directory: Path, sealed_sequence: int, mending: bool, found: Replay) -> None:
    for number in segment_numbers(directory):
        segment = Segment(directory, number)
        found.segments += 1
        found.records += len(segment.records)
        reader = _Reader(head, found, sealed_sequence)
        for record in segment.records:
            try:
                reader.take(record)
            except StoreError:
                found.refused += 1
        found.newest_ms[number] = reader.newest_ms
        mended = mending and _look_after(directory, segment, found)
        found.last = reader.last(number, segment.records) if mended else None


def _look_after(directory: Path, segment: Segment, found: Replay) -> bool:
    """Whether the files are whole now."""
    damages = [*segment.damages, *segment.defs_damages]
    if not damages and not segment.incomplete:
        return True
    size = sum(damage.end - damage.start for damage in damages)
    found.damaged_bytes += size
    if segment.torn:
        found.torn_segments += 1
    else:
        found.damaged_segments += 1
    try:
        kept = mend(directory, segment)
    except (OSError, StoreError) as exc:
        log.error("log segment %08d: %d bytes are damaged; it could not be mended: %s", segment.number, size, exc)
        return False
    if kept is None:
        log.warning("log segment %08d: cut %d bytes of a write that a crash interrupted", segment.number, size)
    else:
        log.error("log segment %08d: %d bytes are damaged; the files are kept in %s", segment.number, size, kept)
    return True


class _Reader:
    """One segment's definitions, and what its records do to the head."""

    def __init__(self, head: Head, found: Replay, sealed_sequence: int) -> None:
        self.head = head
        self.found = found
        self.sealed_sequence = sealed_sequence
        self.newest_ms = BEFORE
        self._series: dict[int, Labels] = {}
        self._pairs: dict[tuple[str, str], tuple[str, str]] = {}
        self._writers: dict[int, Writer] = {}
        self._layouts: dict[int, tuple[Writer, list[int], Plan | None]] = {}

    def last(self, number: int, records: list[Record]) -> LastSegment:
        """What the log must know to go on in this segment."""
        sequence = max([record.sequence for record in records], default=number << SEQUENCE_BITS)
        return LastSegment(number, self._series, max(self._writers, default=0), max(self._layouts, default=0), sequence)

    def take(self, record: Record) -> None:
        match record.type:
            case RecordType.ROW:
                self._row(record.payload)
            case RecordType.SAMPLES:
                self._samples(record.payload, record.sequence <= self.sealed_sequence)
            case RecordType.HISTOGRAMS:
                self._histograms(record.payload, record.sequence <= self.sealed_sequence)
            case RecordType.DELETE:
                sets, start_ms, end_ms = decoded(record.payload)
                self.head.delete([matchers_of(texts) for texts in sets], start_ms, end_ms)
            case RecordType.EXEMPLARS:
                self.head.append_exemplars([exemplar_of(*found) for found in decoded(record.payload)])
            case RecordType.METADATA:
                self.head.describe(
                    {name: (said[0], said[1], said[2]) for name, said in decoded(record.payload).items()}
                )
            case RecordType.SERIES:
                for number, labels in decoded(record.payload):
                    self._series[number] = self._shared(labels)
            case RecordType.TARGET:
                number, group_key, interval_ms, key = decoded(record.payload)
                self._writers[number] = self.head.writer(as_key(group_key), interval_ms, as_key(key))
            case RecordType.LAYOUT:
                number, target, ids = decoded(record.payload)
                if target in self._writers:
                    self._layouts[number] = (self._writers[target], np.frombuffer(ids, "<u4").tolist(), None)
            case _:
                self.found.unexplained += 1

    def _shared(self, labels: Sequence[Sequence[str]]) -> Labels:
        """The labels with no more memory than they need: every segment defines every series once more."""
        return self.head.canonical(tuple([self._pairs.setdefault(pair, pair) for pair in labels_of_record(labels)]))

    def _row(self, payload: memoryview) -> None:
        layout, at_ms, values, ended, target = row_of(payload)
        self.newest_ms = max(self.newest_ms, at_ms)
        if at_ms < self.head.floor_ms:
            return
        try:
            writer, plan = self._plan(layout) if layout else (self._writers[target], None)
            stale = [self._series[number] for number in ended.tolist()]
        except KeyError:
            self.found.unexplained += 1
            return
        refs = writer.refs(stale) if stale else []
        if writer.commit(at_ms, plan, values if plan is not None else None, refs):
            self.found.samples += len(values) + len(refs)

    def _plan(self, layout: int) -> tuple[Writer, Plan]:
        writer, ids, plan = self._layouts[layout]
        if plan is None:
            labels = [self._series[number] if number else None for number in ids]
            refs = dict(zip(kept := [one for one in labels if one is not None], writer.refs(kept), strict=True))
            plan = Plan([refs[one] if one is not None else None for one in labels])
            self._layouts[layout] = (writer, ids, plan)
        return writer, plan

    def _samples(self, payload: memoryview, sealed: bool) -> None:
        array = samples_of(payload)
        self.newest_ms = max(self.newest_ms, int(array["at_ms"].max()))
        if sealed and self.head.sealed_ms is not None:
            array = array[array["at_ms"] >= self.head.sealed_ms]
        batch = []
        for number, at_ms, value in zip(array["series"].tolist(), array["at_ms"].tolist(), array["value"], strict=True):
            labels = self._series.get(number)
            if labels is None:
                self.found.unexplained += 1
            else:
                batch.append((labels, at_ms, value))
        self.found.samples += self.head.append_all(batch)

    def _histograms(self, payload: memoryview, sealed: bool) -> None:
        batch = []
        for number, at_ms, histogram in histograms_of(payload):
            self.newest_ms = max(self.newest_ms, at_ms)
            labels = self._series.get(number)
            if labels is None:
                self.found.unexplained += 1
            elif not sealed or self.head.sealed_ms is None or at_ms >= self.head.sealed_ms:
                batch.append((labels, at_ms, histogram))
        self.found.samples += self.head.append_histograms(batch)


def labels_of_record(labels: Sequence[Sequence[str]]) -> Labels:
    """Labels as they were."""
    return tuple([(name, value) for name, value in labels])


def exemplar_of(series: Sequence[Any], labels: Sequence[Any], value: float, time_ms: int) -> Exemplar:
    """An exemplar as it was."""
    return labels_of_record(series), labels_of_record(labels), value, time_ms


def texts_of(matchers: Sequence[Matcher]) -> list[tuple[str, str, str]]:
    """Matchers as they are written."""
    return [(matcher.name, matcher.type.value, matcher.value) for matcher in matchers]


def matchers_of(texts: Sequence[Sequence[str]]) -> tuple[Matcher, ...]:
    """Matchers as they were."""
    return tuple([Matcher(MatchType(type_), name, value) for name, type_, value in texts])
