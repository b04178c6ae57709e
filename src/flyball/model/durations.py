"""Prometheus durations (``1h30m``) in ms."""

import re

from flyball.errors import ConfigError

_UNITS_MS = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")


def parse_duration_ms(text: str) -> int:
    """Units y w d h m s ms, each at most once, in descending order; ``0`` alone is allowed.

    Raises:
        ConfigError: the text is not a duration.
    """
    if text == "0":
        return 0
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ConfigError(f'"{text}" is not a duration; write one like 30s, 5m or 1h30m')
    amounts = zip(_UNITS_MS.values(), found.groups(), strict=True)
    return sum(unit_ms * int(amount) for unit_ms, amount in amounts if amount is not None)


def format_duration(duration_ms: int) -> str:
    """The shortest form that parses back, as Prometheus prints it."""
    if duration_ms == 0:
        return "0s"
    parts, rest = [], duration_ms
    for unit in ("y", "w", "d", "h", "m", "s", "ms"):
        amount = rest // _UNITS_MS[unit]
        exact_only = unit in ("y", "w", "d")  # Prometheus prints 36h, not 1d12h
        if amount and not (exact_only and rest % _UNITS_MS[unit]):
            parts.append(f"{amount}{unit}")
            rest -= amount * _UNITS_MS[unit]
    return "".join(parts)
