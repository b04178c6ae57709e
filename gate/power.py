"""A disk that loses power: every change to a file is recorded, then played back up to some moment.

What was synced is there. Of what was not, each file keeps some first part of its bytes, and a new name, a rename or a
deletion may or may not have happened, unless its directory was synced since.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Change(NamedTuple):
    """One call: what, on which file (a number that outlives renames), with what."""

    kind: str
    file: int
    data: Any = None


@dataclass
class Recording:
    """The changes below one directory, and marks between them."""

    directory: Path
    changes: list[Change] = field(default_factory=list)
    _files: dict[int, int] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _count: int = 0

    def mark(self, *what: int) -> None:
        """An acknowledgement."""
        self.changes.append(Change("mark", 0, what))

    def _ours(self, path: Any) -> bool:
        return str(path).startswith(str(self.directory))

    def opened(self, path: Any, flags: int, fd: int) -> None:
        self._files.pop(fd, None)
        if not self._ours(path):
            return
        name = str(path)
        if flags & os.O_CREAT and (name not in self._names or flags & os.O_TRUNC):
            self._count += 1
            self._names[name] = self._count
            self.changes.append(Change("create", self._count, name))
        elif name not in self._names and not os.path.isdir(name):
            return
        self._files[fd] = self._names.get(name, 0)
        if os.path.isdir(name):
            self._files[fd] = -1

    def written(self, fd: int, data: bytes) -> None:
        if self._files.get(fd, 0) > 0:
            self.changes.append(Change("write", self._files[fd], data))

    def synced(self, fd: int) -> None:
        file = self._files.get(fd, 0)
        if file:
            self.changes.append(Change("sync names" if file < 0 else "sync", file))

    def truncated(self, fd: int, size: int) -> None:
        if self._files.get(fd, 0) > 0:
            self.changes.append(Change("truncate", self._files[fd], size))

    def renamed(self, old: Any, new: Any) -> None:
        if self._ours(new):
            file = self._names.pop(str(old))
            self._names[str(new)] = file
            self.changes.append(Change("rename", file, (str(old), str(new))))

    def unlinked(self, path: Any) -> None:
        if self._ours(path) and str(path) in self._names:
            self.changes.append(Change("unlink", self._names.pop(str(path)), str(path)))


@contextmanager
def recording(directory: Path) -> Iterator[Recording]:
    """Records every change that this process makes below the directory."""
    log = Recording(directory)
    real = {
        name: getattr(os, name) for name in ("open", "write", "fsync", "fdatasync", "ftruncate", "replace", "unlink")
    }

    def open_(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        fd: int = real["open"](path, flags, *rest, **named)
        log.opened(path, flags, fd)
        return fd

    def write(fd: int, data: Any) -> int:
        count: int = real["write"](fd, data)
        log.written(fd, bytes(data)[:count])
        return count

    def sync(name: str) -> Any:
        def call(fd: int) -> None:
            real[name](fd)
            log.synced(fd)

        return call

    def ftruncate(fd: int, size: int) -> None:
        real["ftruncate"](fd, size)
        log.truncated(fd, size)

    def replace(old: Any, new: Any) -> None:
        real["replace"](old, new)
        log.renamed(old, new)

    def unlink(path: Any, *rest: Any, **named: Any) -> None:
        real["unlink"](path, *rest, **named)
        log.unlinked(path)

    wrapped = {"open": open_, "write": write, "fsync": sync("fsync"), "fdatasync": sync("fdatasync")}
    wrapped |= {"ftruncate": ftruncate, "replace": replace, "unlink": unlink}
    try:
        for name, function in wrapped.items():
            setattr(os, name, function)
        yield log
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def after_power_cut(log: Recording, moment: int, target: Path, rng: random.Random) -> None:
    """Makes under ``target`` what the disk holds when the power fails before change ``moment``."""
    safe: dict[int, bytearray] = {}
    now: dict[int, bytearray] = {}
    names: dict[str, int] = {}
    pending: list[Change] = []
    for change in log.changes[:moment]:
        file = change.file
        if change.kind == "create":
            safe[file], now[file] = bytearray(), bytearray()
            pending.append(change)
        elif change.kind == "write":
            now[file] += change.data
        elif change.kind == "truncate":
            del now[file][change.data :]
        elif change.kind == "sync":
            safe[file] = bytearray(now[file])
        elif change.kind in ("rename", "unlink"):
            pending.append(change)
        elif change.kind == "sync names":
            for one in pending:
                _apply(names, one)
            pending = []
    for one in pending[: rng.randint(0, len(pending))]:  # a journal keeps their order
        _apply(names, one)
    for name, file in names.items():
        kept, all_ = safe[file], now[file]
        if all_[: len(kept)] == kept:
            kept = all_[: rng.randint(len(kept), len(all_))]
        path = target / Path(name).relative_to(log.directory)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kept)


def _apply(names: dict[str, int], change: Change) -> None:
    if change.kind == "create":
        names[change.data] = change.file
    elif change.kind == "rename":
        names.pop(change.data[0], None)
        names[change.data[1]] = change.file
    else:
        names.pop(change.data, None)
