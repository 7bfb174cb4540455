"""What the tests of dispatching share."""

from __future__ import annotations

import time

from core.audit import Ledger
from flows.lease import beat_name, find


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def beat(ledger: Ledger, at: float = 0.0) -> None:
    """A sign of life of the attempt that has the request."""
    ledger.remember(beat_name(find(ledger, "drift-7")), {"at": at})


def status(ledger: Ledger) -> tuple[str, int]:
    request = find(ledger, "drift-7")
    return request.status, request.attempt
