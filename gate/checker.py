"""An independent reader of a store directory. It shares no code with ``flyball``: it is written from the format in
``src/flyball/store/DESIGN.md`` alone, in the plainest way, so that a mistake in the store is not repeated here.

``read_store(directory, add)`` hands over every sample of the log and the blocks.
"""

import json
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

ABSENT = 0x7FF000000000FB01
STALE = 0x7FF0000000000002
MARKER = b"\xf1yb\xa1"

Series = tuple[tuple[str, str], ...]


#: Called with the series, the time in ms, and the bits of the float64 of every sample; twice for one in two places.
Take = Callable[[Series, int, int], None]


@dataclass
class Store:
    """What was read besides samples."""

    add: Take
    records: int = 0
    blocks: int = 0


def read_store(directory: Path, add: Take) -> Store:
    """Blocks first, then the log: that is the order of age."""
    store = Store(add)
    sealed_ms = read_blocks(directory / "blocks", store)
    for path in sorted((directory / "wal").glob("*.wal")):
        read_segment(path, store, sealed_ms)
    return store


# MessagePack, as much of it as the store writes.


def unpack(data: bytes) -> Any:
    value, end = _unpack(data, 0)
    assert end == len(data), "bytes behind the value"
    return value


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    tag = data[at]
    at += 1
    if tag <= 0x7F:
        return tag, at
    if tag >= 0xE0:
        return tag - 256, at
    if 0x80 <= tag <= 0x8F:
        return _map(data, at, tag & 15)
    if 0x90 <= tag <= 0x9F:
        return _array(data, at, tag & 15)
    if 0xA0 <= tag <= 0xBF:
        return data[at : at + (tag & 31)].decode(), at + (tag & 31)
    if tag in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[tag], at
    numbers = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
    numbers |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    if tag in numbers:
        size = struct.calcsize(numbers[tag])
        return struct.unpack_from(numbers[tag], data, at)[0], at + size
    lengths = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
    size = lengths[tag]
    count = int.from_bytes(data[at : at + size], "big")
    at += size
    if tag in (0xC4, 0xC5, 0xC6):
        return data[at : at + count], at + count
    if tag in (0xD9, 0xDA, 0xDB):
        return data[at : at + count].decode(), at + count
    return _array(data, at, count) if tag in (0xDC, 0xDD) else _map(data, at, count)


