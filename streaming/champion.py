"""Step 11: a thread that watches the registry's aliases and hands each new champion, and each shadow, to the worker.

The worker never waits for it: it predicts with the online experts until a champion is loaded, and swaps
between two records. A champion that cannot be loaded changes nothing; the one that serves goes on. A shadow that cannot
be loaded holds nothing up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from core.errors import HeadraceError
from core.models import CHAMPION, SHADOWS, BatchModel

_MAX_PAUSE_S = 8.0  # a new champion is to be seen within ten seconds, also after a time without the registry
_KEPT_MODELS = 6
_log = logging.getLogger("headrace.champion")


@dataclass(frozen=True)
class Champion:
    """A loaded champion, or shadow; `effective_at` is the event time from which lockstep lets it predict, ms."""

    model: BatchModel
    effective_at: int


class ChampionSource(Protocol):
    """Where champions and shadows come from."""

    def followed(self) -> dict[str, tuple[int, int]]:
        """Return (version, effective_at) of each alias that is to be followed, as they stand at one moment."""

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
        self._shadows: dict[str, Champion] = {}
        self._seen: tuple[int, int] | None = None
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
    def line_up(self) -> tuple[Champion | None, dict[str, Champion]]:
        """The newest champion that was loaded, and the shadows that were followed then, by role."""
        with self._lock:
            return self._loaded, self._shadows

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
                problems = [*self._load_wanted(source), *self._look(source)]
            except Exception as error:  # noqa: BLE001  a thread that died would never follow the alias again
                problems = [error]
            pause = min(max(pause, self._poll_s) * 2, _MAX_PAUSE_S) if problems else self._poll_s
            self._report(_said(problems[0]) if problems else None)

    def _load_wanted(self, source: ChampionSource) -> list[Exception]:
        """Load what was asked for; return why some of it cannot be loaded."""
        problems: list[Exception] = []
        for version in sorted(self._wanted - self._models.keys()):
            try:
                self._keep(version, source.load(version))
                _log.info("version %d is loaded: the stream was predicted with it before", version)
            except Exception as error:  # noqa: BLE001  the others are loaded all the same
                problems.append(error)
        return problems

    def _keep(self, version: int, model: BatchModel) -> None:
        with self._lock:
            self._models.pop(version, None)
            self._models[version] = model  # now the last that would be let go
            self._wanted.discard(version)
            while len(self._models) > _KEPT_MODELS:
                del self._models[next(iter(self._models))]

    def _look(self, source: ChampionSource) -> list[Exception]:
        """Load whom the aliases name; return why some of the shadows cannot be loaded."""
        followed = source.followed()
        current = followed.get(CHAMPION)
        champion = self._loaded if current in (None, self._seen) else self._load(source, *current)
        shadows: dict[str, Champion] = {}
        problems: list[Exception] = []
        for role in SHADOWS:
            if role in followed:
                try:
                    shadows[role] = self._load(source, *followed[role])
                except Exception as error:  # noqa: BLE001  a shadow costs nothing but itself
                    problems.append(error)
        self._publish(champion, shadows)
        self._seen = current or self._seen
        self._looked.set()
        return problems

    def _load(self, source: ChampionSource, version: int, effective_at: int) -> Champion:
        with self._lock:
            known = self._models.get(version)
        model = known or source.load(version)
        self._keep(version, model)
        return Champion(model, effective_at)

    def _publish(self, champion: Champion | None, shadows: dict[str, Champion]) -> None:
        """Hand over champion and shadows of one look together: at a promotion one takes the other's place."""
        with self._lock:
            before = {CHAMPION: self._loaded, **self._shadows}
            self._loaded, self._shadows = champion, shadows
        for role, found in {CHAMPION: champion, **shadows}.items():
            known = before.get(role)
            if found is not None and (known is None or known.model.version != found.model.version):
                _log.info("%s %d is loaded", role, found.model.version)

    def _report(self, problem: str | None) -> None:
        with self._lock:
            news = problem is not None and problem != self._problem
            self._problem = problem
        if news:
            _log.warning("an alias cannot be followed, the stream goes on without a change: %s", problem)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
