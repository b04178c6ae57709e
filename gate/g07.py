"""kill -9 inside sealing, compaction, retention and the cutting of the log."""

import random
import tempfile
import time
from pathlib import Path

import numpy as np

from flyball.model.frames import Frame, is_absent
from flyball.store import Database
from gate.children import ingesting
from gate.history import History, at_ms
from gate.report import demand
from gate.workload import abandon

KILLS = 100


def run(quick: bool = False) -> list[str]:
    kills = KILLS // 10 if quick else KILLS
    rng = random.Random(7)
    history = History(targets=6, series=60)
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        directory = Path(name) / "store"
        sealed = 0
        for _ in range(kills):
            before = history.samples
            # A round is 15 s of the store's time and a millisecond of ours: it seals and compacts all the time.
            with ingesting(directory, history, maintain_every=5) as child:
                while history.samples < before + 6 * 60 * 100:
                    demand(child.process.poll() is None, "the writer died by itself")
                    time.sleep(0.002)
                time.sleep(rng.random() * 0.3)
            demand(len(list((directory / "blocks").glob("*.tmp"))) <= 1, "temporary files pile up")
        database = Database(directory)
        demand(not list(directory.rglob("*.tmp")), "a temporary file outlived the restart")
        sealed = len(database.blocks)
        top_ms = at_ms(0, history.next_row() + 2)
        twice = sum(_twice(frame) for frame in database.select([], 0, top_ms))
        abandon(database)
        demand(twice == 0, f"{twice} samples are there twice")
        found = history.compare(directory)
    return [
        f"{kills} kills, {found.samples:,} samples acknowledged, 0 lost, 0 twice; {sealed} blocks at the end",
        "no temporary file outlived a restart",
    ]


def _twice(frame: Frame) -> int:
    times = frame.times_ms[:, frame.target]
    present = ~is_absent(np.ascontiguousarray(frame.values))
    count = 0
    for column in range(len(frame.labels)):
        mine = times[present[:, column], column]
        count += len(mine) - len(np.unique(mine))
    return count