def _array(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(count):
        value, at = _unpack(data, at)
        found.append(value)
    return found, at


def _map(data: bytes, at: int, count: int) -> tuple[dict[Any, Any], int]:
    found = {}
    for _ in range(count):
        key, at = _unpack(data, at)
        found[key], at = _unpack(data, at)
    return found, at


# The log.


@dataclass
class LogRecord:
    start: int
    end: int
    sequence: int
    type: int
    payload: bytes


def log_records(data: bytes) -> list[LogRecord]:
    """Every intact record of a segment or its companion, in the order of their numbers, each once."""
    found: dict[int, LogRecord] = {}
    at = data.find(MARKER)
    while at >= 0:
        step = 1
        if at + 21 <= len(data):
            crc, length, sequence, type_ = struct.unpack_from("<IIQB", data, at + 4)
            end = at + 21 + length
            if end <= len(data) and zlib.crc32(data[at + 8 : end]) == crc:
                found.setdefault(sequence, LogRecord(at, end, sequence, type_, data[at + 21 : end]))
                step = end - at
        at = data.find(MARKER, at + step)
    return [found[sequence] for sequence in sorted(found)]


def read_segment(path: Path, store: Store, sealed_ms: int) -> None:
    records = {record.sequence: record for record in log_records(path.read_bytes())}
    companion = path.with_suffix(".defs")
    if companion.exists():
        for record in log_records(companion.read_bytes()):
            records.setdefault(record.sequence, record)
    series: dict[int, Series] = {}
    layouts: dict[int, list[int]] = {}
    for _, record in sorted(records.items()):
        store.records += 1
        if record.type == 1:
            for number, labels in unpack(record.payload):
                series[number] = tuple((name, value) for name, value in labels)
        elif record.type == 3:
            number, _, ids = unpack(record.payload)
            layouts[number] = list(struct.unpack(f"<{len(ids) // 4}I", ids))
        elif record.type == 4:
            _read_row(record.payload, series, layouts, store, sealed_ms)
        elif record.type == 5:
            for number, at_ms, bits in struct.iter_unpack("<IqQ", record.payload):
                store.add(series[number], at_ms, bits)


def _read_row(
    payload: bytes, series: dict[int, Series], layouts: dict[int, list[int]], store: Store, sealed_ms: int
) -> None:
    layout, at_ms, size, ended = struct.unpack_from("<IqII", payload, 0)
    at = 20 if layout else 24
    bits = struct.unpack_from(f"<{size}Q", payload, at)
    stale = struct.unpack_from(f"<{ended}I", payload, at + 8 * size)
    if at_ms < sealed_ms:
        return
    taken = set()
    for number, value in zip(layouts[layout] if layout else [], bits, strict=True):
        if number and number not in taken:
            taken.add(number)
            store.add(series[number], at_ms, value)
    for number in stale:
        store.add(series[number], at_ms, STALE)


# Blocks.


def read_blocks(directory: Path, store: Store) -> int:
    """Adds every sample of the blocks; returns up to when they are complete."""
    blocks = {}
    for path in sorted(directory.glob("*.block")):
        data = path.read_bytes()
        length, crc = struct.unpack_from("<II", data, len(data) - 16)
        assert data[:8] == b"FLYBLK\x01\n" and data[-8:] == b"FLYBEND\n", f"{path} is not whole"
        footer = data[len(data) - 16 - length : len(data) - 16]
        assert zlib.crc32(footer) == crc, f"{path}: the footer is damaged"
        blocks[int(path.stem)] = (path, data, unpack(zstandard.ZstdDecompressor().decompress(footer)))
    replaced = {old for _, _, footer in blocks.values() for old in footer[5][2]}
    sealed_ms = -(1 << 62)
    for number, (path, data, footer) in sorted(blocks.items()):
        sealed_ms = max(sealed_ms, footer[5][0])
        if number not in replaced:
            store.blocks += 1
            tombstones = path.with_suffix(".tombstones")
            deleted = json.loads(tombstones.read_text()) if tombstones.exists() else []
            for group in footer[6]:
                _read_group(data, group, deleted, store)
    return sealed_ms


def _section(data: bytes, section: list[int]) -> bytes:
    offset, length, crc = section
    found = data[offset : offset + length]
    assert zlib.crc32(found) == crc, f"the section at {offset} is damaged"
    return zstandard.ZstdDecompressor().decompress(found)


def _read_group(data: bytes, group: list[Any], deleted: list[dict[str, Any]], store: Store) -> None:
    _, _, _, _, times_section, families = group
    times = _decode_times(_section(data, times_section))
    for name, columns, labels_section, chunks, _ in families:
        target_of, tables = unpack(_section(data, labels_section))
        targets = _codes(target_of, columns)
        sets: list[dict[str, str]] = [{"__name__": name} for _ in range(columns)]
        for label, values, packed in tables:
            for column, code in enumerate(_codes(packed, columns)):
                if values[code]:
                    sets[column][label] = values[code]
        for row, rows, first, count, section in chunks:
            cells = _decode_chunk(_section(data, section))
            assert cells.shape == (count, rows)
            for index in range(count):
                column = first + index
                series = tuple(sorted(sets[column].items()))
                gone = [(one["start_ms"], one["end_ms"]) for one in deleted if _matches(sets[column], one["matchers"])]
                for offset, bits in enumerate(cells[index].tolist()):
                    at_ms = int(times[targets[column]][row + offset])
                    if bits != ABSENT and not any(start <= at_ms <= end for start, end in gone):
                        store.add(series, at_ms, bits)


def _matches(labels: dict[str, str], matchers: list[list[str]]) -> bool:
    for name, type_, value in matchers:
        mine = labels.get(name, "")
        hit = mine == value if type_ in ("=", "!=") else re.fullmatch(value, mine) is not None
        if hit != (type_ in ("=", "=~")):
            return False
    return True


def _codes(packed: Any, count: int) -> list[int]:
    if isinstance(packed, int):
        return [packed] * count
    width, data = packed
    return [int.from_bytes(data[width * n : width * n + width], "little") for n in range(count)]


class _Bytes:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data), "the stream ends early"
        return self.data[self.at - count : self.at]

    def numbers(self, count: int, width: int) -> list[int]:
        """Little-endian numbers whose lowest bytes come first, all of them, then the next."""
        planes = self.take(count * width)
        whole = np.zeros(count, np.uint64)
        for plane in range(width):
            part = np.frombuffer(planes, np.uint8, count, plane * count).astype(np.uint64)
            whole |= part << np.uint64(8 * plane)
        return [int(one) for one in whole]


