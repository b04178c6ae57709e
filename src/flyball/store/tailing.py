"""Following the write-ahead log from a place in it, for whoever passes samples on. Reads files only, in any thread."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flyball.model.frames import STALE
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.store.exemplars import Exemplar
from flyball.store.records import MARKER, Record, RecordType, intact
from flyball.store.replaying import exemplar_of, labels_of_record
from flyball.store.wal import (
    SEGMENT_MAGIC,
    SEQUENCE_BITS,
    decoded,
    histograms_of,
    row_of,
    samples_of,
    segment_numbers,
    segment_path,
)

log = logging.getLogger(__name__)
_STALE = float(STALE)
_CHUNK_BYTES = 512 << 10


@dataclass(slots=True)
class Logged:
    """What was read, in the order in which it was logged; staleness markers are samples."""

    samples: list[tuple[Labels, int, float]] = field(default_factory=list)
    histograms: list[tuple[Labels, int, Histogram]] = field(default_factory=list)
    exemplars: list[Exemplar] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples) + len(self.histograms) + len(self.exemplars)


class LogTail:
    """Reads what was logged after record ``sequence``, as far as it is written.

    Attributes:
        sequence: the last record that was read.
        lost_segments: segments that were deleted before they were read.
    """

    def __init__(self, directory: Path, sequence: int) -> None:
        self._directory = directory
        self.sequence = sequence
        self.lost_segments = 0
        self._open(sequence >> SEQUENCE_BITS)

    def _open(self, number: int) -> None:
        self._number = number
        self._position = len(SEGMENT_MAGIC)
        self._series: dict[int, Labels] = {}
        self._layouts: dict[int, list[Labels | None]] = {}

    def read(self) -> Logged:
        """The next records, half a MiB at most; empty at the end of the log.

        Raises:
            OSError: a segment cannot be read.
        """
        found = Logged()
        while not len(found):
            numbers = segment_numbers(self._directory)
            later = [number for number in numbers if number > self._number]
            if self._number not in numbers:
                if not later:
                    break
                self._go_to(later[0], gone=True)
                continue
            data = self._read_chunk()
            used = self._take_records(data, found, whole=bool(later))
            self._position += used
            if used:
                continue
            if not later:
                break
            self._go_to(later[0], gone=False)
        return found

    def _go_to(self, number: int, *, gone: bool) -> None:
        if self._number:
            self.lost_segments += number - self._number - 1 + gone
        self._open(number)

    def _read_chunk(self) -> bytes:
        with segment_path(self._directory, self._number).open("rb") as file:
            file.seek(self._position)
            data = file.read(_CHUNK_BYTES)
            if len(data) == _CHUNK_BYTES and intact(memoryview(data), 0) is None:
                data += file.read()  # a record longer than the chunk, or damage
            return data

    def _take_records(self, data: bytes, found: Logged, *, whole: bool) -> int:
        """How many bytes were understood. In a segment that is still written to, what is not whole may become so."""
        view = memoryview(data)
        at = 0
        while at < len(data):
            record = intact(view, at)
            if record is not None:
                self._take(record[0], found)
                at = record[1]
                continue
            after = data.find(MARKER, at + 1)
            while after >= 0 and intact(view, after) is None:
                after = data.find(MARKER, after + 1)
            if after < 0:
                break
            log.warning("log segment %08d: %d bytes are damaged and are not passed on", self._number, after - at)
            at = after
        if whole and not at and len(data) < _CHUNK_BYTES:
            return 0  # the torn end of a segment that is done
        return at

    def _take(self, record: Record, found: Logged) -> None:
        fresh = record.sequence > self.sequence
        payload = record.payload
        match record.type:
            case RecordType.SERIES:
                for number, labels in decoded(payload):
                    self._series[number] = labels_of_record(labels)
            case RecordType.LAYOUT:
                number, _, ids = decoded(payload)
                self._layouts[number] = self._layout(np.frombuffer(ids, "<u4").tolist())
            case RecordType.ROW if fresh:
                self._row(payload, found)
            case RecordType.SAMPLES if fresh:
                for number, at_ms, value in samples_of(payload).tolist():
                    if number in self._series:
                        found.samples.append((self._series[number], at_ms, value))
            case RecordType.HISTOGRAMS if fresh:
                for number, at_ms, histogram in histograms_of(payload):
                    if number in self._series:
                        found.histograms.append((self._series[number], at_ms, histogram))
            case RecordType.EXEMPLARS if fresh:
                found.exemplars += [exemplar_of(*one) for one in decoded(payload)]
        self.sequence = max(self.sequence, record.sequence)

    def _layout(self, ids: list[int]) -> list[Labels | None]:
        """The series of a row's values; None for one that is not stored: dropped, or there a second time."""
        seen: set[int] = {0}
        found: list[Labels | None] = []
        for number in ids:
            found.append(None if number in seen else self._series.get(number))
            seen.add(number)
        return found

    def _row(self, payload: Any, found: Logged) -> None:
        layout, at_ms, values, ended, _ = row_of(payload)
        if layout:
            series = self._layouts.get(layout, [])
            found.samples += [
                (labels, at_ms, value)
                for labels, value in zip(series, values.tolist(), strict=False)
                if labels is not None
            ]
        found.samples += [(self._series[number], at_ms, _STALE) for number in ended.tolist() if number in self._series]
