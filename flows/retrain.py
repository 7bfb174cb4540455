"""The flow that retrains: each step of :mod:`flows.training` as a task of Prefect.

Exactly one run of a request works: the lease in the ledger decides, not Prefect. A run without a
request (Prefect's schedule, or a person) makes its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from core.processes import end_with_starter


@flow(name="retrain", persist_result=False, validate_parameters=False)
def retrain(
    project: str,
    request_id: str | None = None,
    trigger: str = "manual",
    state: str | None = None,
    attempt: int | None = None,
) -> dict[str, Any]:
    """Retrain a project's batch model, and let it challenge the champion (or be it) if every gate passes.

    Parameters
    ----------
    project : str
        The project folder.
    request_id : str, optional
        The decided request; without one the flow makes its own, with `trigger`.
    trigger : str
        manual or schedule; for a run without a request.
    state : str, optional
        The state folder; as in :func:`core.project.load_project`.
    attempt : int, optional
        Of the request: a run that starts after its request was given to a later attempt does nothing.

    Returns
    -------
    dict
        ``outcome`` (promoted, shadowing, gated, failed, superseded or skipped), ``reasons``, ``version``,
        ``mlflow_run``.
    """
    end_with_starter()
    # Before OpenMP loads: threads that wait by spinning make a fit beside a busy stream forty times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.getLogger("headrace").setLevel(logging.INFO)
    from core.audit import Ledger
    from core.project import load_project
    from core.store import TableStore
    from flows.execution import execute
    from flows.lease import make, progress, take
    from flows.training import Retraining

    loaded = load_project(project, state=state or None)
    ledger, store = Ledger(loaded.ledger), TableStore(loaded.tables)
    try:
        lease = (
            take(ledger, request_id, _flow_run(), attempt)
            if request_id
            else make(loaded, ledger, trigger, progress(loaded, store), _flow_run())
        )
        if lease is None or isinstance(lease, str):
            return _skipped(lease or f"request {request_id} is closed, or another run has it")
        return execute(Retraining(loaded, lease, store), _as_task)
    finally:
        ledger.close()


def _as_task(name: str, step: Callable[[], str]) -> str:
    """Run a step as a task without arguments: Prefect would walk through all of the data."""
    from flows.stops import NotPromoted

    stops: list[NotPromoted] = []

    def run() -> str:
        try:
            return step()
        except NotPromoted as stop:  # an outcome: the task did its work
            stops.append(stop)
            return f"ends here: {stop}"

    said = task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(run)()
    if stops:
        raise stops[0]
    return said


def _flow_run() -> str | None:
    from prefect.runtime import flow_run

    return flow_run.id or None


def _skipped(reason: str) -> dict[str, Any]:
    logging.getLogger("headrace.retrain").info("nothing to do: %s", reason)
    return {"outcome": "skipped", "reasons": [reason], "version": None, "mlflow_run": None}
