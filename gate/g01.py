"""kill -9 during ingest: no acknowledged sample is lost."""

import random
import tempfile
import time
from pathlib import Path

from gate.children import ingesting
from gate.history import History
from gate.report import demand

KILLS, SAMPLES_MIN, READY_MAX_S = 200, 10_000_000, 5.0


def run(quick: bool = False) -> list[str]:
    kills, wanted = (KILLS // 10, SAMPLES_MIN // 10) if quick else (KILLS, SAMPLES_MIN)
    rng = random.Random(1)
    history = History(targets=40, series=500)
    ready: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        directory = Path(name) / "store"
        for number in range(kills):
            short = wanted * (number + 1) / kills
            with ingesting(directory, history) as child:
                ready.append((child.ready_s, child.ready_cpu_s))
                while history.samples < short:
                    demand(child.process.poll() is None, f"the writer died by itself in run {number}")
                    time.sleep(0.005)
                time.sleep(rng.random() * 0.1)
        found = history.compare(directory)
        demand(
            found.extra <= kills * history.series, f"{found.extra} unacknowledged samples of {kills} kills are there"
        )
    large = History(targets=200, series=500)
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        directory = Path(name) / "store"
        with ingesting(directory, large) as child:
            while large.samples < 20 * 100_000:
                time.sleep(0.05)
        with ingesting(directory, large) as child:
            large_s, large_cpu_s = child.ready_s, child.ready_cpu_s
        large.compare(directory)
    demand(large_cpu_s <= READY_MAX_S, f"ready after {large_cpu_s:.1f} CPU seconds with 100,000 series")
    return [
        f"{kills} kills, {found.samples:,} samples acknowledged, 0 lost, {found.extra:,} unacknowledged there",
        f"ready again in at most {max(ready)[0]:.1f} s ({max(cpu for _, cpu in ready):.1f} s of CPU); "
        f"with 100,000 series in {large_s:.1f} s ({large_cpu_s:.1f} s of CPU)",
        f"read by the independent checker: {found.records:,} log records, {found.blocks} blocks",
    ]
