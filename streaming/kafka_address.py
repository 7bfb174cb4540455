"""Where a broker is: its address as written, and whether anything listens there yet."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

from core.errors import BrokerError, UsageError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0

log = logging.getLogger(__name__)


def growing_pauses() -> Iterator[float]:
    """Yield seconds to wait between attempts: doubling, up to two seconds, without end.

    Examples
    --------
    >>> pauses = growing_pauses()
    >>> [round(next(pauses), 1) for _ in range(6)]
    [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    """
    pause = FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_S)


def parse_addresses(bootstrap_servers: str) -> list[tuple[str, int]]:
    """Split ``host:port,host:port``.

    Raises
    ------
    UsageError
        If it is not of that form.

    Examples
    --------
    >>> parse_addresses("localhost:9092, [::1]:9093")
    [('localhost', 9092), ('::1', 9093)]
    """
    found = []
    for part in bootstrap_servers.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UsageError(f"{bootstrap_servers!r} is not a broker's address; write HOST:PORT, as localhost:9092")
        found.append((host.strip("[]"), int(port)))
    return found


def await_listener(bootstrap_servers: str, deadline: float) -> None:
    """Wait until one of the addresses accepts connections.

    Plain sockets, because a client of kafka-python that cannot connect leaves its I/O thread behind.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port,host:port``.
    deadline : float
        On the clock of :func:`time.monotonic`.

    Raises
    ------
    BrokerError
        If nothing listens by then.
    """
    addresses = parse_addresses(bootstrap_servers)
    for attempt, pause in enumerate(growing_pauses()):
        reasons = [reason for host, port in addresses if (reason := _refusal(host, port))]
        if len(reasons) < len(addresses):
            return
        remaining = deadline - time.monotonic()
        if pause > remaining:
            raise BrokerError(
                f"no Kafka broker answers at {bootstrap_servers}; start it, or correct "
                f"HEADRACE_BOOTSTRAP_SERVERS or --bootstrap ({reasons[0]})"
            )
        if attempt == 0:
            log.warning("no Kafka broker answers at %s yet; trying for %.0f s", bootstrap_servers, remaining)
        time.sleep(pause)


def _refusal(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=LONGEST_PAUSE_S).close()
    except OSError as error:
        return str(error) or type(error).__name__
    return ""
