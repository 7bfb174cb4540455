"""What keeps decided retrainings from being carried out: logged, kept for all to see, and an alert when it lasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from core.audit import DISPATCH_PROBLEM, Ledger
from core.durations import format_time
from core.errors import HeadraceError, StoreError

ALERT_AFTER_S = 900.0
"""Restarting or upgrading Prefect or MLflow takes less, and the drift check looks as often where no monitor runs."""

_log = logging.getLogger("headrace.dispatch")


class Trouble:
    """The trouble of dispatching, if there is any.

    It is in the ledger, so that it lasts over restarts of whoever dispatches, and a drift check goes on with what the
    one before it found. The wall clock measures it: if that jumps, an alert comes early or late, and that is all.

    Parameters
    ----------
    ledger : Ledger
        Keeps the trouble, and gets the alert.
    clock : callable
        Wall clock, s.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._clock = clock
        self._said: str | None = None
        self._is_over = False

    def met(self, error: Exception) -> None:
        """Take in that it does not go on, and why."""
        self._is_over = False
        text = str(error) or type(error).__name__
        if text != self._said:
            _log.warning("requests wait: %s", text, exc_info=None if isinstance(error, HeadraceError) else error)
            self._said = text
        try:
            self._keep(text)
        except StoreError as problem:
            _log.warning("that requests wait is only in this log: %s", problem)

    def over(self) -> None:
        """Take in that it goes on, or that there is nothing to do."""
        if self._is_over:
            return
        try:
            if self._ledger.recall(DISPATCH_PROBLEM) is not None:
                self._ledger.forget(DISPATCH_PROBLEM)
                _log.info("requests are dispatched again")
        except StoreError as problem:
            _log.warning("that requests are dispatched again is only in this log: %s", problem)
        else:
            self._said, self._is_over = None, True

    def _keep(self, text: str) -> None:
        with self._ledger.transaction():
            known: dict[str, Any] = self._ledger.recall(DISPATCH_PROBLEM) or {"since": self._clock(), "alerted": False}
            lasts = self._clock() - known["since"] > ALERT_AFTER_S
            if lasts and not known["alerted"]:
                self._alert(text, known["since"])
            now = {"since": known["since"], "problem": text, "alerted": known["alerted"] or lasts}
            if now != known:
                self._ledger.remember(DISPATCH_PROBLEM, now)

    def _alert(self, text: str, since: float) -> None:
        began = format_time(round(since) * 1000)
        said = f"What was decided has not been carried out since {began} (the time here, not in the stream)."
        self._ledger.record("alert", f"dispatch-{began}", event_time=None, body={"reasons": [said, text]})
