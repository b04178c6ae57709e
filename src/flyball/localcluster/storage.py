"""The cluster's objects: one append-only SQLite table, a cache of everything, and the recent history for watches.

A row's id is the resourceVersion of the write it records. The log below the *compacted* mark keeps only the latest
row of each object (a snapshot at that mark); above it every write is kept, so that after a restart both the objects
and the events with their previous values are rebuilt by one ordered scan. There is one writer, this class.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from flyball.errors import ConfigError, FlyballError, StoreError

HISTORY_EVENTS = 10_000
HISTORY_BYTES = 64 << 20
DECODED_EVENTS = 1_000
QUEUE_EVENTS = 20_000
WOKEN_AT_ONCE = 32
_GARBAGE_BATCH = 500

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"
_OPERATIONS = (ADDED, MODIFIED, DELETED)

Object = dict[str, Any]
Key = tuple[str, str]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Object).decode


class Expired(FlyballError):  # noqa: N818 - the word Kubernetes uses
    """The resourceVersion is older than the kept history; the client must list again."""

    status = 410


class Record:
    """One version of one object. ``object`` is shared and must not be changed; ``copy()`` is the caller's own."""

    __slots__ = ("_object", "encoded", "rv")

    def __init__(self, encoded: bytes, rv: int, decoded: Object | None = None) -> None:
        self.encoded = encoded
        self.rv = rv
        self._object = decoded

    @property
    def object(self) -> Object:
        if self._object is None:
            self._object = _decode(self.encoded)
        return self._object

    def copy(self) -> Object:
        return _decode(self.encoded)

    def is_of(self, obj: Object) -> bool:
        """Whether this is the record that was made of that very object."""
        return self._object is obj

    def release(self) -> None:
        """Forgets the decoded form, which is several times the size of the bytes."""
        self._object = None


class Event:
    """One write: ``record`` is the object after it (for DELETED: its last state with the deletion's version)."""

    __slots__ = ("bucket", "lines", "name", "namespace", "previous", "record", "rv", "type")

    def __init__(
        self, rv: int, type_: str, bucket: str, namespace: str, name: str, record: Record, previous: Record | None
    ) -> None:
        self.rv = rv
        self.type = type_
        self.bucket = bucket
        self.namespace = namespace
        self.name = name
        self.record = record
        self.previous = previous
        self.lines: dict[Any, bytes] = {}  # encoded watch lines, made once and shared by all watchers


class _Topic:
    """What is told of one bucket, in one namespace or in all: each event stands here once, until all have read it."""

    __slots__ = ("events", "first", "idle", "readers")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.first = 0  # the number of the first of them
        self.readers: set[Subscription] = set()
        self.idle: dict[Subscription, None] = {}  # those that have read all, in the order in which they came to it

    @property
    def end(self) -> int:
        return self.first + len(self.events)

    def add(self, event: Event) -> list["Subscription"]:
        """Returns whom to tell: those that had read all."""
        self.events.append(event)
        told = list(self.idle)
        self.idle.clear()
        if len(self.events) > QUEUE_EVENTS:
            for reader in [one for one in self.readers if one.position < self.end - QUEUE_EVENTS]:
                reader.close()
            self._forget_up_to(min((one.position for one in self.readers), default=self.end))
        return told

    def has_read_all(self, reader: "Subscription") -> None:
        self.idle[reader] = None
        if len(self.idle) == len(self.readers):
            self._forget_up_to(self.end)

    def _forget_up_to(self, number: int) -> None:
        del self.events[: number - self.first]
        self.first = number


