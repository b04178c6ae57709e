"""Compressing the columns of sealed blocks. Pure: arrays in, bytes out, bit for bit the same arrays back.

Metrics are mostly constants, integers, and decimals with few digits. A column of whole numbers, or of numbers that
are whole after a multiplication by a power of ten (checked bit for bit), is stored as integers: differences of first
or second order, zigzag, in the narrowest width. Any other column is XORed with its own previous value. Streams of equal
kind lie together, bytes of equal weight lie together, and zstd does the rest.
"""

import struct
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import ABSENT_BITS, STALE_BITS, Floats, Times

Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

_HEAD = struct.Struct("<HHB")
_HAS_ABSENT, _HAS_STALE = 1, 2

# Kinds of columns; an integer kind is _INTEGER + 4 * (order - 1) + log2(width).
_CONSTANT, _XOR, _INTEGER = 0, 1, 2
_WIDTHS: tuple[Any, ...] = (np.uint8, np.uint16, np.uint32, np.uint64)
#: Powers of ten that are tried for columns that are not whole.
_EXPONENTS = (1, 2, 3, 4, 6, 9)
_WHOLE_MAX = float(1 << 53)
_ZSTD_LEVEL = 3


@cache
def _zstd() -> Any:
    import zstandard  # here, so that a process without blocks does not carry it

    return zstandard


def compress(data: bytes) -> bytes:
    """One zstd frame."""
    packed: bytes = _zstd().ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False).compress(data)
    return packed


def decompress(data: bytes) -> bytes:
    """The content of one zstd frame, whose size it knows."""
    plain: bytes = _zstd().ZstdDecompressor().decompress(data)
    return plain


def encode(values: Floats) -> bytes:
    """A chunk [rows, columns] of samples with ABSENT and STALE cells; at most 65,535 each way."""
    rows, columns = values.shape
    bits = np.ascontiguousarray(values.T).view(np.uint64)
    absent, stale = bits == ABSENT_BITS, bits == STALE_BITS
    flags = (_HAS_ABSENT if absent.any() else 0) | (_HAS_STALE if stale.any() else 0)
    if flags:
        bits = _filled(bits, absent | stale)
    kinds = np.full(columns, _XOR, np.uint8)
    exponents = np.zeros(columns, np.uint8)
    bases = bits[:, 0].copy() if rows else np.zeros(columns, np.uint64)
    kinds[(bits == bits[:, :1]).all(axis=1)] = _CONSTANT
    whole = np.zeros((columns, rows), np.int64)
    for exponent in (0, *_EXPONENTS):
        left = np.flatnonzero(kinds == _XOR)
        if not len(left):
            break
        ints, fits = _scaled(bits[left], exponent)
        chosen = left[fits]
        whole[chosen] = ints[fits]
        exponents[chosen] = exponent
        kinds[chosen] = _INTEGER
    streams: dict[int, Bytes] = {}
    integers = np.flatnonzero(kinds == _INTEGER)
    if len(integers):
        bases[integers] = whole[integers, 0].view(np.uint64)
        kinds[integers], streams = _integer_streams(whole[integers])
    floats = np.flatnonzero(kinds == _XOR)
    if len(floats):
        streams[_XOR] = _shuffled(bits[floats, 1:] ^ bits[floats, :-1])
    parts = [_HEAD.pack(rows, columns, flags), kinds.tobytes(), exponents.tobytes(), _shuffled(bases).tobytes()]
    if flags & _HAS_ABSENT:
        parts.append(np.packbits(absent).tobytes())
    if flags & _HAS_STALE:
        parts.append(np.packbits(stale).tobytes())
    parts += [streams[kind].tobytes() for kind in sorted(streams)]
    return compress(b"".join(parts))


def decode(data: bytes) -> Floats:
    """The chunk as it was, [rows, columns] with each column's samples side by side in memory."""
    plain = decompress(data)
    rows, columns, flags = _HEAD.unpack_from(plain, 0)
    reader = _Reader(plain, _HEAD.size)
    kinds, exponents = reader.bytes_(columns), reader.bytes_(columns)
    bases = _unshuffled(reader.bytes_(8 * columns), 8).view(np.uint64)
    cells = (rows * columns + 7) // 8
    absent = reader.bytes_(cells) if flags & _HAS_ABSENT else None
    stale = reader.bytes_(cells) if flags & _HAS_STALE else None
    bits = np.empty((columns, rows), np.uint64)
    for kind in np.unique(kinds):
        picked = np.flatnonzero(kinds == kind)
        if kind == _CONSTANT:
            bits[picked] = bases[picked, None]
        elif kind == _XOR:
            stream = _unshuffled(reader.bytes_(8 * len(picked) * (rows - 1)), 8).view(np.uint64)
            whole = np.empty((len(picked), rows), np.uint64)
            whole[:, 0], whole[:, 1:] = bases[picked], stream.reshape(len(picked), rows - 1)
            bits[picked] = np.bitwise_xor.accumulate(whole, axis=1)
        else:
            ints = _integers(reader, int(kind), bases[picked].view(np.int64), rows)
            numbers = ints.astype(np.float64)
            scales = exponents[picked]
            if scales.any():
                numbers /= (10.0 ** scales.astype(np.float64))[:, None]
            bits[picked] = numbers.view(np.uint64)
    for packed, pattern in ((absent, ABSENT_BITS), (stale, STALE_BITS)):
        if packed is not None:
            mask = np.unpackbits(packed, count=rows * columns).reshape(columns, rows).view(np.bool_)
            bits[mask] = pattern
    return bits.view(np.float64).T


