"""Limits of containers by control groups, version 2 or 1, where this user may make some.

Sources: cgroup-v2.rst (cpu.max, memory.max, memory.events) and cgroup-v1 (cfs_quota_us, limit_in_bytes, oom_control) of
the kernel. A group needs no processes of its own above it, so for version 2 it is made below the nearest ancestor that
gives cpu and memory to its children; for version 1 below our own group of either hierarchy.
"""

import contextlib
import os
import signal
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flyball.model.quantities import parse_quantity

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
PERIOD_US = 100_000
QUOTA_MIN_US = 1_000
NEEDED = {"cpu", "memory"}


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where groups are made: one directory in version 2; in version 1 one for cpu and one for memory."""

    version: int
    cpu: Path
    memory: Path

    def hold(self, name: str, limits: Mapping[str, str]) -> list[Path]:
        """The group of one container, made anew with its limits; a process enters it through ``cgroup.procs``.

        Raises:
            OSError: it cannot be made.
        """
        found = self._directories(name)
        for path in found:
            path.mkdir(exist_ok=True)
        if "cpu" in limits:
            quota_us = max(QUOTA_MIN_US, int(parse_quantity(limits["cpu"]).as_float() * PERIOD_US))
            if self.version == 2:
                _write(found[0] / "cpu.max", f"{quota_us} {PERIOD_US}")
            else:
                _write(found[0] / "cpu.cfs_period_us", str(PERIOD_US))
                _write(found[0] / "cpu.cfs_quota_us", str(quota_us))
        if "memory" in limits:
            limit_bytes = str(parse_quantity(limits["memory"]).value())
            if self.version == 2:
                _write(found[0] / "memory.max", limit_bytes)
                with contextlib.suppress(OSError):  # a kernel without swap accounting
                    _write(found[0] / "memory.swap.max", "0")
            else:
                _write(found[1] / "memory.limit_in_bytes", limit_bytes)
        return found

    def oom_kills(self, name: str) -> int:
        """How often the kernel has killed in the container's group for want of memory."""
        file = self._directories(name)[-1] / ("memory.events" if self.version == 2 else "memory.oom_control")
        with contextlib.suppress(OSError, ValueError, IndexError):
            for words in (line.split() for line in file.read_text().splitlines()):
                if words[0] == "oom_kill":
                    return int(words[1])
        return 0

    def release(self, name: str) -> None:
        """Removes the group, unless a process is still in it."""
        for path in self._directories(name):
            with contextlib.suppress(OSError):
                path.rmdir()

    def release_all(self) -> bool:
        """Removes every group that nothing runs in, and in the end the place itself; whether that is gone."""
        for parent in dict.fromkeys((self.cpu, self.memory)):
            with contextlib.suppress(OSError):
                for path in [*(one for one in parent.iterdir() if one.is_dir()), parent]:
                    with contextlib.suppress(OSError):
                        path.rmdir()
        return not (self.cpu.exists() or self.memory.exists())

    def _directories(self, name: str) -> list[Path]:
        return list(dict.fromkeys((self.cpu / name, self.memory / name)))


def probe(data_dir: Path, mount: Path = MOUNT, own: Path = OWN) -> Cgroups | None:
    """Where groups can be made; None when this user may not, or this machine has none."""
    folder = f"flyball-{zlib.crc32(str(data_dir).encode()):08x}"
    try:
        paths = _own_paths(own.read_text())
    except (OSError, ValueError):
        return None
    for found in _candidates(paths, mount, folder):
        if _works(found):
            return found
    return None


def _own_paths(text: str) -> dict[str, str]:
    """Controller -> our own group's path; "" is version 2's."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _candidates(paths: Mapping[str, str], mount: Path, folder: str) -> Iterator[Cgroups]:
    if (mount / "cgroup.controllers").exists() and "" in paths:
        here = mount / paths[""].lstrip("/")
        for parent in (here, *here.parents):
            if not parent.is_relative_to(mount):
                break
            with contextlib.suppress(OSError):
                if set((parent / "cgroup.subtree_control").read_text().split()) >= NEEDED:
                    yield Cgroups(2, parent / folder, parent / folder)
    elif paths.keys() >= NEEDED:
        cpu, memory = (mount / name / paths[name].lstrip("/") / folder for name in ("cpu", "memory"))
        yield Cgroups(1, cpu, memory)


def _works(found: Cgroups) -> bool:
    """Whether a group with limits can be made, and entered by a process of ours."""
    try:
        for parent in {found.cpu, found.memory}:
            parent.mkdir(exist_ok=True)
            if found.version == 2:
                _write(parent / "cgroup.subtree_control", "+cpu +memory")
        with subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL) as trial:
            try:
                for path in found.hold("probe", {"cpu": "1", "memory": "64Mi"}):
                    _write(path / "cgroup.procs", str(trial.pid))
            finally:
                os.kill(trial.pid, signal.SIGKILL)
    except OSError:
        return False
    finally:
        found.release("probe")
    return True


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
