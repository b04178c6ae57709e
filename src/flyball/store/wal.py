"""The write-ahead log: what is acknowledged is in the kernel's hands first, and on the disk within a second.

A segment is whole in itself: it defines every series, target and layout before it uses them, so old segments are
deleted without a checkpoint, and damage never reaches into the next. Definitions are written twice, to the segment and
to its ``.defs`` companion, because losing one would lose every row that refers to it.

After a failed write nothing more goes to that segment; the next write begins a new one. One thread writes; ``sync`` may
be called from any.
"""

import contextlib
import errno
import logging
import os
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from flyball import clock
from flyball.errors import DiskFullError, StoreError
from flyball.model.frames import Floats
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.store.files import free_bytes, sync_directory, write_all, write_atomically
from flyball.store.records import Damage, Record, RecordType, frame, read_records, rewritten

log = logging.getLogger(__name__)

VERSION = 1
SEGMENT_MAGIC = b"FLYBWAL" + bytes([VERSION])
DEFINITIONS = frozenset({RecordType.SERIES, RecordType.TARGET, RecordType.LAYOUT})
_ROW = struct.Struct("<IqII")
_SAMPLE_DTYPE = np.dtype([("series", "<u4"), ("at_ms", "<i8"), ("value", "<f8")])
SEQUENCE_BITS = 40
_NO_SAMPLES = -(1 << 62)
#: A follower that has fallen behind keeps segments from being deleted up to this size of the log.
HELD_MAX_BYTES = 4 << 30
_CHECK_SPACE_EVERY_S = 0.2
_CHECK_SPACE_EVERY_BYTES = 1 << 20
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_histograms = msgspec.msgpack.Decoder(list[tuple[int, int, Histogram]]).decode


