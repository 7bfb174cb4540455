"""Rows that have to go from every version of a table: deleted, and no older file keeps them.

A deletion alone makes a new version; those before it keep their files, for `reproduce` and for whoever reads at the
moment. Here the files that hold such a row are removed at once, whoever pins them: of a person who wants to be
forgotten, and of rows past their time, nothing may stay because a fit might be done again. Other files stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from core.errors import StoreError
from core.store import TableStore
from core.tables import CORRECTIONS, EVENTS, EXAMPLES, PREDICTIONS, TIMESTAMP

PERSONAL = (PREDICTIONS, EXAMPLES, CORRECTIONS, EVENTS)
"""The tables with a row an id."""

_AGE = {PREDICTIONS: "event_time", EXAMPLES: "event_time", CORRECTIONS: "label_clock", EVENTS: "event_time"}
_log = logging.getLogger("headrace.maintenance")


@dataclass(frozen=True)
class Removal:
    """What went of one table.

    Attributes
    ----------
    table : str
        Its name.
    rows : int
        Rows of its latest version.
    files : int
        Files of earlier versions that held such rows.
    """

    table: str
    rows: int
    files: int


def rows_of(store: TableStore, table: str, event_id: str) -> pa.Table:
    """Return the rows of an id; there must be such a table.

    Raises
    ------
    StoreError
        If the table cannot be read.
    """
    if table == CORRECTIONS:
        whole = store.read(table)
        return whole.filter(_is(whole["id"], event_id))
    places = store.read(table, columns=["id", "step"])
    steps = places.filter(_is(places["id"], event_id))["step"].to_pylist()
    if None in steps:
        raise StoreError(
            f"table {table!r} has rows of it without a step, written by an older headrace; start anew without them"
        )
    some = store.read(table, where=[("step", "in", steps)])
    return some.filter(_is(some["id"], event_id))


def remove_id(store: TableStore, table: str, event_id: str) -> Removal:
    """Remove the rows of an id from all versions of a table.

    The table's log, which stays, does not name the id: rows are deleted by partition and step.

    Raises
    ------
    StoreError
        If the table cannot be read or written, or has rows of that id without a step.
    """
    if not store.exists(table):
        return Removal(table, 0, 0)
    rows = rows_of(store, table, event_id)
    if len(rows) and table == CORRECTIONS:
        store.rewrite(table, lambda whole: whole.filter(pc.invert(_is(whole["id"], event_id))))
    elif len(rows):
        store.delete(table, _places(rows))
    return Removal(table, len(rows), _scrub(store, table, "id", lambda ids: _is(ids, event_id)))


def remove_older(store: TableStore, table: str, moment: int) -> Removal:
    """Remove the rows from before `moment`, event time in ms, from all versions of a table.

    Corrections go by when they came.

    Raises
    ------
    StoreError
        If the table cannot be read or written.
    """
    if not store.exists(table):
        return Removal(table, 0, 0)
    column, first = _AGE[table], datetime.fromtimestamp(moment / 1000, UTC)
    found = len(store.read(table, columns=[column], where=[(column, "<", first)]))
    if found:
        store.delete(table, f"{column} < '{first.isoformat(timespec='milliseconds')}'")
    before = pa.scalar(moment * 1000, TIMESTAMP)
    return Removal(table, found, _scrub(store, table, column, lambda times: pc.less(times, before)))


def _places(rows: pa.Table) -> str:
    """Return the predicate of rows by partition and step, of which no two are equal."""
    by_partition: dict[int, list[int]] = {}
    for partition, step in zip(rows["partition"].to_pylist(), rows["step"].to_pylist(), strict=True):
        by_partition.setdefault(partition, []).append(step)
    return " OR ".join(f"(partition = {number} AND step IN ({_list(steps)}))" for number, steps in by_partition.items())


def _list(steps: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(set(steps))))


def _is(ids: pa.Array | pa.ChunkedArray, event_id: str) -> Any:
    """Compare ids; what Delta has rewritten holds text as another type, which takes part in no filter of a read."""
    return pc.equal(ids.cast(pa.string()), event_id)


def _scrub(store: TableStore, table: str, column: str, goes: Callable[[pa.Array], Any]) -> int:
    """Remove the files of earlier versions with rows whose `column` goes; return how many."""
    filesystem, others = store.older_files(table)
    gone = 0
    for name in others:
        try:
            if _has(filesystem, name, column, goes):
                filesystem.delete_file(name)
                gone += 1
        except FileNotFoundError:
            _log.debug("%s: %s was removed by another", table, name)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"table {table!r}: file {name} cannot be looked through: {error}; it may be one that is being written: "
                "try again"
            ) from error
    return gone


def _has(filesystem: FileSystem, name: str, column: str, goes: Callable[[pa.Array], Any]) -> bool:
    with filesystem.open_input_file(name) as file:
        batches = pq.ParquetFile(file).iter_batches(columns=[column])
        return any(pc.any(goes(batch.column(0))).as_py() for batch in batches)
