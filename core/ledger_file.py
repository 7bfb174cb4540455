"""The ledger's file: its tables, and opening it from several processes at once."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

_WAIT_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, key TEXT NOT NULL, event_time INTEGER, written_at REAL NOT NULL, body TEXT NOT NULL,
    hash TEXT,
    UNIQUE (kind, key));
CREATE TRIGGER IF NOT EXISTS records_stay BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'records of the ledger are never removed'); END;
CREATE TRIGGER IF NOT EXISTS records_do_not_change BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'records of the ledger are never changed'); END;
CREATE TABLE IF NOT EXISTS alerts (
    sequence INTEGER PRIMARY KEY REFERENCES records, status TEXT NOT NULL DEFAULT 'waiting',
    tries INTEGER NOT NULL DEFAULT 0, problem TEXT);
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY, trigger TEXT NOT NULL, event_time INTEGER NOT NULL, effective_at INTEGER NOT NULL,
    status TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 1, flow_run TEXT, changed_at REAL NOT NULL,
    body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS memory (name TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pins (
    table_name TEXT NOT NULL, version INTEGER NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY (table_name, version, owner));
"""


def connected(path: Path) -> sqlite3.Connection:
    """Open the file; where another process makes it at the same moment, SQLite is locked without waiting.

    Raises
    ------
    sqlite3.Error
        If it is no ledger, or stays locked.
    """
    deadline = time.monotonic() + _WAIT_S
    while True:
        connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_SCHEMA)
            _add_hashes(connection)
        except sqlite3.Error as error:
            connection.close()
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return connection


def _add_hashes(connection: sqlite3.Connection) -> None:
    """Let a ledger from before the chain have hashes, too; the records that it holds stay without."""
    if _has_hashes(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    if not _has_hashes(connection):
        connection.execute("ALTER TABLE records ADD COLUMN hash TEXT")
    connection.execute("COMMIT")


def _has_hashes(connection: sqlite3.Connection) -> bool:
    return any(column["name"] == "hash" for column in connection.execute("PRAGMA table_info(records)"))
