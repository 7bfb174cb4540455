"""Upkeep of the tables, without Prefect: whose rows are let go, what is compacted and removed."""

from __future__ import annotations

import logging
from functools import partial

from core.audit import Ledger, LedgerRecord
from core.errors import StoreError
from core.store import Maintenance, TableStore
from core.tables import CORRECTIONS, EVENTS, EXAMPLES, PREDICTIONS, WINDOWS
from flows.promotion import named_versions, pin_owner

_log = logging.getLogger("headrace.maintenance")


def maintain_tables(store: TableStore, ledger: Ledger, retention_hours: int = 168) -> list[Maintenance]:
    """Compact and vacuum each table that exists, keeping the versions that the ledger pins.

    A table that cannot be maintained says so in its entry (and in the log), and does not keep the others from it;
    so does one with pins on versions that are gone.
    """
    tables = (PREDICTIONS, EXAMPLES, CORRECTIONS, EVENTS, WINDOWS)
    done = [_maintained(store, ledger, table, retention_hours) for table in tables]
    return [entry for entry in done if entry is not None]


def release_pins(ledger: Ledger, keep: int) -> list[str]:
    """Let go of the rows of old fits, and return whose.

    The latest `keep` fits that MLflow has a run of keep theirs, and so does every version that has an alias after the
    latest promotion or rollback, and every request that is open. Whom the ledger does not know keeps them, too.

    Parameters
    ----------
    keep : int
        ``retrain.reproducible``.
    """
    with ledger.transaction():
        made = [record for record in ledger.history("retraining") if record.body.get("mlflow_run")]
        versions = [record.body["version"] for record in made[-keep:] if record.body.get("version") is not None]
        before = range(1, min(versions, default=1))  # of runs that were killed before they could write a record, too
        requests = {request.id: request.is_open for request in ledger.requests()}
        kept = {_owner_of(record) for record in made[-keep:]} | {name for name, is_open in requests.items() if is_open}
        kept |= {pin_owner(version) for version in named_versions(ledger.history())}
        known = {*map(_owner_of, made), *requests, *map(pin_owner, before)}
        old = [owner for owner in ledger.pin_owners() if owner in known - kept]
        for owner in old:
            ledger.unpin(owner)
    return old


def _owner_of(record: LedgerRecord) -> str:
    """Return who pins the rows of a fit: the version that came of it, or the request of one that was gated out."""
    body = record.body
    return str(body["request"]) if body.get("version") is None else pin_owner(body["version"])


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
