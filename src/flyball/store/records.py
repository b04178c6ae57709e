"""Records of the write-ahead log as bytes: framing, checksums, and reading what a crash or a bad disk left.

A record is ``marker, crc32, length, sequence, type, payload``; the checksum covers everything behind it. After damage
the reader looks for the next marker that begins an intact record, so damage costs the records that it touches and no
others. Sequence numbers ascend through the whole log: a page that a disk wrote twice is seen as such.
"""

import itertools
import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

MARKER = b"\xf1yb\xa1"
_HEAD = struct.Struct("<4sIIQB")
_CHECKED = struct.Struct("<IQB")
#: Longer payloads are never written; a length above it is damage.
PAYLOAD_MAX = 1 << 28


class RecordType(IntEnum):
    """What the payload holds; DESIGN.md of this room has the layouts."""

    SERIES = 1
    TARGET = 2
    LAYOUT = 3
    ROW = 4
    SAMPLES = 5
    DELETE = 6
    HISTOGRAMS = 7
    EXEMPLARS = 8
    METADATA = 9


class Record(NamedTuple):
    """One intact record."""

    sequence: int
    type: int
    payload: memoryview


class Damage(NamedTuple):
    """Bytes ``start`` to ``end`` of a segment hold no intact record; ``torn`` when they reach to its end."""

    start: int
    end: int
    torn: bool


def frame(sequence: int, type_: RecordType, payload: bytes) -> bytes:
    """The record as it is written."""
    crc = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(len(payload), sequence, type_)))
    return _HEAD.pack(MARKER, crc, len(payload), sequence, type_) + payload


def intact(data: memoryview, at: int) -> tuple[Record, int] | None:
    """The record that begins at ``at`` and its end, if there is an intact one."""
    if at + _HEAD.size > len(data):
        return None
    marker, crc, length, sequence, type_ = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    end = start + length
    if marker != MARKER or length > PAYLOAD_MAX or end > len(data):
        return None
    payload = data[start:end]
    if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(length, sequence, type_))) != crc:
        return None
    return Record(sequence, type_, payload), end


def read_records(data: bytes, start: int) -> tuple[list[Record], list[Damage]]:
    """All intact records from ``start`` on, in the order in which they were written, each once."""
    view = memoryview(data)
    records: list[Record] = []
    damages: list[Damage] = []
    at = start
    while at < len(data):
        found = intact(view, at)
        if found is not None:
            records.append(found[0])
            at = found[1]
            continue
        resume = data.find(MARKER, at + 1)
        while resume >= 0 and intact(view, resume) is None:
            resume = data.find(MARKER, resume + 1)
        end = resume if resume >= 0 else len(data)
        damages.append(Damage(at, end, torn=resume < 0))
        at = end
    if any(after.sequence <= before.sequence for before, after in itertools.pairwise(records)):
        records = list({record.sequence: record for record in sorted(records, key=lambda r: r.sequence)}.values())
    return records, damages


def rewritten(records: Sequence[Record]) -> bytes:
    """The records framed again, for a segment without its damage."""
    return b"".join(frame(sequence, RecordType(type_), bytes(payload)) for sequence, type_, payload in records)
