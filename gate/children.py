"""Starting, reading and killing the process that writes."""

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gate.history import History
from gate.ingest import QUERIED, READY, REFUSED
from gate.report import demand

ROOT = Path(__file__).parents[1]


class Ingest:
    """One run of ``gate.ingest``; acknowledgements go to the history as they come."""

    def __init__(self, directory: Path, history: History, **given: Any) -> None:
        self.history = history
        self.refused = self.queried = 0
        self.acked_s = self.refused_s = 0.0
        self._ready = threading.Event()
        self.started_s = time.monotonic()
        self.ready_s = self.ready_cpu_s = 0.0
        told = {
            "directory": str(directory),
            "targets": history.targets,
            "series": history.series,
            "first_row": history.next_row(),
            **given,
        }
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gate.ingest", json.dumps(told)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=ROOT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        pending = b""
        while data := os.read(self.process.stdout.fileno(), 1 << 16):
            pending += data
            whole = len(pending) // 8 * 8
            for first, second in struct.iter_unpack("<II", pending[:whole]):
                if first == READY:
                    self.ready_s = time.monotonic() - self.started_s
                    self.ready_cpu_s = second / 1000
                    self._ready.set()
                elif first == REFUSED:
                    self.refused += 1
                    self.refused_s = time.monotonic()
                elif first == QUERIED:
                    self.queried += 1
                else:
                    self.history.acked[first].add(second)
                    self.acked_s = time.monotonic()
            pending = pending[whole:]
        self._ready.set()

    def wait_ready(self, limit_s: float) -> None:
        """Until the store is open."""
        demand(self._ready.wait(limit_s) and self.ready_s > 0, f"the store was not ready within {limit_s:.0f} s")

    def kill(self) -> None:
        """SIGKILL; returns when every acknowledgement that was written has been read."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def ingesting(directory: Path, history: History, **given: Any) -> Iterator[Ingest]:
    """A ready writer, killed at the end whatever happens."""
    child = Ingest(directory, history, **given)
    try:
        child.wait_ready(300)
        yield child
    finally:
        child.kill()
