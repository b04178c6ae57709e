"""The only clock. Shells read it here; engines take the time as an argument."""

import time
from datetime import UTC, datetime
from functools import lru_cache


def now_ms() -> int:
    """Wall-clock time, ms since the epoch."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Seconds that never go back, for intervals and time-outs."""
    return time.monotonic()


def rfc3339(at_ms: int) -> str:
    """``2026-01-02T03:04:05Z``: whole seconds, as Kubernetes writes ``metav1.Time``."""
    return _rfc3339_of_second(at_ms // 1000)


@lru_cache(256)  # whoever writes many objects writes the same few seconds
def _rfc3339_of_second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(at_ms: int) -> str:
    """``2026-01-02T03:04:05.006000Z``, as Kubernetes writes ``metav1.MicroTime``."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339_ms(text: str) -> int:
    """The instant, ms since the epoch.

    Raises:
        ValueError: the text is not an RFC 3339 time.
    """
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
