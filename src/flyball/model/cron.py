"""Cron times as Kubernetes reads them: five fields, ``@hourly`` and the like, ``@every 90s``, in a time zone.

No library on PyPI reads them the same way, and where they differ a CronJob would run at another time than on a
cluster: there 7 is no weekday, ``?`` is ``*``, ``*/2`` restricts a day, an hour that the clocks leave out is not made
up for, and one that they repeat fires twice.

Source: github.com/robfig/cron v3, which kube-controller-manager and KEDA use; compared with it in tests/cluster.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    (0, 6, {name: number for number, name in enumerate(_WEEKDAYS)}),
)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = "@every "
_GO_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SEARCH_YEARS = 5  # 30 February is never; 29 February comes again within


class CronError(ValueError):
    """The text is not a cron time; says why in upstream's words."""


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed distance, whatever the calendar says."""

    seconds: int

    def next_ms(self, after_ms: int, _zone: str = "UTC") -> int:
        """The whole second that lies ``seconds`` after an instant."""
        return (after_ms // 1000 + self.seconds) * 1000

    def last_ms(self, after_ms: int, until_ms: int, _zone: str = "UTC") -> int | None:
        """The newest of the instants counted from ``after_ms`` that is not after ``until_ms``."""
        passed = (until_ms - after_ms // 1000 * 1000) // (self.seconds * 1000)
        return (after_ms // 1000 + passed * self.seconds) * 1000 if passed > 0 else None


@dataclass(frozen=True, slots=True)
class Cron:
    """The values that each field allows. ``either_day``: both days are restricted, and either suffices."""

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

    def next_ms(self, after_ms: int, zone: str = "UTC") -> int | None:
        """The first firing after an instant, ms since the epoch; None when there is none within five years.

        Instants are walked, not wall times: what the clocks leave out is passed over, what they repeat comes twice.
        """
        place = ZoneInfo(zone)
        at = datetime.fromtimestamp(after_ms // 60_000 * 60, UTC) + timedelta(minutes=1)
        last_year = at.year + _SEARCH_YEARS
        while (local := at.astimezone(place)).year <= last_year:
            if not self.on(local.date()):
                at = max(_midnight_after(self, local), at + timedelta(minutes=1))
            elif local.hour not in self.hours:
                at += timedelta(minutes=60 - local.minute)
            elif local.minute not in self.minutes:
                wanted = next((minute for minute in self.minutes if minute > local.minute), 60)
                at += timedelta(minutes=wanted - local.minute)
            else:
                return int(at.timestamp()) * 1000
        return None

    def last_ms(self, after_ms: int, until_ms: int, zone: str = "UTC") -> int | None:
        """The newest firing after one instant and not after another; None when there is none between them."""
        span_ms, found = 60_000, None
        while found is None:  # ever further back, so that the last one costs as little as it is near
            begin_ms = max(after_ms, until_ms - span_ms)
            at_ms = self.next_ms(begin_ms, zone)
            while at_ms is not None and at_ms <= until_ms:
                found, at_ms = at_ms, self.next_ms(at_ms, zone)
            if begin_ms <= after_ms:
                break
            span_ms *= 2
        return found


def _midnight_after(cron: Cron, local: datetime) -> datetime:
    """The start of the next day that may matter: of the next month, when this one does not."""
    first = local.replace(hour=0, minute=0, fold=0)
    if local.month not in cron.months:
        first = first.replace(day=1) + timedelta(days=32)
        first = first.replace(day=1)
    else:
        first += timedelta(days=1)
    return first.astimezone(UTC)


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> Cron | Every:
    """The schedule that a text names.

    Raises:
        CronError: it names none.
    """
    if not text:
        raise CronError("empty spec string")
    if text.startswith(_EVERY):
        seconds = _go_duration_s(text.removeprefix(_EVERY))
        if seconds is None:
            wrong = f'time: invalid duration "{text.removeprefix(_EVERY)}"'
            raise CronError(f"failed to parse duration {text}: {wrong}")
        return Every(max(1, int(seconds)))
    if text.startswith("@") and text not in _MACROS:
        raise CronError(f"unrecognized descriptor: {text}")
    fields = _MACROS.get(text, text).split()
    if len(fields) != len(_FIELDS):
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    found = [_field(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]
    (minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday) = found
    either_day = not any_day and not any_weekday
    return Cron(tuple(sorted(minutes)), tuple(sorted(hours)), days, months, weekdays, either_day)


def _field(text: str, low: int, high: int, names: dict[str, int]) -> tuple[frozenset[int], bool]:
    """The values that a field allows, and whether it holds a star."""
    allowed: set[int] = set()
    star = False
    for item in filter(None, text.split(",")):
        span, *steps = item.split("/")
        bounds = span.split("-")
        if bounds[0] in ("*", "?"):
            begin, end, all_of_it = low, high, True
        elif len(bounds) > 2:
            raise CronError(f"too many hyphens: {item}")
        else:
            begin, end, all_of_it = _number(bounds[0], names), _number(bounds[-1], names), False
        if len(steps) > 1:
            raise CronError(f"too many slashes: {item}")
        step = _number(steps[0], {}) if steps else 1
        if steps and len(bounds) == 1:
            end = high  # 5/10 goes on to the end
        if begin < low:
            raise CronError(f"beginning of range ({begin}) below minimum ({low}): {item}")
        if end > high:
            raise CronError(f"end of range ({end}) above maximum ({high}): {item}")
        if begin > end:
            raise CronError(f"beginning of range ({begin}) beyond end of range ({end}): {item}")
        if step == 0:
            raise CronError(f"step of range should be a positive number: {item}")
        allowed.update(range(begin, end + 1, step))
        star = star or (all_of_it and step == 1)
    return frozenset(allowed), star


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise CronError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _go_duration_s(text: str) -> float | None:
    """Seconds of a Go duration such as ``1h30m`` or ``1.5h``; None when it is none."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0.0
    parts = list(_GO_DURATION.finditer(body))
    if not parts or "".join(part[0] for part in parts) != body:
        return None
    seconds = sum(float(part[1]) * _GO_UNITS_S[part[2]] for part in parts)
    return -seconds if text.startswith("-") else seconds
