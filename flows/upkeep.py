"""Upkeep of the tables, without Prefect."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from core.audit import Ledger
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES, PREDICTIONS, WINDOWS


def maintain_tables(store: TableStore, ledger: Ledger, retention_hours: int = 168) -> list[dict[str, Any]]:
    """Compact and vacuum each table that exists, keeping the versions that the ledger pins.

    Raises
    ------
    StoreError
        If a table cannot be maintained.
    """
    return [
        asdict(store.maintain(table, keep_versions=partial(ledger.pinned, table), retention_hours=retention_hours))
        for table in (PREDICTIONS, EXAMPLES, CORRECTIONS, WINDOWS)
        if store.exists(table)
    ]
