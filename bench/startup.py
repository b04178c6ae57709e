"""How long `flyball up` and `--help` take, and what an idle cluster with the webapp costs."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.report import report
from flyball.cli.demo import free_port_offset

ROOT = Path(__file__).parents[1]
IDLE_S = 20.0


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[float, "subprocess.Popen[str]", Path, int]]:
    """A ready `flyball up`: seconds to ready, its process, its data directory, its port offset."""
    offset = free_port_offset()
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as directory:
        data_dir = Path(directory) / "data"
        started_s = time.monotonic()
        up = subprocess.Popen(
            [
                *(sys.executable, "-m", "flyball", "up", "--data-dir", str(data_dir)),
                *("--port-offset", str(offset), *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert up.stdout is not None
            if not up.stdout.readline().startswith("ready"):
                raise SystemExit("flyball up did not become ready")
            yield time.monotonic() - started_s, up, data_dir, offset
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(30)


def processes(up: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The parent and its three processes, without the pods."""
    parent = psutil.Process(up.pid)
    return [parent, *(p for p in parent.children() if "process" in p.cmdline())]


def main() -> None:
    helps = []
    for _ in range(5):
        started_s = time.monotonic()
        subprocess.run([sys.executable, "-m", "flyball", "--help"], check=True, stdout=subprocess.DEVNULL)
        helps.append(time.monotonic() - started_s)
    report("startup", "help", sorted(helps)[2], "s", aim=0.3)
    readies = []
    for _ in range(3):
        with running() as (ready_s, *_):
            readies.append(ready_s)
    report("startup", "up to ready", sorted(readies)[1], "s", aim=1.5)
    with running("-f", str(ROOT / "examples/webapp/manifests")) as (_, up, _, _):
        time.sleep(15)  # the pods start, the metric gets its first rate
        watched = processes(up)
        before = sum(sum(p.cpu_times()[:2]) for p in watched)
        time.sleep(IDLE_S)
        cpu = sum(sum(p.cpu_times()[:2]) for p in watched) - before
        report("startup", "idle cpu with webapp", 100 * cpu / IDLE_S, "%", aim=2)
        for process in watched:
            name = process.cmdline()[process.cmdline().index("process") + 1] if process.pid != up.pid else "parent"
            report("startup", f"pss {name}", pss_mb([process]), "MB")
        report("startup", "pss with webapp", pss_mb(watched), "MB", aim=180)
        if importlib.util.find_spec("numba") is not None:
            report("startup", "pss with numba", pss_mb(watched) + numba_mb(), "MB")


def pss_mb(watched: list[psutil.Process]) -> float:
    """Their share of memory."""
    return sum(process.memory_full_info().pss for process in watched) / 1e6


def numba_mb() -> float:
    """What loading numba adds to a process that can evaluate queries; it is loaded at the first large one."""
    program = (
        "import psutil, flyball.promql.engine\nfrom flyball.promql import compiled\n"
        "pss = lambda: psutil.Process().memory_full_info().pss\n"
        "before = pss()\ncompiled.load()\nprint((pss() - before) / 1e6)"
    )
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
