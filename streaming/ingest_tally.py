"""What becomes of the rows of the past: counted, each once, with samples of those that were refused. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.records import BadRecord, Event, Label
from streaming.books import Books
from streaming.ingest_rows import Reading

SAMPLES = 10
"""Refused rows that are told of each reason."""


@dataclass
class Tally:
    """Counters of reading.

    Attributes
    ----------
    rows : int
        Rows read: each is an event, refused or too old.
    events, labels : int
        What could be decoded.
    too_old : int
        Rows past ``privacy.retention``, which are not taken.
    events_refused, labels_refused : dict of str to int
        By reason. The label of a refused event is not looked at.
    samples : list of dict
        Some of what was refused: row, counted from 0, kind, reason and detail; the values of the row are not kept.

    Examples
    --------
    >>> tally = Tally()
    >>> taken = tally.take(Reading(BadRecord("event", "bad_time", "at: 'soon' is not a time")), oldest=0)
    >>> taken, tally.rows, tally.events_refused
    ([], 1, {'bad_time': 1})
    """

    rows: int = 0
    events: int = 0
    labels: int = 0
    too_old: int = 0
    events_refused: dict[str, int] = field(default_factory=dict)
    labels_refused: dict[str, int] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def take(self, reading: Reading, oldest: int) -> list[Event | Label]:
        """Count a row, and return what of it goes on: nothing of an event from before `oldest`, ms."""
        row, event, label = self.rows, reading.event, reading.label
        self.rows += 1
        if isinstance(event, BadRecord):
            self.refuse(row, event)
            return []
        if event.time < oldest:
            self.too_old += 1
            return []
        self.events += 1
        if isinstance(label, BadRecord):
            self.refuse(row, label)
        if not isinstance(label, Label):
            return [event]
        self.labels += 1
        return [event, label]

    def refuse(self, row: int, bad: BadRecord) -> None:
        """Count what cannot be used."""
        reasons = self.events_refused if bad.kind == "event" else self.labels_refused
        seen = reasons.get(bad.reason, 0)
        reasons[bad.reason] = seen + 1
        if seen < SAMPLES:
            self.samples.append({"row": row, "kind": bad.kind, "reason": bad.reason, "detail": bad.detail})

    @property
    def refused(self) -> int:
        """Events and labels that were refused."""
        return sum(self.events_refused.values()) + sum(self.labels_refused.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass
class Written:
    """What follows from events and labels, and what of it is left to others.

    Attributes
    ----------
    predictions, examples, corrections : int
        Rows that this ingestion has put into the tables.
    already, of_workers, erased : int
        Such rows that it has not: they are there from an earlier ingestion, a worker has predicted their event, or
        their id was erased.
    """

    predictions: int = 0
    examples: int = 0
    corrections: int = 0
    already: int = 0
    of_workers: int = 0
    erased: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Ingested:
    """What an ingestion did.

    Attributes
    ----------
    source, place : str
        The source's name in the project file, and where it is.
    resumed : bool
        Whether an earlier one that was stopped went on.
    tally : Tally
        What became of the rows.
    books : Books
        The books of events and labels, as a worker keeps them.
    written : Written
        What went into the tables.
    first, last : int or None
        Times of the first and the last record, ms.
    report : Path
        Where all this is written down.
    """

    source: str
    place: str
    resumed: bool
    tally: Tally
    books: Books
    written: Written
    first: int | None
    last: int | None
    report: Path

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "source": self.source,
            "place": self.place,
            "resumed": self.resumed,
            **self.tally.as_dict(),
            "books": self.books.as_dict(),
            "written": self.written.as_dict(),
            "first": self.first,
            "last": self.last,
            "report": str(self.report),
        }
