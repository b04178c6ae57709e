"""Calendar floors and ceilings: cron times in a time zone, with dates and exceptions.

A rule is in force from each time that ``start`` names until the next that ``end`` names; cron times are read as
Kubernetes reads a CronJob's.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from flyball.errors import ConfigError
from flyball.model.cron import Cron, CronError, parse_cron

_SEARCH_DAYS = 366 * 4 + 1  # 29 February comes again within


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


def parse_schedule(text: str) -> Cron:
    """A Cron of its text.

    Raises:
        ConfigError: it is no time of the calendar.
    """
    try:
        found = parse_cron(text)
    except CronError as exc:
        raise ConfigError(f'"{text}" is not a cron time; write five fields, as in "0 8 * * 1-5" ({exc})') from exc
    if not isinstance(found, Cron):
        raise ConfigError(f'"{text}" is a distance, not a time of the calendar; write five fields, as in "0 8 * * 1-5"')
    return found
