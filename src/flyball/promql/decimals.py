"""Series as JSON, by loops that numba compiles: imported by ``compiled.load`` alone. ``rendering`` has the numpy way.

A double's shortest decimal is found by Raffaello Giulietti's method (The Schubfach way to render doubles, 2021).
"""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from flyball.model.frames import ABSENT_BITS

_u64, _i64 = nb.uint64, nb.int64
_text, _ends = nb.types.Array(nb.uint8, 1, "C", readonly=True), nb.int64[::1]

_POWER_MIN, _POWER_MAX = -293, 325


def _power(k: int) -> tuple[int, int]:
    """10**k as the 128 leading bits of it, rounded up: the upper and the lower half."""
    if k >= 0:
        exact = 10**k
        shift = exact.bit_length() - 128
        bits = -(-exact >> shift) if shift > 0 else exact << -shift
    else:
        divisor = 10**-k
        bits = -(-(1 << (127 + divisor.bit_length())) // divisor)
        if bits.bit_length() > 128:
            bits = -(-(1 << (126 + divisor.bit_length())) // divisor)
    return bits >> 64, bits & (2**64 - 1)


_POWERS = np.array([_power(k) for k in range(_POWER_MIN, _POWER_MAX + 1)], np.uint64)
_ZERO, _ONE, _TWO, _FOUR, _TEN, _FORTY, _HUNDRED = (np.uint64(n) for n in (0, 1, 2, 4, 10, 40, 100))
_TENS = np.array([10**n for n in range(20)], np.uint64)
_PAIRS = np.frombuffer("".join(f"{n:02d}" for n in range(100)).encode(), np.uint8)
_FRACTION, _HIDDEN = np.uint64((1 << 52) - 1), np.uint64(1 << 52)
_EXPONENT, _SIGN = np.uint64(0x7FF), np.uint64(1 << 63)
_52 = np.uint64(52)
_ASCII_ZERO, _MINUS, _POINT, _COMMA, _QUOTE, _CLOSE = (np.uint8(ord(c)) for c in '0-.,"]')
_ABSENT = np.uint64(ABSENT_BITS)
_WHOLE_MAX = 2.0**53
_NAN, _PLUS_INF, _MINUS_INF = (np.frombuffer(word, np.uint8) for word in (b"NaN", b"+Inf", b"-Inf"))


def _compiled(signature: Any) -> Any:
    return nb.njit(signature, nogil=True, cache=True, error_model="numpy")


def _upper_half(_: Any, a: Any, b: Any) -> Any:  # noqa: ARG001
    """Says what code gives the upper half of a product of two 64-bit numbers."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(arg, wide) for arg in args))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return _u64(_u64, _u64), code


_upper: Any = intrinsic(_upper_half)


@_compiled(_u64(_u64, _u64, _u64))
def _scaled(upper: Any, lower: Any, c: Any) -> Any:
    """The integer part of c times a power; its last bit says, too, whether something was cut off."""
    x = _upper(lower, c)
    y = upper * c
    rest = y + x
    whole = _upper(upper, c) + (_ONE if rest < y else _ZERO)
    return whole | (_ONE if rest > _ONE else _ZERO)


@_compiled(nb.types.Tuple((_u64, _i64))(_u64))
def _shortest(bits: Any) -> Any:
    """The decimal digits of a positive finite double, and the power of ten to multiply them by."""
    fraction, exponent = bits & _FRACTION, np.int64((bits >> _52) & _EXPONENT)
    if exponent:
        c, q = fraction | _HIDDEN, exponent - 1075
    else:
        c, q = fraction, np.int64(-1074)
    nearer_below = fraction == _ZERO and exponent > 1
    k = (q * 1262611 - (524031 if nearer_below else 0)) >> 22
    h = np.uint64(q + ((-k * 1741647) >> 19) + 1)
    upper, lower = _POWERS[-k - _POWER_MIN, 0], _POWERS[-k - _POWER_MIN, 1]
    middle = _scaled(upper, lower, (_FOUR * c) << h)
    odd = c & _ONE
    bottom = _scaled(upper, lower, (_FOUR * c - (_ONE if nearer_below else _TWO)) << h) + odd
    top = _scaled(upper, lower, (_FOUR * c + _TWO) << h) - odd
    s = middle // _FOUR
    if s >= _TEN:
        tens = s // _TEN
        below, above = bottom <= _FORTY * tens, _FORTY * (tens + _ONE) <= top
        if below != above:
            return tens + (_ONE if above else _ZERO), k + 1
    below, above = bottom <= _FOUR * s, _FOUR * (s + _ONE) <= top
    if below != above:
        return s + (_ONE if above else _ZERO), k
    half = _FOUR * s + _TWO
    up = middle > half or (middle == half and (s & _ONE) == _ONE)
    return s + (_ONE if up else _ZERO), k


@_compiled(_i64(_u64, nb.uint8[::1], _i64, _i64))
def _put_digits(number: Any, out: Any, at: int, count: int) -> int:
    """``count`` digits of a whole number."""
    begin = np.uint64(at)
    end = begin + np.uint64(count)
    while end > begin + _ONE:
        rest = number // _HUNDRED
        pair = _TWO * (number - rest * _HUNDRED)
        out[end - _TWO], out[end - _ONE] = _PAIRS[pair], _PAIRS[pair + _ONE]
        number = rest
        end -= _TWO
    if end > begin:
        out[begin] = np.uint8(number % _TEN) + _ASCII_ZERO
    return at + count


@_compiled(_i64(_u64))
def _length(number: Any) -> int:
    """How many digits a number has."""
    count = 10 if number >= _TENS[9] else 1
    while count < 20 and number >= _TENS[count]:
        count += 1
    return count


@_compiled(_i64(_text, _i64, _i64, nb.uint8[::1], _i64))
def _put(text: Any, first: int, last: int, out: Any, at: int) -> int:
    source, to = np.uint64(first), np.uint64(at)  # unsigned, so that no index counts from the end
    for i in range(last - first):
        out[to + np.uint64(i)] = text[source + np.uint64(i)]
    return at + last - first


@_compiled(_i64(nb.float64, _u64, nb.uint8[::1], _i64))
def _put_number(value: float, bits: Any, out: Any, at: int) -> int:
    """As Go's ``strconv.FormatFloat(v, 'f', -1, 64)``; returns where the text ends."""
    if value != value:
        return _put(_NAN, 0, 3, out, at)
    if np.isinf(value):
        return _put(_PLUS_INF if value > 0 else _MINUS_INF, 0, 4, out, at)
    if bits & _SIGN:
        out[at] = _MINUS
        at += 1
        value = -value
    if value < _WHOLE_MAX and value == np.floor(value):
        number = np.uint64(value)
        return _put_digits(number, out, at, _length(number))
    digits, power = _shortest(bits & ~_SIGN)
    while digits % _TEN == _ZERO:
        digits //= _TEN
        power += 1
    count = _length(digits)
    if power >= 0:
        at = _put_digits(digits, out, at, count)
        for _ in range(power):
            out[at] = _ASCII_ZERO
            at += 1
        return at
    if count + power > 0:
        unit = _TENS[-power]
        at = _put_digits(digits // unit, out, at, count + power)
        out[at] = _POINT
        return _put_digits(digits % unit, out, at + 1, -power)
    out[at], out[at + 1] = _ASCII_ZERO, _POINT
    at += 2
    for _ in range(-power - count):
        out[at] = _ASCII_ZERO
        at += 1
    return _put_digits(digits, out, at, count)


@_compiled(
    _i64(_text, _ends, nb.types.Array(nb.float64, 2, "C", readonly=True), _text, _ends, _text, nb.uint8[::1]),
)
def write_series(heads: Any, head_ends: Any, values: Any, stamps: Any, stamp_ends: Any, tail: Any, out: Any) -> int:
    """Writes ``HEAD STAMP"VALUE"],STAMP"VALUE"] TAIL,`` for every row; absent points are left out.

    Args:
        head_ends, stamp_ends: [n + 1], [T + 1] where the text of each begins, and the end of the last.

    Returns:
        Where the text ends.
    """
    at = 0
    whole = values.view(np.uint64)
    for i in range(values.shape[0]):
        at = _put(heads, head_ends[i], head_ends[i + 1], out, at)
        first = at
        for k in range(values.shape[1]):
            bits = whole[i, k]
            if bits == _ABSENT:
                continue
            at = _put(stamps, stamp_ends[k], stamp_ends[k + 1], out, at)
            at = _put_number(values[i, k], bits, out, at)
            out[at], out[at + 1], out[at + 2] = _QUOTE, _CLOSE, _COMMA
            at += 3
        if at > first:
            at -= 1
        at = _put(tail, 0, tail.size, out, at)
        out[at] = _COMMA
        at += 1
    return at
