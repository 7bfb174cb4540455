"""What a policy did with a stream: plain values, which another process can hand over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from backtest.policies import Policy
from backtest.shadowing import Ended
from backtest.training import Attempt
from core.audit import Trigger
from core.predictions import Prediction
from core.quarantine import Span
from monitoring.gain import Gain, Prospect, brought
from monitoring.windows import WindowStage


@dataclass(frozen=True)
class Retraining:
    """A retraining that a policy decided.

    Attributes
    ----------
    trigger : str
        bootstrap, schedule or drift.
    decided_at, effective_at : int
        When it was decided, and from when its model serves, event time, ms.
    why : tuple of str
        The decision's reasons.
    prospect : Prospect or None
        What it had to work with.
    attempt : Attempt
        What became of it.
    """

    trigger: Trigger
    decided_at: int
    effective_at: int
    why: tuple[str, ...]
    prospect: Prospect | None
    attempt: Attempt

    def gained(self, withdrawn: Collection[int]) -> Gain | None:
        """Return what it brought, where that is known; nothing if its version was withdrawn from shadow."""
        version = self.attempt.version
        gain = brought(self.attempt.gain, rejected=version is None or version in withdrawn)
        return None if self.prospect is None or gain is None else Gain(self.prospect, gain)


@dataclass(frozen=True)
class Alert:
    """An alert: the stage it is about, and its reasons."""

    stage: WindowStage
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ServedRows:
    """What was predicted of each row of the tape.

    Attributes
    ----------
    online : list of dict
        Each online expert's prediction.
    champion, published : list of prediction or None
        The champion's, and what was served.
    canary : array of int
        Version of the challenger with which the row was served all the same, 0 for none.
    """

    online: Sequence[Mapping[str, Prediction]]
    champion: Sequence[Prediction | None]
    published: Sequence[Prediction | None]
    canary: np.ndarray[Any, np.dtype[np.int32]]

    @cached_property
    def has_champion(self) -> bool:
        """Whether there ever was a champion that predicted."""
        return any(prediction is not None for prediction in self.champion)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a policy did with the stream.

    Attributes
    ----------
    policy : Policy
        Which.
    rows : ServedRows
        What was served.
    retrainings, alerts, ended
        In their order; `ended` are the versions whose time in shadow is over.
    quarantined : dict of (int, int) to tuple of str
        Windows that were kept out, ms, and why.
    entered : dict of int to int
        Event time from which each version that was promoted served, ms.
    """

    policy: Policy
    rows: ServedRows
    retrainings: Sequence[Retraining]
    alerts: Sequence[Alert]
    quarantined: Mapping[Span, tuple[str, ...]]
    entered: Mapping[int, int]
    ended: Sequence[Ended]
