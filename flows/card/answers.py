"""A challenger asked about the rows that it has not seen: what it answers, and what it uses for that. Pure.

All that a card needs of the model itself, so that it can be had while the version is registered and verified.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from core.batch_model import FittedModel
from core.errors import RegistryError
from core.predictions import Prediction, is_sane
from flows.card.importance import Ranking, ranked
from flows.examples import Examples


@dataclass(frozen=True, eq=False)
class Answers:
    """What a challenger says of held-out rows.

    Attributes
    ----------
    rows : Examples
        Those on which it predicts something finite.
    predictions : sequence
        What it predicts of them.
    importance : Ranking or None
        Of its features; None with `problem`, if it could not be measured.
    problem : str
    """

    rows: Examples
    predictions: Sequence[Prediction]
    importance: Ranking | None
    problem: str = ""


def answers_of(challenger: FittedModel, holdout: Examples, *, seed: int, without: Collection[str] = ()) -> Answers:
    """Ask a challenger about the rows held out.

    Parameters
    ----------
    challenger : FittedModel
        The candidate as it was judged: fitted on the training rows only.
    seed : int
        Of the shuffling.
    without : collection of str
        Features that it does without.

    Raises
    ------
    RegistryError
        If it does not predict the held-out rows.
    """
    answers = challenger.predict_frame(holdout.frame) if len(holdout) else []
    sane = np.array([is_sane(one) for one in answers], dtype=bool)
    rows = holdout.take(sane)
    predictions = [one for one, fine in zip(answers, sane, strict=True) if fine]
    try:
        found = ranked(challenger, rows, seed, without)
    except RegistryError as error:  # a project's own model may not take what no event has
        return Answers(rows, predictions, None, str(error))
    return Answers(rows, predictions, found, "" if found else "there are no held-out rows")
