"""Restart cost: 100,000 series, two hours at 15 s, 48 million samples."""

import tempfile
import time
from pathlib import Path

import psutil

from gate.children import ingesting
from gate.history import History
from gate.report import demand

READY_MAX_S, RSS_MAX = 60.0, 1.5


def run(quick: bool = False) -> list[str]:
    targets, rounds = (20, 480) if quick else (200, 480)
    history = History(targets=targets, series=500)
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        directory = Path(name) / "store"
        wanted = targets * 500 * rounds
        with ingesting(directory, history, last_row=rounds, maintain_every=40) as child:
            while history.samples < wanted:
                demand(child.process.poll() is None, "the writer died by itself")
                time.sleep(0.05)
            time.sleep(2)
            steady = psutil.Process(child.process.pid).memory_info().rss
        with ingesting(directory, history, last_row=0) as child:
            peak = _peak(child.process.pid)
            ready_s, ready_cpu_s = child.ready_s, child.ready_cpu_s
        samples = history.samples
    demand(ready_s <= READY_MAX_S, f"ready after {ready_s:.0f} s")
    demand(peak <= RSS_MAX * steady, f"the restart took {peak >> 20} MiB, {peak / steady:.2f} times the steady state")
    return [
        f"{samples:,} samples of {targets * 500:,} series: ready in {ready_s:.1f} s ({ready_cpu_s:.1f} s of CPU)",
        f"at most {peak >> 20} MiB while starting, {steady >> 20} MiB before ({peak / steady:.2f} times)",
    ]


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
