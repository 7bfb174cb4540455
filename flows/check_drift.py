"""The flow that looks at closed windows once, where no monitor runs all the time."""

from __future__ import annotations

import logging
import os

from prefect import flow

from core.processes import end_with_starter

_log = logging.getLogger("headrace.check-drift")


@flow(name="check-drift", persist_result=False, validate_parameters=False)
def check_drift(project: str, state: str | None = None) -> str:
    """Report on every window that closed since the last look; a decision goes to the ledger's outbox.

    Parameters
    ----------
    project : str
        The project folder.
    state : str, optional
        The state folder; as in :func:`core.project.load_project`.

    Returns
    -------
    str
        What was done.
    """
    end_with_starter()
    logging.getLogger("headrace").setLevel(logging.INFO)
    from core.audit import Ledger
    from core.project import load_project
    from core.status import is_alive, read_status
    from core.store import TableStore
    from flows.dispatch import Dispatcher
    from flows.shadowing import Shadowing

    loaded = load_project(project, state=state or None)
    if is_alive(read_status(loaded.status, "monitor")):
        return _left_alone()
    from monitoring.alerts import make_sender
    from monitoring.monitor import Monitor

    ledger = Ledger(loaded.ledger)
    store = TableStore(loaded.tables)
    monitor = Monitor(loaded, ledger, store, send_alert=make_sender(loaded.settings.alerts))
    try:
        if monitor.run_once() is None:  # its process may be in another container, and in one window for long
            return _left_alone()
        Shadowing(loaded, ledger, store).run_once()
        if api_url := os.environ.get("PREFECT_API_URL"):  # nobody else looks after the requests here
            Dispatcher(loaded, ledger, api_url, one_off=True).run_once()
    finally:
        ledger.close()
    return "closed windows are reported"


def _left_alone() -> str:
    said = "the monitor runs and looks at every window itself: nothing to do"
    _log.info(said)
    return said
