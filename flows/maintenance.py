"""The flow that keeps the tables fast and small: compact, then vacuum all but pinned versions."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from prefect import flow

from core.processes import end_with_starter

_log = logging.getLogger("headrace.maintenance")


@flow(name="maintenance", persist_result=False, validate_parameters=False)
def maintenance(project: str, state: str | None = None, retention_hours: int = 168) -> list[dict[str, Any]]:
    """Compact and vacuum every table of a project; pinned versions stay readable.

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
    from flows.upkeep import maintain_tables, release_pins

    loaded = load_project(project, state=state or None)
    ledger = Ledger(loaded.ledger)
    try:
        release_pins(ledger, loaded.settings.retrain.reproducible)
        done = maintain_tables(TableStore(loaded.tables), ledger, retention_hours)
    finally:
        ledger.close()
    for entry in done:
        _log.info("%s", entry)
    if problems := [entry.problem for entry in done if entry.problem]:
        raise StoreError("; ".join(problems))
    return [asdict(entry) for entry in done]
