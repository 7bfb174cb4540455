"""Alerts on their way out: a log line, and a webhook where the project names one.

An alert is in the ledger before it is sent, and is sent at least once: the mark of how many were
sent is durable and moves only after the sending.
"""

from __future__ import annotations

import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from core.audit import Ledger, LedgerRecord
from core.errors import HeadraceError
from core.settings import AlertSettings

log = logging.getLogger(__name__)

SendAlert = Callable[[LedgerRecord], None]
"""Sends one alert; raises HeadraceError if it is to be tried again."""

MARK = "alerts.sent"
TIMEOUT_S = 5.0
LONGEST_BACKOFF_S = 300.0
_TRY_AGAIN = {408, 425, 429}


def make_sender(settings: AlertSettings) -> SendAlert:
    """Return the sender that the project file asks for."""

    def send(alert: LedgerRecord) -> None:
        log.warning("alert %s: %s", alert.key, " ".join(alert.body.get("reasons", [])))
        if settings.webhook is not None:
            post(settings.webhook, alert)

    return send


def post(url: str, alert: LedgerRecord, *, timeout_s: float = TIMEOUT_S) -> None:
    """Give an alert to a webhook as JSON.

    Raises
    ------
    HeadraceError
        If the webhook cannot be reached, is busy or broken. A refusal for good (another 4xx) is
        logged and not repeated: it would hold back every later alert.
    """
    body = json.dumps({"kind": "alert", "key": alert.key, "event_time": alert.event_time, **alert.body})
    if not url.startswith(("http://", "https://")):
        log.error("alert %s: alerts.webhook %r is not an http(s) address; not sent", alert.key, url)
        return
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(url, body.encode(), headers, method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        if error.code < 500 and error.code not in _TRY_AGAIN:
            log.error("alert %s: the webhook refused it for good: HTTP %s", alert.key, error.code)  # noqa: TRY400
            return
        raise HeadraceError(f"alert {alert.key}: the webhook answered HTTP {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise HeadraceError(f"alert {alert.key}: the webhook cannot be reached: {error}") from error


class AlertOutbox:
    """Sends what was written and not yet sent, in order; backs off while that fails.

    Parameters
    ----------
    ledger : Ledger
        Holds the alerts and the mark.
    send : callable
        Sends one alert; see :data:`SendAlert`.
    clock : callable
        Wall clock in seconds.
    """

    def __init__(self, ledger: Ledger, send: SendAlert, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._send = send
        self._clock = clock
        self._failures = 0
        self._not_before = 0.0

    def flush(self) -> int:
        """Send the waiting alerts; return how many were sent."""
        if self._failures and self._clock() < self._not_before:
            return 0
        sent = int((self._ledger.recall(MARK) or {"count": 0})["count"])
        waiting = self._ledger.history("alert")[sent:]
        for done, alert in enumerate(waiting):
            try:
                self._send(alert)
            except HeadraceError as error:
                self._back_off(error)
                return done
            self._failures = 0
            self._ledger.remember(MARK, {"count": sent + done + 1})
        return len(waiting)

    def _back_off(self, error: HeadraceError) -> None:
        wait = min(2.0**self._failures, LONGEST_BACKOFF_S)
        self._failures += 1
        self._not_before = self._clock() + wait
        log.warning("%s; trying again in %.0f s", error, wait)
