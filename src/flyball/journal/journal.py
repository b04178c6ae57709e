"""The autoscaler's journal: one SQLite file in WAL mode.

Every method commits before it returns, so what was acknowledged survives kill -9 (and a torn tail of the
write-ahead log is dropped on open, by SQLite). Times are ms since the epoch and always arguments.
"""

import contextlib
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from flyball.errors import StoreError
from flyball.scaling import Decision, History, Outcome
from flyball.scaling.record import Inputs

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, count INTEGER NOT NULL,
    substance BLOB NOT NULL, body BLOB NOT NULL, outcome TEXT, inputs BLOB);
CREATE INDEX IF NOT EXISTS decisions_by_hpa ON decisions (namespace, name, id);
CREATE TABLE IF NOT EXISTS intents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, decision INTEGER NOT NULL,
    at_ms INTEGER NOT NULL, body BLOB NOT NULL, outcome_ms INTEGER, outcome TEXT);
CREATE INDEX IF NOT EXISTS intents_open ON intents (outcome_ms) WHERE outcome_ms IS NULL;
CREATE TABLE IF NOT EXISTS histories (
    namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forecasts (
    namespace TEXT NOT NULL, name TEXT NOT NULL, piece TEXT NOT NULL,
    uid TEXT NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (namespace, name, piece));
"""
_VERSION = 2
_INPUTS_MAX = 64 << 10  # compressed; what is larger is not kept, and its decision cannot be made again
_ALIKE_MS = 300_000  # of decisions that share a record
_TRIM_EVERY = 64
_KEEP_INTENTS = 1_000
_SAVE = "INSERT OR REPLACE INTO histories VALUES (?, ?, ?, ?, ?)"
_encode = msgspec.json.Encoder().encode
_decode_history = msgspec.json.Decoder(History).decode
_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_inputs = msgspec.json.Decoder(Inputs).decode


class DecisionRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision as kept: ``count`` consecutive ones alike in substance, the newest in ``decision``.

    ``outcome``: None when nothing was to be written or the write's end is not known, "" accepted, else the error.
    """

    id: int
    first_ms: int
    last_ms: int
    count: int
    decision: Decision
    outcome: str | None = None
    inputs: Inputs | None = None

    def reproduced(self) -> bool | None:
        """Whether its inputs lead to the same decision again; None when they were not kept."""
        if self.inputs is None:
            return None
        again, _ = self.inputs.decide(self.decision.at_ms)
        return _encode(again) == _encode(self.decision)


class Intent(msgspec.Struct, frozen=True):
    """A scale write that was about to be made and whose end is not recorded."""

    id: int
    namespace: str
    name: str
    uid: str
    at_ms: int
    decision: Decision


class Entry(NamedTuple):
    """A decision to record: with the history that follows from it, and what it was made from."""

    decision: Decision
    history: History | None = None
    uid: str = ""
    inputs: Inputs | None = None


class _Row(NamedTuple):
    """An entry as it is stored."""

    key: tuple[str, str]
    at_ms: int
    rescale: bool
    substance: bytes
    body: bytes
    inputs: bytes | None
    uid: str
    history: bytes | None


class Journal:
    """Decisions, intents, outcomes and scaling histories at ``path``.

    ``keep_per_hpa`` and ``keep`` bound the decision records (oldest go first), so that one busy HPA never
    pushes out another's. Safe to call from several threads.

    Raises:
        StoreError: the file cannot be opened, written or is not a journal.
    """

    def __init__(self, path: str | Path, *, keep_per_hpa: int = 2_000, keep: int = 200_000) -> None:
        self.path = Path(path)
        self._keep_per_hpa, self._keep = keep_per_hpa, keep
        self._lock = threading.Lock()
        self._since_trim = 0
        self._coalesced = 0
        self._written = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            # NORMAL: a commit is in the kernel's hands before it is acknowledged, which a kill cannot undo
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 1:
                self._db.execute("ALTER TABLE decisions ADD COLUMN inputs BLOB")
            if version not in (0, 1, _VERSION):
                raise StoreError(
                    f"journal {self.path} has format {version}, this version reads {_VERSION}; "
                    "use the Flyball that wrote it or move the file away"
                )
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
            # proves that it can be written now, not at the first decision
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT INTO histories VALUES ('', '', '', 0, '') ON CONFLICT DO NOTHING")
            self._db.execute("DELETE FROM histories WHERE namespace = '' AND name = ''")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._db.close()
            raise self._unusable(error) from error
        except StoreError:
            self._db.close()
            raise

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(
            f"journal {self.path} cannot be used: {error}; make {self.path.parent} writable with space left, "
            "or move a damaged file away"
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db_in_transaction():
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise self._unusable(error) from error

    def _db_in_transaction(self) -> bool:
        try:
            return self._db.in_transaction
        except sqlite3.Error:
            return False

    def append_decision(
        self, decision: Decision, history: History | None = None, uid: str = "", inputs: Inputs | None = None
    ) -> int:
        """Record a decision, and the history that follows from it in the same commit; the record's id.

        One that is alike in substance to the HPA's last is counted there, its newest figures kept; a record counts
        those of five minutes, so that what was read at a time is known to that.
        """
        return self.append_decisions([Entry(decision, history, uid, inputs)])[0]

    def append_decisions(self, entries: Sequence[Entry]) -> list[int]:
        """As ``append_decision`` for each in turn, all of them in one commit or none."""
        rows = [_row(entry) for entry in entries]
        with self._transaction() as db:
            return [self._append(db, row) for row in rows]

    def _append(self, db: sqlite3.Connection, row: "_Row") -> int:
        key, at_ms = row.key, row.at_ms
        last = db.execute(
            "SELECT id, substance, first_ms FROM decisions WHERE namespace = ? AND name = ? ORDER BY id DESC LIMIT 1",
            key,
        ).fetchone()
        if last is not None and last[1] == row.substance and not row.rescale and 0 <= at_ms - last[2] < _ALIKE_MS:
            record = int(last[0])
            db.execute(
                "UPDATE decisions SET last_ms = ?, count = count + 1, body = ?, inputs = ? WHERE id = ?",
                (at_ms, row.body, row.inputs, record),
            )
            self._coalesced += 1
        else:
            cursor = db.execute(
                "INSERT INTO decisions (namespace, name, first_ms, last_ms, count, substance, body, inputs)"
                " VALUES (?, ?, ?, ?, 1, ?, ?, ?)",
                (*key, at_ms, at_ms, row.substance, row.body, row.inputs),
            )
            record = int(cursor.lastrowid or 0)
            self._written += 1
            self._trim(db, key)
        if row.history is not None:
            db.execute(_SAVE, (*key, row.uid, at_ms, row.history))
        return record

    def intent(self, decision: Decision, record: int, uid: str, at_ms: int) -> int:
        """Record that ``decision`` is about to be written to the scale; the intent's id. Call before the write."""
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO intents (namespace, name, uid, decision, at_ms, body) VALUES (?, ?, ?, ?, ?, ?)",
                (decision.namespace, decision.name, uid, record, at_ms, _encode(decision)),
            )
            intent = int(cursor.lastrowid or 0)
            db.execute("DELETE FROM intents WHERE outcome_ms IS NOT NULL AND id <= ?", (intent - _KEEP_INTENTS,))
        return intent

    def outcome(self, intent: int, outcome: Outcome, at_ms: int, history: History | None = None) -> None:
        """Record what became of an intent, and the history after it in the same commit."""
        with self._transaction() as db:
            row = db.execute("SELECT namespace, name, uid, decision FROM intents WHERE id = ?", (intent,)).fetchone()
            if row is None:
                return
            db.execute("UPDATE intents SET outcome_ms = ?, outcome = ? WHERE id = ?", (at_ms, outcome.error, intent))
            db.execute("UPDATE decisions SET outcome = ? WHERE id = ?", (outcome.error, row[3]))
            if history is not None:
                _save(db, (row[0], row[1]), row[2], history, at_ms)

    def save_history(self, namespace: str, name: str, uid: str, history: History, at_ms: int) -> None:
        """Keep a history alone."""
        with self._transaction() as db:
            _save(db, (namespace, name), uid, history, at_ms)

    def load_history(self, namespace: str, name: str, uid: str = "") -> History | None:
        """The last history saved for this HPA; None when there is none, or it was another object of that name."""
        row = self._one("SELECT uid, body FROM histories WHERE namespace = ? AND name = ?", (namespace, name))
        if row is None or (uid and row[0] and row[0] != uid):
            return None
        try:
            return _decode_history(row[1])
        except msgspec.MsgspecError:
            return None  # unknown history: the caller starts over, which scales nothing down for one window

    def save_forecast(self, namespace: str, name: str, uid: str, pieces: Mapping[str, bytes], at_ms: int) -> None:
        """Keep the pieces of a forecaster that have changed, all of them or none."""
        rows = [(namespace, name, piece, uid, at_ms, body) for piece, body in pieces.items()]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO forecasts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def load_forecast(self, namespace: str, name: str, uid: str) -> dict[str, bytes]:
        """Every piece kept; none when it was another object of that name."""
        where = "namespace = ? AND name = ? AND uid = ?"
        return dict(self._all(f"SELECT piece, body FROM forecasts WHERE {where}", (namespace, name, uid)))

    def forget_forecast(self, namespace: str, name: str) -> None:
        """Drop what a forecaster has learned."""
        with self._transaction() as db:
            db.execute("DELETE FROM forecasts WHERE namespace = ? AND name = ?", (namespace, name))

    def forget(self, namespace: str, name: str) -> None:
        """Drop the history and the forecast of a deleted HPA; its decisions stay to be read."""
        with self._transaction() as db:
            for table in ("histories", "forecasts"):
                db.execute(f"DELETE FROM {table} WHERE namespace = ? AND name = ?", (namespace, name))

    def open_intents(self) -> list[Intent]:
        """Intents without an outcome, oldest first: writes that a crash may have cut off."""
        rows = self._all(
            "SELECT id, namespace, name, uid, at_ms, body FROM intents WHERE outcome_ms IS NULL ORDER BY id"
        )
        return [Intent(row[0], row[1], row[2], row[3], row[4], _decode_decision(row[5])) for row in rows]

    def decisions(
        self, namespace: str = "", name: str = "", limit: int = 100, until_ms: int | None = None
    ) -> list[DecisionRecord]:
        """The newest decisions first; an empty namespace or name means all; those begun by ``until_ms``."""
        where: list[str] = []
        values: list[str | int] = []
        for column, value in (("namespace", namespace), ("name", name)):
            if value:
                where.append(f"{column} = ?")
                values.append(value)
        if until_ms is not None:
            where.append("first_ms <= ?")
            values.append(until_ms)
        clause = f"WHERE {' AND '.join(where)}" if where else ""
        rows = self._all(
            "SELECT id, first_ms, last_ms, count, body, outcome, inputs FROM decisions "
            f"{clause} ORDER BY id DESC LIMIT ?",
            (*values, max(0, limit)),
        )
        return [DecisionRecord(r[0], r[1], r[2], r[3], _decode_decision(r[4]), r[5], _read_inputs(r[6])) for r in rows]

    def statistics(self) -> dict[str, int]:
        """Counts of records, and of writes since the start."""
        decisions, intents = self._one(
            "SELECT (SELECT count(*) FROM decisions), (SELECT count(*) FROM intents WHERE outcome_ms IS NULL)", ()
        ) or (0, 0)
        return {
            "decisions": int(decisions),
            "open_intents": int(intents),
            "written": self._written,
            "coalesced": self._coalesced,
            "limit": self._keep,
        }

    def close(self) -> None:
        """Fold the write-ahead log in and let go of the file."""
        with self._lock:
            self._db.close()

    def _trim(self, db: sqlite3.Connection, key: tuple[str, str]) -> None:
        self._since_trim += 1
        db.execute(
            "DELETE FROM decisions WHERE namespace = ? AND name = ? AND id <= ("
            "SELECT id FROM decisions WHERE namespace = ? AND name = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (*key, *key, self._keep_per_hpa),
        )
        if self._since_trim >= _TRIM_EVERY:
            self._since_trim = 0
            db.execute(
                "DELETE FROM decisions WHERE id <= (SELECT id FROM decisions ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (self._keep,),
            )

    def _one(self, sql: str, values: tuple[Any, ...]) -> Any:
        rows = self._all(sql, values)
        return rows[0] if rows else None

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._unusable(error) from error


def _row(entry: Entry) -> _Row:
    """Encoded, so that no transaction waits for it."""
    decision, history = entry.decision, entry.history
    kept = None if entry.inputs is None else zlib.compress(_encode(entry.inputs), 1)
    if kept is not None and len(kept) > _INPUTS_MAX:
        kept = None
    return _Row(
        (decision.namespace, decision.name), decision.at_ms, decision.rescale, _encode(_substance(decision)),
        _encode(decision), kept, entry.uid, None if history is None else _encode(history),
    )  # fmt: skip


def _save(db: sqlite3.Connection, key: tuple[str, str], uid: str, history: History, at_ms: int) -> None:
    db.execute(_SAVE, (*key, uid, at_ms, _encode(history)))


def _read_inputs(blob: bytes | None) -> Inputs | None:
    try:
        return None if blob is None else _decode_inputs(zlib.decompress(blob))
    except (msgspec.MsgspecError, zlib.error):
        return None


def _substance(decision: Decision) -> tuple[Any, ...]:
    """What must differ for a decision to be a record of its own."""
    return (
        decision.current,
        decision.desired,
        decision.min_replicas,
        decision.max_replicas,
        decision.reason,
        decision.error,
        decision.recommended,
        decision.metrics_skipped,
        decision.conditions,
        decision.clamps,
        decision.status_metrics,
        tuple((metric.rule, metric.proposal, metric.error) for metric in decision.metrics),
    )
