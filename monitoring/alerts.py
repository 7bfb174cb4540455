"""Alerts on their way out: to a webhook, where the project names one.

An alert is in the ledger, waiting, before it is sent, and is sent at least once: what became of a try is
written down after it. Every try of an alert carries the same ``Idempotency-Key``, so that a receiver that
looks at it sees the alert exactly once.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable

from core.audit import Ledger, LedgerRecord, WaitingAlert
from core.errors import HeadraceError
from core.settings import AlertSettings

log = logging.getLogger(__name__)

SendAlert = Callable[[LedgerRecord], None]
"""Sends one alert; raises HeadraceError if it is to be tried again."""

TIMEOUT_S = 5.0
LONGEST_BACKOFF_S = 300.0
GIVE_UP_AFTER_S = 3 * 86_400.0
IN_A_ROW = 5
"""Failed tries after which the alerts behind get their turn: it may be this alert that cannot be received."""

_TRY_AGAIN = {408, 425, 429}


def make_sender(settings: AlertSettings) -> SendAlert:
    """Return the sender that the project file asks for; without a webhook, the log line of the monitor is all."""

    def send(alert: LedgerRecord) -> None:
        if settings.webhook is not None:
            post(settings.webhook, alert)

    return send


def idempotency_key(alert: LedgerRecord) -> str:
    """Return what names an alert to its receiver: the same for every try, another for every alert of every ledger.

    Examples
    --------
    >>> idempotency_key(LedgerRecord("alert", "w1", 0, 1.5, {}))
    '8025d549-71cc-5d34-8a31-525723b197d4'
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"headrace:alert:{alert.key}:{alert.written_at!r}"))


def post(url: str, alert: LedgerRecord, *, timeout_s: float = TIMEOUT_S) -> None:
    """Give an alert to a webhook as JSON, its :func:`idempotency_key` as ``id`` and as header.

    Raises
    ------
    HeadraceError
        If the webhook cannot be reached, is busy or broken. A refusal for good (another 4xx) is
        logged and not repeated: it would hold back every later alert.
    """
    name = idempotency_key(alert)
    body = json.dumps({"kind": "alert", "id": name, "key": alert.key, "event_time": alert.event_time, **alert.body})
    if not url.startswith(("http://", "https://")):
        log.error("alert %s: alerts.webhook %r is not an http(s) address; not sent", alert.key, url)
        return
    headers = {"Content-Type": "application/json", "Idempotency-Key": name}
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
    """Sends what was written and not yet sent, the oldest first; backs off while that fails.

    Parameters
    ----------
    ledger : Ledger
        Holds the alerts and what became of them.
    send : callable
        Sends one alert; see :data:`SendAlert`.
    clock : callable
        Seconds that never go back, for the pauses.
    now : callable
        Wall clock, s; an alert older than `GIVE_UP_AFTER_S` is tried once more and then given up.
    """

    def __init__(
        self,
        ledger: Ledger,
        send: SendAlert,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._send = send
        self._clock = clock
        self._now = now
        self._failures = 0
        self._not_before = 0.0

    def run(self, stop: threading.Event, poll_s: float = 1.0) -> None:
        """Send until `stop` is set, for a thread of its own: a slow receiver must not hold up the monitor."""
        while not stop.is_set():
            try:
                self.flush()
            except HeadraceError as error:
                self._back_off(str(error))
            stop.wait(poll_s)

    def flush(self) -> int:
        """Send the waiting alerts until one fails; return how many were sent.

        Raises
        ------
        StoreError
            If the ledger cannot be written; what was sent last is then sent again, under the same key.
        """
        if self._failures and self._clock() < self._not_before:
            return 0
        waiting = sorted(self._ledger.waiting_alerts(), key=lambda entry: (entry.tries // IN_A_ROW, entry.sequence))
        for done, entry in enumerate(waiting):
            try:
                self._send(entry.record)
            except HeadraceError as error:
                self._failed(entry, str(error))
                return done
            self._failures = 0
            self._ledger.alert_tried(entry.sequence, "sent")
        return len(waiting)

    def _failed(self, entry: WaitingAlert, problem: str) -> None:
        if self._now() - entry.record.written_at > GIVE_UP_AFTER_S:
            self._ledger.alert_tried(entry.sequence, "given up", problem)
            log.error("alert %s is given up after %d tries: %s", entry.record.key, entry.tries + 1, problem)
        else:
            self._ledger.alert_tried(entry.sequence, "waiting", problem)
        self._back_off(problem)

    def _back_off(self, problem: str) -> None:
        wait = min(2.0**self._failures, LONGEST_BACKOFF_S)
        self._failures += 1
        self._not_before = self._clock() + wait
        log.warning("%s; trying again in %.0f s", problem, wait)
