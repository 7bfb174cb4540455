"""Requests to retrain: the lease of a run, its next attempt, and the request that a run makes for itself.

The attempt is the fencing token: it grows each time a request is given away, and everything that a run
changes for others is changed in a ledger transaction that checks it.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.audit import Ledger, RetrainRequest
from core.errors import LeaseLostError, StoreError, UsageError
from core.progress import stream_of
from core.project import Project
from core.status import read_status
from core.store import TableStore
from core.tables import EXAMPLES

MAX_ATTEMPTS = 5
BEAT_S = 10.0
PROMOTING = "promoting"
"""In a request's body: its promotion is decided, and is carried out by whoever comes (`flows.promotion`)."""

MOVE = "aliases.move"
"""Remembered under this name: a promotion or rollback by hand is decided (`flows.by_hand`)."""

STEPS = "retraining.steps"
"""Remembered under this name: what the steps of the latest run said, for who waits for it."""

_log = logging.getLogger("headrace.retrain")


@dataclass(frozen=True)
class Lease:
    """The right of one run to one attempt of a request."""

    ledger: Ledger
    request: RetrainRequest

    @property
    def key(self) -> str:
        """Name of this attempt in the ledger."""
        return f"{self.request.id}/{self.request.attempt}"

    @property
    def is_held(self) -> bool:
        """Whether this attempt still is the one that has the request."""
        found = find(self.ledger, self.request.id)
        return found is not None and (found.status, found.attempt) == ("running", self.request.attempt)

    def check(self) -> None:
        """Make sure that the request is still this run's to decide; call it inside a ledger transaction.

        Raises
        ------
        LeaseLostError
            If it was closed or given to another attempt, or its promotion is decided.
        """
        found = find(self.ledger, self.request.id)
        if found is None or not self.is_held:
            state = "gone" if found is None else f"{found.status}, attempt {found.attempt}"
            raise LeaseLostError(f"request {self.key} is {state} now: this run stops without promoting")
        if PROMOTING in found.body:
            raise LeaseLostError(f"request {self.key}: its promotion is decided, it will be carried out")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Show the dispatcher every `BEAT_S` seconds that this run lives, as long as the block lasts."""
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(done,), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(BEAT_S):
            try:
                with self.ledger.transaction():
                    if not self.is_held:  # nobody listens any more, and nobody would forget it
                        return
                    self.ledger.remember(beat_name(self.request), {"at": time.time()})
            except StoreError as error:
                _log.warning("%s; a run that shows no life is given to another attempt", error)

    def tell(self, step: str, said: str) -> None:
        """Let who waits for the request know what a step did."""
        with self.ledger.transaction():
            known = self.ledger.recall(STEPS) or {}
            steps = known["steps"] if known.get("attempt") == self.key else []
            self.ledger.remember(STEPS, {"attempt": self.key, "steps": [*steps, [step, said]]})

    def close(self, outcome: str, reasons: list[str]) -> None:
        """End the request as gated or failed; a failure is an alert.

        Raises
        ------
        LeaseLostError
            As :meth:`check`.
        """
        with self.ledger.transaction():
            self.check()
            body = {**self.request.body, "reasons": reasons, "version": None}
            self.ledger.advance(self.request.id, expect=("running",), status=outcome, body=body)
            self.ledger.forget(beat_name(self.request))
            if outcome == "failed":
                alert_failure(self.ledger, self.request, reasons)

    def release(self, problem: str) -> bool:
        """Give the request to its next attempt because of what may pass; return whether there is one.

        Raises
        ------
        LeaseLostError
            As :meth:`check`.
        """
        with self.ledger.transaction():
            self.check()
            return try_again(self.ledger, self.request, f"attempt {self.request.attempt}: {problem}")


def try_again(ledger: Ledger, seen: RetrainRequest, problem: str) -> bool:
    """Give a request to its next attempt, or give it up after `MAX_ATTEMPTS`; return whether it is tried again.

    Call it in a ledger transaction in which the request is as `seen`.
    """
    again = seen.attempt < MAX_ATTEMPTS
    reasons = [*seen.body.get("reasons", []), problem]
    ledger.advance(
        seen.id,
        expect=(seen.status,),
        attempt=seen.attempt,
        status="requested" if again else "failed",
        next_attempt=again,
        body={**seen.body, "reasons": reasons},
    )
    ledger.forget(beat_name(seen))
    if not again:
        ledger.unpin(seen.id)
        alert_failure(ledger, seen, reasons)
    return again


def beat_name(request: RetrainRequest) -> str:
    """Return where the run of this attempt shows that it lives: no other attempt's run can speak for it."""
    return f"retraining.beat/{request.id}/{request.attempt}"


