"""Torn tail: the last segment cut at every byte of its final 64 KiB."""

import logging
import os
import tempfile
from pathlib import Path

from flyball.store import Database
from flyball.store.wal import Segment
from gate.checker import log_records
from gate.history import History
from gate.report import demand
from gate.workload import write

TAIL = 1 << 16


def run(quick: bool = False) -> list[str]:
    logging.getLogger("flyball.store").setLevel(logging.ERROR)
    history = History(targets=3, series=200)
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        directory = Path(name) / "store"
        write(directory, history, rounds=40)
        path = directory / "wal" / "00000001.wal"
        data = path.read_bytes()
        ends = [record.end for record in log_records(data)]
        demand(len(data) > TAIL, f"the log has only {len(data)} bytes")
        cuts = range(len(data) - 1, len(data) - 1 - TAIL, -10 if quick else -1)
        opened = 0
        for cut in cuts:
            os.truncate(path, cut)
            intact = sum(end <= cut for end in ends)
            segment = Segment(directory / "wal", 1)
            # Definitions whose copy in the log was cut off still come from the companion.
            found = sum(record.type not in (1, 2, 3) for record in segment.records)
            wanted = sum(record.type not in (1, 2, 3) for record in log_records(data[:cut]))
            demand(found == wanted, f"cut at {cut}: {found} of {wanted} intact records were read")
            demand(intact <= len(segment.records), f"cut at {cut}: records are missing")
            if cut % 997 == 0:
                opened += 1
                _open(directory, path, data[:cut])
    return [f"{len(cuts):,} cuts, every intact record read; {opened} of them opened as a store"]


def _open(directory: Path, path: Path, data: bytes) -> None:
    companion = path.with_suffix(".defs")
    definitions = companion.read_bytes()
    database = Database(directory)
    demand(database.replayed.unexplained == 0, "a record refers to a lost definition")
    database.close()
    path.write_bytes(data)
    companion.write_bytes(definitions)
