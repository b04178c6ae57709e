"""The process that is killed: opens a store and writes rounds, telling each acknowledgement to its parent at once.

Run as ``python -m gate.ingest '{"directory": ..., ...}'``; on standard output come pairs of little-endian uint32:
(target, round) when a scrape was taken, (REFUSED, round) when it was not, (QUERIED, round) when a query was answered
after that, (READY, CPU time so far in ms) when the store is open.
"""

import json
import os
import struct
import sys
import time
from pathlib import Path

from flyball.errors import StoreError
from flyball.store import Database, Plan
from gate.history import INTERVAL_MS, at_ms, labels, values

READY, REFUSED, QUERIED = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
_PAIR = struct.Struct("<II")


def say(first: int, second: int) -> None:
    os.write(1, _PAIR.pack(first, second))


def main() -> None:
    given = json.loads(sys.argv[1])
    targets, series = given["targets"], given["series"]
    database = Database(Path(given["directory"]), **given.get("options", {}))
    say(READY, int(time.process_time() * 1000))
    writers = [database.head.writer("gate", INTERVAL_MS, ("gate", target)) for target in range(targets)]
    plans = [
        Plan(writer.refs([labels(target, number) for number in range(series)])) for target, writer in enumerate(writers)
    ]
    row, synced_s = given["first_row"], time.monotonic()
    while row < given.get("last_row", 1 << 30):
        for target in range(targets):
            try:
                taken = writers[target].commit(at_ms(target, row), plans[target], values(target, series, row))
            except StoreError:
                say(REFUSED, row)
                if database.head.select([], at_ms(0, row - 4), at_ms(0, row)):
                    say(QUERIED, row)
                time.sleep(0.02)
                continue
            if taken:
                say(target, row)
        if time.monotonic() - synced_s > 1:
            synced_s = time.monotonic()
            database.wal.sync()
        if row % given.get("maintain_every", 20) == 0:
            try:
                database.maintain(at_ms(0, row))
            except StoreError as exc:
                print(exc, file=sys.stderr)
        row += 1
        time.sleep(given.get("pause_s", 0))
    database.wal.sync()
    while not given.get("exit"):
        time.sleep(1)


if __name__ == "__main__":
    main()
