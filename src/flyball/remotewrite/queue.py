"""The durable queue of one receiver: the write-ahead log itself, and a file that says how far it was sent.

A window of the log is read, split over shards by series, and sent; when all of it was taken or refused for good, the
checkpoint moves on. What was sent and not checkpointed when the process dies is sent again, which receivers accept.
While a receiver is away the log keeps what it has not seen, within ``Kept``.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client import Counter, Gauge

from flyball import clock
from flyball.errors import StoreError
from flyball.exposition.writerequest import (
    encoded_exemplar,
    encoded_histogram,
    encoded_labels,
    encoded_sample,
    metadata_request,
    write_request,
)
from flyball.http.calling import Caller
from flyball.model.labels import Labels, labels_of
from flyball.model.prometheusconfig import RemoteWriteConfig
from flyball.relabel import relabel
from flyball.remotewrite.sending import Sender
from flyball.store.database import Database
from flyball.store.files import write_atomically
from flyball.store.tailing import Logged, LogTail
from flyball.store.wal import HELD_MAX_BYTES, SEQUENCE_BITS

log = logging.getLogger(__name__)
_NAMES = ("remote_name", "url")
_SENT = Counter("prometheus_remote_storage_samples", "Samples that were sent.", _NAMES)
_FAILED = Counter("prometheus_remote_storage_samples_failed", "Samples that the receiver refused for good.", _NAMES)
_DROPPED = Counter("prometheus_remote_storage_samples_dropped", "Samples too old to be sent.", _NAMES)
_RETRIED = Gauge("prometheus_remote_storage_requests_retried", "Requests that were sent again.", _NAMES)
_PENDING = Gauge("prometheus_remote_storage_samples_pending", "Samples that are being sent.", _NAMES)
_SHARDS = Gauge("prometheus_remote_storage_shards", "Requests that are under way at a time.", _NAMES)
_SENT_TIME = Gauge(
    "prometheus_remote_storage_queue_highest_sent_timestamp_seconds", "The newest sample that was sent.", _NAMES
)
_QUEUED_TIME = Gauge(
    "prometheus_remote_storage_queue_highest_timestamp_seconds", "The newest sample that waited to be sent.", _NAMES
)
_IN = Counter("prometheus_remote_storage_samples_in", "Samples read from the log, to be sent.")
_LIMITS = {
    name: Gauge(f"prometheus_remote_storage_{name}", text, _NAMES)
    for name, text in (
        ("shards_min", "The fewest requests at a time."),
        ("shards_max", "The most requests at a time."),
        ("shards_desired", "Requests at a time that would keep up."),
        ("shard_capacity", "Samples of one request."),
    )
}
_SEGMENT = Gauge("prometheus_wal_watcher_current_segment", "The log's segment that is read.", ["consumer"])
_LOST = Gauge("flyball_remote_write_lost_segments", "Log segments deleted before they were sent.", _NAMES)

_POLL_S = 0.2
_METADATA_EVERY_S = 60.0
#: Encoded labels of so many series are remembered.
_KNOWN_MAX = 500_000
#: (encoded labels, encoded sample, time in ms)
_Entry = tuple[bytes, bytes, int]


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of the log waits for a receiver that is away; what is beyond is given up and counted as lost.

    Attributes:
        max_bytes: of the whole log on the disk.
        max_age_ms: of a segment's newest sample.
    """

    max_bytes: int = HELD_MAX_BYTES
    max_age_ms: int | None = None