def _integers(stream: _Bytes, kind: int, bases: list[int], rows: int) -> list[list[int]]:
    order, width = 1 + (kind - 2) // 4, 1 << (kind - 2) % 4
    coded = stream.numbers(len(bases) * (rows - 1), width)
    found = []
    for index, base in enumerate(bases):
        value, slope, column = base, 0, [base]
        for code in coded[index * (rows - 1) : (index + 1) * (rows - 1)]:
            delta = code >> 1 if code % 2 == 0 else -(code >> 1) - 1
            slope = slope + delta if order == 2 else delta
            value = _signed(value + slope)
            column.append(value)
        found.append(column)
    return found


def _signed(number: int) -> int:
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _decode_times(data: bytes) -> list[list[int]]:
    rows, _, _ = struct.unpack_from("<HHB", data, 0)
    (columns,) = struct.unpack_from("<I", data, 5)
    stream = _Bytes(data, 9)
    kinds = list(stream.take(columns))
    bases = [_signed(number) for number in stream.numbers(columns, 8)]
    times: list[list[int]] = [[] for _ in range(columns)]
    for kind in sorted(set(kinds)):
        picked = [column for column in range(columns) if kinds[column] == kind]
        for column, found in zip(picked, _integers(stream, kind, [bases[c] for c in picked], rows), strict=True):
            times[column] = found
    return times


def _decode_chunk(data: bytes) -> Any:
    """[columns, rows] of bits."""
    rows, columns, flags = struct.unpack_from("<HHB", data, 0)
    stream = _Bytes(data, 5)
    kinds, exponents = list(stream.take(columns)), list(stream.take(columns))
    bases = stream.numbers(columns, 8)
    size = (rows * columns + 7) // 8
    masks = [stream.take(size) if flags & bit else None for bit in (1, 2)]
    cells = np.zeros((columns, rows), np.uint64)
    for kind in sorted(set(kinds)):
        picked = [column for column in range(columns) if kinds[column] == kind]
        if kind == 0:
            for column in picked:
                cells[column] = bases[column]
        elif kind == 1:
            coded = stream.numbers(len(picked) * (rows - 1), 8)
            for index, column in enumerate(picked):
                bits = bases[column]
                cells[column, 0] = bits
                for row in range(1, rows):
                    bits ^= coded[index * (rows - 1) + row - 1]
                    cells[column, row] = bits
        else:
            whole = _integers(stream, kind, [_signed(bases[column]) for column in picked], rows)
            for column, found in zip(picked, whole, strict=True):
                scale = 10.0 ** exponents[column]
                numbers = [float(number) / scale if exponents[column] else float(number) for number in found]
                cells[column] = np.array(numbers).view(np.uint64)
    for mask, pattern in zip(masks, (ABSENT, STALE), strict=True):
        if mask is not None:
            flat = np.unpackbits(np.frombuffer(mask, np.uint8))[: rows * columns].reshape(columns, rows)
            cells[flat.astype(bool)] = pattern
    return cells
