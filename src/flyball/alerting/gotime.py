"""Go's time.Time and time.Duration, as templates see them."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flyball.model.gofunctions import Methods, TemplateError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_S = 1_000_000_000
_LAYOUT = re.compile(
    r"2006|January|Jan|Monday|Mon|MST|Z07:00|Z0700|-07:00|-0700|-07|PM|pm|[.,]0+|[.,]9+|__2|_2|002|01|02|03|04|05|06|15|[12345]"
)


class Duration(float, Methods):
    """A number of seconds; prints as ``1h2m3s``."""

    def __str__(self) -> str:
        if not self:
            return "0s"
        sign, ns = ("-", -round(self * _S)) if self < 0 else ("", round(self * _S))
        if ns < _S:
            unit, name = next((u, n) for u, n in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")) if ns >= u)
            return f"{sign}{_trimmed(ns, unit)}{name}"
        hours, rest = divmod(ns, 3600 * _S)
        minutes, rest = divmod(rest, 60 * _S)
        seconds = f"{_trimmed(rest, _S)}s"
        if hours:
            return f"{sign}{hours}h{minutes}m{seconds}"
        return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds

    METHODS: ClassVar = {
        "Seconds": float,
        "Minutes": lambda self: self / 60,
        "Hours": lambda self: self / 3600,
        "Milliseconds": lambda self: int(self * 1000),
        "String": str,
    }


def _trimmed(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


@dataclass(frozen=True)
class Time(Methods):
    """An instant in ns since the epoch, with the zone it is shown in; 0 is Go's zero time, of the year 1."""

    ns: int
    zone: tzinfo = UTC

    def local(self) -> datetime:
        """To the second."""
        if not self.ns:
            return datetime(1, 1, 1, tzinfo=UTC)
        return (_EPOCH + timedelta(seconds=self.ns // _S)).astimezone(self.zone)

    def format(self, layout: str) -> str:
        """As Go's ``Time.Format``: the layout shows how the reference time would be written."""
        at, fraction = self.local(), f"{self.ns % _S:09d}"
        return _LAYOUT.sub(lambda found: _written(found[0], at, fraction), layout)

    def rfc3339_nano(self) -> str:
        """As JSON has it."""
        return self.format("2006-01-02T15:04:05.999999999Z07:00")

    def __str__(self) -> str:
        return self.format("2006-01-02 15:04:05.999999999 -0700 MST")

    def in_zone(self, name: str) -> "Time":
        """The same instant elsewhere.

        Raises:
            TemplateError: there is no such zone.
        """
        try:
            return replace(self, zone=UTC if name in ("", "UTC") else ZoneInfo(name))
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise TemplateError(f'"{name}" is not a time zone; write one like Europe/Berlin') from exc

    def _of_day(self, name: str) -> int:
        return int(getattr(self.local(), name))

    METHODS: ClassVar = {
        "Format": lambda self, layout: self.format(layout),
        "String": str,
        "Unix": lambda self: self.ns // _S,
        "UnixMilli": lambda self: self.ns // 1_000_000,
        "UnixNano": lambda self: self.ns,
        "UTC": lambda self: replace(self, zone=UTC),
        "Local": lambda self: replace(self, zone=UTC),
        "IsZero": lambda self: self.ns == 0,
        "Add": lambda self, more: replace(
            self, ns=self.ns + (round(more * _S) if isinstance(more, Duration) else more)
        ),
        "Sub": lambda self, other: Duration((self.ns - other.ns) / _S),
        "After": lambda self, other: self.ns > other.ns,
        "Before": lambda self, other: self.ns < other.ns,
        "Year": lambda self: self._of_day("year"),
        "Day": lambda self: self._of_day("day"),
        "Hour": lambda self: self._of_day("hour"),
        "Minute": lambda self: self._of_day("minute"),
        "Second": lambda self: self._of_day("second"),
        "Month": lambda self: f"{self.local():%B}",
        "Weekday": lambda self: f"{self.local():%A}",
    }


def _written(part: str, at: datetime, fraction: str) -> str:
    if part[0] in ".,":
        digits = fraction[: len(part) - 1]
        if part[1] == "9":
            digits = digits.rstrip("0")
        return part[0] + digits if digits else ""
    if part in ("Z07:00", "Z0700", "-07:00", "-0700", "-07"):
        return _offset(part, at)
    return str(_PARTS[part](at))


def _offset(part: str, at: datetime) -> str:
    minutes = round((at.utcoffset() or timedelta()).total_seconds() / 60)
    if part[0] == "Z" and not minutes:
        return "Z"
    hours, rest = divmod(abs(minutes), 60)
    tail = "" if part == "-07" else f":{rest:02d}" if ":" in part else f"{rest:02d}"
    return f"{'-' if minutes < 0 else '+'}{hours:02d}{tail}"


_PARTS: dict[str, Any] = {
    "2006": lambda at: f"{at.year:04d}",
    "06": lambda at: f"{at.year % 100:02d}",
    "January": lambda at: f"{at:%B}",
    "Jan": lambda at: f"{at:%b}",
    "01": lambda at: f"{at.month:02d}",
    "1": lambda at: str(at.month),
    "Monday": lambda at: f"{at:%A}",
    "Mon": lambda at: f"{at:%a}",
    "02": lambda at: f"{at.day:02d}",
    "_2": lambda at: f"{at.day:2d}",
    "2": lambda at: str(at.day),
    "002": lambda at: f"{at.timetuple().tm_yday:03d}",
    "__2": lambda at: f"{at.timetuple().tm_yday:3d}",
    "15": lambda at: f"{at.hour:02d}",
    "03": lambda at: f"{(at.hour + 11) % 12 + 1:02d}",
    "3": lambda at: str((at.hour + 11) % 12 + 1),
    "04": lambda at: f"{at.minute:02d}",
    "4": lambda at: str(at.minute),
    "05": lambda at: f"{at.second:02d}",
    "5": lambda at: str(at.second),
    "PM": lambda at: "AM" if at.hour < 12 else "PM",
    "pm": lambda at: "am" if at.hour < 12 else "pm",
    "MST": lambda at: at.tzname() or "UTC",
}
