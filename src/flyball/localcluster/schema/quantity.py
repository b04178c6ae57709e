"""Kubernetes quantities ("500m", "1Gi", "1e3") as exact decimals, and back to upstream's canonical text."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
NOT_A_QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
"""Upstream's words for a value that does not parse."""


def parse(value: object) -> Decimal:
    """The exact value of a quantity; ValueError with upstream's words when it is none."""
    text = str(value)
    match = _QUANTITY.fullmatch(text)
    if match is None or isinstance(value, bool):
        raise ValueError(NOT_A_QUANTITY)
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * Decimal(1024) ** _BINARY[suffix]
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:]))


@lru_cache(4096, typed=True)
def canonical(value: object) -> str:
    """The text upstream would print: no fraction, the largest suffix that loses nothing ("0.5" -> "500m").

    Finer than a nano rounds up, as upstream does. ValueError when the value is no quantity.
    """
    text = str(value)
    amount = parse(value)
    if amount == 0:
        return "0"
    match = _QUANTITY.fullmatch(text)
    suffix = (match[2] or "") if match else ""
    if suffix in _BINARY and abs(amount) >= 1024 and amount == amount.to_integral_value():
        whole, power = int(amount), 0
        while power < 6 and whole % 1024 == 0:
            whole //= 1024
            power += 1
        return f"{whole}{['', *_BINARY][power]}"
    nano = int(amount.scaleb(9).to_integral_value(ROUND_CEILING))
    exponent = -9
    while nano % 1000 == 0 and exponent < 18:
        nano //= 1000
        exponent += 3
    if len(suffix) > 1 and suffix not in _BINARY:  # exponent form stays exponent form
        return f"{nano}e{exponent}" if exponent else str(nano)
    name = next(s for s, e in _DECIMAL.items() if e == exponent)
    return f"{nano}{name}"


def milli(value: object) -> int:
    """The value in thousandths, rounded up as upstream's MilliValue."""
    return int(parse(value).scaleb(3).to_integral_value(ROUND_CEILING))
