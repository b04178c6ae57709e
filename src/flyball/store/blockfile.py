"""The file of a sealed block: sections with checksums, and a footer that says where they are.

``FLYBLK`` + version, sections, the footer (msgpack, zstd), its length and checksum, ``FLYBEND``. A file has its name
only once it is whole and on the disk. DESIGN.md of this room has every field.
"""

import os
import struct
import weakref
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from flyball.errors import StoreError
from flyball.model.frames import ABSENT_BITS, Codes, Floats, Histograms, Times
from flyball.model.histograms import Histogram
from flyball.model.labels import METRIC_NAME, Labels, Matcher, MetricLabels
from flyball.store.codec import compress, decode, decode_times, decompress, encode, encode_times
from flyball.store.files import NewFile

MAGIC = b"FLYBLK\x01\n"
END = b"FLYBEND\n"
VERSION = 1
_TAIL = struct.Struct("<II8s")
#: A chunk holds so many rows and columns at most: what a query of one series must decode.
CHUNK_ROWS, CHUNK_COLUMNS = 512, 256
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_histograms = msgspec.msgpack.Decoder(list[tuple[int, int, Histogram]]).decode


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """The series of one metric name in one group: what a family holds between two times.

    Attributes:
        labels: one a column, metric name included.
        target: [columns], which target of the group each series belongs to.
        values: [rows, columns].
        histograms: [rows, columns] as ``Frame.histograms``, or None.
    """

    name: str
    labels: Sequence[Labels]
    target: Codes
    values: Floats
    histograms: Histograms | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A group between two times.

    Attributes:
        key: the group's, nested tuples; ``interval_ms`` 0 for series that were not scraped.
        targets: the keys of its targets; ``times_ms`` [rows, targets] ascends in every column.
        slabs: made one at a time, so that a compaction need not hold them all.
    """

    key: Any
    interval_ms: int
    targets: Sequence[Any]
    times_ms: Times
    slabs: Iterable[Slab]


class Section(NamedTuple):
    """Where bytes of the file lie."""

    offset: int
    length: int
    crc: int


_NOWHERE = Section(0, 0, 0)


class Chunk(NamedTuple):
    """Cells ``rows`` x ``columns`` of a family; cells in no chunk are ABSENT."""

    row: int
    rows: int
    column: int
    columns: int
    section: Section


class FamilyEntry(NamedTuple):
    """What the footer says of a slab."""

    name: str
    columns: int
    labels: Section
    chunks: list[Chunk]
    histograms: Section | None


class GroupEntry(NamedTuple):
    """What the footer says of a sheet."""

    key: Any
    interval_ms: int
    rows: int
    targets: Section
    times: Section
    families: list[FamilyEntry]


class Origin(NamedTuple):
    """How a block came to be, for what a crash may leave undone.

    Attributes:
        sealed_ms: scrapes before this are in this block or an older one.
        wal_sequence: log records up to this one are too, if their samples are before ``sealed_ms``.
        replaces: the numbers of the blocks whose samples this one holds.
    """

    sealed_ms: int
    wal_sequence: int
    replaces: list[int]


class Footer(msgspec.Struct, array_like=True):
    """The table of contents; times in ms, ``max_ms`` is the newest sample's."""

    version: int
    min_ms: int
    max_ms: int
    series: int
    samples: int
    origin: Origin
    groups: list[GroupEntry]


