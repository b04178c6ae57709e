"""Power cut: the recorded changes are played back up to a thousand moments."""

import logging
import random
import shutil
import tempfile
from pathlib import Path

from flyball.store import Database
from gate.history import History
from gate.power import Recording, after_power_cut, recording
from gate.report import demand
from gate.workload import abandon, write

MOMENTS, ROUNDS = 1000, 400
#: Without ``sync_each`` a sync comes every so many rounds; one round is one second here.
SYNC_EVERY = 1


def run(quick: bool = False) -> list[str]:
    moments = MOMENTS // 20 if quick else MOMENTS
    logging.getLogger("flyball.store").setLevel(logging.CRITICAL)
    lines = []
    for sync_each in (True, False):
        rng = random.Random(2)
        history = History(targets=2, series=10)
        with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
            store = Path(name) / "store"
            with recording(store) as log:
                write(
                    store,
                    history,
                    rounds=ROUNDS,
                    maintain_every=20,
                    segment_bytes=20_000,
                    sync_each=sync_each,
                    sync_every=0 if sync_each else SYNC_EVERY,
                    acknowledged=lambda target, row, log=log: log.mark(target, row),
                )
            lost = checked = 0
            for number in range(moments):
                moment = rng.randrange(1, len(log.changes))
                broken = Path(name) / "broken"
                after_power_cut(log, moment, broken, rng)
                there = _acknowledged(log, moment, history, sync_each)
                try:
                    abandon(Database(broken))
                except Exception as exc:
                    demand(False, f"moment {number}: the store does not open: {exc!r}")
                there.compare(broken)
                checked += there.samples
                shutil.rmtree(broken)
        mode = "each write synced" if sync_each else "synced every second"
        lines.append(f"{mode}: {moments} power cuts, {checked:,} samples had to be there, {lost} lost, none altered")
    return lines


def _acknowledged(log: Recording, moment: int, history: History, sync_each: bool) -> History:
    """What must have survived: everything acknowledged, or all but the last second."""
    found = History(history.targets, history.series)
    marks = [change.data for change in log.changes[:moment] if change.kind == "mark"]
    newest = max((row for _, row in marks), default=0)
    for target, row in marks:
        if sync_each or row < newest - SYNC_EVERY:
            found.acked[target].add(row)
    found.sent_rows = ROUNDS + 2
    return found
