"""Recorded load from files: counts a period, values at times, or one line a request."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from flyball.clock import rfc3339
from flyball.errors import ConfigError

_TIME_NAMES = ("period", "timestamp", "time", "date", "ds")
_VALUE_NAMES = ("count", "value", "requests", "y")
MAX_SECONDS = 400 * 86_400
_IRREGULAR = 0.05  # share of rows much sooner than most: above it they are no counts of a period
_EVEN = 0.9  # share of steps alike: above it the rows are no single requests
_COARSE_S = 30  # between points, about the time in which a policy reacts


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
    per_second: bool = False,
    compress: float = 1.0,
    begin: str = "",
    end: str = "",
) -> Trace:
    """A CSV file as load a second.

    With a value column the rows are counts of the period up to the next row, spread evenly over it (or already
    ``per_second``) and joined by straight lines; where rows come at any time, each is what its second asks for.
    Without a column each row is a request, unless rows come at even steps. ``compress`` runs time that many times as
    fast; ``begin`` and ``end`` (ISO 8601) cut first.

    Raises:
        ConfigError: no file, no such column, a row that cannot be read, or fewer than two rows.
    """
    header, rows = _rows(path)
    at = _column(path, header, time_column, _TIME_NAMES, "time")
    valued = column or next((name for name in header if name.lower() in _VALUE_NAMES), "")
    if valued and valued not in header:
        raise ConfigError(f"{path}: no column {valued!r}; it has {', '.join(header)} (--column)")
    times_s = np.array([seconds_of(row[at], f"{path}:{line}") for line, row in rows])
    values = np.array([_number(path, line, row[header.index(valued)]) for line, row in rows]) if valued else None
    order = np.argsort(times_s, kind="stable")
    times_s = times_s[order]
    keep = np.ones(len(times_s), bool)
    if begin:
        keep &= times_s >= seconds_of(begin, "--from")
    if end:
        keep &= times_s < seconds_of(end, "--to")
    if keep.sum() < 2:
        span = f"; its rows are from {_shown(times_s[0])} to {_shown(times_s[-1])}" if len(times_s) else ""
        raise ConfigError(f"{path}: fewer than two rows between {begin or 'the start'} and {end or 'the end'}{span}")
    times_s = times_s[keep]
    steps = np.diff(times_s)
    period_s = float(np.median(steps))
    if values is None:
        others = [name for index, name in enumerate(header) if index != at]
        even = np.abs(steps - period_s) <= 0.05 * period_s
        if others and period_s > 0 and len(steps) > 10 and even.mean() > _EVEN:
            raise ConfigError(
                f"{path}: rows come every {period_s:g} s, as measurements do, but no column is named "
                f"{', '.join(_VALUE_NAMES)}; name the one of the load with --column: {', '.join(others)}"
            )
        return _from_requests(path.stem, times_s, compress)
    values = values[order][keep]
    if not per_second and (steps < 0.5 * period_s).mean() > _IRREGULAR:
        return _from_requests(path.stem, times_s, compress, values, valued)
    if period_s <= 0:
        raise ConfigError(f"{path} repeats its times; give one row a period")
    counted = f"{valued} is a rate a second" if per_second else f"{valued} counts the {period_s:g} s up to the next row"
    return joined(path.stem, times_s, values / (1 if per_second else period_s), period_s, compress, (counted,))


def joined(
    name: str,
    times_s: NDArray[np.float64],
    rates: NDArray[np.float64],
    period_s: float,
    compress: float = 1.0,
    notes: tuple[str, ...] = (),
) -> Trace:
    """Rates at ascending times, ``period_s`` apart or more, joined by straight lines; what is bridged is noted.

    Raises:
        ConfigError: the span is longer than ``MAX_SECONDS``.
    """
    notes = (*notes, *_compressed(compress))
    steps = np.diff(times_s)
    wide = steps > 1.5 * period_s
    if wide.any():
        longest, missing_s = int(steps.argmax()), float((steps[wide] - period_s).sum())
        gaps = "1 gap" if wide.sum() == 1 else f"{wide.sum()} gaps"
        note = f"{gaps} in the trace ({missing_s / (times_s[-1] - times_s[0] + period_s):.1%} of its time, the longest "
        note += f"{steps[longest] - period_s:g} s after {_shown(times_s[longest])}) bridged by straight lines; "
        notes = (*notes, note + "leave them out with --from and --to if that misleads")
    if period_s / compress > _COARSE_S:
        note = f"points are {period_s / compress:g} s apart: between them the load is smoother, and easier to foresee, "
        notes = (*notes, note + "than it was")
    seconds = (times_s - times_s[0]) / compress
    length = _within_limit(int(seconds[-1] + period_s / compress))
    return Trace(
        name, int(times_s[0] * 1000), np.interp(np.arange(length, dtype=float), seconds, rates), notes, compress
    )


def _from_requests(
    name: str,
    times_s: NDArray[np.float64],
    compress: float,
    weights: NDArray[np.float64] | None = None,
    column: str = "",
) -> Trace:
    seconds = ((times_s - times_s[0]) / compress).astype(np.int64)
    _within_limit(int(seconds[-1]))
    rate = np.bincount(seconds, weights) / compress
    said = "each row is one request" if weights is None else f"rows come at any time: {column} is what each asks for"
    return Trace(name, int(times_s[0] * 1000), rate, (said, *_compressed(compress)), compress)


def _compressed(compress: float) -> tuple[str, ...]:
    return () if compress == 1 else (f"time runs {compress:g} times as fast",)


def _within_limit(length: int) -> int:
    if length > MAX_SECONDS:
        raise ConfigError(f"the trace spans {length} s, more than {MAX_SECONDS}; cut it with --from and --to")
    return length


def _shown(at_s: float) -> str:
    return rfc3339(int(at_s * 1000))


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


def seconds_of(text: str, where: str) -> float:
    """Unix seconds of a time as people and programs write it; without a zone it is UTC.

    Raises:
        ConfigError: it is no time; ``where`` it stands.
    """
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is not a time; write 1998-06-08 21:30:00 or Unix seconds") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{path}:{line}: {text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{path}:{line}: {text!r} is not a load; it must be finite and not negative")
    return value
