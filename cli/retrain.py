"""``headrace retrain``: ask for a retraining now, and wait for what becomes of it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import (
    check_writable,
    json_option,
    keep_from_demo,
    log_to_stderr,
    project_argument,
    stop_on_signals,
    user,
    who_option,
    why_option,
    write_json,
)
from core.audit import Ledger, RetrainRequest
from core.errors import AlreadyRunningError, UsageError
from core.project import Project, load_project
from core.status import is_alive, read_status

if TYPE_CHECKING:
    from flows.local import LocalPrefect

_EXIT = {"promoted": 0, "shadowing": 0, "waiting": 0, "gated": 3, "failed": 1}


@click.command(epilog="Example: headrace retrain examples/flights --json -")
@project_argument
@json_option
@click.option(
    "--trigger", type=click.Choice(["manual", "schedule"]), default="manual", show_default=True,
    help="Why; it is written down with the result.",
)  # fmt: skip
@who_option
@why_option
def retrain(project: Path, json_file: str | None, trigger: str, who: str | None, why: str | None) -> None:
    """Retrain the batch model through Prefect: exit 0 promoted, in shadow or to be approved, 3 gated out, 1 failed.

    With the data that the worker has written so far. Uses the running monitor, else PREFECT_API_URL, else it
    starts a Prefect server and a process worker for as long as it takes.
    """
    check_writable(json_file)
    log_to_stderr()
    stop = stop_on_signals()
    loaded = load_project(project)
    keep_from_demo(loaded.state)
    ledger = Ledger(loaded.ledger)
    request = _request(loaded, ledger, trigger, who or user(), why)
    click.echo(
        f"requested {request.id}, with what was known at {loaded.settings.clock.moment(request.event_time)}", err=True
    )
    with _dispatched(loaded, ledger, request, stop):
        closed = _await_end(ledger, request, stop)
    if closed.status not in _EXIT:
        click.echo(f"{closed.id} is {closed.status}; it goes on when 'headrace monitor' runs", err=True)
        sys.exit(130)
    click.echo(f"{closed.id}: {closed.status}. {' '.join(closed.body.get('reasons', []))}".strip(), err=True)
    if json_file:
        write_json({**asdict(closed), **_outcome(ledger, closed)}, json_file)
    sys.exit(_EXIT[closed.status])


def _outcome(ledger: Ledger, closed: RetrainRequest) -> dict[str, Any]:
    """Return what the ledger holds of the request's last attempt."""
    key = f"{closed.id}/{closed.attempt}"
    fit, gate = (
        next((record.body for record in ledger.history(kind) if record.key == key), {})
        for kind in ("retraining", "gate")
    )
    about = {name: fit.get(name) for name in ("version", "mlflow_run", "rows", "metrics", "steps", "recipe", "data")}
    return {**about, "gates": gate.get("results", [])}


def _request(project: Project, ledger: Ledger, trigger: str, who: str, why: str | None) -> RetrainRequest:
    """Put the request into the outbox, and who asked for it and why into the ledger.

    Raises
    ------
    UsageError
        If there is no data yet, or another retraining is under way.
    """
    from core.store import TableStore
    from flows.lease import progress

    event_time = progress(project, TableStore(project.tables))
    if event_time <= 0:
        raise UsageError(f"{project.state}: no labelled examples yet; let 'headrace worker' run first")
    request = RetrainRequest(
        id=f"{trigger}-{project.settings.clock.key(event_time)}-{time.time_ns() // 1_000_000:x}",
        trigger=trigger,
        event_time=event_time,
        effective_at=event_time,
    )
    with ledger.transaction():
        taken = ledger.request_retrain(request)
        if taken:
            body = {
                "trigger": trigger,
                "reasons": [why] if why else [],
                "by": who,
                "effective_at": request.effective_at,
            }
            ledger.record("decision", request.id, event_time=event_time, body=body)
    if not taken:
        others = ledger.open_requests()
        name = f"{others[0].id} is {others[0].status}" if others else "one was asked for at this very moment"
        raise UsageError(f"one retraining at a time: {name}; see 'headrace status'")
    return request


@contextlib.contextmanager
def _dispatched(project: Project, ledger: Ledger, request: RetrainRequest, stop: threading.Event) -> Iterator[None]:
    """Have the outbox emptied while waiting: by the monitor that runs, or by ourselves."""
    if is_alive(read_status(project.status, "monitor")):
        yield
        return
    from flows.dispatch import Dispatcher

    with contextlib.ExitStack() as running:
        api_url = os.environ.get("PREFECT_API_URL")
        if not api_url:
            prefect = _own_prefect(project, lambda: _found(ledger, request).is_open and not stop.wait(0.3))
            if prefect is None:
                yield
                return
            running.callback(prefect.stop)
            api_url = prefect.url
        done = threading.Event()
        dispatcher = Dispatcher(project, ledger, api_url)
        thread = threading.Thread(target=dispatcher.run, args=(done, 0.5), name="dispatcher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=30.0)


def _own_prefect(project: Project, is_needed: Callable[[], bool]) -> LocalPrefect | None:
    """Start a Prefect server; while one of another process is in the way, wait: that may do what is asked for, too."""
    from flows.local import LocalPrefect

    click.echo("starting a Prefect server and a worker for this run", err=True)
    said = ""
    while is_needed():
        try:
            return LocalPrefect(project).start()
        except AlreadyRunningError as error:
            if str(error) != said:
                said = str(error)
                click.echo(f"waiting: {said}", err=True)
    return None


def _found(ledger: Ledger, request: RetrainRequest) -> RetrainRequest:
    return next(found for found in ledger.requests() if found.id == request.id)


def _await_end(ledger: Ledger, request: RetrainRequest, stop: threading.Event) -> RetrainRequest:
    """Tell what happens until the request has an outcome, or `stop` is set."""
    from flows.lease import STEPS

    told: set[tuple[object, ...]] = set()
    while True:
        current = _found(ledger, request)
        known = ledger.recall(STEPS) or {}
        steps = known["steps"] if known.get("attempt") == f"{current.id}/{current.attempt}" else []
        news = [((current.attempt, name), f"  {name}: {said}") for name, said in steps]
        moved = ((current.attempt, current.status), f"{current.status}, attempt {current.attempt}")
        for key, line in [*news, moved] if current.status in _EXIT else [moved, *news]:
            if key not in told:
                told.add(key)
                click.echo(line, err=True)
        if current.status in _EXIT or not current.is_open or stop.wait(0.3):
            return current
