"""Small records by kind and key in one SQLite file; a write has been committed when it returns."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from flyball.errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""


class Records:
    """What survives kill -9. Safe to call from several threads.

    Raises:
        StoreError: the file cannot be opened or written, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._usable():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            # NORMAL: a commit is in the kernel's hands before it is acknowledged, which a kill cannot undo
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)

    def put(self, kind: str, items: Iterable[tuple[str, bytes]]) -> None:
        """Writes all of them or none."""
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", [(kind, *item) for item in items])

    def delete(self, kind: str, keys: Iterable[str]) -> None:
        """Forgets those that are there."""
        with self._writing() as db:
            db.executemany("DELETE FROM records WHERE kind = ? AND key = ?", [(kind, key) for key in keys])

    def all(self, kind: str) -> list[bytes]:
        """Every body of a kind."""
        with self._lock, self._usable():
            return [body for (body,) in self._db.execute("SELECT body FROM records WHERE kind = ?", (kind,))]

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._usable():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.path} cannot be used: {error}; make {self.path.parent} writable with space left, "
                "or move a damaged file away"
            ) from error