class RemoteWrite:
    """Sends everything that the store logs to one receiver.

    Args:
        external: labels that every series gets unless it has them.
        session: made by ``caller``.
    """

    def __init__(
        self,
        store: Database,
        config: RemoteWriteConfig,
        external: Mapping[str, str],
        session: aiohttp.ClientSession,
        caller: Caller,
        kept: Kept = Kept(),
    ) -> None:
        self.config, self.kept = config, kept
        self._store, self._external = store, external
        name = config.name or hashlib.sha256(config.url.encode()).hexdigest()[:6]
        self._checkpoint = store.directory / "remote-write" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
        self._sender = Sender(session, config, caller)
        self._known: dict[Labels, bytes | None] = {}
        self._shards = config.queue.min_shards
        self._hurried = False
        self._labelled = (name, config.url)
        sequence = self._saved()
        self._tail = LogTail(store.wal.directory, sequence)
        self._sent = sequence
        self._save()
        self._metadata_s = -_METADATA_EVERY_S

    def _saved(self) -> int:
        """How far was sent; a new receiver gets what comes from now on."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(json.loads(self._checkpoint.read_text())["sequence"])
        return self._store.wal.sequence

    def _save(self) -> None:
        self._checkpoint.parent.mkdir(exist_ok=True)
        write_atomically(self._checkpoint, json.dumps({"sequence": self._sent, "url": self.config.url}).encode())

    def first_segment(self) -> int:
        """The oldest log segment that is still needed, within what may be kept."""
        wal, first = self._store.wal, self._sent >> SEQUENCE_BITS
        if self.kept.max_age_ms is not None:
            oldest_ms = clock.now_ms() - self.kept.max_age_ms
            while first != wal.number and 0 < wal.newest_ms.get(first, 0) < oldest_ms:
                first += 1
        return first if wal.bytes_on_disk() <= self.kept.max_bytes else max(first, wal.number)

    @property
    def behind(self) -> bool:
        """Whether something that was logged was not sent yet."""
        return self._sent < self._store.wal.sequence

    def hurry(self) -> None:
        """From now on nothing waits for more to be sent with it."""
        self._hurried = True

    async def run(self) -> None:
        """Sends until cancelled."""
        self._store.wal.holds.append(self.first_segment)
        try:
            while True:
                try:
                    await self._window()
                except (OSError, StoreError) as exc:
                    log.error("remote write to %s: %s", self.config.url, exc)
                    await asyncio.sleep(self.config.queue.max_backoff_ms / 1000)
        finally:
            self._store.wal.holds.remove(self.first_segment)

    async def _window(self) -> None:
        """Reads until there is a full request for each shard or the deadline has passed; sends; saves."""
        queue = self.config.queue
        wanted = self._shards * queue.max_samples_per_send
        entries: list[_Entry] = []
        deadline_s = clock.monotonic_s() + queue.batch_send_deadline_ms / 1000
        while len(entries) < wanted and clock.monotonic_s() < deadline_s:
            found = await asyncio.to_thread(self._read)
            entries += found
            if not found:
                if self._hurried and entries:
                    break
                await asyncio.sleep(_POLL_S)
        if entries:
            await self._send_all(entries)
        if self._tail.sequence != self._sent:
            self._sent = self._tail.sequence
            await asyncio.to_thread(self._save)
        self._shards = min(2 * self._shards, queue.max_shards) if len(entries) >= wanted else queue.min_shards
        self._tell()
        _LOST.labels(*self._labelled).set(self._tail.lost_segments)
        await self._send_metadata()

    def _tell(self) -> None:
        queue = self.config.queue
        for name, value in (
            ("shards_min", queue.min_shards),
            ("shards_max", queue.max_shards),
            ("shards_desired", self._shards),
            ("shard_capacity", queue.max_samples_per_send),
        ):
            _LIMITS[name].labels(*self._labelled).set(value)
        _SEGMENT.labels(self._labelled[0]).set(self._tail.sequence >> SEQUENCE_BITS)

    def _read(self) -> list[_Entry]:
        return self._encoded(self._tail.read())

    def _encoded(self, found: Logged) -> list[_Entry]:
        config = self.config
        entries: list[_Entry] = []
        for labels, at_ms, value in found.samples:
            series = self._series(labels)
            if series is not None:
                entries.append((series, encoded_sample(at_ms, value), at_ms))
        for labels, at_ms, histogram in found.histograms if config.send_native_histograms else ():
            series = self._series(labels)
            if series is not None:
                entries.append((series, encoded_histogram(at_ms, histogram), at_ms))
        for labels, own, value, at_ms in found.exemplars if config.send_exemplars else ():
            series = self._series(labels)
            if series is not None:
                entries.append((series, encoded_exemplar(own, value, at_ms), at_ms))
        return entries

    def _series(self, labels: Labels) -> bytes | None:
        """The labels as they are sent; None when relabelling drops the series."""
        if labels in self._known:
            return self._known[labels]
        if len(self._known) >= _KNOWN_MAX:
            self._known = {}
        kept: dict[str, str] | None = {**self._external, **dict(labels)}
        if self.config.write_relabel_configs:
            kept = relabel(kept or {}, self.config.write_relabel_configs)
        encoded = encoded_labels(labels_of(kept)) if kept else None
        self._known[labels] = encoded
        return encoded

    async def _send_all(self, entries: list[_Entry]) -> None:
        age_ms = self.config.queue.sample_age_limit_ms
        if age_ms:
            oldest_ms = clock.now_ms() - age_ms
            young = [entry for entry in entries if entry[2] >= oldest_ms]
            _DROPPED.labels(*self._labelled).inc(len(entries) - len(young))
            entries = young
        _PENDING.labels(*self._labelled).set(len(entries))
        _IN.inc(len(entries))
        if entries:
            _QUEUED_TIME.labels(*self._labelled).set(max(at_ms for _, _, at_ms in entries) / 1000)
        _SHARDS.labels(*self._labelled).set(self._shards)
        shards: list[list[_Entry]] = [[] for _ in range(self._shards)]
        for entry in entries:
            shards[hash(entry[0]) % self._shards].append(entry)
        async with asyncio.TaskGroup() as group:
            for shard in shards:
                group.create_task(self._send_shard(shard))
        _PENDING.labels(*self._labelled).set(0)
        _RETRIED.labels(*self._labelled).set(self._sender.retries)
        if entries:
            _SENT_TIME.labels(*self._labelled).set(max(at_ms for _, _, at_ms in entries) / 1000)

    async def _send_shard(self, entries: list[_Entry]) -> None:
        size = self.config.queue.max_samples_per_send
        for first in range(0, len(entries), size):
            part = entries[first : first + size]
            body = await asyncio.to_thread(write_request, [(series, sample) for series, sample, _ in part])
            refused = await self._sender.send(body)
            if refused:
                _FAILED.labels(*self._labelled).inc(len(part))
                log.error("remote write to %s: %d samples were refused: %s", self.config.url, len(part), refused)
            else:
                _SENT.labels(*self._labelled).inc(len(part))

    async def _send_metadata(self) -> None:
        now_s = clock.monotonic_s()
        metadata = self._store.head.metadata
        if metadata and self.config.send_metadata and now_s - self._metadata_s >= _METADATA_EVERY_S:
            self._metadata_s = now_s
            await self._sender.send(metadata_request(dict(metadata)))

    def statistics(self) -> dict[str, int]:
        """How far it is."""
        return {
            "sent_sequence": self._sent,
            "shards": self._shards,
            "retries_total": self._sender.retries,
            "lost_segments_total": self._tail.lost_segments,
        }
