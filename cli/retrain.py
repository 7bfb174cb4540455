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
from typing import TYPE_CHECKING

import click

from cli.options import json_option, keep_from_demo, log_to_stderr, project_argument, stop_on_signals, write_json
from core.audit import Ledger, RetrainRequest
from core.errors import AlreadyRunningError, UsageError
from core.project import Project, load_project
from core.status import is_alive, read_status

if TYPE_CHECKING:
    from flows.local import LocalPrefect

_EXIT = {"promoted": 0, "gated": 3, "failed": 1}


@click.command(epilog="Example: headrace retrain examples/flights --json -")
@project_argument
@json_option
@click.option(
    "--trigger", type=click.Choice(["manual", "schedule"]), default="manual", show_default=True,
    help="Why; it is written down with the result.",
)  # fmt: skip
def retrain(project: Path, json_file: str | None, trigger: str) -> None:
    """Retrain the batch model through Prefect: exit 0 promoted, 3 gated out, 1 failed.

    With the data that the worker has written so far. Uses the running monitor, else PREFECT_API_URL, else it
    starts a Prefect server and a process worker for as long as it takes.
    """
    log_to_stderr()
    stop = stop_on_signals()
    loaded = load_project(project)
    keep_from_demo(loaded.state)
    ledger = Ledger(loaded.ledger)
    request = _request(loaded, ledger, trigger)
    click.echo(
        f"requested {request.id}, with what was known at {loaded.settings.clock.moment(request.event_time)}", err=True
    )
    with _dispatched(loaded, ledger, request, stop):
        closed = _await_end(ledger, request, stop)
    if closed.is_open:
        click.echo(f"{closed.id} is {closed.status}; it goes on when 'headrace monitor' runs", err=True)
        sys.exit(130)
    click.echo(f"{closed.id}: {closed.status}. {' '.join(closed.body.get('reasons', []))}".strip(), err=True)
    if json_file:
        write_json(asdict(closed), json_file)
    sys.exit(_EXIT[closed.status])


def _request(project: Project, ledger: Ledger, trigger: str) -> RetrainRequest:
    """Put the request into the outbox.

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
    if not ledger.request_retrain(request):
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
    told = ""
    while True:
        current = _found(ledger, request)
        if current.status != told:
            told = current.status
            click.echo(f"{told}, attempt {current.attempt}", err=True)
        if not current.is_open or stop.wait(0.3):
            return current
