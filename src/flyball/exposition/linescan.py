"""A page's values in one pass that numba compiles: imported by ``layout.load_compiled`` alone, since numba is large."""

from typing import Any

import numba as nb
import numpy as np

_text, _ends, _flags = (nb.types.Array(kind, 1, "C", readonly=True) for kind in (nb.uint8, nb.int64, nb.boolean))
_ZERO, _NINE, _POINT, _MINUS, _PLUS, _LINE_END, _SMALL_E, _LARGE_E = (np.uint8(ord(c)) for c in "09.-+\neE")
#: A product or quotient of a whole number up to 2**53 and such a power is rounded once: it is the nearest double.
_TENS = np.array([10.0**n for n in range(23)])
_WHOLE_MAX = np.uint64(1 << 53)
_DIGITS_MAX = 19
_EXPONENT_MAX = 400


@nb.njit(
    nb.int64(_text, _text, _ends, _flags, nb.float64[::1], nb.int64[:, ::1]),
    nogil=True,
    cache=True,
    error_model="numpy",
)
def scan(body: Any, prefixes: Any, prefix_ends: Any, is_sample: Any, values: Any, odd: Any) -> int:
    """Reads the values of a body whose lines begin with the prefixes; lines that are no samples are them.

    Args:
        prefixes: one behind the other; ``prefix_ends`` [n] says where each ends.
        values: [samples] is written.
        odd: [samples, 3] is written: of words that are no plain decimal of up to 16 digits or so, the sample and
            where in the body the word begins and ends.

    Returns:
        How many words are odd; -1 when a line begins otherwise, or there are more lines or fewer.
    """
    size, at, sample, odds, first = body.size, 0, 0, 0, 0
    for line in range(prefix_ends.size):
        length = prefix_ends[line] - first
        if at + length > size:
            return -1
        differs, here, there = np.uint8(0), np.uint64(at), np.uint64(first)  # unsigned: no index counts from the end
        for i in range(np.uint64(length)):  # to the end, so that many bytes are compared at a time
            differs |= body[here + i] ^ prefixes[there + i]
        if differs:
            return -1
        first, at = prefix_ends[line], at + length
        if is_sample[line]:
            start, digits, point, whole = at, 0, -1, np.uint64(0)
            minus = at < size and body[at] == _MINUS
            if minus or (at < size and body[at] == _PLUS):
                at += 1
            while at < size:
                byte = body[at]
                if _ZERO <= byte <= _NINE:
                    whole = whole * np.uint64(10) + np.uint64(byte - _ZERO)
                    digits += 1
                elif byte == _POINT and point < 0:
                    point = digits
                else:
                    break
                at += 1
            exponent = point - digits if point >= 0 else 0
            plain = 0 < digits <= _DIGITS_MAX and whole <= _WHOLE_MAX
            if plain and at < size and (body[at] == _SMALL_E or body[at] == _LARGE_E):
                at += 1
                sign = 1
                if at < size and (body[at] == _MINUS or body[at] == _PLUS):
                    sign = -1 if body[at] == _MINUS else 1
                    at += 1
                figures = at
                power: Any = 0
                while at < size and _ZERO <= body[at] <= _NINE and power < _EXPONENT_MAX:
                    power = power * 10 + np.int64(body[at] - _ZERO)
                    at += 1
                plain = at > figures
                exponent += sign * power
            if plain and -23 < exponent < 23 and (at == size or body[at] == _LINE_END):
                value = np.float64(whole)
                value = value / _TENS[-exponent] if exponent < 0 else value * _TENS[exponent]
                values[sample] = -value if minus else value
            else:
                while at < size and body[at] != _LINE_END:
                    at += 1
                odd[odds, 0], odd[odds, 1], odd[odds, 2] = sample, start, at
                odds += 1
            sample += 1
        if line < prefix_ends.size - 1:
            if at >= size or body[at] != _LINE_END:
                return -1
            at += 1
    return odds if at == size else -1