class BlockWriter:
    """Writes one block; ``finish`` gives it its name."""

    def __init__(self, path: Path, origin: Origin) -> None:
        self._file = NewFile(path)
        self._file.write(MAGIC)
        self._at = len(MAGIC)
        self._footer = Footer(VERSION, 1 << 62, -(1 << 62), 0, 0, origin, [])

    def add(self, sheet: Sheet) -> None:
        """Compresses and writes a group."""
        families = []
        for slab in sheet.slabs:
            entry = self._slab(sheet, slab)
            if entry.chunks:
                families.append(entry)
        if not families:
            return
        targets = self._section(compress(_encode(list(sheet.targets))))
        times = self._section(encode_times(sheet.times_ms))
        self._footer.groups.append(
            GroupEntry(sheet.key, sheet.interval_ms, len(sheet.times_ms), targets, times, families)
        )

    def _slab(self, sheet: Sheet, slab: Slab) -> FamilyEntry:
        columns = len(slab.labels)
        chunks = []
        for column in range(0, columns, CHUNK_COLUMNS):
            for row in range(0, len(slab.values), CHUNK_ROWS):
                chunk = self._chunk(sheet, slab, row, column)
                if chunk is not None:
                    chunks.append(chunk)
        if not chunks:
            return FamilyEntry(slab.name, 0, _NOWHERE, [], None)
        self._footer.series += columns
        labels = self._section(compress(_labels_table(slab)))
        return FamilyEntry(slab.name, columns, labels, chunks, self._histograms(slab))

    def _chunk(self, sheet: Sheet, slab: Slab, row: int, column: int) -> Chunk | None:
        cells = np.ascontiguousarray(slab.values[row : row + CHUNK_ROWS, column : column + CHUNK_COLUMNS])
        present = cells.view(np.uint64) != ABSENT_BITS
        rows = np.flatnonzero(present.any(axis=1))
        if not len(rows):
            return None
        first, last = int(rows[0]), int(rows[-1]) + 1
        times = sheet.times_ms[row : row + len(cells)][:, slab.target[column : column + CHUNK_COLUMNS]][present]
        footer = self._footer
        footer.min_ms, footer.max_ms = min(footer.min_ms, int(times.min())), max(footer.max_ms, int(times.max()))
        footer.samples += len(times)
        section = self._section(encode(cells[first:last]))
        return Chunk(row + first, last - first, column, cells.shape[1], section)

    def _histograms(self, slab: Slab) -> Section | None:
        if slab.histograms is None:
            return None
        cells = [
            (int(row), int(column), slab.histograms[row, column])
            for row, column in np.argwhere(slab.histograms != None)  # noqa: E711 - elementwise
        ]
        return self._section(compress(_encode(cells))) if cells else None

    def _section(self, data: bytes) -> Section:
        self._file.write(data)
        section = Section(self._at, len(data), zlib.crc32(data))
        self._at += len(data)
        return section

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return not self._footer.groups

    def finish(self) -> Footer:
        """Syncs the file and gives it its name.

        Raises:
            OSError: the disk did not take it; the temporary file is gone.
        """
        footer = compress(_encode(self._footer))
        self._file.write(footer + _TAIL.pack(len(footer), zlib.crc32(footer), END))
        self._file.finish()
        return self._footer

    def discard(self) -> None:
        """Gives the block up."""
        self._file.discard()


class BlockReader:
    """Reads sections of one block. Any thread.

    Raises:
        StoreError: the file is not a whole block, or a section is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise StoreError(f"block {path.name}: {exc.strerror}; restore it from a snapshot or delete it") from exc
        weakref.finalize(self, os.close, self._fd)  # not before the last query that reads it is done
        self.size = os.fstat(self._fd).st_size

    def footer(self) -> Footer:
        """The table of contents."""
        magic = os.pread(self._fd, len(MAGIC), 0)
        if magic[:6] == MAGIC[:6] and magic[6:7] > MAGIC[6:7]:
            raise StoreError(f"block {self.path.name} is of format {magic[6]}, this version reads {VERSION}; upgrade")
        tail = os.pread(self._fd, _TAIL.size, max(0, self.size - _TAIL.size))
        if len(tail) == _TAIL.size:
            length, crc, end = _TAIL.unpack(tail)
            if end == END and length <= self.size:
                data = self.section(Section(self.size - _TAIL.size - length, length, crc))
                return msgspec.msgpack.decode(decompress(data), type=Footer)
        raise StoreError(f"block {self.path.name} is not whole; restore it from a snapshot or delete it")

    def section(self, section: Section) -> bytes:
        """The bytes, checked."""
        data = os.pread(self._fd, section.length, section.offset)
        if len(data) != section.length or zlib.crc32(data) != section.crc:
            raise StoreError(
                f"block {self.path.name} is damaged at byte {section.offset}; restore it from a snapshot or delete it"
            )
        return data

    def times(self, group: GroupEntry) -> Times:
        """[rows, targets], ms."""
        return decode_times(self.section(group.times))

    def targets(self, group: GroupEntry) -> list[Any]:
        """The keys of the group's targets."""
        return [as_key(key) for key in _decode(decompress(self.section(group.targets)))]

    def labels(self, family: FamilyEntry) -> "LabelTable":
        """The label sets of a family."""
        return LabelTable(family, decompress(self.section(family.labels)))

    def chunk(self, chunk: Chunk) -> Floats:
        """[rows, columns] of a chunk."""
        return decode(self.section(chunk.section))

    def histograms(self, family: FamilyEntry) -> list[tuple[int, int, Histogram]]:
        """(row, column, histogram) of every cell that holds one."""
        if family.histograms is None:
            return []
        return _decode_histograms(decompress(self.section(family.histograms)))


