"""Processes by pid and start time, their trees and their figures: /proc on Linux, psutil elsewhere."""

import os
import sys
import time
from dataclasses import dataclass

import psutil

LINUX = sys.platform.startswith("linux")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def start_ticks(pid: int) -> int:
    """When the process began, in an arbitrary unit that with the pid names it for ever; 0 when there is none.

    A zombie counts as gone.
    """
    if LINUX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return 0
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    try:
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 100)
    except psutil.Error:
        return 0


def same_process(pid: int, start: int, started_ms: int = 0) -> bool:
    """Whether the process that was once noted still lives; ``start`` 0 (no /proc) compares the wall clock."""
    now = start_ticks(pid)
    if start or LINUX:
        return now != 0 and now == start
    return now != 0 and abs(now * 10 - started_ms) < 5000


def tree(pid: int) -> list[int]:
    """The process and all its descendants, parents first."""
    if not LINUX:
        try:
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.Error:
            return []
    found = [pid]
    for parent in found:
        try:
            tasks = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                with open(f"/proc/{parent}/task/{task}/children", "rb") as file:
                    found += map(int, file.read().split())
            except OSError:
                continue
    return found


def cpu_ns(pid: int) -> int | None:
    """CPU time of all the process' threads, ended ones too; None when it is gone."""
    if LINUX:
        try:
            # The process' own CPU clock (see clock_getcpuclockid(3)): nanoseconds, one system call.
            return time.clock_gettime_ns((~pid << 3) | 2)
        except OSError:
            return None
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return int((times.user + times.system) * 1e9)


def reaped_cpu_ns(pid: int) -> int:
    """CPU time of the children that the process has waited for, and of theirs."""
    if LINUX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            return int((int(fields[13]) + int(fields[14])) * TICK_S * 1e9)
        except (OSError, IndexError, ValueError):
            return 0
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0
    return int((times.children_user + times.children_system) * 1e9)


def memory_bytes(pid: int) -> int:
    """Memory that counts against the process: its proportional share, or what it shares with nobody."""
    if LINUX:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                for line in file:
                    if line.startswith(b"Pss:"):
                        return int(line.split()[1]) * 1024
        except OSError:
            pass
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                fields = file.read().split()
            return max(0, int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


@dataclass(frozen=True, slots=True)
class TreeFigures:
    """``cpu_ns`` since the tree began, ``memory_bytes`` now, ``processes`` alive."""

    cpu_ns: int
    memory_bytes: int
    processes: int


def tree_figures(shim_pid: int) -> TreeFigures:
    """Figures of everything below a pod shim; the shim itself is ours and not counted."""
    cpu, memory, alive = reaped_cpu_ns(shim_pid), 0, 0
    for pid in tree(shim_pid)[1:]:
        own = cpu_ns(pid)
        if own is None:
            continue
        cpu += own + reaped_cpu_ns(pid)
        memory += memory_bytes(pid)
        alive += 1
    return TreeFigures(cpu, memory, alive)


def listening_hosts(prefix: str) -> set[str]:
    """Local IPv4 addresses with an open TCP socket that start with ``prefix``; empty where there is no /proc."""
    found = set()
    try:
        with open("/proc/net/tcp", "rb") as file:
            next(file)
            for line in file:
                packed = int(line.split(None, 2)[1].partition(b":")[0], 16)
                host = ".".join(str(byte) for byte in packed.to_bytes(4, sys.byteorder))
                if host.startswith(prefix):
                    found.add(host)
    except (OSError, StopIteration, ValueError):
        pass
    return found
