"""Calendar floors and ceilings: cron times in a time zone, with dates and exceptions.

A rule is in force from each time that ``start`` names until the next that ``end`` names. Cron fields are minute,
hour, day of month, month, day of week (0 or 7 is Sunday, names allowed); where both days are restricted either
suffices, as in crontab(5).
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from flyball.errors import ConfigError

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
_NAMES: tuple[dict[str, int], ...] = (
    {},
    {},
    {},
    {
        "jan": 1,
        "feb": 2,
        "mar": 3,
        "apr": 4,
        "may": 5,
        "jun": 6,
        "jul": 7,
        "aug": 8,
        "sep": 9,
        "oct": 10,
        "nov": 11,
        "dec": 12,
    },
    {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6},
)
_MACROS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
_SEARCH_DAYS = 366 * 4 + 1  # 29 February comes again within


class Cron(msgspec.Struct, frozen=True):
    """The sets that the five fields allow."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def on(self, day: date) -> bool:
        """Whether it fires on a day at all."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either_day else by_month and by_week


class ScheduleRule(msgspec.Struct, frozen=True):
    """A floor (``minimum``), a ceiling (``maximum``) or both. ``dates``: only on these days does it start;
    ``exceptions``: on these it does not."""

    name: str
    zone: str
    start: Cron
    end: Cron
    minimum: int | None = None
    maximum: int | None = None
    dates: tuple[date, ...] = ()
    exceptions: tuple[date, ...] = ()

    def active(self, now_ms: int) -> bool:
        """Whether it is in force."""
        zone = ZoneInfo(self.zone)
        now = datetime.fromtimestamp(now_ms / 1000, zone)
        began = _last(self.start, now, lambda day: (not self.dates or day in self.dates) and day not in self.exceptions)
        if began is None:
            return False
        ended = _last(self.end, now, lambda _: True)
        return ended is None or began > ended


class Bounds(msgspec.Struct, frozen=True):
    """What schedule rules in force make of the bounds; ``rules`` are their names."""

    minimum: int
    maximum: int
    rules: tuple[str, ...] = ()


def scheduled_bounds(rules: tuple[ScheduleRule, ...], minimum: int, maximum: int, now_ms: int) -> Bounds:
    """The highest floor and the lowest ceiling in force; a floor wins over a ceiling, for too many pods hurt less."""
    active = [rule for rule in rules if rule.active(now_ms)]
    floor = max([minimum, *(rule.minimum for rule in active if rule.minimum is not None)])
    ceiling = min([maximum, *(rule.maximum for rule in active if rule.maximum is not None)])
    return Bounds(floor, max(floor, ceiling), tuple(rule.name for rule in active))


def _last(cron: Cron, now: datetime, allowed: Callable[[date], bool]) -> datetime | None:
    """The newest firing at or before ``now``, as an instant."""
    for back in range(_SEARCH_DAYS):
        day = now.date() - timedelta(days=back)
        if not cron.on(day) or not allowed(day):
            continue
        for hour in reversed(cron.hours):
            for minute in reversed(cron.minutes):
                fired = datetime(day.year, day.month, day.day, hour, minute, tzinfo=now.tzinfo)
                if fired.astimezone(UTC) <= now.astimezone(UTC):
                    return fired.astimezone(UTC)
    return None


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> Cron:
    """A Cron of its text.

    Raises:
        ConfigError: not five fields, or a field that allows nothing of its range.
    """
    parts = _MACROS.get(text.strip().lower(), text).split()
    if len(parts) != 5:
        raise ConfigError(f'"{text}" is not a cron time; write five fields, as in "0 8 * * 1-5"')
    sets = [_field(text, part.lower(), at) for at, part in enumerate(parts)]
    weekdays = frozenset(day % 7 for day in sets[4])
    restricted = not parts[2].startswith("*") and not parts[4].startswith("*")
    return Cron(tuple(sorted(sets[0])), tuple(sorted(sets[1])), sets[2], sets[3], weekdays, restricted)


def _field(text: str, field: str, at: int) -> frozenset[int]:
    name, low, high = _FIELDS[at]
    allowed: set[int] = set()
    for item in field.split(","):
        span, slash, step = item.partition("/")
        first, dash, last = span.partition("-")
        try:
            every = int(step) if slash else 1
            if span == "*":
                begin, end = low, high
            else:
                begin = _NAMES[at].get(first, -1) if first in _NAMES[at] else int(first)
                end = (_NAMES[at].get(last, -1) if last in _NAMES[at] else int(last)) if dash else begin
                if slash and not dash:
                    end = high
            if every < 1 or not low <= begin <= end <= high:
                raise ValueError
        except ValueError:
            raise ConfigError(f'"{text}": {name} "{item}" is not within {low}-{high}') from None
        allowed.update(range(begin, end + 1, every))
    return frozenset(allowed)
