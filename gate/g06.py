"""Every call that changes a file fails once: what is acknowledged is there, what failed is said."""

import errno
import logging
import tempfile
from collections import Counter
from pathlib import Path

from flyball.errors import StoreError
from gate.faults import failing
from gate.history import History
from gate.report import demand
from gate.workload import write

#: errno, whether the write is short instead.
KINDS = ((errno.ENOSPC, False), (errno.EIO, False), (errno.EINTR, False), (0, True))


def run(quick: bool = False) -> list[str]:
    logging.getLogger("flyball.store").setLevel(logging.CRITICAL)
    sites = _sites()
    step = 10 if quick else 1
    where: Counter[str] = Counter()
    refused = samples = 0
    for number, short in KINDS:
        for site in range(1, sites + 1, step):
            with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
                history = History(targets=1, series=12)
                with failing(site, number, short) as faults:
                    _attempt(Path(name), history)
                _attempt(Path(name), history)  # a restart after the fault, with a disk that works again
                demand(all(history.acked), f"call {site} ({faults.failed}): nothing was taken after the restart")
                samples += history.compare(Path(name)).samples
                refused += history.refused
                where[faults.failed or "none"] += 1
    counted = ", ".join(f"{count} x {name}" for name, count in where.most_common())
    return [
        f"{sum(where.values())} faults ({counted})",
        f"{samples:,} samples acknowledged, 0 lost; {refused:,} writes refused",
    ]


def _attempt(directory: Path, history: History) -> None:
    try:
        write(directory, history, rounds=360, maintain_every=20, segment_bytes=60_000, reserve_bytes=0)
    except StoreError:
        history.refused += 1  # the store could not be opened: nothing was acknowledged


def _sites() -> int:
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name, failing(0) as faults:
        _attempt(Path(name), History(targets=1, series=12))
    return faults.calls
