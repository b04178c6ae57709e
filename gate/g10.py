"""Clock: jumps of an hour and of a year, there and back, and drift: scraping goes on within two intervals."""

import logging
import tempfile
from pathlib import Path

import numpy as np

from flyball.errors import StoreError
from flyball.model.frames import is_absent
from flyball.store import Database, Plan
from flyball.store.database import CLOCK_BACK_MS
from gate.history import INTERVAL_MS, labels
from gate.report import demand
from gate.workload import abandon

HOUR_MS, YEAR_MS = 3_600_000, 365 * 86_400_000
START_MS = 1_699_999_200_000
SERIES, INTERVALS_MAX = 20, 2


def run(quick: bool = False) -> list[str]:
    logging.getLogger("flyball.store").setLevel(logging.ERROR)
    jumps = [sign * size + 7_000 for size in (HOUR_MS, YEAR_MS) for sign in (1, -1)]
    refused_most = samples = 0
    for jump_ms in jumps:
        refused, kept = _jump(jump_ms, rounds=60 if quick else 600)
        refused_most, samples = max(refused_most, refused), samples + kept
    drift_refused, kept = _drift()
    return [
        f"{len(jumps)} jumps there and back: at most {refused_most} scrapes refused after each, none lost of "
        f"{samples:,} samples, also after a restart",
        f"drift of 10 s a second, then the correction: {drift_refused} scrapes refused, none lost of {kept:,} samples",
    ]


class _Scraper:
    """One target; the store tidies up after every interval, as it does when something is amiss."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sent: set[int] = set()
        self.open()

    def open(self) -> None:
        self.database = Database(self.directory, retention_ms=None)
        self.writer = self.database.head.writer("gate", INTERVAL_MS, "gate")
        self.plan = Plan(self.writer.refs([labels(0, number) for number in range(SERIES)]))

    def scrape(self, now_ms: int) -> bool:
        try:
            taken = self.writer.commit(now_ms, self.plan, np.full(SERIES, float(now_ms % 1_000_003)))
        except StoreError:
            taken = False
        if taken:
            self.sent.add(now_ms)
        self.database.maintain(now_ms)
        return taken

    def check(self) -> None:
        found: set[int] = set()
        count = 0
        for frame in self.database.select([], -(1 << 60), 1 << 60):
            values = np.ascontiguousarray(frame.values)
            for column in range(len(frame.labels)):
                present = ~is_absent(values[:, column].copy())
                times = frame.times_ms[present, frame.target[column]]
                wrong = int((values[present, column] != times % 1_000_003).sum())
                demand(wrong == 0, f"{wrong} samples are not what was sent")
                found.update(times.tolist())
                count += len(times)
        demand(found == self.sent, f"{len(self.sent - found)} rounds are lost, {len(found - self.sent)} invented")
        demand(count == SERIES * len(self.sent), f"{count} samples are there, {SERIES * len(self.sent)} were sent")


def _jump(jump_ms: int, rounds: int) -> tuple[int, int]:
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        scraper = _Scraper(Path(name))
        now_ms, worst = START_MS, 0
        for offset_ms in (0, jump_ms, 0):
            refused = 0
            for _ in range(rounds):
                now_ms += INTERVAL_MS
                refused += not scraper.scrape(now_ms + offset_ms)
            demand(refused <= INTERVALS_MAX, f"a jump of {jump_ms} ms cost {refused} scrapes")
            worst = max(worst, refused)
            scraper.check()
        abandon(scraper.database)
        scraper.open()
        scraper.check()
        abandon(scraper.database)
        return worst, SERIES * len(scraper.sent)


def _drift() -> tuple[int, int]:
    """The clock runs ten times too fast for five minutes, then is set right."""
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        scraper = _Scraper(Path(name))
        real_ms, refused = START_MS, 0
        for _ in range(20):
            real_ms += INTERVAL_MS
            refused += not scraper.scrape(START_MS + 10 * (real_ms - START_MS))
        demand(refused == 0, f"{refused} scrapes were refused while the clock ran fast")
        for _ in range(400):
            real_ms += INTERVAL_MS
            refused += not scraper.scrape(real_ms + 7_000)
        demand(refused <= INTERVALS_MAX, f"{refused} scrapes were refused after the correction")
        demand(CLOCK_BACK_MS <= INTERVALS_MAX * INTERVAL_MS, "the store waits too long for the clock")
        scraper.check()
        abandon(scraper.database)
        return refused, SERIES * len(scraper.sent)
