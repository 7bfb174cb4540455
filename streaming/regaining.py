"""The champion and the shadows that predicted when a state was kept, until they predict again.

To repeat the journal they have to be there; to go on live without them is a decision like any other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from core.models import CHALLENGER, BatchModel
from streaming.journal import Follow, Swap
from streaming.machine import Machine
from streaming.shadow import Missing

PATIENCE_S = 10.0
"""How long a model that cannot be loaded is waited for, s."""

ModelOf = Callable[[int], BatchModel | None]
"""Gives the model of a version, or None while it is not loaded."""

_log = logging.getLogger("headrace.worker")


class Regaining:
    """Lets the models of a state predict again as they are loaded.

    Parameters
    ----------
    number : int
        The partition, for messages.
    machine : Machine
        With the state that was kept.
    champion, shadow : callable
        Gives the model of a version, or None while it is not loaded.
    """

    def __init__(self, number: int, machine: Machine, champion: ModelOf, shadow: ModelOf) -> None:
        self.champion: int | None = machine.state.champion_version
        self._shadows = dict(machine.state.following)
        self._share = machine.state.canary.share
        self._number = number
        self._machine = machine
        self._champion_of = champion
        self._shadow_of = shadow
        self._began = time.monotonic()

    @property
    def is_done(self) -> bool:
        """Whether nothing is waited for any more; `champion` is the version that is."""
        return self.champion is None and not self._shadows

    def go_on(self, *, repeats: bool, lockstep: bool) -> Iterator[Swap | Follow]:
        """Take what is loaded; yield what is to be decided, because it goes on without.

        Parameters
        ----------
        repeats : bool
            Whether the journal is being repeated.
        lockstep : bool
            Whether a champion is waited for as long as it takes.
        """
        if self.champion is not None:
            model = self._champion_of(self.champion)
            if model is not None:
                self._machine.swap(model)
            elif repeats or lockstep or time.monotonic() - self._began < PATIENCE_S:
                return
            else:
                _log.warning(
                    "partition %d: champion %d cannot be loaded; goes on without it", self._number, self.champion
                )
                yield Swap(None)
            self.champion = None
        for role, version in list(self._shadows.items()):
            model = self._shadow_of(version)
            if model is None:
                return
            self._machine.follow(role, model, self._share if role == CHALLENGER else 0.0)
            del self._shadows[role]
            if isinstance(model, Missing) and not repeats:
                yield Follow(role, None)
