"""Cron times, zones and instants at random, and what Go's cron package makes of them (``go/cron``)."""

import random
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from tests.cluster.build import SOURCE

# Where the clocks change at midnight (Beirut) or by half an hour (Lord Howe), the Go package skips days that it should
# not: these are left out.
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland")
FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
WRONG = ("", "-1", "x", "1-2-3", "*/0", "1/2/3", "+3", "1_0", "jan", "7-1", "99")
WORDS = (
    *("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", "@Hourly", "@reboot"),
    *("@every 90s", "@every 1h30m", "@every 1.5h", "@every .5s", "@every 0", "@every x", "@every -5m", "@every 1500ms"),
    *("", "* * * *", "* * * * * *", "0 0 30 2 *", "0 0 29 2 *"),
)

Case = tuple[int, str, str]  # unix seconds, zone, cron time


def cases(rng: random.Random, count: int) -> Iterator[Case]:
    changes = {zone: list(_changes(zone)) for zone in ZONES}
    for _ in range(count):
        zone = rng.choice(ZONES)
        if rng.random() < 0.3 and changes[zone]:  # shortly before the clocks change
            at = rng.choice(changes[zone]) - rng.randrange(30 * 3600)
            minute, hour = rng.choice(("*", "0", "30", "*/15", "15,45")), rng.choice(("*", "0", "1", "2", "3", "1-3"))
            yield at, zone, f"{minute} {hour} * * *"
        else:
            at = 1577836800 + rng.randrange(10 * 365 * 86400)
            yield at, zone, rng.choice(WORDS) if rng.random() < 0.05 else " ".join(_field(rng, *one) for one in FIELDS)


def _field(rng: random.Random, low: int, high: int) -> str:
    if rng.random() < 0.45:
        return "*"
    return ",".join(_item(rng, low, high) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def _item(rng: random.Random, low: int, high: int) -> str:
    first, last = sorted((rng.randint(low, high), rng.randint(low, high)))
    names = {12: ("jan", "FEB", "Dec"), 6: ("sun", "MON", "sat")}.get(high, (str(first),))
    ranges = (f"{first}-{last}", "*", "?", str(first), rng.choice(names))
    text = rng.choice(ranges) if rng.random() < 0.97 else rng.choice((*WRONG, str(high + 1), f"{high}-{low}"))
    return text + (f"/{rng.choice((1, 2, 3, 5, 7, 30))}" if rng.random() < 0.3 else "")


def _changes(zone: str) -> Iterator[int]:
    at, end = datetime(2020, 1, 1, tzinfo=ZoneInfo("UTC")), datetime(2028, 1, 1, tzinfo=ZoneInfo("UTC"))
    before = at.astimezone(ZoneInfo(zone)).utcoffset()
    while at < end:
        now = at.astimezone(ZoneInfo(zone)).utcoffset()
        if now != before:
            yield int(at.timestamp())
        before, at = now, at + timedelta(hours=1)


def answers(asked: list[Case]) -> list[str]:
    """The next firing in unix seconds, ``none``, or ``error`` and why."""
    lines = "".join(f"{at}\t{zone}\t{text}\n" for at, zone, text in asked)
    command = ["nice", "-n", "19", "go", "run", "./cron"]
    return subprocess.run(
        command, cwd=SOURCE, input=lines, capture_output=True, text=True, check=True
    ).stdout.splitlines()
