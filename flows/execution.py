"""A retraining from its first step to its written end, whatever happens in between. No Prefect here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any

from core.audit import Outcome
from core.errors import HeadraceError, LeaseLostError, RegistryError, StoreError
from flows.stops import NotPromoted
from flows.training import Retraining

_MAY_PASS = (RegistryError, StoreError, OSError)
_log = logging.getLogger("headrace.retrain")

RunStep = Callable[[str, Callable[[], str]], str]


def execute(retraining: Retraining, run_step: RunStep = lambda _name, step: step()) -> dict[str, Any]:
    """Run every step, write the records and close the request.

    Parameters
    ----------
    run_step : callable
        Runs one named step; a flow makes a task of it.

    Returns
    -------
    dict
        ``outcome`` (promoted, shadowing, gated, failed or superseded), ``reasons``, ``version``, ``mlflow_run``.

    Raises
    ------
    Exception
        If a step failed. The request is closed as failed then; where MLflow, the tables or the disk failed, it
        is given to the next attempt. A promotion that was decided stays open: the dispatcher carries it out.
    """
    try:
        with retraining.lease.held(), closing(retraining):
            for name, step in retraining.steps:
                retraining.lease.check()
                said = run_step(name, step)
                _log.info("%s: %s", name, said)
                retraining.lease.tell(name, said)
    except NotPromoted as stop:
        return _end(retraining, "gated", stop.reasons)
    except LeaseLostError as error:
        _log.warning("%s", error)
        return _outcome(retraining, "superseded", [str(error)])
    except Exception as error:
        said = str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
        ended = _end(retraining, "failed", [said], may_pass=isinstance(error, _MAY_PASS))
        if ended["outcome"] == "superseded":
            return ended
        raise
    return _outcome(retraining, retraining.outcome, [])


def _end(retraining: Retraining, outcome: Outcome, reasons: list[str], *, may_pass: bool = False) -> dict[str, Any]:
    _log.warning("not promoted (%s): %s", outcome, "; ".join(reasons))
    try:
        with retraining.ledger.transaction():
            if may_pass:
                retraining.lease.release("; ".join(reasons))
            else:
                retraining.lease.close(outcome, reasons)
            retraining.write_records(outcome, reasons)
            if retraining.run_id is None:
                retraining.ledger.unpin(retraining.request.id)
    except LeaseLostError as error:
        return _outcome(retraining, "superseded", [str(error)])
    return _outcome(retraining, outcome, reasons)


def _outcome(retraining: Retraining, outcome: str, reasons: list[str]) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "reasons": reasons,
        "version": retraining.version.version if retraining.version else None,
        "mlflow_run": retraining.run_id,
    }
