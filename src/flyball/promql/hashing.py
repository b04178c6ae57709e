"""Prometheus' hash of a label set, which decides what ``limit_ratio`` keeps: xxHash64 of its encoding in memory.

Source: model/labels/labels_stringlabels.go of Prometheus; the xxHash specification.
"""

import struct

from flyball.model.labels import Labels

_MASK = (1 << 64) - 1
_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
)  # fmt: skip


def _rotl(value: int, by: int) -> int:
    return ((value << by) | (value >> (64 - by))) & _MASK


def _round(lane: int, word: int) -> int:
    return _rotl((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def xxhash64(data: bytes) -> int:
    """xxHash64 with seed 0."""
    at, size = 0, len(data)
    if size >= 32:
        lanes = [(_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK]
        for at in range(0, size - 31, 32):
            lanes = [_round(lane, word) for lane, word in zip(lanes, struct.unpack_from("<4Q", data, at), strict=True)]
        at += 32
        total = sum(_rotl(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            total = ((total ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        total = _P5
    total = (total + size) & _MASK
    while at + 8 <= size:
        total ^= _round(0, struct.unpack_from("<Q", data, at)[0])
        total = (_rotl(total, 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= size:
        total ^= struct.unpack_from("<I", data, at)[0] * _P1 & _MASK
        total = (_rotl(total, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        total = _rotl(total ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    for shift, prime in ((33, _P2), (29, _P3)):
        total = (total ^ (total >> shift)) * prime & _MASK
    return total ^ (total >> 32)


def label_hash(labels: Labels) -> int:
    """The hash of a label set, 0 to 2**64 - 1."""
    encoded = bytearray()
    for pair in labels:
        for text in pair:
            raw = text.encode("utf-8", "surrogateescape")
            encoded += bytes([len(raw)]) if len(raw) < 255 else b"\xff" + len(raw).to_bytes(3, "little")
            encoded += raw
    return xxhash64(bytes(encoded))
