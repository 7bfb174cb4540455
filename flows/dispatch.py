"""Step 9: each open request in the ledger becomes one run of Prefect, however often either of them dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from core.audit import Ledger, RetrainRequest
from core.errors import HeadraceError, PrefectError
from core.project import Project
from flows.prefect_api import ENDED, PrefectApi

MAX_ATTEMPTS = 3
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
    repair : callable, optional
        Writes down a promotion whose run died, before a request is given up; returns what it did.
    clock : callable
        Wall clock, s.
    """

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        api_url: str,
        *,
        repair: Callable[[], str | None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._project = project
        self._ledger = ledger
        self._api = PrefectApi(api_url)
        self._repair = repair or self._repair_from_registry
        self._clock = clock

    def run(self, stop: threading.Event, poll_s: float = 1.0) -> None:
        """Look after the outbox until `stop` is set; what fails is said once and tried again, ever slower."""
        pause, problem = poll_s, None
        while not stop.wait(pause):
            try:
                self.run_once()
            except HeadraceError as error:
                pause = min(max(pause, poll_s) * 2, _MAX_PAUSE_S)
                if problem is None:
                    _log.warning("requests wait: %s", error)
                problem = str(error)
            else:
                if problem is not None:
                    _log.info("requests are dispatched again")
                pause, problem = poll_s, None

    def run_once(self) -> None:
        """Submit what is requested; give what was lost to another attempt.

        Raises
        ------
        PrefectError
            If Prefect cannot be reached, or lacks the deployment; every request stays as it is.
        StoreError
            If the ledger cannot be written.
        """
        for request in self._ledger.open_requests():
            if request.status == "requested":
                self._submit(request)
            else:
                self._look_after(request)

    def _submit(self, request: RetrainRequest) -> None:
        flow_run = self._api.submit(
            f"retrain/{self._project.settings.name}",
            {"request_id": request.id, "trigger": request.trigger},
            f"{request.id}/{request.attempt}",
        )
        # The run may have taken the request already: then it is running, and this changes nothing.
        self._ledger.advance(request.id, expect=("requested",), status="submitted", flow_run=flow_run)
        _log.info("request %s, attempt %d: flow run %s", request.id, request.attempt, flow_run)

    def _look_after(self, request: RetrainRequest) -> None:
        timeout_s = self._project.settings.retrain.timeout / 1000
        if self._clock() - request.changed_at > timeout_s:
            self._try_again(request, f"was not finished after {timeout_s:g} s")
            self._cancel(request)
            return
        if request.flow_run is None:
            return
        state = self._api.state(request.flow_run)
        if state is None or state in ENDED:
            self._try_again(request, f"ended as {state or 'unknown to Prefect'} without closing the request")

    def _cancel(self, request: RetrainRequest) -> None:
        if request.flow_run is None:
            return
        try:
            self._api.cancel(request.flow_run)
        except PrefectError as error:
            _log.warning("flow run %s is not cancelled, but cannot promote any more: %s", request.flow_run, error)

    def _try_again(self, seen: RetrainRequest, what: str) -> None:
        """Give a request to its next attempt, unless it moved since it was seen."""
        if seen.attempt >= MAX_ATTEMPTS and (repaired := self._repair()):
            _log.warning("%s", repaired)
        with self._ledger.transaction():
            now = next((found for found in self._ledger.open_requests() if found.id == seen.id), None)
            if now is None or (now.status, now.attempt) != (seen.status, seen.attempt):
                return
            said = f"attempt {seen.attempt} (flow run {seen.flow_run}) {what}"
            reasons = [*seen.body.get("reasons", []), said]
            last = seen.attempt >= MAX_ATTEMPTS
            self._ledger.advance(
                seen.id,
                expect=(seen.status,),
                status="failed" if last else "requested",
                next_attempt=not last,
                body={**seen.body, "reasons": reasons},
            )
        _log.warning("request %s: %s; %s", seen.id, said, "given up" if last else "it is tried again")

    def _repair_from_registry(self) -> str | None:
        from core.registry import Registry
        from flows.promotion import repair_promotion

        return repair_promotion(self._ledger, Registry(self._project))
