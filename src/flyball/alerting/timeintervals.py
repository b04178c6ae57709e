"""Times of day, weekdays, days of the month, months and years: when a route is mute, or active.

Source: Alertmanager timeinterval.
"""

import calendar
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flyball.errors import ConfigError
from flyball.model.reader import Reader, mapping_of

Range = tuple[int, int]

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = tuple(name.lower() for name in calendar.month_name)
_TIME = re.compile(r"(?:([01][0-9]|2[0-3]):([0-5][0-9]))|24:00")
_NUMBER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True)
class TimeInterval:
    """All that is given must hold; within one field one range is enough. Ranges include both ends.

    Attributes:
        times: minutes of the day, the end excluded.
        weekdays: 0 is Sunday.
        days_of_month: negative ones count from the month's end.
        location: a time zone's name; empty for UTC.
    """

    times: tuple[Range, ...] = ()
    weekdays: tuple[Range, ...] = ()
    days_of_month: tuple[Range, ...] = ()
    months: tuple[Range, ...] = ()
    years: tuple[Range, ...] = ()
    location: str = ""

    def contains(self, at_ms: int) -> bool:
        """Whether an instant lies in it."""
        at = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(self.location) if self.location else UTC)
        minute = at.hour * 60 + at.minute
        return (
            (not self.times or any(start <= minute < end for start, end in self.times))
            and (not self.days_of_month or any(_on_day(at, days) for days in self.days_of_month))
            and _within(at.month, self.months)
            and _within((at.weekday() + 1) % 7, self.weekdays)
            and _within(at.year, self.years)
        )


def _within(value: int, ranges: Sequence[Range]) -> bool:
    return not ranges or any(first <= value <= last for first, last in ranges)


def _on_day(at: datetime, days: Range) -> bool:
    length = calendar.monthrange(at.year, at.month)[1]
    first, last = (day if day > 0 else length + day + 1 for day in days)
    return first <= length and max(first, -length) <= at.day <= min(last, length)


def containing(names: Sequence[str], intervals: Mapping[str, Sequence[TimeInterval]], at_ms: int) -> tuple[str, ...]:
    """Which of the named intervals an instant lies in."""
    return tuple(name for name in names if any(one.contains(at_ms) for one in intervals[name]))


def read_time_interval(document: object, what: str) -> TimeInterval:
    """One entry of ``time_intervals``.

    Raises:
        ConfigError: a field is unknown or out of its range.
    """
    reader = Reader(mapping_of({} if document is None else document, what), what)
    location = reader.text("location", "")
    if location:
        try:
            ZoneInfo(location)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise reader.error("location", f'"{location}" is not a time zone; write one like Europe/Berlin') from exc
    found = TimeInterval(
        times=reader.items("times", _read_times),
        weekdays=_ranges(reader, "weekdays", _weekday),
        days_of_month=_ranges(reader, "days_of_month", _day),
        months=_ranges(reader, "months", _month),
        years=_ranges(reader, "years", int),
        location="" if location == "UTC" else location,
    )
    reader.finish()
    return found


def _read_times(document: object, what: str) -> Range:
    reader = Reader(mapping_of(document, what), what)
    start, end = (_minute(reader, name) for name in ("start_time", "end_time"))
    reader.finish()
    if start >= end:
        raise ConfigError(f"{what}: start_time must be before end_time; split a range over midnight in two")
    return start, end


def _minute(reader: Reader, name: str) -> int:
    text = reader.text(name, "")
    found = _TIME.fullmatch(text)
    if found is None:
        raise reader.error(name, f'"{text}" is not a time of day; write one like 09:00, or 24:00')
    return int(found[1]) * 60 + int(found[2]) if found[1] else 24 * 60


def _ranges(reader: Reader, name: str, member: Callable[[str], int]) -> tuple[Range, ...]:
    def one(document: object, what: str) -> Range:
        text = str(document).lower()
        parts = text.split(":")
        try:
            if len(parts) > 2:
                raise ValueError(text)
            first, last = member(parts[0]), member(parts[-1])
        except ValueError as exc:
            raise ConfigError(f'{what}: "{document}" is not valid; write {_EXAMPLES[name]}') from exc
        # Counted from the end of a month of 28 days, as upstream counts.
        if (first + 28 if first < 0 else first) > (last + 28 if last < 0 else last) or (first < 0 < last):
            raise ConfigError(f'{what}: "{document}" ends before it starts; turn the two round')
        return first, last

    return reader.items(name, one)


_EXAMPLES = {
    "weekdays": "monday or monday:friday",
    "days_of_month": "1:7 or -3:-1, between 1 and 31",
    "months": "january, 1 or january:march",
    "years": "2030 or 2030:2032",
}


def _weekday(text: str) -> int:
    return _WEEKDAYS.index(text)


def _day(text: str) -> int:
    day = int(text)
    if not 1 <= abs(day) <= 31:
        raise ValueError(text)
    return day


def _month(text: str) -> int:
    if _NUMBER.fullmatch(text):
        if not 1 <= int(text) <= 12:
            raise ValueError(text)
        return int(text)
    return _MONTHS.index(text) if text else _MONTHS.index("none")
