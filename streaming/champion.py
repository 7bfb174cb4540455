"""Step 11: a thread that watches the registry's champion alias and hands each new champion to the worker.

The worker never waits for it: it predicts with the online experts until a champion is loaded, and swaps
between two records. A champion that cannot be loaded changes nothing; the one that serves goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from core.errors import HeadraceError
from core.models import BatchModel

_MAX_PAUSE_S = 8.0  # a new champion is to be seen within ten seconds, also after a time without the registry
_KEPT_MODELS = 4
_log = logging.getLogger("headrace.champion")


@dataclass(frozen=True)
class Champion:
    """A loaded champion; `effective_at` is the event time from which lockstep lets it serve, ms."""

    model: BatchModel
    effective_at: int


class ChampionSource(Protocol):
    """Where champions come from."""

    def current(self) -> tuple[int, int] | None:
        """Return (version, effective_at) of the champion alias, None if there is none."""

    def load(self, version: int) -> BatchModel:
        """Load a version, verified."""


class ChampionWatcher:
    """Polls a `ChampionSource` in a thread.

    Parameters
    ----------
    connect : callable
        Makes the source; called in the thread, because it imports MLflow.
    poll_s : float
        Time between two looks, s.
    """

    def __init__(self, connect: Callable[[], ChampionSource], poll_s: float = 2.0) -> None:
        self._connect = connect
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._loaded: Champion | None = None
        self._seen: int | None = None
        self._wanted: set[int] = set()
        self._models: dict[int, BatchModel] = {}
        self._hurry = threading.Event()
        self._problem: str | None = None
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="champion-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; a load under way is waited for at most five seconds."""
        self._stop.set()
        self._hurry.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    @property
    def loaded(self) -> Champion | None:
        """The newest champion that was loaded."""
        with self._lock:
            return self._loaded

    @property
    def problem(self) -> str | None:
        """Why the alias cannot be followed at the moment, None if it can."""
        with self._lock:
            return self._problem

    def version(self, number: int) -> BatchModel | None:
        """Return this version, champion or not; None while it is not loaded, which is asked for by that."""
        with self._lock:
            model = self._models.get(number)
            if model is None and number not in self._wanted:
                self._wanted.add(number)
                self._hurry.set()
        return model

    def wait_for_first_look(self, timeout_s: float) -> bool:
        """Wait until the registry has answered once; tell whether it did."""
        return self._looked.wait(timeout_s)

    def _run(self) -> None:
        source: ChampionSource | None = None
        pause = 0.0
        while not self._stop.is_set():
            self._hurry.wait(pause)
            self._hurry.clear()
            if self._stop.is_set():
                return
            try:
                source = source or self._connect()
                self._look(source)
                self._load_wanted(source)
                self._report(None)
                pause = self._poll_s
            except Exception as error:  # noqa: BLE001  a thread that died would never follow the alias again
                pause = min(max(pause, self._poll_s) * 2, _MAX_PAUSE_S)
                self._report(str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}")

    def _load_wanted(self, source: ChampionSource) -> None:
        for version in sorted(self._wanted - self._models.keys()):
            self._keep(version, source.load(version))
            _log.info("version %d is loaded: the stream was predicted with it before", version)

    def _keep(self, version: int, model: BatchModel) -> None:
        with self._lock:
            self._models[version] = model
            self._wanted.discard(version)
            while len(self._models) > _KEPT_MODELS:
                del self._models[next(iter(self._models))]

    def _look(self, source: ChampionSource) -> None:
        current = source.current()
        if current is not None and current[0] != self._seen:
            with self._lock:
                known = self._models.get(current[0])
            model = known or source.load(current[0])
            self._keep(current[0], model)
            with self._lock:
                self._loaded = Champion(model, current[1])
            self._seen = current[0]
            _log.info("champion %d is loaded", current[0])
        self._looked.set()

    def _report(self, problem: str | None) -> None:
        with self._lock:
            news = problem is not None and problem != self._problem
            self._problem = problem
        if news:
            _log.warning("the champion cannot be followed, the stream goes on without a change: %s", problem)
