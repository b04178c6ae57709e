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


def write_atomically(path: Path, data: bytes) -> None:
    """The file has the old content or the new, whatever happens."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"writing {path}: {exc.strerror}; mend the disk or free space") from exc
    sync_directory(path.parent)
