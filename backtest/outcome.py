"""What a policy did with a stream: plain values, which another process can hand over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest.policies import Policy
from backtest.shadowing import Ended
from core.audit import Trigger
from core.predictions import Prediction
from core.quarantine import Span
from monitoring.gain import Gain, Prospect
from monitoring.windows import WindowStage


@dataclass(frozen=True)
class Retraining:
    """A retraining that a policy decided, and what became of it.

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
    version : int or None
        The version that passed its gates; None if none did.
    reasons : tuple of str
        Why not.
    rows : int
        Rows that the models were fitted on.
    seconds : float
        What the fits took when they were made, s.
    gain : float or None
        By how much, relatively, the blend's loss on the hold-out was lower than with the champion so far.
    """

    trigger: Trigger
    decided_at: int
    effective_at: int
    why: tuple[str, ...]
    prospect: Prospect | None
    version: int | None
    reasons: tuple[str, ...]
    rows: int
    seconds: float
    gain: float | None

    @property
    def gained(self) -> Gain | None:
        """What it gained, where that is known."""
        return None if self.prospect is None or self.gain is None else Gain(self.prospect, self.gain)


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
