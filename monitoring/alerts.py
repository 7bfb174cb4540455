"""Alerts on their way out: to a webhook, where the project names one.

An alert is in the ledger, waiting, before it is sent, and is sent at least once: what became of a try is
written down after it. Every try of an alert carries the same ``Idempotency-Key``, so that a receiver that
looks at it sees the alert exactly once. Only an answer of 2xx is a receipt.
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
from typing import Any

from core.audit import Ledger, LedgerRecord, WaitingAlert
from core.errors import AlertRefusedError, HeadraceError
from core.loop_settings import AlertSettings

log = logging.getLogger(__name__)

SendAlert = Callable[[LedgerRecord], None]
"""Sends one alert; raises AlertRefusedError if it cannot be sent at all, HeadraceError if it is to be tried again."""

TIMEOUT_S = 5.0
LONGEST_BACKOFF_S = 300.0
GIVE_UP_AFTER_S = 3 * 86_400.0
IN_A_ROW = 5
"""Failed tries after which the alerts behind get their turn: it may be this alert that cannot be received."""

_BUSY = {408, 425, 429}
_NOT_LET_IN = {401, 403, 404, 407}
"""Mostly an address or a key that somebody has yet to mend."""

_LONGEST_ADDRESS = 200


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Makes an error of a redirection: urllib would follow it with a GET that leaves the alert behind."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: Any, headers: Any, newurl: str) -> None:
        raise HeadraceError(
            f"the webhook is at {newurl[:_LONGEST_ADDRESS]} now (HTTP {code}); set alerts.webhook to it if you trust it"
        )


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
    AlertRefusedError
        If it refused this alert for good: trying again would hold back every later one.
    HeadraceError
        If it cannot be reached, is busy, broken, somewhere else, or does not let us in (yet).
    """
    name = idempotency_key(alert)
    body = json.dumps({"kind": "alert", "id": name, "key": alert.key, "event_time": alert.event_time, **alert.body})
    headers = {"Content-Type": "application/json", "Idempotency-Key": name}
    try:
        request = urllib.request.Request(url, body.encode(), headers, method="POST")  # noqa: S310 - settings want http(s)
        with urllib.request.build_opener(_NoRedirection).open(request, timeout=timeout_s):
            return
    except HeadraceError as error:
        raise HeadraceError(f"alert {alert.key}: {error}") from error
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(f"alert {alert.key}: the webhook answered HTTP {error.code}", error.code) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise HeadraceError(f"alert {alert.key}: the webhook cannot be reached: {error}") from error


def _refusal(said: str, code: int) -> HeadraceError:
    if code in _NOT_LET_IN:
        return HeadraceError(f"{said}; mend alerts.webhook, or the receiver")
    if 400 <= code < 500 and code not in _BUSY:
        return AlertRefusedError(f"{said}, a refusal for good")
    return HeadraceError(said)


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
        """Send the waiting alerts until one fails; return how many were received.

        Raises
        ------
        StoreError
            If the ledger cannot be written; what was sent last is then sent again, under the same key.
        """
        if self._failures and self._clock() < self._not_before:
            return 0
        waiting = sorted(self._ledger.waiting_alerts(), key=lambda entry: (entry.tries // IN_A_ROW, entry.sequence))
        sent = 0
        for entry in waiting:
            try:
                self._send(entry.record)
            except AlertRefusedError as error:
                self._give_up(entry, str(error))
            except HeadraceError as error:
                self._failed(entry, str(error))
                break
            else:
                self._ledger.alert_tried(entry.sequence, "sent")
                sent += 1
            self._failures = 0
        return sent

    def _failed(self, entry: WaitingAlert, problem: str) -> None:
        if self._now() - entry.record.written_at > GIVE_UP_AFTER_S:
            self._give_up(entry, problem)
        else:
            self._ledger.alert_tried(entry.sequence, "waiting", problem)
        self._back_off(problem)

    def _give_up(self, entry: WaitingAlert, problem: str) -> None:
        self._ledger.alert_tried(entry.sequence, "given up", problem)
        log.error("alert %s is given up after %d tries: %s", entry.record.key, entry.tries + 1, problem)

    def _back_off(self, problem: str) -> None:
        wait = min(2.0**self._failures, LONGEST_BACKOFF_S)
        self._failures += 1
        self._not_before = self._clock() + wait
        log.warning("%s; trying again in %.0f s", problem, wait)
