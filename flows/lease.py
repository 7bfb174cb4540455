"""Requests to retrain: the lease of a run, and the request that a run makes for itself."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from core.audit import Ledger, RetrainRequest
from core.durations import format_duration, format_time
from core.errors import HeadraceError, UsageError
from core.project import Project
from core.status import read_status
from core.store import TableStore
from core.tables import EXAMPLES


class LeaseLostError(HeadraceError):
    """Another run has the request now: this one must not change anything any more."""


@dataclass(frozen=True)
class Lease:
    """The right of one run to one attempt of a request."""

    ledger: Ledger
    request: RetrainRequest

    @property
    def key(self) -> str:
        """Name of this attempt in the ledger."""
        return f"{self.request.id}/{self.request.attempt}"

    def check(self) -> None:
        """Make sure that the request is still this run's; call it inside a ledger transaction.

        Raises
        ------
        LeaseLostError
            If it was closed, or given to another attempt.
        """
        found = find(self.ledger, self.request.id)
        if found is None or found.status != "running" or found.attempt != self.request.attempt:
            state = "gone" if found is None else f"{found.status}, attempt {found.attempt}"
            raise LeaseLostError(f"request {self.key} is {state} now: this run stops without promoting")

    def close(self, outcome: str, reasons: list[str], *, version: int | None = None) -> None:
        """End the request as promoted (to `version`), gated or failed.

        Raises
        ------
        LeaseLostError
            As :meth:`check`.
        """
        with self.ledger.transaction():
            self.check()
            body = {**self.request.body, "reasons": reasons, "version": version}
            self.ledger.advance(self.request.id, expect=("running",), status=outcome, body=body)


def find(ledger: Ledger, request_id: str) -> RetrainRequest | None:
    """Return a request, or None if it is not known."""
    return next((request for request in ledger.requests() if request.id == request_id), None)


def take(ledger: Ledger, request_id: str, flow_run: str | None) -> Lease | None:
    """Take an open request; None if another run has it or it is closed.

    Raises
    ------
    UsageError
        If there is no such request.
    """
    with ledger.transaction():
        if find(ledger, request_id) is None:
            raise UsageError(f"request {request_id!r} is not in the ledger: was another state folder meant?")
        if not ledger.advance(request_id, expect=("requested", "submitted"), status="running", flow_run=flow_run):
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
        lease = take(ledger, request.id, flow_run)
    assert lease is not None
    return lease


def progress(project: Project, store: TableStore) -> int:
    """Return how far the stream's tables reach, ms: the worker's status, else the latest label.

    Raises
    ------
    UsageError
        If nothing has been written yet.
    """
    status: dict[str, Any] = read_status(project.status, "worker") or {}
    partitions = _partitions(status)
    reached = [time for entry in partitions if isinstance(time := entry.get("flushed_through"), int)]
    if reached and len(reached) == len(partitions):
        return min(reached)
    if store.exists(EXAMPLES):
        clocks = store.read(EXAMPLES, columns=["label_clock"])["label_clock"].to_pylist()
        if known := [clock for clock in clocks if clock is not None]:
            return int(max(known).timestamp() * 1000)
    raise UsageError(f"{project.state}: no examples yet; start the worker first (headrace worker PROJECT)")


def _partitions(status: dict[str, Any]) -> list[dict[str, Any]]:
    entries = status.get("partitions") or []
    return list(entries.values()) if isinstance(entries, dict) else list(entries)


def _too_early(project: Project, ledger: Ledger, event_time: int) -> str | None:
    every = project.settings.retrain.every
    if every is None:
        return "retrain.every is null: no retraining on schedule"
    times = [record.event_time for record in ledger.history("retraining") if record.event_time is not None]
    if times and event_time - max(times) < every:
        return (
            f"the last retraining was at {format_time(max(times))} in event time, less than "
            f"{format_duration(every)} (retrain.every) before {format_time(event_time)}"
        )
    return None
