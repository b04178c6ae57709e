"""The independent checker and the store read the same: every sample, bit for bit, from log and blocks."""

import random
import tempfile
from pathlib import Path

import numpy as np

from flyball.model.frames import is_absent
from flyball.store import Database
from gate.checker import Series, read_store
from gate.history import History
from gate.report import demand
from gate.workload import abandon, write

STORES = 20


def run(quick: bool = False) -> list[str]:
    stores = 3 if quick else STORES
    rng = random.Random(8)
    samples = blocks = records = 0
    for number in range(stores):
        with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
            history = History(targets=rng.randint(1, 9), series=rng.randint(1, 300))
            for _ in range(rng.randint(1, 3)):
                write(Path(name), history, rounds=rng.randint(50, 700), maintain_every=rng.randint(5, 60))
            found = history.compare(Path(name))
            samples, blocks, records = samples + found.samples, blocks + found.blocks, records + found.records
            theirs: dict[tuple[Series, int], int] = {}
            read_store(Path(name), lambda series, at, bits, kept=theirs: kept.__setitem__((series, at), bits))
            ours = _ours(Path(name))
            different = len(ours.items() ^ theirs.items())
            demand(different == 0, f"store {number}: {different} samples differ")
    return [f"{stores} stores, {samples:,} samples in {blocks} blocks and {records:,} log records: 0 differences"]


def _ours(directory: Path) -> dict[tuple[Series, int], int]:
    database = Database(directory)
    found = {}
    for frame in database.select([], 0, 1 << 60):
        values = np.ascontiguousarray(frame.values)
        present, bits = ~is_absent(values), values.view(np.uint64)
        for column, labels in enumerate(frame.labels):
            rows = np.flatnonzero(present[:, column])
            times = frame.times_ms[rows, frame.target[column]].tolist()
            found.update(zip(((labels, at) for at in times), bits[rows, column].tolist(), strict=True))
    abandon(database)
    return found
