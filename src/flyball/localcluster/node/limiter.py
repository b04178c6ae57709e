"""CPU limits without cgroups: one thread that stops and continues what exceeds its share.

A token bucket per container: it fills at ``cores`` seconds per second and drains by the CPU time of the process
tree; below zero the tree is stopped until the debt is paid. Only containers that are busy are looked at every
10 ms; idle ones ten times a second, one system call each.
"""

import os
import signal
import threading
from contextlib import suppress

from flyball import clock
from flyball.localcluster.node import procfs

TICK_S = 0.010
WATCH_S = 0.050  # a container that has been busy lately
IDLE_S = 0.100
REFRESH_S = 0.100
BURST_S = 0.050  # a full bucket: so much wall time's worth of the limit
SLACK_S = 0.002  # debts below this are noise of the measurement


class _Entry:
    def __init__(self, shim_pid: int, pid: int, cores: float, now: float) -> None:
        self.shim_pid = shim_pid
        self.pid = pid
        self.cores = cores
        self.tokens = cores * BURST_S
        self.stopped = False
        self.stopped_s = 0.0
        self.checked = now
        self.refreshed = 0.0
        self.busy_until = now + 1.0
        self.due = now
        self._own: dict[int, int] = {}
        self._reaped = 0
        self._total: int | None = None

    def _refresh(self, now: float) -> None:
        pids = procfs.tree(self.shim_pid)[1:]
        self._own = {pid: own for pid in pids if (own := procfs.cpu_ns(pid)) is not None}
        self._reaped = procfs.reaped_cpu_ns(self.shim_pid) + sum(procfs.reaped_cpu_ns(pid) for pid in self._own)
        self.refreshed = now

    def used_s(self, now: float) -> float:
        """CPU seconds since the last call."""
        if now - self.refreshed >= (REFRESH_S if now < self.busy_until else 4 * REFRESH_S):
            self._refresh(now)
        else:
            for pid in self._own:
                # One that has ended keeps its last figure until its parent's sum has taken it over.
                if (own := procfs.cpu_ns(pid)) is not None:
                    self._own[pid] = own
        total = self._reaped + sum(self._own.values())
        used = 0 if self._total is None else max(0, total - self._total)
        self._total = total if self._total is None else max(total, self._total)
        return used / 1e9

    def step(self, now: float) -> None:
        passed = now - self.checked
        used = self.used_s(now)
        self.checked = now
        self.tokens = min(self.tokens + self.cores * passed - used, self.cores * BURST_S)
        if used > 0.3 * self.cores * passed:
            self.busy_until = now + 1.0
        if self.stopped:
            self.stopped_s += passed
            if self.tokens >= 0:
                self.send(signal.SIGCONT)
                self.stopped = False
        elif self.tokens < -SLACK_S:
            self.send(signal.SIGSTOP)
            self.stopped = True
        if self.stopped:
            # At most a quarter of a second at a time, so that a new child that escaped the stop is noticed.
            self.due = now + min(0.25, max(0.001, -self.tokens / self.cores))
        elif used > 0.3 * self.cores * passed:
            self.due = now + TICK_S
        else:
            self.due = now + (WATCH_S if now < self.busy_until else IDLE_S)

    def send(self, number: int) -> None:
        with suppress(OSError):
            os.killpg(self.pid, number)
        for pid in procfs.tree(self.shim_pid)[1:]:
            with suppress(OSError):
                if os.getpgid(pid) != self.pid:
                    os.kill(pid, number)


class CpuLimiter:
    """Limits by key. Every method may be called from any thread; none of them blocks for longer than a tick."""

    def __init__(self) -> None:
        self._entries: dict[object, _Entry] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._processors = os.cpu_count() or 1

    def add(self, key: object, shim_pid: int, pid: int, cores: float) -> None:
        """Holds the tree below ``shim_pid``, whose first process (and group) is ``pid``, to ``cores``."""
        if cores <= 0 or cores >= self._processors:
            return
        with self._lock:
            self._entries[key] = _Entry(shim_pid, pid, cores, clock.monotonic_s())
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="cpu limiter", daemon=True)
                self._thread.start()
        self._wake.set()

    def remove(self, key: object) -> None:
        """Ends the limit; a stopped tree continues."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                entry.send(signal.SIGCONT)

    def close(self) -> None:
        """Ends all limits; every stopped tree continues."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2.0)
        with self._lock:
            for entry in self._entries.values():
                entry.send(signal.SIGCONT)
            self._entries.clear()

    def statistics(self) -> dict[str, float]:
        with self._lock:
            return {
                "limited": len(self._entries),
                "stopped": sum(entry.stopped for entry in self._entries.values()),
                "stopped_seconds": sum(entry.stopped_s for entry in self._entries.values()),
            }

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                now = clock.monotonic_s()
                due = now + 3600.0
                for entry in self._entries.values():
                    if entry.due <= now:
                        entry.step(now)
                    due = min(due, entry.due)
            # Those due together are served together.
            if self._wake.wait(max(0.001, due - clock.monotonic_s())):
                self._wake.clear()
