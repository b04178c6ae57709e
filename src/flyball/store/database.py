"""The store on disk: a head whose samples are logged before they are taken, and replayed on start."""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flyball import clock
from flyball.errors import StoreError
from flyball.model.frames import Frame
from flyball.model.labels import Labels, Matcher
from flyball.store.head import Head
from flyball.store.matrix import BEFORE, NOT_YET
from flyball.store.replaying import replay
from flyball.store.wal import Wal

log = logging.getLogger(__name__)

_SYNC_EVERY_S = 1.0
_MAINTAIN_EVERY_S = 30.0


class Database:
    """One store directory. ``head`` is the way in; this is the way to read.

    Args:
        directory: made when missing; one process at a time holds it.
        reserve_bytes: with less free space on the disk, ingest stops with an error until there is more.
        sync_each: a write is on the disk before it is acknowledged; otherwise within a second, and in the hands of
            the kernel (so that it survives the death of this process) before it is acknowledged.

    Raises:
        StoreError: another process holds the directory, or it is not usable.
    """

    def __init__(
        self,
        directory: Path,
        *,
        memory_limit_bytes: int = 2 * 1024**3,
        out_of_order_ms: int = 0,
        reserve_bytes: int = 64 << 20,
        sync_each: bool = False,
    ) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_fd = _locked(directory)
            self.head = Head(memory_limit_bytes=memory_limit_bytes, out_of_order_ms=out_of_order_ms)
            self.replayed = replay(self.head, directory / "wal")
            self.wal = Wal(directory / "wal", reserve_bytes=reserve_bytes, sync_each=sync_each)
        except OSError as exc:
            raise StoreError(f"{directory}: {exc.strerror}; name another directory or mend the disk") from exc
        self.wal.newest_ms.update(self.replayed.newest_ms)
        self.head.wal = self.wal

    # Reading: any thread.

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """As ``Head.select``."""
        return self.head.select(matchers, start_ms, end_ms)

    def series(self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> list[Labels]:
        """As ``Head.series``."""
        return self.head.series(matcher_sets, start_ms, end_ms)

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]] = (), start_ms: int = BEFORE, end_ms: int = NOT_YET
    ) -> list[str]:
        """As ``Head.label_names``."""
        return self.head.label_names(matcher_sets, start_ms, end_ms)

    def label_values(
        self,
        name: str,
        matcher_sets: Sequence[Sequence[Matcher]] = (),
        start_ms: int = BEFORE,
        end_ms: int = NOT_YET,
    ) -> list[str]:
        """As ``Head.label_values``."""
        return self.head.label_values(name, matcher_sets, start_ms, end_ms)

    def statistics(self) -> dict[str, Any]:
        """Counters and sizes, for our own metrics and ``/status/tsdb``."""
        return {
            **self.head.statistics(),
            "wal_segment": self.wal.number,
            "wal_bytes": self.wal.bytes_on_disk(),
            "wal_written_bytes_total": self.wal.written_bytes,
            "wal_failures_total": self.wal.failures,
            "wal_syncs_total": self.wal.syncs,
            "wal_damaged_bytes_total": self.replayed.damaged_bytes,
            "disk_full": self.wal.full,
        }

    # Looking after the files.

    async def run(self) -> None:
        """Syncs every second and tidies every half minute, until cancelled."""
        maintained_s = clock.monotonic_s()
        while True:
            await asyncio.sleep(_SYNC_EVERY_S)
            try:
                await asyncio.to_thread(self.wal.sync)
                if clock.monotonic_s() - maintained_s >= _MAINTAIN_EVERY_S:
                    maintained_s = clock.monotonic_s()
                    await asyncio.to_thread(self.maintain, clock.now_ms())
            except (OSError, StoreError) as exc:
                log.error("the store: %s", exc)

    def maintain(self, now_ms: int) -> None:
        """Deletes log segments that nobody needs any more."""
        self.wal.forget(self.head.horizon_ms(now_ms))

    def close(self) -> None:
        """Syncs and lets go of the directory."""
        with contextlib.suppress(StoreError):
            self.wal.close()
        os.close(self._lock_fd)


def _locked(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise StoreError(f"{directory} is in use by another process; stop it or name another directory") from None
    return fd
