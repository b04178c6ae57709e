"""The disk fills up, is freed, and the process is killed: nothing acknowledged is lost.

Needs root, to mount a small tmpfs. Half of the runs keep the free-space reserve, which must stop ingest before the disk
is full; the others have none and meet ENOSPC itself.
"""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gate.children import Ingest, ingesting
from gate.history import History
from gate.report import GateError, demand

RUNS, DISK_MB, RESERVE_MB = 20, 24, 4


def run(quick: bool = False) -> list[str]:
    runs = 2 if quick else RUNS
    samples = refusals = 0
    refused_within: list[float] = []
    resumed_within: list[float] = []
    for number in range(runs):
        reserve = RESERVE_MB << 20 if number % 2 == 0 else 0
        history = History(targets=4, series=200)
        with _small_disk() as disk:
            options = {"reserve_bytes": reserve}
            with ingesting(disk / "store", history, options=options, pause_s=0.01) as child:
                _acknowledged(history, 40_000)
                leave = (RESERVE_MB << 20) // 2 if reserve else 0
                filled_s = time.monotonic()
                _fill(disk / "ballast", leave)
                _until(lambda child=child: child.refused > 20, 30, "a full disk did not stop ingest")
                refused_within.append(max(0.0, child.acked_s - filled_s))
                _until(lambda child=child: child.queried > 0, 30, "no query was answered while the disk was full")
                if reserve:
                    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                    demand(free > 0, "the reserve was used up")
                (disk / "ballast").unlink()
                freed_s = time.monotonic()
                _resumed(child, freed_s)
                resumed_within.append(child.acked_s - freed_s)
                _acknowledged(history, history.samples + 20_000)
                refusals += child.refused
            samples += history.compare(disk / "store").samples
            with ingesting(disk / "store", history, options=options):
                pass
            history.compare(disk / "store")
    demand(max(resumed_within) <= 10, f"ingest resumed {max(resumed_within):.1f} s after space was freed")
    return [
        f"{runs} runs, {samples:,} samples acknowledged before, between and after, 0 lost; {refusals:,} refused",
        f"the last write was taken at most {max(refused_within):.2f} s after the disk was full; ingest resumed at "
        f"most {max(resumed_within):.2f} s after it was freed; queries were answered meanwhile",
    ]


def _resumed(child: Ingest, freed_s: float) -> None:
    _until(lambda: child.acked_s > freed_s, 10, "ingest did not resume within 10 s")


def _acknowledged(history: History, samples: int) -> None:
    _until(lambda: history.samples > samples, 60, "nothing is acknowledged")


def _until(condition: Callable[[], bool], limit_s: float, message: str) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        demand(time.monotonic() < end_s, message)
        time.sleep(0.005)


def _fill(path: Path, leave: int) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        found = os.statvfs(path.parent)
        left = found.f_bavail * found.f_frsize - leave
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 16)))
        while not leave:
            file.write(bytes(4096))


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", name], check=False, capture_output=True
        )
        if mounted.returncode:
            raise GateError(f"a tmpfs cannot be mounted ({mounted.stderr.decode().strip()}); run as root")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)
