"""The ledger: every alert, decision, retraining, gate and promotion, written before it is acted on.

One SQLite file a project, shared by all services. ``records`` is append-only, and each record's hash covers
the one before (:mod:`core.chain`). ``requests`` is the outbox of retrainings: written in the same transaction
as the decision, dispatched later, one open at a time. ``alerts`` is the outbox of alerts: what became of each.
``memory`` holds the small durable state of pure code (the policy's). ``pins`` names table versions that must
stay readable.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.chain import START, ChainCheck, Link, check_chain, hash_after, head_of
from core.errors import StoreError
from core.ledger_file import connected

RecordKind = Literal[
    "alert",
    "decision",
    "quarantine",
    "release",
    "unlearn",
    "retraining",
    "gate",
    "challenge",
    "approval",
    "withdrawal",
    "promotion",
    "trust",
    "rollback",
    "erasure",
]
Trigger = Literal["bootstrap", "schedule", "drift", "growth", "manual"]
CHALLENGER_BLEND, CHAMPION_BLEND = "blend_with_challenger", "blend_with_champion"
"""What a retraining's metrics call what would be served with either."""

OPEN = ("requested", "submitted", "running")
QUESTION = "promotion.approval"
"""Remembered under this name: what waits for a person's approval (`flows.approval`)."""

DISPATCH_PROBLEM = "dispatch.problem"
"""Remembered under this name: why requests wait (`flows.trouble`)."""

Outcome = Literal["promoted", "shadowing", "waiting", "gated", "failed"]
AlertStatus = Literal["waiting", "sent", "given up"]


@dataclass(frozen=True)
class LedgerRecord:
    """One written record; `event_time` is in ms, `written_at` wall clock in s."""

    kind: str
    key: str
    event_time: int | None
    written_at: float
    body: dict[str, Any]


@dataclass(frozen=True)
class WaitingAlert:
    """An alert that is to be sent; `tries` is how often that failed, `sequence` its place in the ledger."""

    sequence: int
    tries: int
    record: LedgerRecord


