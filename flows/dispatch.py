"""Step 9: each open request in the ledger becomes one run of Prefect, however often either of them dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from core.audit import Ledger, RetrainRequest
from core.errors import PrefectError, RegistryError
from core.project import Project
from flows.approval import show
from flows.lease import MOVE, PROMOTING, beat_name, find, try_again
from flows.prefect_api import ENDED, PrefectApi
from flows.trouble import Trouble

LOST_AFTER_S = 120.0
"""A run that has not shown life for so long has died with its machine, or stands still."""

_FIRST_PAUSE_S = 10.0
_MAX_PAUSE_S = 60.0
_log = logging.getLogger("headrace.dispatch")


class Dispatcher:
    """Carries requests from the ledger's outbox to Prefect and looks after them until they are closed.

    Parameters
    ----------
    project : Project
        Names the deployment, ``retrain/<name>``.
    ledger : Ledger
        Holds the requests.
    api_url : str
        Prefect's API, as in ``PREFECT_API_URL``.
    carry_out : callable, optional
        Finishes a decided promotion whose run died, given the request's id; returns what it did.
    may_start : callable
        Whether a request's time has come: shadows are judged first.
    one_off : bool
        Whether it looks only once. It cannot watch then, and has to believe the wall clocks: how long ago something
        changed is what the ledger says of it.
    clock : callable
        Wall clock, s.
    steady : callable
        Seconds that never jump, for how long something has been as it is.
    """

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        api_url: str,
        *,
        carry_out: Callable[[str], str | None] | None = None,
        may_start: Callable[[RetrainRequest], bool] = lambda request: True,
        one_off: bool = False,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._project = project
        self._ledger = ledger
        self._api = PrefectApi(api_url)
        self._carry_out = carry_out or self._carry_out_in_registry
        self._may_start = may_start
        self._one_off = one_off
        self._clock = clock
        self._unchanged, self._silent = _Since(steady), _Since(steady)
        self._trouble = Trouble(ledger, clock=clock)

    def run(self, stop: threading.Event, poll_s: float = 1.0) -> None:
        """Look after the outbox until `stop` is set; what fails is tried again, ever slower."""
        pause = poll_s
        while not stop.wait(pause):
            try:
                self.run_once()
            except Exception:  # noqa: BLE001  said already; a thread that died would never dispatch again
                pause = min(max(pause, poll_s) * 2, _MAX_PAUSE_S)
            else:
                pause = poll_s

    def run_once(self) -> None:
        """Submit what is requested; give what was lost to another attempt. What keeps it from that is its `Trouble`.

        Raises
        ------
        PrefectError
            If Prefect cannot be reached, or lacks the deployment; every request stays as it is.
        RegistryError
            If a promotion is decided and MLflow cannot be reached.
        StoreError
            If the ledger cannot be written.
        """
        try:
            self._look()
        except Exception as error:
            self._trouble.met(error)
            raise
        self._trouble.over()

    def _look(self) -> None:
        if (decided := self._ledger.recall(MOVE)) and self._clock() - decided["at"] > LOST_AFTER_S:
            _log.warning("a move was decided and not carried out: %s", self._finish_by_hand())
        for request in self._ledger.open_requests():
            if request.status == "requested":
                rested = request.attempt == 1 or self._unchanged_s(request) >= pause_before(request.attempt)
                if rested and self._may_start(request):
                    self._submit(request)
            elif (lost := self._lost(request)) is not None:
                self._cancel(request)  # first: a run that stands still may hold what the next steps need
                if PROMOTING in request.body:
                    self._finish(request)
                else:
                    self._try_again(request, lost)
        show(self._project, self._ledger, self._api)

    def _submit(self, request: RetrainRequest) -> None:
        flow_run = self._api.submit(
            f"retrain/{self._project.settings.name}",
            {"request_id": request.id, "trigger": request.trigger, "attempt": request.attempt},
            f"{request.id}/{request.attempt}",
        )
        # The run may have taken the request already: then it is running, and this changes nothing.
        self._ledger.advance(
            request.id, expect=("requested",), attempt=request.attempt, status="submitted", flow_run=flow_run
        )
        _log.info("request %s, attempt %d: flow run %s", request.id, request.attempt, flow_run)

    def _lost(self, request: RetrainRequest) -> str | None:
        """Return what became of a run that will not close its request any more; None for one that may."""
        timeout_s, silent_s = self._project.settings.retrain.timeout / 1000, self._silent_s(request)
        if request.status == "running":
            if self._unchanged_s(request) > timeout_s:
                return f"was not finished after {timeout_s:g} s"
            if silent_s > LOST_AFTER_S and not self._one_off:
                return f"has shown no life for {LOST_AFTER_S:g} s"
        if request.flow_run is None:
            return None
        state = self._api.state(request.flow_run)
        if state is None:  # it may live on another server of Prefect's: then it shows that itself
            said = f"is not known to Prefect, and has shown no life for {LOST_AFTER_S:g} s"
            return said if silent_s > LOST_AFTER_S else None
        if state in ENDED:
            return f"ended as {state} without closing the request"
        return self._not_started(request, state, timeout_s)

    def _not_started(self, request: RetrainRequest, state: str, timeout_s: float) -> str | None:
        age_s = self._unchanged_s(request)
        if request.status != "submitted" or state != "SCHEDULED":
            return f"was not started after {timeout_s:g} s" if age_s > timeout_s else None
        if age_s > timeout_s / 2:  # no worker of Prefect's has taken it yet: its time has not begun
            self._ledger.advance(request.id, expect=("submitted",), attempt=request.attempt, status="submitted")
            self._unchanged.restart()
        return None

    def _unchanged_s(self, request: RetrainRequest) -> float:
        """Return for how long a request has been where it is: seen from here, clocks that jump do not count."""
        if self._one_off:
            return self._clock() - request.changed_at
        return self._unchanged.seconds((request.id, request.attempt, request.status))

    def _silent_s(self, request: RetrainRequest) -> float:
        """Return for how long this attempt's run has not shown life, as seen from here."""
        beat = self._ledger.recall(beat_name(request))
        if self._one_off:
            return self._clock() - max(request.changed_at, beat["at"] if beat else 0.0)
        return self._silent.seconds((request.id, request.attempt, request.status, beat))

    def _cancel(self, request: RetrainRequest) -> None:
        if request.flow_run is None:
            return
        try:
            self._api.cancel(request.flow_run)
        except PrefectError as error:
            _log.warning("flow run %s is not cancelled, but cannot promote any more: %s", request.flow_run, error)

    def _finish(self, request: RetrainRequest) -> None:
        try:
            done = self._carry_out(request.id)
        except RegistryError as error:
            raise RegistryError(
                f"request {request.id}: its promotion is decided, but cannot be carried out yet: {error}"
            ) from error
        if done:
            _log.warning("request %s: its run ended after the promotion was decided: %s", request.id, done)

    def _try_again(self, seen: RetrainRequest, what: str) -> None:
        """Give a request to its next attempt, unless it moved since it was seen."""
        said = f"attempt {seen.attempt} (flow run {seen.flow_run}) {what}"
        with self._ledger.transaction():
            if find(self._ledger, seen.id) != seen:
                return
            again = try_again(self._ledger, seen, said)
        _log.warning("request %s: %s; %s", seen.id, said, "it is tried again" if again else "given up")

    def _finish_by_hand(self) -> str | None:
        from core.registry import Registry
        from flows.moves import finish

        return finish(self._ledger, Registry(self._project))

    def _carry_out_in_registry(self, request_id: str) -> str | None:
        from core.registry import Registry
        from flows.promotion import carry_out

        return carry_out(self._ledger, Registry(self._project), request_id)


class _Since:
    """For how long something has been as it is, on a clock that never jumps."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._seen: object = None
        self._at = 0.0

    def seconds(self, now: object) -> float:
        if now != self._seen:
            self._seen = now
            self.restart()
        return self._steady() - self._at

    def restart(self) -> None:
        self._at = self._steady()


def pause_before(attempt: int) -> float:
    """Return how long a request rests before a further attempt, s: what is down may come back, what kills may not.

    Examples
    --------
    >>> [pause_before(attempt) for attempt in (2, 3, 4, 5)]
    [10.0, 40.0, 160.0, 640.0]
    """
    return _FIRST_PAUSE_S * 4.0 ** (attempt - 2)
