"""Small things about files that must survive a crash."""

import contextlib
import os
from pathlib import Path

from flyball.errors import StoreError


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary process may still write on this disk."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def sync_directory(path: Path) -> None:
    """Makes new names in the directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Writes everything, in as many steps as the kernel wants."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class NewFile:
    """A file that gets its name only once it is whole and on the disk. Errors are ``OSError``; then nothing is left."""

    _BUFFER = 1 << 20

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        """Appends."""
        self._pending += data
        if len(self._pending) >= self._BUFFER:
            self._flush()

    def _flush(self) -> None:
        write_all(self._fd, bytes(self._pending))
        self._pending.clear()

    def finish(self) -> None:
        """Syncs the file and gives it its name."""
        try:
            self._flush()
            os.fsync(self._fd)
            os.replace(self._temporary, self.path)
            try:
                sync_directory(self.path.parent)
            except OSError:
                os.unlink(self.path)
                raise
        except OSError:
            self.discard()
            raise
        os.close(self._fd)
        self._fd = -1

    def discard(self) -> None:
        """Gives the file up."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)


def write_atomically(path: Path, data: bytes) -> None:
    """The file has the old content or the new, whatever happens.

    Raises:
        StoreError: the disk did not take it.
    """
    file = None
    try:
        file = NewFile(path)
        file.write(data)
        file.finish()
    except OSError as exc:
        if file is not None:
            file.discard()
        raise StoreError(f"writing {path}: {exc.strerror}; mend the disk or free space") from exc
