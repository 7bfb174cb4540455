"""Dispatching beside the monitor: to the server of ``PREFECT_API_URL``, or to one of our own that lives as long."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from core.audit import Ledger, RetrainRequest
from core.errors import AlreadyRunningError, HeadraceError
from core.project import Project
from flows.dispatch import Dispatcher
from flows.local import LocalPrefect
from flows.trouble import Trouble

_MAX_PAUSE_S = 60.0
_log = logging.getLogger("headrace.dispatch")


class Dispatching(threading.Thread):
    """Hands decided retrainings to Prefect, in a thread, because the monitor must not wait for Prefect's start.

    It never ends silently: what may pass is said and tried again, anything else sets `stop` and is raised by `finish`.

    Parameters
    ----------
    project : Project
    ledger : Ledger
        Holds the requests.
    stop : threading.Event
        Ends it, and is set by it when it has to end.
    poll_s : float
        Time between two looks, s.
    may_start : callable
        See :class:`flows.dispatch.Dispatcher`.
    """

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        stop: threading.Event,
        poll_s: float = 1.0,
        may_start: Callable[[RetrainRequest], bool] = lambda request: True,
    ) -> None:
        super().__init__(name="dispatcher", daemon=True)
        self._may_start = may_start
        self._project = project
        self._ledger = ledger
        self._stop_event = stop
        self._poll_s = poll_s
        self._trouble = Trouble(ledger)
        self._waiting_for: str | None = None
        self._error: HeadraceError | None = None

    def run(self) -> None:
        """Dispatch until told to stop."""
        pause = self._poll_s
        while not self._stop_event.is_set():
            try:
                self._dispatch()
            except AlreadyRunningError as error:  # a retraining by hand: it dispatches its own, and no other is decided
                self._wait_for(str(error))
            except HeadraceError as error:
                self._error = error
                self._stop_event.set()
            except Exception as error:  # noqa: BLE001  a full disk, no process to be had: requests must not wait for ever
                self._trouble.met(error)
                pause = min(max(pause, self._poll_s) * 2, _MAX_PAUSE_S)
                self._stop_event.wait(pause)

    def finish(self) -> None:
        """Wait for the end; raise what went wrong.

        Raises
        ------
        HeadraceError
            If Prefect did not come up.
        """
        self.join(timeout=45.0)
        if self._error is not None:
            raise self._error

    def _dispatch(self) -> None:
        if api_url := os.environ.get("PREFECT_API_URL"):
            self._dispatcher(api_url).run(self._stop_event, self._poll_s)
            return
        with LocalPrefect(self._project) as prefect:
            self._dispatcher(prefect.url).run(self._stop_event, self._poll_s)

    def _dispatcher(self, api_url: str) -> Dispatcher:
        return Dispatcher(self._project, self._ledger, api_url, may_start=self._may_start)

    def _wait_for(self, another: str) -> None:
        if another != self._waiting_for:
            _log.info("%s; this one follows", another)
            self._waiting_for = another
        self._stop_event.wait(self._poll_s)