class Subscription:
    """The events of one bucket from a moment on. A reader that falls ``QUEUE_EVENTS`` behind is cut off."""

    def __init__(self, storage: "Storage", topic: _Topic, bucket: str, namespace: str) -> None:
        self._storage = storage
        self._topic = topic
        self.bucket = bucket
        self.namespace = namespace
        self.position = topic.end
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether there are events to take."""
        return self.position < self._topic.end

    def take(self, most_bytes: int) -> list[Event]:
        """The next events, at least one where there is any."""
        topic, size = self._topic, 0
        taken: list[Event] = []
        for event in topic.events[self.position - topic.first :]:
            taken.append(event)
            size += len(event.record.encoded)
            if size >= most_bytes:
                break
        self.position += len(taken)
        if not self.closed and not self.is_behind:
            topic.has_read_all(self)
        return taken

    def wake(self) -> None:
        """Whoever waits looks again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Returns when there are events, when closed, or after the time."""
        if self.is_behind or self.closed:
            return
        # A future and a timer: asyncio.wait_for would make a task for each event of each watcher.
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        self.closed = True
        self.wake()
        self._storage.unsubscribe(self)


class Storage:
    """All objects by bucket (``group/plural``) and (namespace, name).

    Attributes:
        revision: the resourceVersion of the last write.
        compacted: events at or below this version are gone.

    Raises:
        StoreError: the file cannot be opened, read or written.
        ConfigError: another process has it open.
    """

    def __init__(self, path: Path, *, history_events: int = HISTORY_EVENTS, history_bytes: int = HISTORY_BYTES) -> None:
        self.path = path
        self.revision = 0
        self.compacted = 0
        self._history_events = history_events
        self._history_bytes_max = history_bytes
        self._history_bytes = 0
        self._history: deque[Event] = deque()
        self._buckets: dict[str, dict[Key, Record]] = {}
        self._sorted: dict[str, list[Key] | None] = {}
        self._topics: dict[tuple[str, str], _Topic] = {}  # by bucket and namespace, "" for all
        self._to_wake: deque[Subscription] = deque()
        self._listeners: list[Callable[[Event], None]] = []
        self._garbage: list[int] = []
        self._lock = -1
        self.writes = 0
        self.watches_expired = 0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise ConfigError(
                    f"{path}: another process has this cluster open; stop it, or name another --data-dir"
                ) from exc
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            os.chmod(path, 0o600)
            self._open()
        except (OSError, sqlite3.Error) as exc:
            self._unlock()
            raise self._failure("open", exc) from exc
        except FlyballError:
            self._unlock()
            raise

    def _failure(self, what: str, exc: Exception) -> StoreError:
        return StoreError(
            f"{self.path}: cannot {what} the cluster's objects ({exc}); "
            "make the directory writable with free space, or name another with --data-dir"
        )

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open(self) -> None:
        db = self._db
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA journal_size_limit=16777216")
        db.execute(
            "CREATE TABLE IF NOT EXISTS log (rv INTEGER PRIMARY KEY, bucket TEXT NOT NULL, namespace TEXT NOT NULL,"
            " name TEXT NOT NULL, operation INTEGER NOT NULL, value BLOB NOT NULL)"
        )
        db.execute("CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
        db.execute("INSERT OR IGNORE INTO mark VALUES ('format', 1), ('compacted', 0)")
        marks = dict(db.execute("SELECT name, value FROM mark").fetchall())
        if marks["format"] != 1:
            raise StoreError(f"{self.path}: format {marks['format']} is newer than this program reads; upgrade flyball")
        self.compacted = self.revision = int(marks["compacted"])
        for rv, bucket, namespace, name, operation, value in db.execute("SELECT * FROM log ORDER BY rv"):
            self._apply(_OPERATIONS[operation], bucket, namespace, name, Record(value, rv), keep=rv > self.compacted)
        self._collect(force=False)

    # reading

    def get(self, bucket: str, namespace: str, name: str) -> Record | None:
        found = self._buckets.get(bucket)
        return found.get((namespace, name)) if found else None

    def keys(self, bucket: str) -> list[Key]:
        """All keys, sorted by namespace and name; not to be changed."""
        keys = self._sorted.get(bucket)
        if keys is None:
            keys = self._sorted[bucket] = sorted(self._buckets.get(bucket, ()))
        return keys

    def records(self, bucket: str, namespace: str = "") -> list[Record]:
        """All records, sorted by namespace and name; ``namespace`` "" is all of them."""
        objects = self._buckets.get(bucket, {})
        if namespace:
            return [objects[key] for key in self.keys(bucket) if key[0] == namespace]
        return [objects[key] for key in self.keys(bucket)]

    def buckets(self) -> list[str]:
        return [name for name, objects in self._buckets.items() if objects]

    def since(self, bucket: str, rv: int, namespace: str = "") -> list[Event]:
        """The bucket's events after ``rv``.

        Raises:
            Expired: that part of the history is gone, or ``rv`` was never given out.
        """
        if rv < self.compacted:
            raise Expired(f"too old resource version: {rv} ({self.compacted})")
        if rv > self.revision:
            raise Expired(f"too large resource version: {rv}, current: {self.revision}")
        found: list[Event] = []
        for event in reversed(self._history):
            if event.rv <= rv:
                break
            if event.bucket == bucket and (not namespace or event.namespace == namespace):
                found.append(event)
        found.reverse()
        return found

    # watching

    def subscribe(self, bucket: str, namespace: str = "") -> Subscription:
        topic = self._topics.setdefault((bucket, namespace), _Topic())
        subscription = Subscription(self, topic, bucket, namespace)
        topic.readers.add(subscription)
        topic.has_read_all(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        key = subscription.bucket, subscription.namespace
        topic = self._topics.get(key)
        if topic is not None:
            topic.readers.discard(subscription)
            topic.idle.pop(subscription, None)
            if not topic.readers:
                del self._topics[key]

    def _tell(self, told: list[Subscription]) -> None:
        """Wakes readers that have events again, in their turn.

        So many at a time, other work in between: while a thousand are told of one write, the next writes gather for
        each of them and go out together.
        """
        if told and not self._to_wake:
            asyncio.get_running_loop().call_soon(self._wake_some)
        self._to_wake.extend(told)

    def _wake_some(self) -> None:
        for _ in range(min(len(self._to_wake), WOKEN_AT_ONCE)):
            self._to_wake.popleft().wake()
        if self._to_wake:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Calls ``listener`` after every write, in order; it must not raise."""
        self._listeners.append(listener)

    # writing

    def put(self, bucket: str, namespace: str, name: str, value: Object) -> Event:
        """Stores the object, durably against a kill, and sets its ``metadata.resourceVersion``.

        Raises:
            StoreError: the disk refused; nothing has changed.
        """
        rv = self.revision + 1
        value["metadata"]["resourceVersion"] = str(rv)
        known = self.get(bucket, namespace, name) is not None
        return self._write(MODIFIED if known else ADDED, bucket, namespace, name, Record(_encode(value), rv, value))

    def delete(self, bucket: str, namespace: str, name: str, last: Object | None = None) -> Event:
        """Removes the object; ``last`` is its final state where that differs from the stored one.

        Raises:
            StoreError: the disk refused; nothing has changed.
            KeyError: no such object.
        """
        value = last if last is not None else self._buckets[bucket][namespace, name].copy()
        rv = self.revision + 1
        value["metadata"]["resourceVersion"] = str(rv)
        return self._write(DELETED, bucket, namespace, name, Record(_encode(value), rv, value))

    def _write(self, type_: str, bucket: str, namespace: str, name: str, record: Record) -> Event:
        row = (record.rv, bucket, namespace, name, _OPERATIONS.index(type_), record.encoded)
        try:
            self._db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", row)  # its own transaction: durable on return
        except sqlite3.Error as exc:
            raise self._failure("write", exc) from exc
        self.writes += 1
        event = self._apply(type_, bucket, namespace, name, record)
        for watched in {namespace, ""}:
            topic = self._topics.get((bucket, watched))
            if topic is not None:
                self._tell(topic.add(event))
        for listener in self._listeners:
            listener(event)
        self._collect(force=False)
        return event

    def _apply(self, type_: str, bucket: str, namespace: str, name: str, record: Record, keep: bool = True) -> Event:
        objects = self._buckets.setdefault(bucket, {})
        key = (namespace, name)
        previous = objects.get(key)
        if type_ == DELETED:
            objects.pop(key, None)
        else:
            objects[key] = record
        if previous is None or type_ == DELETED:
            self._sorted[bucket] = None
        self.revision = record.rv
        event = Event(record.rv, type_, bucket, namespace, name, record, previous)
        if keep:
            history = self._history
            history.append(event)
            self._history_bytes += len(record.encoded)
            if len(history) > DECODED_EVENTS:
                old = history[-DECODED_EVENTS]
                old.lines.clear()
                if old.previous is not None:
                    old.previous.release()
                if old.type == DELETED:
                    old.record.release()
        return event

    # compaction

    def _collect(self, *, force: bool) -> None:
        """Moves the mark up past events beyond the window and deletes the rows that this makes unneeded."""
        history = self._history
        while history and (len(history) > self._history_events or self._history_bytes > self._history_bytes_max):
            event = history.popleft()
            self._history_bytes -= len(event.record.encoded)
            self.compacted = event.rv
            if event.previous is not None:
                self._garbage.append(event.previous.rv)
            if event.type == DELETED:
                self._garbage.append(event.rv)
        if len(self._garbage) < (1 if force else _GARBAGE_BATCH):
            return
        garbage, self._garbage = self._garbage, []
        try:
            self._db.execute("BEGIN")
            self._db.execute("UPDATE mark SET value = ? WHERE name = 'compacted'", (self.compacted,))
            self._db.executemany("DELETE FROM log WHERE rv = ?", _rows(garbage))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            # The write itself is durable; a failed clean-up is tried again with the next batch.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._garbage = garbage + self._garbage

    def counts(self) -> dict[str, int]:
        """The number of objects in each bucket."""
        return {bucket: len(objects) for bucket, objects in self._buckets.items()}

    def statistics(self) -> dict[str, int]:
        return {
            "revision": self.revision,
            "compacted": self.compacted,
            "writes": self.writes,
            "objects": sum(map(len, self._buckets.values())),
            "history_events": len(self._history),
            "history_bytes": self._history_bytes,
            "watches": sum(len(topic.readers) for topic in self._topics.values()),
            "watches_expired": self.watches_expired,
        }

    def end_subscriptions(self) -> None:
        """Ends every watch, so that a server can stop."""
        for topic in list(self._topics.values()):
            for reader in tuple(topic.readers):
                reader.close()

    def close(self) -> None:
        """Ends all subscriptions and closes the file."""
        self.end_subscriptions()
        if self._lock >= 0:
            self._db.close()
            self._unlock()


def _rows(numbers: Iterable[int]) -> list[tuple[int]]:
    return [(number,) for number in numbers]
