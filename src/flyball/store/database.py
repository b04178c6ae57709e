"""The store on disk: a head whose samples are logged before they are taken, and blocks of what is older.

Every ten minutes' samples, when they are twenty minutes old, are sealed into a block; small blocks are compacted into
larger ones. DESIGN.md of this room has the files and what happens to them.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flyball import clock
from flyball.errors import StoreError
from flyball.memory import give_back
from flyball.model.frames import Frame
from flyball.model.labels import Labels, Matcher
from flyball.store.block import Block, Cache, Tombstone
from flyball.store.blockfile import Origin, Sheet, block_paths, write_block
from flyball.store.buffers import SeriesBuffer
from flyball.store.compaction import RANGES_MS, compacted, next_compaction
from flyball.store.head import Head
from flyball.store.matrix import BEFORE, NOT_YET
from flyball.store.merging import merge
from flyball.store.pieces import Piece
from flyball.store.records import RecordType
from flyball.store.replaying import replay, texts_of
from flyball.store.sealing import by_range, late_sheets, sheets_of
from flyball.store.wal import SEQUENCE_BITS, Wal

log = logging.getLogger(__name__)

_MINUTE_MS = 60_000
#: Samples are sealed in ranges of this length, aligned to it, ...
SEAL_RANGE_MS = 10 * _MINUTE_MS
#: ... once they are this old. Longer makes queries of the last hour a little faster, and every series larger in memory.
SEAL_AGE_MS = 20 * _MINUTE_MS
#: ... or this old where memory is short: longer than a scrape may take, since scrapes from before it are refused.
PRESSED_AGE_MS = _MINUTE_MS
#: A newest scrape this far ahead of the clock means that the clock went back.
CLOCK_BACK_MS = 30_000
_SYNC_EVERY_S = 1.0
_MAINTAIN_EVERY_S = 30.0


class _State(NamedTuple):
    """What readers see; replaced as a whole. Blocks are sorted by their oldest sample."""

    blocks: tuple[Block, ...]


class Database:
    """One store directory. ``head`` is the way in; this is the way to read.

    Args:
        directory: made when missing; one process at a time holds it.
        retention_ms: blocks whose samples are all older are deleted; None keeps them.
        retention_bytes: the oldest blocks are deleted while blocks and log are larger together; None keeps them.
        out_of_order_ms: single samples may be so much older than the newest.
        reserve_bytes: with less free space on the disk, ingest stops with an error until there is more.
        sync_each: a write is on the disk before it is acknowledged; otherwise within a second, and in the hands of
            the kernel (so that it survives the death of this process) before it is acknowledged.
        cache_bytes: decoded parts of blocks kept in memory.
        read_only: changes nothing, and reads beside a process that writes.

    Raises:
        StoreError: another process holds the directory, or it is not usable.
    """

    def __init__(
        self,
        directory: Path,
        *,
        retention_ms: int | None = 15 * 24 * 60 * _MINUTE_MS,
        retention_bytes: int | None = None,
        memory_limit_bytes: int = 2 * 1024**3,
        out_of_order_ms: int = 0,
        exemplars_max: int = 100_000,
        reserve_bytes: int = 64 << 20,
        sync_each: bool = False,
        cache_bytes: int = 64 << 20,
        read_only: bool = False,
    ) -> None:
        self.directory = directory
        self.retention_ms, self.retention_bytes = retention_ms, retention_bytes
        self.cache = Cache(cache_bytes)
        self.seals = self.compactions = self.failures = self._segments_deleted = 0
        self._maintaining = threading.Lock()
        self._broken: dict[int, str] = {}
        self._deletions: list[Tombstone] = []
        self._sequence = 0
        self.read_only = read_only
        self._blocks_dir = directory / "blocks"
        self._lock_fd = -1
        try:
            if read_only:
                if not directory.is_dir():
                    raise StoreError(f"{directory} is not a store; name the directory of one")
            else:
                directory.mkdir(parents=True, exist_ok=True)
                self._lock_fd = _locked(directory)
                self._blocks_dir.mkdir(exist_ok=True)
            self.head = Head(
                retention_ms=SEAL_AGE_MS + SEAL_RANGE_MS,
                memory_limit_bytes=memory_limit_bytes,
                out_of_order_ms=out_of_order_ms,
                exemplars_max=exemplars_max,
            )
            self._state = _State(self._open_blocks())
            origin = _latest(self.blocks)
            self.head.sealed_ms = self.head.floor_ms = origin.sealed_ms
            self.replayed = replay(self.head, directory / "wal", origin.wal_sequence, mending=not read_only)
            if read_only:
                return
            self.wal = Wal(directory / "wal", reserve_bytes=reserve_bytes, sync_each=sync_each)
            last = self.replayed.last
            if last is not None:
                self.wal.resume(last.number, last.series, last.targets_last, last.layouts_last, last.sequence)
                self.replayed.last = None
        except OSError as exc:
            raise StoreError(f"{directory}: {exc.strerror}; name another directory or mend the disk") from exc
        self.wal.newest_ms.update(self.replayed.newest_ms)
        self.wal.remember(self.head.metadata)
        self.head.wal = self.wal

    def _open_blocks(self) -> tuple[Block, ...]:
        for orphan in () if self.read_only else self._blocks_dir.glob("*.tmp"):
            orphan.unlink()
        blocks: dict[int, Block] = {}
        for number, path in block_paths(self._blocks_dir).items():
            try:
                blocks[number] = Block(path, self.cache, self.head.canonical)
            except StoreError as exc:
                self._broken[number] = str(exc)
                log.error("%s; queries go without it", exc)
        for number in {old for block in blocks.values() for old in block.origin.replaces}:
            replaced = blocks.pop(number, None)  # a crash came between the new block and the end of the old ones
            if replaced is not None and not self.read_only:
                replaced.delete()
        return _sorted(blocks.values())

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that are read now, oldest first."""
        return self._state.blocks

    # Reading: any thread.

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """As ``Head.select``.

        Raises:
            StoreError: a block is damaged.
        """
        while True:
            state = self._state
            recent = self.head.select(matchers, start_ms, end_ms)
            if state is self._state:
                break  # nothing moved from the head to a block meanwhile
        older = [block.select(matchers, start_ms, end_ms) for block in state.blocks if block.overlaps(start_ms, end_ms)]
        return merge([*older, recent], start_ms, end_ms) if older else recent

    def series(self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> list[Labels]:
        """As ``Head.series``; a block's series count as alive as long as the block lasts."""
        found = set(self.head.series(matcher_sets, start_ms, end_ms))
        for block in self.blocks:
            if block.overlaps(start_ms, end_ms):
                for matchers in matcher_sets or [()]:
                    found |= block.series(matchers)
        return sorted(found)

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]] = (), start_ms: int = BEFORE, end_ms: int = NOT_YET
    ) -> list[str]:
        """As ``Head.label_names``."""
        found = set(self.head.label_names(matcher_sets, start_ms, end_ms))
        for block in self.blocks:
            if block.overlaps(start_ms, end_ms):
                for matchers in matcher_sets or [()]:
                    found |= block.label_names(matchers)
        return sorted(found)

    def label_values(
        self,
        name: str,
        matcher_sets: Sequence[Sequence[Matcher]] = (),
        start_ms: int = BEFORE,
        end_ms: int = NOT_YET,
    ) -> list[str]:
        """As ``Head.label_values``."""
        found = set(self.head.label_values(name, matcher_sets, start_ms, end_ms))
        for block in self.blocks:
            if block.overlaps(start_ms, end_ms):
                for matchers in matcher_sets or [()]:
                    found |= block.label_values(name, matchers)
        return sorted(found)

    def span_ms(self) -> tuple[int, int] | None:
        """The times of the oldest and the newest sample; None when there is none."""
        head = self.head.statistics()
        known = [at for at in (head["min_time_ms"], head["max_time_ms"]) if at is not None]
        known += [at for block in self.blocks for at in (block.min_ms, block.max_ms)]
        return (min(known), max(known)) if known else None

    def statistics(self) -> dict[str, Any]:
        """Counters and sizes, for our own metrics and ``/status/tsdb``."""
        blocks = self.blocks
        head = self.head.statistics()
        oldest = [block.min_ms for block in blocks] + [at for at in (head["min_time_ms"],) if at is not None]
        return {
            **head,
            "lowest_time_ms": min(oldest, default=None),
            "retention_limit_ms": self.retention_ms or 0,
            "retention_bytes": self.retention_bytes or 0,
            "replayed_samples_total": self.replayed.samples,
            "sealed_ms": self.head.sealed_ms if self.head.sealed_ms != BEFORE else None,
            "blocks": len(blocks),
            "blocks_bytes": sum(block.size for block in blocks),
            "blocks_broken": len(self._broken),
            "seals_total": self.seals,
            "compactions_total": self.compactions,
            "maintenance_failures_total": self.failures,
            "cache_bytes": self.cache.bytes,
            "cache_hits_total": self.cache.hits,
            "cache_misses_total": self.cache.misses,
            "wal_segment": self.wal.number,
            "wal_bytes": self.wal.bytes_on_disk(),
            "wal_written_bytes_total": self.wal.written_bytes,
            "wal_failures_total": self.wal.failures,
            "wal_syncs_total": self.wal.syncs,
            "wal_damaged_bytes_total": self.replayed.damaged_bytes,
            "wal_damaged_segments_total": self.replayed.damaged_segments,
            "wal_segments_deleted_total": self._segments_deleted,
            "disk_full": self.wal.full,
        }

    # Deleting and copying.

    def delete_series(self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> None:
        """Deletes samples with start <= t <= end of every series that matches one of the sets. On the writing thread.

        An event loop calls the two halves of it: ``mark_deleted``, and ``bury`` in a thread.

        Raises:
            StoreError: the disk did not take it; call again.
        """
        self.mark_deleted(matcher_sets, start_ms, end_ms)
        self.bury()

    def mark_deleted(self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> None:
        """Deletes in the head at once, and in the blocks with the next ``bury``. On the writing thread."""
        self.wal.write_other(RecordType.DELETE, ([texts_of(one) for one in matcher_sets], start_ms, end_ms))
        self.head.delete(matcher_sets, start_ms, end_ms)
        self._deletions += [Tombstone(tuple(matchers), start_ms, end_ms) for matchers in matcher_sets]

    def bury(self) -> None:
        """Deletes in the blocks what is marked; one that is being sealed meanwhile is waited for. Any thread."""
        with self._maintaining:
            while self._deletions:
                tombstone = self._deletions[0]
                for block in self.blocks:
                    if block.overlaps(tombstone.start_ms - 1, tombstone.end_ms):
                        block.bury(tombstone)
                self._deletions.pop(0)

    def snapshot(self, name: str) -> Path:
        """A copy of everything taken so far, under ``snapshots/``; a store of its own. Blocks are hard links. Any
        thread.

        Raises:
            StoreError: there is one of this name, or the disk did not take it.
        """
        target = self.directory / "snapshots" / name
        try:
            (target / "blocks").mkdir(parents=True)
            with self._maintaining:
                for block in self.blocks:
                    for path in (block.path, block.tombstones_path):
                        if path.exists():
                            os.link(path, target / "blocks" / path.name)
                origin = Origin(self._next_ms(), 0, [])
                path = target / "blocks" / f"{self._next_number():08d}.block"
                write_block(path, sheets_of(self.head, self._sealed_ms, origin.sealed_ms), origin)
        except OSError as exc:
            raise StoreError(f"snapshot {target}: {exc.strerror}; choose another name or free space") from exc
        return target

    def _next_ms(self) -> int:
        return (self.head.newest_ms or BEFORE) + 1

    @property
    def _sealed_ms(self) -> int:
        return self.head.sealed_ms if self.head.sealed_ms is not None else BEFORE

    # Looking after the files.

    async def run(self) -> None:
        """Syncs every second and tidies every half minute, until cancelled."""
        maintained_s = clock.monotonic_s()
        while True:
            await asyncio.sleep(_SYNC_EVERY_S)
            try:
                await asyncio.to_thread(self.wal.sync)
                due = clock.monotonic_s() - maintained_s >= _MAINTAIN_EVERY_S
                now_ms = clock.now_ms()
                if due or self.can_seal(now_ms) or self._clock_went_back(now_ms):
                    maintained_s = clock.monotonic_s()
                    end_ms = self.start_sealing(now_ms)
                    await asyncio.to_thread(self._maintain, end_ms, now_ms)
                    self._finish_sealing(end_ms, now_ms)
                    await asyncio.to_thread(give_back)  # what tidying needed, and what the head let go of
            except (OSError, StoreError) as exc:
                self.failures += 1
                log.error("the store: %s", exc)

    def maintain(self, now_ms: int) -> None:
        """Seals, compacts and deletes what is due. On the writing thread, or with nobody writing.

        Raises:
            StoreError: the disk did not take a block; nothing is lost, the next call tries again.
        """
        end_ms = self.start_sealing(now_ms)
        self._maintain(end_ms, now_ms)
        self._finish_sealing(end_ms, now_ms)
        give_back()

    def start_sealing(self, now_ms: int) -> int:
        """From now on scrapes that sealing is about to take are refused; returns up to when it will take them. On the
        writing thread."""
        self.head.wants_sealing = False
        end_ms = self._seal_up_to_ms(now_ms)
        if self._clock_went_back(now_ms):
            log.warning("the clock went back; what was scraped so far is sealed, scraping goes on from now")
            end_ms = NOT_YET
        if end_ms > self.head.floor_ms:
            self.head.floor_ms = end_ms
            self.wal.rotate()
        self._sequence = self.wal.sequence
        return end_ms

    def can_seal(self, now_ms: int) -> bool:
        """Whether the head asked for sealing and has what may be sealed by now."""
        return self.head.wants_sealing and self._seal_up_to_ms(now_ms) > self._sealed_ms

    def _seal_up_to_ms(self, now_ms: int) -> int:
        if self.head.pressed and now_ms - PRESSED_AGE_MS - self.head.floor_ms >= PRESSED_AGE_MS:
            return now_ms - PRESSED_AGE_MS
        return (now_ms - SEAL_AGE_MS) // SEAL_RANGE_MS * SEAL_RANGE_MS

    def _finish_sealing(self, end_ms: int, now_ms: int) -> None:
        """The writing thread's last step."""
        if end_ms == NOT_YET:
            self.head.start_anew(now_ms)
        self.head.collect(now_ms)

    def _clock_went_back(self, now_ms: int) -> bool:
        newest_ms = self.head.newest_scrape_ms
        return newest_ms is not None and newest_ms > now_ms + CLOCK_BACK_MS

    def _maintain(self, end_ms: int, now_ms: int) -> None:
        with self._maintaining:
            try:
                self._tidy(end_ms, now_ms)
            except OSError as exc:
                raise StoreError(f"{self.directory}: {exc.strerror}; mend the disk, tidying is tried again") from exc

    def _tidy(self, end_ms: int, now_ms: int) -> None:
        if end_ms == NOT_YET:
            self._seal_everything(now_ms)
        while self._sealed_ms < end_ms != NOT_YET:
            self._seal(end_ms)
        while members := next_compaction(self.blocks, self._sealed_ms, self.retention_ms):
            self._replace(members)
        self._retain(now_ms)
        self._segments_deleted += self.wal.forget(self._sealed_ms)

    def _seal(self, end_ms: int) -> None:
        """The samples up to ``end_ms``, or up to where the next range of a compacted block begins."""
        oldest_ms = self.head.oldest_ms()
        start_ms = max(self._sealed_ms, oldest_ms if oldest_ms is not None else end_ms)
        end_ms = min(end_ms, (start_ms // RANGES_MS[0] + 1) * RANGES_MS[0]) if start_ms < end_ms else end_ms
        taken: list[tuple[SeriesBuffer, Piece]] = []
        fresh = self._written(sheets_of(self.head, self._sealed_ms, end_ms, taken), Origin(end_ms, self._sequence, []))
        for sheets in late_sheets(taken, self._sealed_ms, RANGES_MS[0]).values():
            fresh += self._written(sheets, Origin(BEFORE, 0, []))
        with self.head.lock:
            self.head.sealed_ms = end_ms
            self._publish([*self.blocks, *fresh])
            self.head.drop_buffered(taken)
        self.seals += 1

    def _seal_everything(self, now_ms: int) -> None:
        taken: list[tuple[SeriesBuffer, Piece]] = []
        sealed_ms = self._sealed_ms
        fresh = self._written(sheets_of(self.head, sealed_ms, NOT_YET, taken), Origin(now_ms, self._sequence, []))
        for sheets in late_sheets(taken, sealed_ms, RANGES_MS[0]).values():
            fresh += self._written(sheets, Origin(BEFORE, 0, []))
        with self.head.lock:
            self._publish([*self.blocks, *fresh])
            self.head.drop_buffered(taken)
        self.wal.supersede(self._sequence >> SEQUENCE_BITS)
        self.seals += 1

    def _written(self, sheets: Iterable[Sheet], origin: Origin) -> list[Block]:
        path = self._blocks_dir / f"{self._next_number():08d}.block"
        footer = write_block(path, sheets, origin)
        return [Block(path, self.cache, self.head.canonical)] if footer is not None else []

    def _replace(self, members: Sequence[Block]) -> None:
        """One block with the samples of all these, without those that are deleted."""
        latest = _latest(members)
        origin = Origin(latest.sealed_ms, latest.wal_sequence, [block.number for block in members])
        fresh = self._written(compacted(members), origin)
        self._publish([*(block for block in self.blocks if block not in members), *fresh])
        for block in members:
            block.delete()
        self.compactions += 1

    def clean_tombstones(self) -> int:
        """Writes every block with deleted samples again; returns how many."""
        with self._maintaining:
            marked = [block for block in self.blocks if block.tombstones]
            for block in marked:
                self._replace([block])
            return len(marked)

    def _retain(self, now_ms: int) -> None:
        gone: list[Block] = []
        if self.retention_ms is not None:
            # One at a time: a clock that is wrong for a moment must not cost the whole store.
            gone += [block for block in self.blocks if block.max_ms < now_ms - self.retention_ms][:1]
        if self.retention_bytes is not None:
            left = [block for block in self.blocks if block not in gone]
            size = sum(block.size for block in left) + self.wal.bytes_on_disk()
            for block in left:
                if size <= self.retention_bytes:
                    break
                gone.append(block)
                size -= block.size
        if gone:
            self._publish([block for block in self.blocks if block not in gone])
            for block in gone:
                block.delete()

    def _publish(self, blocks: Sequence[Block]) -> None:
        self._state = _State(_sorted(blocks))

    def _next_number(self) -> int:
        return max([*block_paths(self._blocks_dir), 0]) + 1

    def backfill(self, found: Iterable[tuple[Labels, Piece]]) -> list[Block]:
        """Takes samples of the past straight into blocks, whatever their age; returns the blocks. Any thread.

        Args:
            found: (times ascending, values) of each series.

        Raises:
            StoreError: the disk did not take them; what is in the blocks so far stays.
        """
        ranges = by_range(found, RANGES_MS[0])
        with self._maintaining:
            fresh = []
            for sheets in ranges.values():
                fresh += self._written(sheets, Origin(BEFORE, 0, []))
                self._publish([*self.blocks, *fresh[-1:]])
        return fresh

    def close(self) -> None:
        """Syncs and lets go of the directory."""
        if self.read_only:
            return
        with contextlib.suppress(StoreError):
            self.wal.close()
        os.close(self._lock_fd)


def _sorted(blocks: Any) -> tuple[Block, ...]:
    return tuple(sorted(blocks, key=lambda block: (block.min_ms, block.number)))


def _latest(blocks: Sequence[Block]) -> Origin:
    """How far the log was sealed last. Not the largest time: a clock may have gone back."""
    return max(
        (block.origin for block in blocks), key=lambda origin: origin.wal_sequence, default=Origin(BEFORE, 0, [])
    )


def _locked(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise StoreError(f"{directory} is in use by another process; stop it or name another directory") from None
    return fd