class Selected(NamedTuple):
    """Columns of a family that were asked for.

    Attributes:
        columns: ascending; labels: theirs; used: their targets, ascending; target: of each column, its place in those.
    """

    columns: NDArray[np.intp]
    labels: MetricLabels
    used: Codes
    target: Codes


#: Of a family, sets of columns that are kept, and what a column of one takes.
SELECTIONS_MAX, _SELECTED_BYTES_EACH = 4, 32


class LabelTable:
    """The label sets of a family, dictionary-encoded: for each label its distinct values, and a code a column."""

    __slots__ = ("_made", "columns", "labels", "name", "selections", "target")

    def __init__(self, family: FamilyEntry, data: bytes) -> None:
        self.name = family.name
        self.columns = family.columns
        target, labels = _decode(data)
        self.target: Codes = _codes(target, self.columns)
        #: label name -> (distinct values, "" for absent; code of each column)
        self.labels: dict[str, tuple[list[str], Codes]] = {
            name: (values, _codes(codes, self.columns)) for name, values, codes in labels
        }
        self._made: list[Labels | None] = [None] * self.columns
        self.selections: dict[tuple[Matcher, ...], Selected] = {}

    @property
    def nbytes(self) -> int:
        each = 4 * (1 + len(self.labels)) + 400 + SELECTIONS_MAX * _SELECTED_BYTES_EACH
        return each * self.columns

    def at(self, column: int, canonical: Any = None) -> Labels:
        """The label set of a column; ``canonical`` maps it to an equal object that others use already."""
        found = self._made[column]
        if found is None:
            pairs = [(METRIC_NAME, self.name)]
            for name, (values, codes) in self.labels.items():
                value = values[codes[column]]
                if value:
                    pairs.append((name, value))
            found = tuple(sorted(pairs))
            if canonical is not None:
                found = canonical(found)
            self._made[column] = found
        return found


def _labels_table(slab: Slab) -> bytes:
    columns = len(slab.labels)
    tables: dict[str, tuple[dict[str, int], Any]] = {}
    for column, labels in enumerate(slab.labels):
        for name, value in labels:
            if name == METRIC_NAME:
                continue
            table = tables.get(name)
            if table is None:
                table = tables[name] = ({"": 0}, np.zeros(columns, np.uint32))
            table[1][column] = table[0].setdefault(value, len(table[0]))
    return _encode(
        (
            _packed(np.asarray(slab.target)),
            [(name, list(values), _packed(codes)) for name, (values, codes) in sorted(tables.items())],
        )
    )


def _packed(codes: Any) -> Any:
    """Codes in the narrowest width; one number when they are all the same."""
    if len(codes) and (codes == codes[0]).all():
        return int(codes[0])
    width = 1 if codes.max(initial=0) < 1 << 8 else 2 if codes.max(initial=0) < 1 << 16 else 4
    return (width, codes.astype(f"<u{width}").tobytes())


def _codes(packed: Any, count: int) -> Codes:
    if isinstance(packed, int):
        return np.full(count, packed, np.int32)
    width, data = packed
    return np.frombuffer(data, f"<u{width}").astype(np.int32)


def as_key(value: Any) -> Any:
    """Keys are nested tuples of strings and numbers; msgpack has only lists."""
    return tuple([as_key(item) for item in value]) if isinstance(value, list) else value


def write_block(path: Path, sheets: Iterable[Sheet], origin: Origin) -> Footer | None:
    """A whole block, or None when the sheets hold no sample.

    Raises:
        StoreError: the disk did not take it; nothing is left behind.
    """
    try:
        writer = BlockWriter(path, origin)
    except OSError as exc:
        raise StoreError(f"writing block {path.name}: {exc.strerror}; free space or mend the disk") from exc
    try:
        for sheet in sheets:
            writer.add(sheet)
        if not writer.empty:
            return writer.finish()
    except OSError as exc:
        writer.discard()
        raise StoreError(f"writing block {path.name}: {exc.strerror}; free space or mend the disk") from exc
    except BaseException:
        writer.discard()
        raise
    writer.discard()
    return None


def block_paths(directory: Path) -> dict[int, Path]:
    """The files of whole blocks by their numbers, ascending."""
    return {int(path.stem): path for path in sorted(directory.glob("*.block")) if path.stem.isdigit()}
