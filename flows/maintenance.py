"""The flow that keeps tables fast and small: what is past its time goes, then compact, and vacuum what no pin keeps."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import Any

from prefect import flow

from core.processes import end_with_starter

_log = logging.getLogger("headrace.maintenance")


@flow(name="maintenance", persist_result=False, validate_parameters=False)
def maintenance(project: str, state: str | None = None, retention_hours: int = 168) -> list[dict[str, Any]]:
    """Compact and vacuum every table of a project; pinned versions stay readable, but for what is past its time.

    Parameters
    ----------
    project : str
        The project folder.
    state : str, optional
        The state folder; as in :func:`core.project.load_project`.
    retention_hours : int
        Files younger than this stay whatever version needs them.

    Returns
    -------
    list of dict
        One entry a table: files compacted, written and removed, and pinned versions that are gone.

    Raises
    ------
    StoreError
        If a table could not be maintained; the others were.
    """
    end_with_starter()
    logging.getLogger("headrace").setLevel(logging.INFO)
    from core.audit import Ledger
    from core.errors import StoreError
    from core.project import load_project
    from core.store import TableStore
    from flows.retention import let_go
    from flows.upkeep import maintain_tables, release_pins

    loaded = load_project(project, state=state or None)
    ledger = Ledger(loaded.ledger)
    try:
        release_pins(ledger, loaded.settings.retrain.reproducible)
        store = TableStore(loaded.tables)
        let_go(loaded, store, ledger, round(time.time() * 1000))
        done = maintain_tables(store, ledger, retention_hours)
    finally:
        ledger.close()
    for entry in done:
        _log.info("%s", entry)
    if problems := [entry.problem for entry in done if entry.problem]:
        raise StoreError("; ".join(problems))
    return [asdict(entry) for entry in done]
