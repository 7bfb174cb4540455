"""Shadows: versions that predict every event and are not served, each with the blend that would be served with it.

A challenger may be served for a share of the events all the same: see :mod:`streaming.canary`.

A blend belongs to the version whose predictions stand in the champion's place in it. A shadow begins with a copy of the
blend that serves, and moves on as if its version served. When that version becomes champion its blend is adopted, and
that of the champion before goes on in shadow, if that is followed. All of this happens when an event is predicted and
follows from the versions that predicted it: so that whoever learns the past again from the tables needs nothing else.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from core.blend import Blend
from core.errors import RegistryError
from core.models import CHAMPION, BatchModel
from core.predictions import Features, Outcome, Prediction

_log = logging.getLogger("headrace.worker")


class Shadowed(NamedTuple):
    """What a shadow made of an event.

    Attributes
    ----------
    version : int
        The model's.
    prediction : prediction or None
        Its own; None where it failed or was not plausible.
    blended : prediction or None
        The blend with it; None while no expert can predict.
    """

    version: int
    prediction: Prediction | None
    blended: Prediction | None


class Event(Protocol):
    """What an event was predicted to be; :class:`streaming.join.Predicted` is one."""

    @property
    def step(self) -> int:
        """The partition's step that predicted it."""

    @property
    def predictions(self) -> Mapping[str, Prediction]:
        """Each expert's."""

    @property
    def shadows(self) -> Mapping[str, Shadowed] | None:
        """Each shadow's, by its role; None without any."""


@dataclass
class Shadow:
    """A version, and the blend that would be served with it."""

    version: int
    blend: Blend


@dataclass
class Shadows:
    """The shadows of a partition.

    Attributes
    ----------
    serving : int or None
        Version whose blend serves: the champion's that predicted last.
    by_role : dict of str to Shadow
        Those that predicted the last event.
    """

    serving: int | None = None
    by_role: dict[str, Shadow] = field(default_factory=dict)

    def are_settled(self, champion: int | None) -> bool:
        """Tell whether every blend is where it belongs for an event that only this champion predicts."""
        return not self.by_role and (champion is None or champion == self.serving)

    def seat(self, blend: Blend, champion: int | None, followed: Mapping[str, int]) -> Blend:
        """Give every version its blend before an event is predicted; return the one that serves.

        Parameters
        ----------
        blend : Blend
            The one that has served until now.
        champion : int or None
            The version that predicts the event as champion; None where none does.
        followed : mapping of str to int
            The version of each role that predicts it in shadow.
        """
        blends = {shadow.version: shadow.blend for shadow in self.by_role.values()}
        if champion is not None and champion != self.serving:
            if self.serving is not None:
                blends[self.serving] = blend
            blend = blends.pop(champion, blend)
            self.serving = champion
        self.by_role = {role: Shadow(version, self._own(blends, version, blend)) for role, version in followed.items()}
        return blend

    @staticmethod
    def _own(blends: dict[int, Blend], version: int, serving: Blend) -> Blend:
        found = blends.pop(version, None)
        if found is None:  # it comes under a champion's name, and is to be heard whatever that has been worth
            found = copy.deepcopy(serving)
            found.renew(CHAMPION)
        return copy.deepcopy(serving) if found is serving else found

    def mix(
        self, own: Mapping[str, Prediction | None], predictions: Mapping[str, Prediction], step: int
    ) -> dict[str, Shadowed]:
        """Return what each shadow makes of an event, by role.

        Parameters
        ----------
        own : mapping of str to prediction or None
            What each shadow predicted, plausible as it comes.
        predictions : mapping of str to prediction
            What the experts predicted.
        """
        made = {}
        for role, shadow in self.by_role.items():
            members = _in_place(predictions, own[role])
            made[role] = Shadowed(shadow.version, own[role], shadow.blend.mix(members, step) if members else None)
        return made

    def learn(self, event: Event, outcome: Outcome, anew: Mapping[str, Prediction] | None = None) -> None:
        """Move the weights of each shadow's blend; for `anew` see `core.blend.Blend.update`."""
        for shadow in self.by_role.values():
            if members := members_of(event, shadow.version):
                shadow.blend.update(members, outcome, event.step, anew=anew)


def members_of(event: Event, version: int | None) -> Mapping[str, Prediction]:
    """Return the predictions that move the blend of a version: its own, if it predicted the event in shadow.

    Of an event that it had nothing to do with its blend learns as the one that served did.
    """
    for shadowed in (event.shadows or {}).values():
        if shadowed.version == version:
            return _in_place(event.predictions, shadowed.prediction)
    return event.predictions


def _in_place(predictions: Mapping[str, Prediction], own: Prediction | None) -> dict[str, Prediction]:
    """Return the predictions with another one in the champion's place, or none."""
    online = {name: value for name, value in predictions.items() if name != CHAMPION}
    return online if own is None else {CHAMPION: own, **online}


class Missing:
    """Stands for a shadow that cannot be loaded: every prediction fails."""

    def __init__(self, version: int) -> None:
        self.version = version

    def predict(self, rows: Sequence[Features]) -> list[Prediction]:
        """Fail."""
        raise RegistryError(f"model version {self.version} cannot be loaded")


class ShadowModels:
    """Gives the models of shadows that were followed before, and does not wait for ever for one that cannot be loaded.

    Parameters
    ----------
    model_of : callable
        Gives the model of a version, or None while it is not loaded.
    patience_s : float
        Time after which one that is not loaded counts as one that fails, s.
    """

    def __init__(self, model_of: Callable[[int], BatchModel | None], patience_s: float) -> None:
        self._model_of = model_of
        self._patience_s = patience_s
        self._since: dict[int, float] = {}

    def __call__(self, version: int) -> BatchModel | None:
        """Return the model; None while it is waited for."""
        model = self._model_of(version)
        if model is None and time.monotonic() - self._since.setdefault(version, time.monotonic()) >= self._patience_s:
            _log.warning("version %d cannot be loaded; what it predicts in shadow counts as failed", version)
            return Missing(version)
        return model


def ask(model: BatchModel, rows: list[Features]) -> list[Any]:
    """Return a shadow's prediction of each row, None for all where it fails: it is not asked row by row.

    That would take long, and time is the stream's.
    """
    try:
        predictions: list[Any] = list(model.predict(rows))
    except Exception:  # noqa: BLE001  a batch model may be the user's code; the stream goes on
        return [None] * len(rows)
    return predictions if len(predictions) == len(rows) else [None] * len(rows)
