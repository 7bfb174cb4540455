"""What was read of the past, in a file on disk: decoded, put into the order of its times, and there again after a kill.

An SQLite file in the state folder, readable by its owner only. It holds events and labels as decoded, so that nothing
personal is in it in clear; it is removed when all of it is in the tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from core.errors import StoreError
from core.records import Event, Label
from streaming.sqlite_errors import translated

_SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS records (time INTEGER, turn INTEGER, row INTEGER, content BLOB);
    CREATE TABLE IF NOT EXISTS known (id TEXT PRIMARY KEY, flags INTEGER) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT);
"""
_AT_ONCE = 4_096
_EVENT, _LABEL = 0, 1
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


class Spool:
    """Events and labels, from the order in which they were read to that in which they happened.

    Parameters
    ----------
    path : Path
        The file; made with its folder if it is not there.

    Raises
    ------
    StoreError
        From every method, if the disk is full or the file is damaged.

    Examples
    --------
    >>> import tempfile
    >>> spool = Spool(Path(tempfile.mkdtemp()) / "past.sqlite")
    >>> spool.add([(0, Event("b", 20, {"x": 1.0})), (0, Label("b", 20, 1)), (1, Event("a", 10, {}))], {})
    >>> [(row, content.id, type(content).__name__) for row, content in spool.records()]
    [(1, 'a', 'Event'), (0, 'b', 'Event'), (0, 'b', 'Label')]
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        try:
            self._db = sqlite3.connect(path)
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise self.failure(error) from error

    @translated
    def recall(self, name: str) -> Any:
        """Return what was noted under a name, None if nothing."""
        found = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    @translated
    def add(self, read: Iterable[tuple[int, Event | Label]], notes: dict[str, Any]) -> None:
        """Take in what was read of some rows, each with the row's number, and note how far that is: all or nothing."""
        with self._db:
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", map(_entry, read))
            self._note(notes)

    @translated
    def know(self, ids: Iterable[tuple[str, int]]) -> None:
        """Keep what is known of ids, as flags; those of one id add up."""
        with self._db:
            self._db.executemany(
                "INSERT INTO known VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET flags = flags | excluded.flags", ids
            )

    @translated
    def knows_any(self) -> bool:
        """Tell whether anything is known of any id."""
        return self._db.execute("SELECT 1 FROM known LIMIT 1").fetchone() is not None

    @translated
    def known(self, event_id: str) -> int:
        """Return the flags of an id, 0 without any."""
        found = self._db.execute("SELECT flags FROM known WHERE id = ?", (event_id,)).fetchone()
        return 0 if found is None else int(found[0])

    @translated
    def note(self, notes: dict[str, Any]) -> None:
        """Note something under names."""
        with self._db:
            self._note(notes)

    def _note(self, notes: dict[str, Any]) -> None:
        rows = [(name, json.dumps(value)) for name, value in notes.items()]
        self._db.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", rows)

    @translated
    def sort(self) -> None:
        """Put everything into its order."""
        self._db.execute("CREATE INDEX IF NOT EXISTS places ON records (time, turn, row)")

    @translated
    def count(self) -> int:
        """Return the number of events and labels."""
        return int(self._db.execute("SELECT count(*) FROM records").fetchone()[0])

    @translated
    def every(self, number: int) -> list[int]:
        """Return the time of every so manieth event or label in their order, ms, without the first."""
        times = self._db.execute("SELECT time FROM records ORDER BY time")
        return [time for place, (time,) in enumerate(times) if place and place % number == 0]

    def records(self) -> Iterator[tuple[int, Event | Label]]:
        """Yield (row, event or label) in the order of their times; at equal times events, then labels, then rows."""
        query = "SELECT turn, row, content FROM records ORDER BY time, turn, row"
        try:
            cursor = self._db.execute(query)
            while some := cursor.fetchmany(_AT_ONCE):
                for turn, row, content in some:
                    parts = _decoder.decode(content)
                    yield row, Event(*parts) if turn == _EVENT else Label(*parts)
        except sqlite3.Error as error:
            raise self.failure(error) from error

    @translated
    def clear(self) -> None:
        """Forget everything."""
        with self._db:
            for table in ("records", "known", "notes"):
                self._db.execute(f"DELETE FROM {table}")
            self._db.execute("DROP INDEX IF EXISTS places")

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._db.close()

    def remove(self) -> None:
        """Remove the file."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def failure(self, error: sqlite3.Error) -> StoreError:
        """Say which file could not be written or read, and what to do."""
        return StoreError(
            f"{self._path}: {error}; is the disk full? If the file is damaged, remove it: what was ingested so far is "
            "found in the tables"
        )


def _entry(read: tuple[int, Event | Label]) -> tuple[int, int, int, bytes]:
    row, content = read
    if isinstance(content, Event):
        parts = (content.id, content.time, content.fields, content.unknown)
        return content.time, _EVENT, row, _encoder.encode(parts)
    return content.time, _LABEL, row, _encoder.encode((content.id, content.time, content.outcome))
