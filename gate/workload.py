"""Writing a store in this process, for gates that damage its files afterwards."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyball.errors import StoreError
from flyball.store import Database, Plan
from gate.history import INTERVAL_MS, History, at_ms, labels, values


def abandon(database: Database) -> None:
    """Leaves the store as kill -9 would: only its lock goes."""
    os.close(database._lock_fd)


def write(
    directory: Path,
    history: History,
    rounds: int,
    *,
    maintain_every: int = 0,
    segment_bytes: int | None = None,
    sync_every: int = 0,
    acknowledged: Callable[[int, int], None] | None = None,
    **options: Any,
) -> None:
    """Rounds of scrapes by a store that is then abandoned; what it refuses is not in the history."""
    database = Database(directory, **options)
    try:
        if segment_bytes is not None:
            database.wal.segment_bytes = segment_bytes
        plans = []
        for target in range(history.targets):
            writer = database.head.writer("gate", INTERVAL_MS, ("gate", target))
            plans.append((writer, Plan(writer.refs([labels(target, number) for number in range(history.series)]))))
        first = history.next_row()
        for row in range(first, first + rounds):
            for target, (writer, plan) in enumerate(plans):
                try:
                    if writer.commit(at_ms(target, row), plan, values(target, history.series, row)):
                        history.acked[target].add(row)
                        if acknowledged is not None:
                            acknowledged(target, row)
                except StoreError:
                    history.refused += 1
            if sync_every and row % sync_every == 0:
                database.wal.sync()
            if maintain_every and row % maintain_every == 0:
                try:
                    database.wal.sync()
                    database.maintain(at_ms(0, row))
                except StoreError:
                    history.refused += 1
    finally:
        abandon(database)