def encode_times(times: Times) -> bytes:
    """Times [rows, targets] in ms."""
    rows, columns = times.shape
    whole = np.ascontiguousarray(times.T)
    kinds, streams = _integer_streams(whole) if columns else (np.zeros(0, np.uint8), {})
    bases = whole[:, 0].copy().view(np.uint64)
    parts = [_HEAD.pack(rows, 0, 0), struct.pack("<I", columns), kinds.tobytes(), _shuffled(bases).tobytes()]
    return compress(b"".join([*parts, *(streams[kind].tobytes() for kind in sorted(streams))]))


def decode_times(data: bytes) -> Times:
    """The times as they were."""
    plain = decompress(data)
    rows, _, _ = _HEAD.unpack_from(plain, 0)
    (columns,) = struct.unpack_from("<I", plain, _HEAD.size)
    reader = _Reader(plain, _HEAD.size + 4)
    kinds = reader.bytes_(columns)
    bases = _unshuffled(reader.bytes_(8 * columns), 8).view(np.int64)
    times = np.empty((columns, rows), np.int64)
    for kind in np.unique(kinds):
        picked = np.flatnonzero(kinds == kind)
        times[picked] = _integers(reader, int(kind), bases[picked], rows)
    return np.ascontiguousarray(times.T)


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def bytes_(self, count: int) -> Bytes:
        found = np.frombuffer(self._data, np.uint8, count, self._at)
        self._at += count
        return found


def _filled(bits: Bits, special: NDArray[np.bool_]) -> Bits:
    """Special cells take the last ordinary value before them, or the first one behind."""
    rows = bits.shape[1]
    source = np.where(special, 0, np.arange(rows))
    np.maximum.accumulate(source, axis=1, out=source)
    first = np.argmin(special, axis=1)
    np.maximum(source, first[:, None], out=source)
    filled: Bits = np.take_along_axis(bits, source, axis=1)
    filled[special.all(axis=1)] = 0
    return filled


def _scaled(bits: Bits, exponent: int) -> tuple[Ints, NDArray[np.bool_]]:
    """The columns times ten to the exponent as integers, and which of them come back bit for bit."""
    values = bits.view(np.float64)
    scale = 10.0**exponent
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * scale) if exponent else values
        small = np.abs(scaled) < _WHOLE_MAX
        ints = np.where(small, scaled, 0).astype(np.int64)
        back = ints.astype(np.float64)
        if exponent:
            back /= scale
    fits = (small & (back.view(np.uint64) == bits)).all(axis=1)
    return ints, fits


def _integer_streams(whole: Ints) -> tuple[Bytes, dict[int, Bytes]]:
    """The kind of each column [columns, rows], and a stream for each kind."""
    first = np.diff(whole, axis=1)
    second = np.diff(first, axis=1, prepend=0)
    steady = np.abs(second).sum(axis=1, dtype=np.float64) < np.abs(first).sum(axis=1, dtype=np.float64)
    deltas = np.where(steady[:, None], second, first)
    zigzag = ((deltas << 1) ^ (deltas >> 63)).view(np.uint64)
    largest = zigzag.max(axis=1, initial=0)
    width = (largest >= 1 << 8).astype(np.uint8) + (largest >= 1 << 16) + (largest >= 1 << 32)
    kinds: Bytes = (_INTEGER + 4 * steady + width).astype(np.uint8)
    streams = {}
    for kind in np.unique(kinds):
        narrow = zigzag[kinds == kind].astype(_WIDTHS[(int(kind) - _INTEGER) % 4])
        streams[int(kind)] = _shuffled(narrow)
    return kinds, streams


def _integers(reader: _Reader, kind: int, bases: Ints, rows: int) -> Ints:
    dtype = np.dtype(_WIDTHS[(kind - _INTEGER) % 4])
    count = len(bases)
    stream = _unshuffled(reader.bytes_(dtype.itemsize * count * (rows - 1)), dtype.itemsize).view(dtype)
    zigzag = stream.reshape(count, rows - 1).astype(np.uint64)
    deltas = (zigzag >> np.uint64(1)).view(np.int64) ^ -(zigzag & np.uint64(1)).view(np.int64)
    if kind >= _INTEGER + 4:
        np.cumsum(deltas, axis=1, out=deltas)
    whole = np.empty((count, rows), np.int64)
    whole[:, 0] = bases
    whole[:, 1:] = deltas
    return np.cumsum(whole, axis=1, out=whole)


def _shuffled(array: NDArray[Any]) -> Bytes:
    """First the lowest byte of every number, then the next."""
    width = array.dtype.itemsize
    plain: Bytes = np.ascontiguousarray(array).view(np.uint8).reshape(-1, width)
    return np.ascontiguousarray(plain.T).reshape(-1)


def _unshuffled(data: Bytes, width: int) -> Bytes:
    return np.ascontiguousarray(data.reshape(width, -1).T).reshape(-1)
