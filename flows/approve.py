"""The flow that stands for a question in Prefect: it is suspended until somebody resumes it there, with who and why."""

from __future__ import annotations

import logging

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput

from core.processes import end_with_starter

_log = logging.getLogger("headrace.approve")


class Approval(RunInput):
    """What a person answers.

    Attributes
    ----------
    approved_by, why : str
        Who says so, and the reason; both are kept.
    passed : bool
        False rejects the version.
    """

    approved_by: str
    why: str
    passed: bool = True


@flow(name="approve", persist_result=False, validate_parameters=False)
def approve(project: str, version: int, question: str = "", state: str | None = None) -> str:
    """Wait for a person's word on a version, and carry it out.

    Parameters
    ----------
    project : str
        The project folder.
    version : int
        What waits for approval.
    question : str
        What the person is told.
    state : str, optional
        The state folder; as in :func:`core.project.load_project`.

    Returns
    -------
    str
        What was done.
    """
    end_with_starter()
    logging.getLogger("headrace").setLevel(logging.INFO)
    _log.info("%s", question)
    said = suspend_flow_run(wait_for_input=Approval.with_initial_data(description=question), key="approval")
    from core.audit import Ledger
    from core.errors import UsageError
    from core.project import load_project
    from core.registry import Registry
    from flows.approval import answer
    from flows.moves import finish

    loaded = load_project(project, state=state or None)
    ledger = Ledger(loaded.ledger)
    try:
        answer(loaded, ledger, version, by=said.approved_by, why=said.why, passed=said.passed)
        return finish(ledger, Registry(loaded)) or "it was carried out already"
    except UsageError as error:  # answered by command meanwhile, or replaced
        _log.warning("%s", error)
        return str(error)
    finally:
        ledger.close()