class Wal:
    """Writes the log of one store.

    Args:
        directory: holds ``00000001.wal``, ``00000001.defs``, ... Made when missing.
        segment_bytes: a longer segment is closed and the next one begun.
        reserve_bytes: with less free space than this on the disk, writes are refused before they fail.
        sync_each: every write is on the disk before it returns; otherwise ``sync`` says when.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = 64 << 20,
        reserve_bytes: int = 64 << 20,
        sync_each: bool = False,
    ) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.reserve_bytes = reserve_bytes
        self.sync_each = sync_each
        directory.mkdir(parents=True, exist_ok=True)
        numbers = segment_numbers(directory)
        self.number = numbers[-1] if numbers else 0
        self.full = False
        self.written_bytes = 0
        self.failures = 0
        self.syncs = 0
        self.newest_ms: dict[int, int] = {}  # segment -> newest sample time
        self.holds: list[Callable[[], int]] = []  # the first segment that a follower of the log still needs
        self._lock = threading.Lock()
        self._fd = self._defs_fd = -1
        self._size = self._defs_size = 0
        self._retired: list[int] = []
        self._dirty = False
        self._broken = ""
        self._records = 0
        self._series_last = 0
        self._defined = bytearray()
        self._targets_last = self._layouts = 0
        self._resumed: dict[Labels, int] = {}
        self._metadata: dict[str, Sequence[str]] = {}
        self._checked_s = -1.0
        self._unchecked_bytes = 0

    # Writing.

    def write_row(
        self, writer: Any, at_ms: int, plan: Any | None, values: Floats | None, stale: Sequence[Any] = ()
    ) -> None:
        """One scrape of a target, before it is applied.

        Raises:
            DiskFullError: the free-space reserve is reached; nothing was written.
            StoreError: the disk refused the write; nothing was written.
        """
        self._open()
        definitions: list[tuple[RecordType, bytes]] = []
        layout, size = 0, 0
        target = self._target(writer, definitions)
        if plan is not None and values is not None:
            if plan.logged is None or plan.logged[0] != self.number:
                self._layouts += 1
                ids = self._series_ids((ref for ref in plan.refs), definitions)
                definitions.append((RecordType.LAYOUT, _encode((self._layouts, target, ids.tobytes()))))
                plan.logged = (self.number, self._layouts)
            layout, size = plan.logged[1], len(values)
        head = _ROW.pack(layout, at_ms, size, len(stale))
        body = values.tobytes() if layout and values is not None else b""
        if not layout:
            head += struct.pack("<I", target)
        ended = self._series_ids(stale, definitions).tobytes() if stale else b""
        self._write(definitions, RecordType.ROW, head + body + ended, at_ms)

    def write_samples(self, samples: Sequence[tuple[Any, int, float]]) -> None:
        """Samples of single series, (buffer, time, value) each. Raises as ``write_row``."""
        self._open()
        definitions: list[tuple[RecordType, bytes]] = []
        array = np.empty(len(samples), _SAMPLE_DTYPE)
        array["series"] = self._series_ids((buffer for buffer, _, _ in samples), definitions)
        array["at_ms"] = [at_ms for _, at_ms, _ in samples]
        array["value"] = [value for _, _, value in samples]
        self._write(definitions, RecordType.SAMPLES, array.tobytes(), int(array["at_ms"].max()))

    def write_histograms(self, samples: Sequence[tuple[Any, int, Histogram]]) -> None:
        """Native histograms of single series, (buffer, time, histogram) each. Raises as ``write_row``."""
        self._open()
        definitions: list[tuple[RecordType, bytes]] = []
        ids = self._series_ids((buffer for buffer, _, _ in samples), definitions).tolist()
        body = _encode([(id_, at_ms, found) for id_, (_, at_ms, found) in zip(ids, samples, strict=True)])
        self._write(definitions, RecordType.HISTOGRAMS, body, max(at_ms for _, at_ms, _ in samples))

    def write_metadata(self, found: Mapping[str, Sequence[str]]) -> None:
        """(type, help, unit) of families by name; every later segment begins with them. Raises as ``write_row``."""
        self._open()
        self._write([], RecordType.METADATA, _encode(found), None)
        self._metadata |= found

    def write_other(self, type_: RecordType, value: Any, at_ms: int | None = None) -> None:
        """Any other record, its payload as msgpack. Raises as ``write_row``."""
        self._open()
        self._write([], type_, _encode(value), at_ms)

    def _target(self, writer: Any, definitions: list[tuple[RecordType, bytes]]) -> int:
        if writer.logged is None or writer.logged[0] != self.number:
            self._targets_last += 1
            writer.logged = (self.number, self._targets_last)
            group_key, interval_ms = writer.group.key
            definitions.append((RecordType.TARGET, _encode((self._targets_last, group_key, interval_ms, writer.key))))
        number: int = writer.logged[1]
        return number

    def _series_ids(self, places: Iterable[Any], definitions: list[tuple[RecordType, bytes]]) -> Any:
        """The numbers of the series, 0 for None; what this segment does not know yet is defined."""
        ids = []
        fresh: list[tuple[int, Labels]] = []
        defined = self._defined
        for place in places:
            if place is None:
                ids.append(0)
                continue
            number = place.number
            if not number:
                number = self._resumed.pop(place.labels, 0)
                if not number:
                    self._series_last += 1
                    number = self._series_last
                place.number = number
            if number >= len(defined):
                defined.extend(bytes(max(1024, number - len(defined) + 1, len(defined) // 2)))
            if not defined[number]:
                defined[number] = 1
                fresh.append((number, place.labels))
            ids.append(number)
        if fresh:
            definitions.append((RecordType.SERIES, _encode(fresh)))
        return np.array(ids, "<u4")

    def _write(
        self, definitions: list[tuple[RecordType, bytes]], type_: RecordType, payload: bytes, at_ms: int | None
    ) -> None:
        first = b"".join(self._framed(kind, body) for kind, body in definitions)
        whole = first + self._framed(type_, payload)
        try:
            self._check_space(len(whole) + len(first))
            if first:
                write_all(self._defs_fd, first)
                self._defs_size += len(first)
            write_all(self._fd, whole)
            self._size += len(whole)
            self._dirty = True
            if self.sync_each:
                self._sync_now()
        except DiskFullError:
            self._abandon()
            raise
        except OSError as exc:
            self._abandon()
            self.failures += 1
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                self.full = True
                raise DiskFullError(f"the disk of {self.directory} is full; free space, ingest resumes then") from exc
            raise StoreError(f"writing {self.directory}: {exc.strerror}; mend the disk, ingest resumes then") from exc
        self.written_bytes += len(whole)
        if at_ms is not None and at_ms > self.newest_ms.get(self.number, at_ms - 1):
            self.newest_ms[self.number] = at_ms

    def _framed(self, type_: RecordType, payload: bytes) -> bytes:
        self._records += 1
        return frame(self.number << SEQUENCE_BITS | self._records, type_, payload)

    def _check_space(self, coming: int) -> None:
        now_s = clock.monotonic_s()
        self._unchecked_bytes += coming
        recently = now_s - self._checked_s < _CHECK_SPACE_EVERY_S
        if recently and self._unchecked_bytes < _CHECK_SPACE_EVERY_BYTES and not self.full:
            return
        free = free_bytes(self.directory)
        self._checked_s, self._unchecked_bytes = now_s, 0
        self.full = free < self.reserve_bytes + coming
        if self.full:
            raise DiskFullError(
                f"{free >> 20} MiB are free on the disk of {self.directory}, less than the reserve of "
                f"{self.reserve_bytes >> 20} MiB; free space or shorten the retention, ingest resumes then"
            )

    # Segments.

    def _open(self) -> None:
        if self._broken:
            self._reopen()
        if self._fd >= 0 and self._size + self._defs_size < self.segment_bytes:
            return
        if self._fd >= 0:
            self.rotate()
        number = self.number + 1
        try:
            self._check_space(4096)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            defs_fd = os.open(_defs_path(self.directory, number), flags, 0o644)
            try:
                fd = os.open(segment_path(self.directory, number), flags, 0o644)
            except OSError:
                os.close(defs_fd)
                raise
            self._fd, self._defs_fd = fd, defs_fd
            self.number = number
            self._size = self._defs_size = len(SEGMENT_MAGIC)
            write_all(defs_fd, SEGMENT_MAGIC)
            write_all(fd, SEGMENT_MAGIC)
            sync_directory(self.directory)
        except OSError as exc:
            self._abandon()
            self.failures += 1
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                self.full = True
                raise DiskFullError(f"the disk of {self.directory} is full; free space, ingest resumes then") from exc
            raise StoreError(f"opening a log segment in {self.directory}: {exc.strerror}; mend the disk") from exc
        self._records = 0
        self._defined = bytearray(1024)
        self._resumed = {}
        self._targets_last = self._layouts = 0
        if self._metadata:
            self._write([], RecordType.METADATA, _encode(self._metadata), None)

    def remember(self, metadata: Mapping[str, Sequence[str]]) -> None:
        """After a restart: what was written with ``write_metadata``."""
        self._metadata |= metadata

    def resume(self, number: int, series: dict[int, Labels], targets_last: int, layouts_last: int, last: int) -> None:
        """Goes on in the last segment after a restart, whole as it is on the disk, with what it defines already.

        Args:
            last: the sequence number of its last record.
        """
        path, defs_path = segment_path(self.directory, number), _defs_path(self.directory, number)
        if not defs_path.exists() or path.stat().st_size + defs_path.stat().st_size >= self.segment_bytes:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        self._fd, self._defs_fd = os.open(path, flags), os.open(defs_path, flags)
        self._size, self._defs_size = path.stat().st_size, defs_path.stat().st_size
        self.number, self._dirty = number, True
        self._records = last & ((1 << SEQUENCE_BITS) - 1)
        self._series_last = max(series, default=0)
        self._defined = bytearray(self._series_last + 1024)
        for known in series:
            self._defined[known] = 1
        self._resumed = {labels: known for known, labels in series.items()}
        self._targets_last, self._layouts = targets_last, layouts_last

    def rotate(self) -> None:
        """Ends the segment; the next write begins another. Its bytes are synced by the next ``sync``."""
        if self._fd < 0:
            return
        self.newest_ms.setdefault(self.number, _NO_SAMPLES)
        with self._lock:
            self._retired += [self._defs_fd, self._fd]
            self._fd = self._defs_fd = -1

    def _abandon(self) -> None:
        """After a failed write: cut what is half written, if the disk lets us, and leave the segment."""
        for fd, size in ((self._defs_fd, self._defs_size), (self._fd, self._size)):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size)
        self.rotate()

    def sync(self) -> None:
        """Everything written is on the disk when this returns.

        Raises:
            StoreError: the disk did not take it. Writes are refused until a sync succeeds on a new segment.
        """
        if not self._dirty and not self._retired:
            return
        try:
            self._sync_now()
        except OSError as exc:
            self.failures += 1
            self._broken = f"syncing {self.directory} failed: {exc.strerror}"
            raise StoreError(f"{self._broken}; mend the disk, ingest resumes then") from exc

    def _sync_now(self) -> None:
        with self._lock:
            retired, self._retired = self._retired, []
            self._dirty = False
            try:
                for fd in (*retired, self._defs_fd, self._fd):
                    if fd >= 0:
                        os.fdatasync(fd)
                self.syncs += 1
            finally:
                for fd in retired:
                    os.close(fd)

    def _reopen(self) -> None:
        """A new segment after a failed sync; what the old one holds may or may not be on the disk."""
        said = self._broken
        self.rotate()
        with self._lock:
            for fd in self._retired:
                with contextlib.suppress(OSError):
                    os.close(fd)
            self._retired = []
        self._broken, self._dirty = "", False
        log.warning("%s; going on in a new segment", said)

    def close(self) -> None:
        """Syncs and ends the segment."""
        self.rotate()
        self.sync()

    def supersede(self, number: int) -> None:
        """Blocks have all samples of the segments up to this one, whatever their times."""
        for old in segment_numbers(self.directory):
            if old <= number:
                self.newest_ms[old] = _NO_SAMPLES

    def forget(self, sealed_ms: int) -> int:
        """Deletes the oldest segments, as far as their samples are all older than ``sealed_ms``; returns how many."""
        count = 0
        for number in segment_numbers(self.directory):
            current = number == self.number and self._fd >= 0
            if current or self.newest_ms.get(number, sealed_ms) >= sealed_ms:
                break  # a later segment may hold a deletion that binds this one
            if any(hold() <= number for hold in self.holds) and self.bytes_on_disk() <= HELD_MAX_BYTES:
                break
            for path in (_defs_path(self.directory, number), segment_path(self.directory, number)):
                path.unlink(missing_ok=True)
            self.newest_ms.pop(number, None)
            count += 1
        return count

    @property
    def sequence(self) -> int:
        """The number of the last record."""
        return self.number << SEQUENCE_BITS | self._records

    def bytes_on_disk(self) -> int:
        """The size of all segments."""
        return sum(path.stat().st_size for path in self.directory.iterdir() if path.is_file())


# Reading.


class Segment:
    """What can be read of one segment.

    Attributes:
        records: the intact ones in the order in which they were written.
        damages: the places that are not.

    Raises:
        StoreError: a later version wrote it.
    """

    def __init__(self, directory: Path, number: int) -> None:
        self.number = number
        path, defs_path = segment_path(directory, number), _defs_path(directory, number)
        data = path.read_bytes() if path.exists() else b""
        defs = defs_path.read_bytes() if defs_path.exists() else b""
        versions = {one[7] for one in (data, defs) if one[:7] == SEGMENT_MAGIC[:7] and len(one) > 7}
        if len(versions) == 1 and max(versions) > VERSION:  # otherwise the byte is damaged
            raise StoreError(f"{path} is of format {max(versions)}, this version reads {VERSION}; upgrade")
        self.records, self.damages = _read(data)
        twins, self.defs_damages = _read(defs)
        known = {record.sequence for record in self.records}
        missing = [twin for twin in twins if twin.sequence not in known]
        twice = {twin.sequence for twin in twins}
        #: A definition is in one of the files only: a crash came between the two writes, or one file is damaged.
        self.incomplete = bool(missing) or any(
            record.type in DEFINITIONS and record.sequence not in twice for record in self.records
        )
        if missing:
            self.records = sorted([*self.records, *missing], key=lambda record: record.sequence)

    @property
    def torn(self) -> bool:
        """Only the end is missing, as after a crash."""
        return all(damage.torn for damage in (*self.damages, *self.defs_damages))


def _read(data: bytes) -> tuple[list[Record], list[Damage]]:
    intact = data.startswith(SEGMENT_MAGIC)
    records, damages = read_records(data, len(SEGMENT_MAGIC) if intact else 0)
    return records, damages


def mend(directory: Path, segment: Segment) -> Path | None:
    """Writes the segment again without its damage; the damaged files go to ``quarantine/``, unless the segment is
    merely torn. Returns where they went."""
    kept = None
    names = (segment_path(directory, segment.number), _defs_path(directory, segment.number))
    if not segment.torn:
        kept = directory / "quarantine"
        kept.mkdir(exist_ok=True)
        for path in names:
            if path.exists():
                with contextlib.suppress(FileExistsError):
                    os.link(path, kept / path.name)
    definitions = [record for record in segment.records if record.type in DEFINITIONS]
    for path, records in zip(names, (segment.records, definitions), strict=True):
        write_atomically(path, SEGMENT_MAGIC + rewritten(records))
    return kept


def row_of(payload: memoryview) -> tuple[int, int, Floats, Any, int]:
    """(layout, time, values, numbers of the ended series, target when the layout is 0) of a ROW."""
    layout, at_ms, size, ended = _ROW.unpack_from(payload, 0)
    at = _ROW.size
    target = 0
    if not layout:
        target = struct.unpack_from("<I", payload, at)[0]
        at += 4
    values = np.frombuffer(payload, "<f8", size, at)
    return layout, at_ms, values, np.frombuffer(payload, "<u4", ended, at + 8 * size), target


def samples_of(payload: memoryview) -> Any:
    """The structured array (series, at_ms, value) of a SAMPLES record."""
    return np.frombuffer(payload, _SAMPLE_DTYPE)


def histograms_of(payload: memoryview) -> list[tuple[int, int, Histogram]]:
    """(series, time, histogram) of a HISTOGRAMS record."""
    return _decode_histograms(payload)


def decoded(payload: memoryview) -> Any:
    """The value of a record that is msgpack."""
    return _decode(payload)


# Files.


def segment_numbers(directory: Path) -> list[int]:
    """Numbers of the segments, ascending."""
    return sorted({int(path.stem) for path in directory.glob("*.wal") if path.stem.isdigit()})


def segment_path(directory: Path, number: int) -> Path:
    """Where a segment is."""
    return directory / f"{number:08d}.wal"


def _defs_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}.defs"
