"""Which ids are in the tables already, before an ingestion writes its first row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

from core.store import TableStore
from core.tables import EXAMPLES, INGESTED, PREDICTIONS, Filter
from streaming.ingest_order import Spool

PREDICTED, LABELLED, WORKERS = 1, 2, 4
"""An id is in the predictions, in the examples, or in rows that a worker wrote."""

_AT_ONCE = 500_000


def known_ids(store: TableStore, spool: Spool) -> int:
    """Put the ids that are in the tables into the spool; return the last step of ingested rows, 0 without any.

    The tables are read in spans of time, in each of which the spool has half a million records.

    Raises
    ------
    StoreError
        If a table cannot be read.
    """
    last = 0
    for table, flag in ((PREDICTIONS, PREDICTED), (EXAMPLES, LABELLED)):
        if not store.exists(table):
            continue
        step = "step" if table == PREDICTIONS else "label_step"
        for where in _spans(spool.every(_AT_ONCE)):
            rows = store.read(table, columns=["id", "partition", step], where=where)
            ids, partitions = rows["id"].to_pylist(), rows["partition"].to_pylist()
            pairs = zip(ids, partitions, strict=True)
            spool.know((key, flag if number == INGESTED else flag | WORKERS) for key, number in pairs)
            steps = zip(partitions, rows[step].to_pylist(), strict=True)
            last = max([last, *(at for number, at in steps if number == INGESTED and at is not None)])
    return last


def _spans(times: list[int]) -> Iterator[list[Filter] | None]:
    """Yield what rows between these times (ms), before the first and from the last on have to be."""
    moments = [None, *(datetime.fromtimestamp(at / 1000, UTC) for at in dict.fromkeys(times)), None]
    for first, end in pairwise(moments):
        where: list[Filter] = [] if first is None else [("event_time", ">=", first)]
        where += [] if end is None else [("event_time", "<", end)]
        yield where or None
