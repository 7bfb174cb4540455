"""Upkeep of the tables, without Prefect."""

from __future__ import annotations

import logging
from functools import partial

from core.audit import Ledger
from core.errors import StoreError
from core.store import Maintenance, TableStore
from core.tables import CORRECTIONS, EXAMPLES, PREDICTIONS, WINDOWS

_log = logging.getLogger("headrace.maintenance")


def maintain_tables(store: TableStore, ledger: Ledger, retention_hours: int = 168) -> list[Maintenance]:
    """Compact and vacuum each table that exists, keeping the versions that the ledger pins.

    A table that cannot be maintained says so in its entry (and in the log), and does not keep the others from it;
    so does one with pins on versions that are gone.
    """
    done = [
        _maintained(store, ledger, table, retention_hours) for table in (PREDICTIONS, EXAMPLES, CORRECTIONS, WINDOWS)
    ]
    return [entry for entry in done if entry is not None]


def _maintained(store: TableStore, ledger: Ledger, table: str, retention_hours: int) -> Maintenance | None:
    try:
        if not store.exists(table):
            return None
        done = store.maintain(table, keep_versions=partial(ledger.pinned, table), retention_hours=retention_hours)
    except StoreError as error:
        _log.error("%s", error)
        return Maintenance(table, problem=str(error))
    if done.versions_gone:
        _log.warning(
            "table %s: pinned versions that cannot be read any more: %s; what was trained on them cannot be looked up",
            table,
            ", ".join(str(version) for version in done.versions_gone),
        )
    return done
