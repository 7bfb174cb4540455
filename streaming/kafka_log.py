"""Keeps kafka-python's own log lines from flooding the screen while a broker is away.

Without this a broker that is gone for a minute costs some two thousand lines. Connection trouble is
passed on at most once in `PERIOD_S`, any other warning at most once in that time for each line of
kafka-python that it comes from; what was held back is counted in the next one that passes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

PERIOD_S = 30.0
_CONNECTION_LOGGERS = ("kafka.net", "kafka.cluster", "kafka.coordinator")
_LOOP_LOGGER = "kafka.net.selector"
_CONNECTION_WORDS = ("ConnectionError", "ECONNREFUSED", "NodeNotReady", "TimeoutError")

log = logging.getLogger(__name__)


class RateLimitedHandler(logging.Handler):
    """Passes a library's warnings on to headrace's log, repeated ones rarely.

    Parameters
    ----------
    period_s : float
        Seconds in which the same trouble is reported once.
    clock : callable
        Gives seconds; for tests.
    """

    def __init__(self, period_s: float = PERIOD_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._period_s = period_s
        self._clock = clock
        self._last: dict[tuple[str, int], float] = {}
        self._held: dict[tuple[str, int], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass `record` on, or count it."""
        connection = _is_connection_trouble(record)
        key = ("connection", 0) if connection else (record.name, record.lineno)
        now = self._clock()
        if now - self._last.get(key, float("-inf")) < self._period_s:
            self._held[key] = self._held.get(key, 0) + 1
            return
        self._last[key] = now
        held = self._held.pop(key, 0)
        log.log(
            logging.WARNING if connection else record.levelno,
            "%s%s%s",
            "Kafka connection trouble, trying again: " if connection else f"{record.name}: ",
            record.getMessage(),
            f" ({held} similar lines held back)" if held else "",
        )


def limit_kafka_log() -> None:
    """Put the handler between kafka-python and the root logger; doing it twice changes nothing."""
    library = logging.getLogger("kafka")
    if any(isinstance(handler, RateLimitedHandler) for handler in library.handlers):
        return
    library.addHandler(RateLimitedHandler())
    library.setLevel(logging.WARNING)
    library.propagate = False
    # its warnings are about tasks of more than 0.1 s, which a large batch is
    logging.getLogger(_LOOP_LOGGER).setLevel(logging.ERROR)


def _is_connection_trouble(record: logging.LogRecord) -> bool:
    if record.name == _LOOP_LOGGER:
        return False
    if record.name.startswith(_CONNECTION_LOGGERS):
        return True
    return any(word in record.getMessage() for word in _CONNECTION_WORDS)
