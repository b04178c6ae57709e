"""Damage in the middle of the log: only the damaged records are lost, and it is said once."""

import logging
import random
import shutil
import tempfile
from pathlib import Path

from flyball.store import Database
from gate.checker import LogRecord, log_records
from gate.history import History
from gate.report import demand
from gate.workload import abandon, write

DAMAGES = 1000
SECTOR, PAGE = 512, 4096


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def run(quick: bool = False) -> list[str]:
    damages = DAMAGES // 10 if quick else DAMAGES
    rng = random.Random(4)
    history = History(targets=4, series=60)
    lines = _Lines()
    logger = logging.getLogger("flyball.store")
    logger.addHandler(lines)
    logger.propagate = False
    lost_records = lost_samples = harmless = 0
    try:
        with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
            intact = Path(name) / "intact"
            write(intact, history, rounds=120, segment_bytes=80_000)
            whole = _count(intact)
            for number in range(damages):
                store = Path(name) / "damaged"
                shutil.copytree(intact, store)
                touched, samples = _damage(store, rng)
                lines.lines.clear()
                database = Database(store)
                lost = whole - database.replayed.samples
                abandon(database)
                demand(lost <= samples, f"damage {number}: {lost} samples are lost, {samples} were in damaged records")
                demand(database.replayed.unexplained == 0, f"damage {number} reached records that it did not touch")
                said = [line for line in lines.lines if "damaged" in line]
                if database.replayed.damaged_bytes and database.replayed.damaged_segments:
                    demand(len(said) == 1, f"damage {number} was said {len(said)} times")
                    demand(any((store / "wal" / "quarantine").iterdir()), f"damage {number}: nothing was put aside")
                lost_records += touched if lost else 0
                lost_samples += lost
                harmless += lost == 0
                lines.lines.clear()
                again = Database(store)
                demand(again.replayed.samples == whole - lost, f"damage {number}: another start reads something else")
                demand(not lines.lines, f"damage {number} is said again: {lines.lines[:1]}")
                abandon(again)
                shutil.rmtree(store)
    finally:
        logger.removeHandler(lines)
        logger.propagate = True
    return [
        f"{damages} damages (bit flips, zeroed sectors, pages written twice): {lost_samples:,} samples lost, all of "
        f"damaged records; {harmless} cost nothing",
        "newer segments and untouched records were always kept; each damage was said and put aside once",
    ]


def _count(store: Path) -> int:
    database = Database(store)
    abandon(database)
    return database.replayed.samples


def _damage(store: Path, rng: random.Random) -> tuple[int, int]:
    """Damages one place; returns how many records it touches and how many samples they hold at most."""
    paths = sorted([*(store / "wal").glob("*.wal"), *(store / "wal").glob("*.defs")])
    path = rng.choice([one for one in paths if one.stat().st_size > 2 * PAGE])
    data = bytearray(path.read_bytes())
    records = log_records(bytes(data))
    kind = rng.choice(["flip", "zero", "twice"])
    if kind == "flip":
        start = rng.randrange(len(data))
        end = start + 1
        data[start] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        start = rng.randrange(len(data) // SECTOR) * SECTOR
        end = min(start + SECTOR, len(data))
        data[start:end] = bytes(end - start)
    else:
        start = rng.randrange(len(data) // PAGE) * PAGE
        source = rng.randrange(len(data) // PAGE) * PAGE
        end = min(start + PAGE, len(data))
        data[start:end] = bytes(data[source : source + end - start]).ljust(end - start, b"\0")
    path.write_bytes(data)
    touched = [record for record in records if record.start < end and record.end > start]
    return len(touched), sum(_samples(record) for record in touched)


def _samples(record: LogRecord) -> int:
    # 60 series a row; a definition costs nothing, for it is there twice.
    return {4: 60}.get(record.type, 0)
