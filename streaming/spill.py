"""What does not fit in memory: entries on disk, found by id and taken in the order of their deadlines.

SQLite, as a cache only: no journal, nothing synced, one transaction that never ends. The file loses its name as soon
as it is open, so that it is gone with the process, however that ends: what must survive is in the snapshots.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from core.errors import StoreError
from streaming.sqlite_errors import translated

Row = tuple[int, int, str, bytes]
"""Queue, deadline, id, encoded value."""

_CACHE_KIB = 8 * 1024
_SCHEMA = f"""
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -{_CACHE_KIB};
    CREATE TABLE entries (id TEXT NOT NULL UNIQUE, queue INTEGER NOT NULL, deadline INTEGER NOT NULL, value BLOB);
    CREATE INDEX due ON entries (queue, deadline, id);
    BEGIN;
"""


class Spill:
    """Entries of several queues on disk.

    Parameters
    ----------
    folder : Path
        Where the file is made; the folder too, if it is missing.
    queues : int
        How many there are; they are numbered from 0.

    Raises
    ------
    StoreError
        From every method, when the disk is full or broken.
    """

    def __init__(self, folder: Path, queues: int) -> None:
        self.rows = 0
        self._folder = folder
        self._firsts: list[tuple[int, str] | None] = [None] * queues
        self._is_known = [True] * queues
        self._open()

    @translated
    def add(self, rows: list[Row]) -> None:
        """Take entries in; none of their ids may be here already."""
        self._db.executemany("INSERT INTO entries (queue, deadline, id, value) VALUES (?, ?, ?, ?)", rows)
        self.rows += len(rows)
        for queue, deadline, entry_id, _ in rows:
            first = self._firsts[queue]
            if first is None or (deadline, entry_id) < first:
                self._firsts[queue] = (deadline, entry_id) if self._is_known[queue] else None

    @translated
    def find(self, entry_id: str) -> tuple[int, int, bytes] | None:
        """Return (queue, deadline, encoded value) of an id, None where it is not here."""
        row: tuple[int, int, bytes] | None = self._db.execute(
            "SELECT queue, deadline, value FROM entries WHERE id = ?", (entry_id,)
        ).fetchone()
        return row

    @translated
    def queue_of(self, entry_id: str) -> int | None:
        """Return the queue that an id is in, None where it is not here."""
        found = self._db.execute("SELECT queue FROM entries WHERE id = ?", (entry_id,)).fetchone()
        return None if found is None else found[0]

    @translated
    def remove(self, entry_id: str) -> int | None:
        """Forget an id; return the queue that it was in, None where it was not here."""
        found = self._db.execute("DELETE FROM entries WHERE id = ? RETURNING queue", (entry_id,)).fetchall()
        if not found:
            return None
        queue: int = found[0][0]
        self.rows -= 1
        first = self._firsts[queue]
        if first is not None and first[1] == entry_id:
            self._forget_first(queue)
        return queue

    def first(self, queue: int) -> tuple[int, str] | None:
        """Return the earliest (deadline, id) of a queue, None where it is empty."""
        return self._firsts[queue] if self._is_known[queue] else self._look_up_first(queue)

    @translated
    def take(self, queue: int, count: int) -> list[tuple[int, str, bytes]]:
        """Remove the earliest `count` entries of a queue, and return them as (deadline, id, encoded value)."""
        rows: list[tuple[int, str, bytes]] = self._db.execute(
            "SELECT deadline, id, value FROM entries WHERE queue = ? ORDER BY deadline, id LIMIT ?", (queue, count)
        ).fetchall()
        if rows:
            self._db.execute("DELETE FROM entries WHERE queue = ? AND (deadline, id) <= (?, ?)", (queue, *rows[-1][:2]))
            self.rows -= len(rows)
            self._forget_first(queue)
        return rows

    def all(self) -> Iterator[Row]:
        """Go through everything in the order of queue, deadline and id."""
        try:
            yield from self._db.execute("SELECT queue, deadline, id, value FROM entries ORDER BY queue, deadline, id")
        except sqlite3.Error as error:
            raise self.failure(error) from error

    def ids(self) -> Iterator[str]:
        """Go through all ids, in any order."""
        try:
            yield from (row[0] for row in self._db.execute("SELECT id FROM entries"))
        except sqlite3.Error as error:
            raise self.failure(error) from error

    def close(self) -> None:
        """Give the disk space back; everything in it is gone."""
        self._db.close()

    def _open(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix="join.", suffix=".cache", dir=self._folder)
            os.close(descriptor)
            try:
                self._db = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
                self._db.executescript(_SCHEMA)
            finally:
                Path(name).unlink()
        except (OSError, sqlite3.Error) as error:
            raise self.failure(error) from error

    def _forget_first(self, queue: int) -> None:
        self._firsts[queue], self._is_known[queue] = None, False

    @translated
    def _look_up_first(self, queue: int) -> tuple[int, str] | None:
        found = self._db.execute(
            "SELECT deadline, id FROM entries WHERE queue = ? ORDER BY deadline, id LIMIT 1", (queue,)
        ).fetchone()
        self._firsts[queue], self._is_known[queue] = found, True
        return self._firsts[queue]

    def failure(self, error: Exception) -> StoreError:
        """Say where entries wait that could not be kept, and what to do."""
        return StoreError(
            f"{self._folder}: ids that wait for their labels do not fit in memory and cannot be kept here: {error}; "
            "make room on this disk, or raise state.max_in_memory"
        )
