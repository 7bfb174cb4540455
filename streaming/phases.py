"""What a worker is doing at the moment: named phases, so that one that does not end is noticed.

Every wait on something outside (broker, disk, object store) happens in a phase. A watchdog looks at the
current one from its own thread; past the deadline the worker says that it is not ready and ends, because a
blocked call of a client library cannot be interrupted, and the next worker goes on from the last commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal
from weakref import WeakSet

Phase = Literal[
    "poll",
    "step",
    "produce",
    "journal",
    "commit",
    "abort",
    "flush",
    "snapshot write",
    "snapshot fsync",
    "snapshot rename",
    "table flush",
    "open",
    "unlearn",
    "trim",
]
_LOOKS_PER_DEADLINE = 20


class Phases:
    """Tells which phase each thread is in, and since when; `enter` may be overridden to observe every phase's start.

    Examples
    --------
    >>> phases = Phases()
    >>> with phases.enter("commit"):
    ...     [phase for phase, since in phases.current]
    ['commit']
    >>> phases.current
    []
    """

    def __init__(self) -> None:
        self._of_thread: dict[threading.Thread, tuple[Phase, float]] = {}
        self._forgotten: WeakSet[threading.Thread] = WeakSet()

    @property
    def current(self) -> list[tuple[Phase, float]]:
        """Every thread's phase, and when it began, on the monotonic clock, s."""
        return list(self._of_thread.copy().values())

    @contextmanager
    def enter(self, phase: Phase) -> Iterator[None]:
        """Be in `phase` while the block runs; phases may be nested, the inner one counts."""
        thread = threading.current_thread()
        outer = self._of_thread.get(thread)
        self._set(thread, phase)
        try:
            yield
        finally:
            self._set(thread, None if outer is None else outer[0])

    def forget(self, thread: threading.Thread) -> None:
        """Watch a thread no more: nobody waits for what it does."""
        self._forgotten.add(thread)
        self._of_thread.pop(thread, None)

    def _set(self, thread: threading.Thread, phase: Phase | None) -> None:
        if phase is None or thread in self._forgotten:
            self._of_thread.pop(thread, None)
        else:
            self._of_thread[thread] = (phase, time.monotonic())


class Watchdog:
    """Calls `bark` once, from its own thread, when a phase lasts longer than the deadline.

    Time during which this process did not run at all (SIGSTOP, a sleeping host) does not count: the watchdog
    did not run either, and notices.

    Parameters
    ----------
    phases : Phases
        What to watch.
    deadline_s : float
        The longest time for one phase, s.
    bark : callable
        Gets the name of the phase and the seconds it has lasted.
    """

    def __init__(self, phases: Phases, deadline_s: float, bark: Callable[[Phase, float], None]) -> None:
        self._phases = phases
        self._deadline_s = deadline_s
        self._bark = bark
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()

    def _run(self) -> None:
        pause = self._deadline_s / _LOOKS_PER_DEADLINE
        looked = time.monotonic()
        asleep_until = looked
        while not self._stop.wait(pause):
            now = time.monotonic()
            if now - looked > pause + self._deadline_s / 2:
                asleep_until = now
            looked = now
            for phase, since in self._phases.current:
                if now - max(since, asleep_until) > self._deadline_s:
                    self._bark(phase, now - since)
                    return
