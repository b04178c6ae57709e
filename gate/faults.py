"""Failing the N-th call that changes a file. Wraps the functions of ``os``, which the store uses for all its writes."""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

CHANGING = ("open", "write", "fsync", "fdatasync", "ftruncate", "replace", "unlink", "link")


class Faults:
    """Counts calls, and fails one.

    Attributes:
        calls: so many were made.
        failed: the name of the one that failed, or "".
    """

    def __init__(self, fail_at: int, number: int, short: bool = False) -> None:
        self.fail_at, self.number, self.short = fail_at, number, short
        self.calls = 0
        self.failed = ""

    def wrap(self, name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls != self.fail_at:
                return real(*args, **kwargs)
            self.failed = name
            if name == "write":
                fd, data = args
                if self.short:
                    return real(fd, bytes(data)[: len(data) // 2])
                real(fd, bytes(data)[: len(data) // 3])  # a failed write may have written something
            raise OSError(self.number, os.strerror(self.number))

        return call


@contextlib.contextmanager
def failing(fail_at: int, number: int = errno.EIO, short: bool = False) -> Iterator[Faults]:
    """Within, the ``fail_at``-th changing call fails (or, with ``short``, a write writes half)."""
    faults = Faults(fail_at, number, short)
    real = {name: getattr(os, name) for name in CHANGING}
    try:
        for name, function in real.items():
            setattr(os, name, faults.wrap(name, function))
        yield faults
    finally:
        for name, function in real.items():
            setattr(os, name, function)