def alert_failure(ledger: Ledger, request: RetrainRequest, reasons: list[str]) -> None:
    """Write the alert that a request was given up: the champion stays, and somebody should look."""
    said = [f"Retraining {request.id} failed, the champion stays.", *reasons]
    body = {"request": request.id, "trigger": request.trigger, "reasons": said}
    ledger.record("alert", f"retraining-{request.id}", event_time=request.event_time, body=body)


def find(ledger: Ledger, request_id: str) -> RetrainRequest | None:
    """Return a request, or None if it is not known."""
    return next((request for request in ledger.requests() if request.id == request_id), None)


def take(ledger: Ledger, request_id: str, flow_run: str | None, attempt: int | None = None) -> Lease | None:
    """Take an open request; None if another run has it, it is closed, or it is past this `attempt`.

    Raises
    ------
    UsageError
        If there is no such request.
    """
    with ledger.transaction():
        if find(ledger, request_id) is None:
            raise UsageError(f"request {request_id!r} is not in the ledger: was another state folder meant?")
        waiting = ("requested", "submitted")
        if not ledger.advance(request_id, expect=waiting, attempt=attempt, status="running", flow_run=flow_run):
            return None
        request = find(ledger, request_id)
    assert request is not None
    return Lease(ledger, request)


def make(project: Project, ledger: Ledger, trigger: str, event_time: int, flow_run: str | None) -> Lease | str:
    """Make a request and take it at once, or say why not.

    Parameters
    ----------
    trigger : str
        bootstrap, schedule, drift or manual; ``schedule`` keeps to ``retrain.every``.
    event_time : int
        Progress of the stream, ms.
    """
    with ledger.transaction():
        if trigger == "schedule" and (wait := _too_early(project, ledger, event_time)):
            return wait
        if others := ledger.open_requests():
            return f"retraining {others[0].id} is {others[0].status}: one at a time"
        request = RetrainRequest(
            id=f"{trigger}-{event_time}-{uuid.uuid4().hex[:8]}",
            trigger=trigger,
            event_time=event_time,
            effective_at=event_time + project.settings.retrain.duration,
        )
        ledger.request_retrain(request)
        body = {"trigger": trigger, "reasons": [], "by": "prefect", "effective_at": request.effective_at}
        ledger.record("decision", request.id, event_time=event_time, body=body)
        lease = take(ledger, request.id, flow_run)
    assert lease is not None
    return lease


def progress(project: Project, store: TableStore) -> int:
    """Return how far the stream's tables reach, ms: the worker's status, else the latest label.

    A worker that has not seen a record yet says nothing: there may be what was ingested.

    Raises
    ------
    UsageError
        If nothing has been written yet.
    """
    stream = stream_of(read_status(project.status, "worker"))
    if stream is not None and stream.progress > 0:
        return stream.progress
    if store.exists(EXAMPLES):
        clocks = store.read(EXAMPLES, columns=["label_clock"])["label_clock"].to_pylist()
        if known := [clock for clock in clocks if clock is not None]:
            return int(max(known).timestamp() * 1000)
    raise UsageError(
        f"{project.state}: no examples yet; start the worker first (headrace worker PROJECT), or 'headrace "
        "ingest'; if one of them has run, see how many labels it refused"
    )


def _too_early(project: Project, ledger: Ledger, event_time: int) -> str | None:
    every, clock = project.settings.retrain.every, project.settings.clock
    if every is None:
        return "retrain.every is null: no retraining on schedule"
    times = [record.event_time for record in ledger.history("retraining") if record.event_time is not None]
    if times and event_time - max(times) < every:
        return (
            f"the last retraining was at {clock.moment(max(times))} in event time, less than "
            f"{clock.span(every)} (retrain.every) before {clock.moment(event_time)}"
        )
    return None
