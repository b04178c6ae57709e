"""Recorded load from files: counts a period, values at times, or one line a request."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from flyball.errors import ConfigError

_TIME_NAMES = ("period", "timestamp", "time", "date", "ds")
_VALUE_NAMES = ("count", "value", "requests", "y")
MAX_SECONDS = 400 * 86_400


class Trace(msgspec.Struct, frozen=True):
    """Load in units a second, one value a second from ``start_ms``. ``notes`` say what was assumed."""

    name: str
    start_ms: int
    rate: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    compress: float = 1.0

    def __len__(self) -> int:
        return len(self.rate)


def read_trace(
    path: Path,
    *,
    column: str = "",
    time_column: str = "",
    compress: float = 1.0,
    begin: str = "",
    end: str = "",
) -> Trace:
    """A CSV file as load a second.

    With a value column the rows are counts of the period up to the next row, spread evenly over it and joined by
    straight lines; without one, each row is a request. ``compress`` runs time that many times as fast; ``begin`` and
    ``end`` (ISO 8601) cut first.

    Raises:
        ConfigError: no file, no such column, a row that cannot be read, or fewer than two rows.
    """
    header, rows = _rows(path)
    at = _column(path, header, time_column, _TIME_NAMES, "time")
    valued = column or next((name for name in header if name.lower() in _VALUE_NAMES), "")
    if valued and valued not in header:
        raise ConfigError(f"{path}: no column {valued!r}; it has {', '.join(header)} (--column)")
    times_s = np.array([_seconds(path, line, row[at]) for line, row in rows])
    values = np.array([_number(path, line, row[header.index(valued)]) for line, row in rows]) if valued else None
    order = np.argsort(times_s, kind="stable")
    times_s = times_s[order]
    keep = np.ones(len(times_s), bool)
    if begin:
        keep &= times_s >= _seconds(path, 0, begin)
    if end:
        keep &= times_s < _seconds(path, 0, end)
    if keep.sum() < 2:
        raise ConfigError(f"{path}: fewer than two rows between {begin or 'the start'} and {end or 'the end'}")
    times_s = times_s[keep]
    notes = [] if compress == 1 else [f"time runs {compress:g} times as fast"]
    if values is None:
        rate, more = _from_requests(times_s, compress)
    else:
        rate, more = _from_counts(times_s, values[order][keep], compress)
    return Trace(path.stem, int(times_s[0] * 1000), rate, (*notes, *more), compress)


def _from_counts(
    times_s: NDArray[np.float64], counts: NDArray[np.float64], compress: float
) -> tuple[NDArray[np.float64], list[str]]:
    steps = np.diff(times_s)
    period_s = float(np.median(steps))
    if period_s <= 0:
        raise ConfigError("the trace repeats its times; give one row a period")
    notes = []
    gaps = int(np.count_nonzero(steps > 1.5 * period_s))
    if gaps:
        notes.append(f"{gaps} gaps in the trace are bridged by straight lines")
    seconds = (times_s - times_s[0]) / compress
    length = int(seconds[-1] + period_s / compress)
    if length > MAX_SECONDS:
        raise ConfigError(f"the trace spans {length} s, more than {MAX_SECONDS}; cut it with --from and --to")
    return np.interp(np.arange(length, dtype=np.float64), seconds, counts / period_s), notes


def _from_requests(times_s: NDArray[np.float64], compress: float) -> tuple[NDArray[np.float64], list[str]]:
    seconds = ((times_s - times_s[0]) / compress).astype(np.int64)
    if seconds[-1] > MAX_SECONDS:
        raise ConfigError(f"the trace spans {seconds[-1]} s, more than {MAX_SECONDS}; cut it with --from and --to")
    return np.bincount(seconds).astype(np.float64) / compress, ["each row is one request"]


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, None)
            if not header:
                raise ConfigError(f"{path} is empty; a trace is a CSV file with a header line")
            rows = [(line, row) for line, row in enumerate(reader, 2) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a CSV trace: {error}") from error
    for line, row in rows:
        if len(row) < len(header):
            raise ConfigError(f"{path}:{line}: {len(row)} columns where the header has {len(header)}")
    return [name.strip() for name in header], rows


def _column(path: Path, header: list[str], wanted: str, known: tuple[str, ...], what: str) -> int:
    name = wanted or next((name for name in header if name.lower() in known), "")
    if name not in header:
        named = f"no column {wanted!r}" if wanted else f"no {what} column named one of {', '.join(known)}"
        raise ConfigError(f"{path}: {named}; it has {', '.join(header)} (--time-column)")
    return header.index(name)


def _seconds(path: Path, line: int, text: str) -> float:
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        pass
    whole, dot, fraction = text.partition(".")
    digits = fraction.rstrip("Z")
    try:
        at = datetime.fromisoformat(
            whole + (dot + digits[:6] if dot else "") + ("+00:00" if text.endswith("Z") else "")
        )
    except ValueError:
        raise ConfigError(f"{path}:{line}: {text!r} is not a time; write 1998-06-08 21:30:00 or Unix seconds") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{path}:{line}: {text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{path}:{line}: {text!r} is not a load; it must be finite and not negative")
    return value
