"""Ingests the past: rows of files or of a database become the rows that a worker would have written.

1. Every row is decoded as the stream's records are, and put into a file on disk (:mod:`streaming.ingest_order`).
2. In the order of their times events and labels go through the partition's machine, without experts: features once,
   then the label join with its horizon. What comes out goes into the tables, under a partition that no worker has.

A kill loses nothing. The first step goes on behind the last rows that are in the file (of a database it starts anew:
rows come in no order that would hold), the second is repeated from the file, and the tables drop what they have.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from core.errors import AlreadyRunningError, BooksError, SourceError, StoreError
from core.features import load_features
from core.locks import FileLock
from core.project import Project
from core.records import Event, Label
from core.store import TableStore
from core.tables import (
    CORRECTIONS,
    EVENTS,
    EXAMPLES,
    INGESTED,
    PREDICTIONS,
    corrections_schema,
    events_schema,
    examples_schema,
    predictions_schema,
)
from streaming.books import Books
from streaming.erasure import Erasures, name_in
from streaming.ingest_known import LABELLED, PREDICTED, WORKERS, known_ids
from streaming.ingest_order import Spool
from streaming.ingest_rows import Row, RowReader, wanted_columns
from streaming.ingest_tally import Ingested, Tally, Written
from streaming.join import LabelJoin, Predicted
from streaming.machine import Machine
from streaming.outputs import Correction, DeadLetter, Example, Kept, Output
from streaming.privacy_guard import guard
from streaming.state import State
from streaming.table_writer import TableWriter
from streaming.transport import RawRecord

_BATCH = 10_000
Tell = Callable[[str, int, int | None, int | None], None]
"""Gets what is done (``read`` or ``written``), how much of it, of how much if that is known, and up to when, ms."""


def ingest(project: Project, name: str, tell: Tell, stop: threading.Event) -> Ingested | None:
    """Ingest one source of the project's history; return what was done, None where `stop` was set before the end.

    Raises
    ------
    SourceError
        If the source cannot be read, or no row of it can be used.
    AlreadyRunningError
        If an ingestion of the project runs already.
    StoreError
        If a table, or the file in between, cannot be read or written.
    CheckpointError
        If what is personal now was not so before, or the key is another.
    BooksError
        If a row is accounted for nowhere, or twice.
    """
    lock = FileLock(project.status / "ingest.lock")
    if not lock.acquire("ingest"):
        raise AlreadyRunningError(f"an ingestion runs already on {project.state} ({lock.holder()[1]}); one at a time")
    try:
        return _Ingestion(project, name, tell, stop).run()
    finally:
        lock.release()


class _Ingestion:
    def __init__(self, project: Project, name: str, tell: Tell, stop: threading.Event) -> None:
        self._project, self._settings, self._name = project, project.settings, name
        self._source = project.settings.history[name]
        self._tell, self._stop = tell, stop
        self._pseudonyms = guard(project)
        self._features = load_features(project)
        self._store = TableStore(project.tables)
        self._folder = project.state / "ingest"
        self._open_source()
        self._spool = Spool(self._folder / f"{name}.sqlite")
        self._tally = Tally(**(self._spool.recall("tally") or {}))
        self._starts: list[int] = self._spool.recall("starts") or [0]
        self._written = Written()
        self._knows_any = False
        self._first: int | None = None
        self._last: int | None = None
        self._erased: frozenset[str] = frozenset()
        self._erasures = Erasures(project)

    def run(self) -> Ingested | None:
        try:
            resumed = self._begin()
            if self._spool.recall("app") is None:
                if not self._read():
                    return None
                self._seal()
            books = self._write()
            if books is None:
                return None
            done = self._done(books, resumed=resumed)
        finally:
            self._spool.close()
        self._spool.remove()
        return done

    def _open_source(self) -> None:
        """Find the source; the library that reads it is imported here."""
        folder, source = self._project.folder, self._source
        self._columns = wanted_columns(self._settings, source)
        self._files: list[Path] = []
        if source.file is not None:
            from streaming.ingest_files import find_files

            self._files, self._place = find_files(folder, source.file), source.file
        else:
            from streaming.ingest_database import database_name

            self._place = database_name(source, folder)

    def _begin(self) -> bool:
        """Go on with what an ingestion of the same has left; else forget it. Return whether there was something."""
        digest = self._digest()
        same = self._spool.recall("digest") == digest
        if not same or (self._source.file is None and self._spool.recall("app") is None):
            self._spool.clear()
            self._spool.note({"digest": digest, "now": round(time.time() * 1000)})
            self._tally, self._starts = Tally(), [0]
            return False
        return bool(self._tally.rows)

    def _digest(self) -> str:
        """Return what has to be the same: settings, feature code, key and, of files, when they were changed."""
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self._files]
        key = self._pseudonyms.fingerprint if self._pseudonyms else None
        made = self._settings.features
        function = made.function.partition(":")[0] if made and made.function else None
        code = (self._project.folder / function).read_text(encoding="utf-8") if function else None
        content = json.dumps([self._settings.model_dump(mode="json"), self._name, key, files, code])
        return hashlib.sha256(content.encode()).hexdigest()

    def _read(self) -> bool:
        """Put every row into the file in between; return whether it is done."""
        now = int(self._spool.recall("now"))
        kept = self._settings.privacy.retention
        oldest = 0 if kept is None else now - kept
        batch: list[tuple[int, Event | Label]] = []
        for row, reader in self._rows(now):
            if len(batch) >= _BATCH or self._stop.is_set():
                self._spool.add(batch, {"tally": self._tally.as_dict(), "starts": self._starts})
                batch = []
                self._tell("read", self._tally.rows, None, None)
                if self._stop.is_set():
                    return False
            place = self._tally.rows
            batch += [(place, content) for content in self._tally.take(reader.read(row), oldest)]
        self._spool.add(batch, {"tally": self._tally.as_dict(), "starts": self._starts})
        self._tell("read", self._tally.rows, self._tally.rows, None)
        return True

    def _rows(self, now: int) -> Iterator[tuple[Row, RowReader]]:
        """Yield the rows that are not in the file in between yet, and who reads them."""
        settings, source = self._settings, self._source
        readers = {
            texts: RowReader(settings, source, now=now, texts=texts, pseudonyms=self._pseudonyms)
            for texts in (True, False)
        }
        if not self._files:
            from streaming.ingest_database import read_database

            for row in read_database(source, self._project.folder, self._columns):
                yield row, readers[False]
            return
        from streaming.ingest_files import is_text, read_file

        starts = self._starts
        times = [settings.time, *([source.label_time] if source.label_time else [])]
        for number, path in enumerate(self._files[len(starts) - 1 :], len(starts)):
            reader = readers[is_text(path)]
            for row in read_file(path, self._columns, times, skip=self._tally.rows - starts[-1]):
                yield row, reader
            if number < len(self._files):
                starts.append(self._tally.rows)

    def _seal(self) -> None:
        """Say that all is read, and what is in the tables before anything of it is."""
        if not self._tally.events:
            self._spool.remove()
            raise SourceError(f"{self._place}: no row can be used{self._why()}")
        self._spool.sort()
        step = known_ids(self._store, self._spool)
        self._spool.note({"app": f"ingest-{uuid.uuid4().hex[:16]}", "step": step})

    def _why(self) -> str:
        first = next(iter(self._tally.samples), None)
        if first is None:
            return ": it is empty" if not self._tally.rows else ": all are past privacy.retention"
        return f"; the first, {self._place_of(first['row'])}: {first['reason']}: {first['detail']}"

    def _write(self) -> Books | None:
        """Take events and labels through the machine into the tables; None where it was stopped."""
        machine = self._machine()
        writer = TableWriter(self._store, self._settings, INGESTED, self._spool.recall("app"))
        self._widen()
        self._look_for_erasures()
        self._knows_any = self._spool.knows_any()
        total, done = self._spool.count(), 0
        topics = {True: self._settings.events_topic, False: self._settings.labels_topic}
        for row, content in self._spool.records():
            record = RawRecord(topics[isinstance(content, Event)], INGESTED, row, content.time, None, None)
            writer.add([output for output in machine.step(machine.enrich(record, content)) if self._is_new(output)])
            done += 1
            if writer.rows >= self._settings.state.flush_rows:
                self._look_for_erasures()
                writer.flush(machine.state.step, self._is_erased)
            if done % _BATCH == 0:
                self._tell("written", done, total, content.time)
                if self._stop.is_set():
                    return None
        writer.flush(machine.state.step, self._is_erased)
        self._tell("written", done, total, machine.state.clock)
        self._last, self._first = machine.state.clock, machine.state.first_event
        machine.state.join.close()
        return machine.state.books

    def _machine(self) -> Machine:
        """Return a partition's machine without experts; nothing has to leave its join early, as that is on disk."""
        state = State.fresh(self._settings, [])
        state.join = LabelJoin(self._settings.label.horizon, sys.maxsize)
        state.join.attach(self._folder, self._settings.state.max_in_memory)
        state.step = int(self._spool.recall("step"))
        return Machine(self._settings, self._features, state, self._pseudonyms)

    def _widen(self) -> None:
        """Give tables of an older project file the columns that they lack."""
        schemas = {PREDICTIONS: predictions_schema, EXAMPLES: examples_schema, CORRECTIONS: corrections_schema}
        schemas |= {EVENTS: events_schema}
        for table, schema in schemas.items():
            if self._store.exists(table):
                self._store.widen(table, schema(self._settings))

    def _look_for_erasures(self) -> None:
        self._erasures.look()
        self._erased = frozenset(map(name_in, self._erasures.asked()))

    def _is_erased(self, event_id: str) -> bool:
        return bool(self._erased) and self._erasures.name(event_id) in self._erased

    def _flags(self, event_id: str) -> int:
        return self._spool.known(event_id) if self._knows_any else 0

    def _is_new(self, output: Output) -> bool:
        """Tell whether a row is to be written; count it, or why not."""
        written = self._written
        if isinstance(output, DeadLetter):
            self._tally.refuse(output.record.offset, output.bad)
            return False
        if isinstance(output, Kept):
            return not (self._is_erased(output.id) or self._flags(output.id) & (WORKERS | PREDICTED))
        event_id, table = _place_in_tables(output)
        flags = self._flags(event_id)
        if self._is_erased(event_id):
            written.erased += 1
        elif flags & WORKERS:
            written.of_workers += 1
        elif flags & (PREDICTED if table == PREDICTIONS else LABELLED):
            written.already += 1
        else:
            setattr(written, table, getattr(written, table) + 1)
            return True
        return False

    def _done(self, books: Books, *, resumed: bool) -> Ingested:
        """Balance the books and write everything down."""
        report = self._folder / f"{self._name}.json"
        self._enter_refused(books)
        tally = self._tally
        wrong = books.imbalances()
        if tally.rows != books.events.received + tally.too_old:
            wrong.append(f"rows: {tally.rows} is not {books.events.received} events and {tally.too_old} too old")
        if wrong:
            raise BooksError(f"ingest {self._name}: the books do not balance: {'; '.join(wrong)}; please report this")
        for sample in tally.samples:
            sample["place"] = self._place_of(sample["row"])
        done = Ingested(self._name, self._place, resumed, tally, books, self._written, self._first, self._last, report)
        try:
            report.write_text(json.dumps(done.as_dict(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{report}: cannot be written: {error.strerror}") from error
        return done

    def _enter_refused(self, books: Books) -> None:
        """Put into the books what was refused when it was read: the machine has not seen it."""
        read = Tally(**self._spool.recall("tally"))
        for book, refused in ((books.events, read.events_refused), (books.labels, read.labels_refused)):
            count = sum(refused.values())
            book.received += count
            book.dead_lettered += count
            for reason, number in refused.items():
                books.reasons[reason] = books.reasons.get(reason, 0) + number

    def _place_of(self, row: int) -> str:
        """Return where a row is, counted from 1 in its file."""
        starts = self._starts
        number = sum(start <= row for start in starts) - 1
        where = self._files[number].name if self._files else self._place
        return f"{where}, row {row - starts[number] + 1}"


def _place_in_tables(output: Predicted | Example | Correction) -> tuple[str, str]:
    """Return whose row it is, and in which table."""
    if isinstance(output, Predicted):
        return output.id, PREDICTIONS
    if isinstance(output, Example):
        return output.predicted.id, EXAMPLES
    return output.label.id, CORRECTIONS
