"""Lockstep: event time holds at each boundary until the loop has closed; a fast replay means the same everywhere.

At every window's end, when its labels are due, and when a decided retraining takes effect:

1. everything earlier is published, and the topics say so (a clock record);
2. the worker has stepped through it and its tables are flushed;
3. the monitor has judged what is due, and has decided; the worker has unlearned what it is to forget by that;
4. shadows are judged, at the end of each of their blocks too, and the worker follows who serves and shadows by that;
5. at the time a retraining takes effect (decision + ``retrain.duration``): it has ended, and the worker holds its
   champion, which serves from the first record of that time on.

Only for replays: production never waits for anybody.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from core.audit import Ledger, LedgerRecord, RetrainRequest
from core.errors import HeadraceError
from core.line_up import MOVES, SHADOW_ENDS, line_up
from core.project import Project
from core.quarantine import unlearned
from core.spans import next_due, window_origin
from core.status import is_alive, read_status
from streaming.replay import SayTime

_POLL_S = 0.02


class LockstepPace:
    """A `streaming.replay.Pace` that goes with the loop; it reads status files and the ledger, and writes nothing.

    Parameters
    ----------
    project : Project
        The project whose worker and monitor run on the same state folder, with ``--lockstep``.
    ledger : Ledger
        The project's ledger.
    stop : threading.Event
        Ends every wait.
    timeout_s : float
        Longest wait for one step, s.
    """

    def __init__(self, project: Project, ledger: Ledger, stop: threading.Event, *, timeout_s: float = 1800.0) -> None:
        self._project = project
        self._ledger = ledger
        self._stop = stop
        self._timeout_s = timeout_s
        self._boundary: int | None = None
        self._origin = 0
        self._horizon = project.settings.label.horizon
        self._span = project.settings.windows.span
        self._block = project.settings.promotion.block

    def wait_for(self, item_time: int, say_time: SayTime) -> None:
        """Hold at each boundary at or before `item_time`, ms."""
        if self._boundary is None:
            self._origin = window_origin(self._first_event(item_time), self._span)
            self._boundary = self._next_boundary(max(self._origin, item_time - 1))
        while item_time >= self._boundary and not self._stop.is_set():
            self._close_loop(self._boundary, say_time)
            self._boundary = self._next_boundary(self._boundary)

    def finish(self, last_time: int, say_time: SayTime) -> None:
        """Close the loop after the last record, and wait for a retraining that is still under way."""
        self._close_loop(last_time + 1, say_time)
        for request in self._ledger.open_requests():
            self._await_retraining(request)

    def _first_event(self, item_time: int) -> int:
        """Return the time of the first event ever, ms: `item_time`, unless the worker goes on from earlier."""
        partitions = ((read_status(self._project.status, "worker") or {}).get("partitions") or {}).values()
        return int(min([item_time, *(p["first_event"] for p in partitions if p["first_event"] is not None)]))

    def _next_boundary(self, after: int) -> int:
        due = next_due(self._origin, self._span, self._horizon, after)
        effective = [r.effective_at for r in self._ledger.open_requests() if r.effective_at > after]
        if line_up(self._ledger.history(), after).shadows:
            effective.append((after // self._block + 1) * self._block)
        return min([due, *effective])

    def _close_loop(self, boundary: int, say_time: SayTime) -> None:
        say_time(boundary)
        said = self._project.settings.clock.moment(boundary)
        self._await("worker", lambda status: _flushed_through(status) >= boundary, f"reach {said}")
        self._await(
            "monitor",
            lambda status: status.get("evaluated_through", -1) >= boundary,
            f"judge what is due at {said}",
        )
        windows = len(unlearned(self._ledger.history("unlearn")))
        self._await("worker", lambda status: _unlearned(status) >= windows, f"unlearn {windows} windows")
        if line_up(self._ledger.history(), boundary).shadows:
            self._await("shadows", lambda status: status["judged_through"] >= boundary, f"be judged at {said}")
        for request in self._ledger.requests():
            if request.effective_at == boundary or (request.is_open and request.effective_at < boundary):
                self._await_retraining(request)
        if any(_changes_the_line_up(record, boundary) for record in self._ledger.history()):
            self._await("worker", self._follows, "follow who serves and shadows now")

    def _follows(self, status: dict[str, Any]) -> bool:
        """Tell whether the worker knows everybody that it is to follow; one that cannot be loaded is not waited for."""
        wanted = line_up(self._ledger.history()).versions
        return status.get("line_up") == wanted or status.get("champion_problem") is not None

    def _await_retraining(self, request: RetrainRequest) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not self._stop.is_set():
            current = next(r for r in self._ledger.requests() if r.id == request.id)
            if not current.is_open:
                break
            self._check(deadline, f"retraining {request.id} to end")
        else:
            return
        version = current.body.get("version")
        if current.status == "promoted" and version is not None:
            self._await("worker", lambda s: (s.get("champion_ready") or 0) >= version, f"load champion {version}")

    def _await(self, service: str, done: Any, what: str) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not self._stop.is_set():
            status = read_status(self._project.status, service)
            if status is not None and done(status):
                return
            if status is not None and not is_alive(status):
                raise HeadraceError(f"lockstep: {service} has ended; see {self._project.logs}/{service}.log")
            self._check(deadline, f"{service} to {what}")

    def _check(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise HeadraceError(f"lockstep: waited {self._timeout_s:.0f} s for {what}; see {self._project.logs}")
        self._stop.wait(_POLL_S)


def _changes_the_line_up(record: LedgerRecord, boundary: int) -> bool:
    is_about_it = record.kind in (*MOVES, *SHADOW_ENDS, "challenge")
    return is_about_it and record.body.get("effective_at") == boundary


def _unlearned(status: dict[str, Any]) -> int:
    """Return how many windows every partition has unlearned."""
    return min((int(part.get("unlearned", 0)) for part in (status.get("partitions") or {}).values()), default=0)


def _flushed_through(status: dict[str, Any]) -> int:
    """Return the event time up to which every partition's rows are in the tables, ms."""
    partitions = status.get("partitions") or {}
    return min((int(part["flushed_through"]) for part in partitions.values()), default=-1)