@dataclass(frozen=True)
class RetrainRequest:
    """A decided retraining on its way.

    Attributes
    ----------
    id : str
        The decision's key; also Prefect's idempotency key, with the attempt.
    trigger : str
        bootstrap, schedule, drift or manual.
    event_time : int
        Data up to here may be used, ms.
    effective_at : int
        In lockstep: the event time from which its champion may be served, ms.
    status : str
        requested -> submitted -> running -> promoted, shadowing, waiting (for approval), gated or failed.
    """

    id: str
    trigger: str
    event_time: int
    effective_at: int
    status: str = "requested"
    attempt: int = 1
    flow_run: str | None = None
    changed_at: float = 0.0
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether it is still on its way."""
        return self.status in OPEN


class Ledger:
    """The ledger file; safe to open from several processes and threads.

    Examples
    --------
    >>> ledger = Ledger(Path(":memory:"))
    >>> ledger.record("alert", "w1", event_time=0, body={"reasons": ["share"]})
    True
    >>> ledger.record("alert", "w1", event_time=0, body={"reasons": ["again"]})
    False
    >>> [record.key for record in ledger.history("alert")]
    ['w1']
    """

    def __init__(self, path: Path) -> None:
        if str(path) != ":memory:":
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        try:
            self._connection = connected(path)
        except sqlite3.Error as error:
            raise StoreError(f"ledger {path}: cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything written inside durable together, or not at all; may be nested."""
        with self._lock:
            try:
                if self._depth == 0:
                    self._connection.execute("BEGIN IMMEDIATE")
                self._depth += 1
                try:
                    yield
                    if self._depth == 1:
                        self._connection.execute("COMMIT")
                except BaseException:
                    if self._depth == 1 and self._connection.in_transaction:  # SQLite may have rolled back by itself
                        self._connection.execute("ROLLBACK")
                    raise
                finally:
                    self._depth -= 1
            except sqlite3.Error as error:
                raise StoreError(f"ledger: cannot be written: {error}") from error

    def record(self, kind: RecordKind, key: str, *, event_time: int | None, body: dict[str, Any]) -> bool:
        """Write a record once; return False if this kind and key were written before. An alert waits to be sent."""
        link = Link(kind, key, event_time, time.time(), json.dumps(body, allow_nan=False))
        with self.transaction():
            cursor = self._connection.execute(
                "INSERT OR IGNORE INTO records (kind, key, event_time, written_at, body, hash)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (kind, key, event_time, link.written_at, link.body, hash_after(self.head(), link)),
            )
            if cursor.rowcount == 1 and kind == "alert":
                self._connection.execute("INSERT INTO alerts (sequence) VALUES (?)", (cursor.lastrowid,))
            return cursor.rowcount == 1

    def head(self) -> str:
        """Return the hash over everything that was recorded so far."""
        sealed = self._rows(
            "SELECT sequence, hash FROM records WHERE hash IS NOT NULL ORDER BY sequence DESC LIMIT 1", ()
        )
        last, before = (sealed[0]["sequence"], sealed[0]["hash"]) if sealed else (0, START)
        return head_of(self._links(last), before)

    def verify(self) -> ChainCheck:
        """Tell whether every record still is as it was written, and none is missing but perhaps the latest."""
        return check_chain(self._links())

    def _links(self, after: int = 0) -> list[Link]:
        query = "SELECT kind, key, event_time, written_at, body, hash FROM records WHERE sequence > ? ORDER BY sequence"
        return [Link(*row) for row in self._rows(query, (after,))]

    def history(self, kind: RecordKind | None = None) -> list[LedgerRecord]:
        """Return the records in the order they were written."""
        query = "SELECT * FROM records WHERE ? IS NULL OR kind = ? ORDER BY sequence"
        return [_record(row) for row in self._rows(query, (kind, kind))]

    def last_sequence(self) -> int:
        """Return the number of the latest record, 0 before the first: whether there is anything new."""
        return int(self._rows("SELECT COALESCE(MAX(sequence), 0) AS last FROM records", ())[0]["last"])

    def waiting_alerts(self) -> list[WaitingAlert]:
        """Return the alerts that are neither sent nor given up, in the order they were written."""
        query = "SELECT * FROM alerts JOIN records USING (sequence) WHERE status = 'waiting' ORDER BY sequence"
        return [WaitingAlert(row["sequence"], row["tries"], _record(row)) for row in self._rows(query, ())]

    def alert_tried(self, sequence: int, status: AlertStatus, problem: str | None = None) -> None:
        """Write down what became of a try to send an alert."""
        with self.transaction():
            self._connection.execute(
                "UPDATE alerts SET status = ?, tries = tries + 1, problem = ? WHERE sequence = ?",
                (status, problem, sequence),
            )

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return what was remembered under `name`, or None."""
        rows = self._rows("SELECT body FROM memory WHERE name = ?", (name,))
        return json.loads(rows[0]["body"]) if rows else None

    def remember(self, name: str, body: dict[str, Any]) -> None:
        """Keep a small JSON state under `name`, replacing what was there."""
        with self.transaction():
            self._connection.execute(
                "INSERT INTO memory VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
                (name, json.dumps(body)),
            )

    def forget(self, name: str) -> None:
        """Drop what was remembered under `name`, if anything."""
        with self.transaction():
            self._connection.execute("DELETE FROM memory WHERE name = ?", (name,))

    def request_retrain(self, request: RetrainRequest) -> bool:
        """Put a retraining into the outbox; return False if one is open or the id is known."""
        with self.transaction():
            if self.open_requests():
                return False
            cursor = self._connection.execute(
                "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, 'requested', 1, NULL, ?, ?)",
                (
                    request.id,
                    request.trigger,
                    request.event_time,
                    request.effective_at,
                    time.time(),
                    json.dumps(request.body),
                ),
            )
            return cursor.rowcount == 1

    def open_requests(self) -> list[RetrainRequest]:
        """Return the retrainings that are not finished, oldest first."""
        return [request for request in self.requests() if request.is_open]

    def requests(self) -> list[RetrainRequest]:
        """Return every retraining ever requested, oldest first."""
        return [
            RetrainRequest(
                row["id"],
                row["trigger"],
                row["event_time"],
                row["effective_at"],
                row["status"],
                row["attempt"],
                row["flow_run"],
                row["changed_at"],
                json.loads(row["body"]),
            )
            for row in self._rows("SELECT * FROM requests ORDER BY rowid", ())
        ]

    def advance(
        self,
        request_id: str,
        *,
        expect: tuple[str, ...],
        status: str,
        attempt: int | None = None,
        flow_run: str | None = None,
        next_attempt: bool = False,
        body: dict[str, Any] | None = None,
    ) -> bool:
        """Move a request on, only if its status is one of `expect` (and it is at `attempt`); return whether it moved.

        This compare-and-set is the lease: of two runs of one request only one becomes ``running``.
        """
        with self.transaction():
            cursor = self._connection.execute(  # only question marks are put into the text
                "UPDATE requests SET status = ?, flow_run = COALESCE(?, flow_run), attempt = attempt + ?,"
                " changed_at = ?, body = COALESCE(?, body)"
                f" WHERE id = ? AND COALESCE(?, attempt) = attempt AND status IN ({', '.join('?' * len(expect))})",
                (
                    status,
                    flow_run,
                    int(next_attempt),
                    time.time(),
                    None if body is None else json.dumps(body),
                    request_id,
                    attempt,
                    *expect,
                ),
            )
            return cursor.rowcount == 1

    def pin(self, table: str, version: int, owner: str) -> None:
        """Keep a table version readable as long as `owner` (a run, a model version) needs it."""
        with self.transaction():
            self._connection.execute("INSERT OR IGNORE INTO pins VALUES (?, ?, ?)", (table, version, owner))

    def unpin(self, owner: str) -> None:
        """Release every version that `owner` pinned."""
        with self.transaction():
            self._connection.execute("DELETE FROM pins WHERE owner = ?", (owner,))

    def pin_owners(self) -> list[str]:
        """Return who pins anything."""
        return [row["owner"] for row in self._rows("SELECT DISTINCT owner FROM pins ORDER BY owner", ())]

    def pins(self) -> list[tuple[str, int, str]]:
        """Return every pin: table, version and owner."""
        rows = self._rows("SELECT table_name, version, owner FROM pins ORDER BY table_name, version, owner", ())
        return [(row["table_name"], row["version"], row["owner"]) for row in rows]

    def pinned(self, table: str) -> list[int]:
        """Return the pinned versions of a table, ascending."""
        rows = self._rows("SELECT DISTINCT version FROM pins WHERE table_name = ? ORDER BY version", (table,))
        return [row["version"] for row in rows]

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"ledger: cannot be read: {error}") from error


def _record(row: sqlite3.Row) -> LedgerRecord:
    return LedgerRecord(row["kind"], row["key"], row["event_time"], row["written_at"], json.loads(row["body"]))
