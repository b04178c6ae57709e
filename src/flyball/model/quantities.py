"""Kubernetes' resource.Quantity: parse, print canonically, and the roundings the autoscaler depends on.

Facts: reference/hpa.md 1.2; k8s.io/apimachinery/pkg/api/resource/quantity.go. Arithmetic is exact (Python
integers); where Go keeps an int64, results saturate at its ends.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from flyball.errors import ConfigError

MAX_INT64 = (1 << 63) - 1
MIN_INT64 = -(1 << 63)


class Format(StrEnum):
    """How a quantity is printed: ``1500m``, ``64Mi`` or ``15e2``."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_BINARY_SUFFIX = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_QUANTITY = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(n|u|m|k|[KMGTPE]i|[MGTPE]|[eE][+-]?\d+)?", re.ASCII)
_NANO = -9
_MAX_DIGITS = 400  # a bound on user input, far above what any quantity needs
_MAX_EXPONENT = 400


@dataclass(frozen=True, slots=True)
class Quantity:
    """``unscaled * 10**exponent``, as the text gave it, with exponent >= -9. Compare with ``nano``, not ``==``."""

    unscaled: int
    exponent: int = 0
    format: Format = Format.DECIMAL_SI

    @property
    def nano(self) -> int:
        """The exact value in units of 1e-9; the number to compare or order by."""
        return int(self.unscaled * 10 ** (self.exponent - _NANO))

    def scaled_value(self, exponent: int) -> int:
        """The value in units of 10**exponent, rounded away from zero, within int64."""
        shift = self.exponent - exponent
        if shift >= 0:
            result: int = self.unscaled * 10**shift
        else:
            magnitude = -(-abs(self.unscaled) // 10**-shift)
            result = magnitude if self.unscaled >= 0 else -magnitude
        return max(MIN_INT64, min(MAX_INT64, result))

    def value(self) -> int:
        """Whole units, rounded away from zero."""
        return self.scaled_value(0)

    def milli_value(self) -> int:
        """Milli-units, rounded away from zero: 1 nanocore is 1 millicore."""
        return self.scaled_value(-3)

    def as_float(self) -> float:
        """Go's AsApproximateFloat64: one rounding of the unscaled value and one of the product."""
        base = float(self.unscaled)
        return base if self.exponent == 0 else base * float(f"1e{self.exponent}")

    def is_zero(self) -> bool:
        return self.unscaled == 0

    def __str__(self) -> str:
        """The canonical form, as the API server prints it."""
        if self.unscaled == 0:
            return "0"
        if self.format is Format.BINARY_SI and abs(self.nano) >= 1024 * 10**9 and self.nano % 10**9 == 0:
            number, power = self.nano // 10**9, 0
            while number % 1024 == 0 and power < 6:
                number, power = number // 1024, power + 1
            return f"{number}{_BINARY_SUFFIX[power]}"
        number, exponent = self.unscaled, self.exponent
        while number % 10 == 0:
            number, exponent = number // 10, exponent + 1
        down = exponent % 3  # to the next lower multiple of three
        if self.format is not Format.DECIMAL_EXPONENT and exponent - down > 18:
            down = exponent - 18
        number, exponent = number * 10**down, exponent - down
        if self.format is Format.DECIMAL_EXPONENT:
            return f"{number}e{exponent}" if exponent else str(number)
        return f"{number}{_DECIMAL_SUFFIX[exponent]}"


def parse_quantity(text: str | int | float) -> Quantity:
    """A Quantity of its text (or a JSON number, which Kubernetes accepts too).

    Finer than nano rounds away from zero; a binary quantity saturates at 2**63-1.

    Raises:
        ConfigError: the text is not a quantity.
    """
    raw = str(text).strip()
    found = _QUANTITY.fullmatch(raw)
    if found is None or len(raw) > _MAX_DIGITS:
        raise ConfigError(f'"{raw[:64]}" is not a quantity; write a number like 100m, 1.5, 64Mi or 2e3')
    sign, number, suffix = found.group(1), found.group(2), found.group(3) or ""
    whole, _, fraction = number.partition(".")
    unscaled, exponent = int(whole + fraction), -len(fraction)
    if suffix in _BINARY:
        form = Format.BINARY_SI
        unscaled <<= _BINARY[suffix]
    elif suffix in _DECIMAL:
        form = Format.DECIMAL_SI
        exponent += _DECIMAL[suffix]
    else:
        form = Format.DECIMAL_EXPONENT
        power = int(suffix[1:])
        if abs(power) > _MAX_EXPONENT:
            raise ConfigError(f'"{raw[:64]}" is out of range; use an exponent between -{_MAX_EXPONENT} and +400')
        exponent += power
    if exponent < _NANO:
        unscaled, exponent = -(-unscaled // 10 ** (_NANO - exponent)), _NANO
    if form is Format.BINARY_SI:
        if unscaled > MAX_INT64 * 10**-exponent:
            unscaled, exponent = MAX_INT64, 0
        elif 0 < unscaled < 10**-exponent:
            form = Format.DECIMAL_SI  # 0.5 is clearer than a binary fraction
    return Quantity(-unscaled if sign == "-" else unscaled, exponent, form)


def from_milli(milli: int, form: Format = Format.DECIMAL_SI) -> Quantity:
    """Go's NewMilliQuantity."""
    return Quantity(milli, -3, form)


def from_units(units: int, form: Format = Format.DECIMAL_SI) -> Quantity:
    """Go's NewQuantity."""
    return Quantity(units, 0, form)


def canonical(text: str | int | float) -> str:
    """The canonical text of a quantity: ``0.1`` is ``100m``.

    Raises:
        ConfigError: the text is not a quantity.
    """
    return str(parse_quantity(text))
