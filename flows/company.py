"""What a candidate is worth in company: the loss of a mixture of it with the online experts.

The champion is never served alone. A model that says what the online experts say already adds nothing, however good it
is by itself: the search asks for the best mixture, not for the best model. A tenth of what counts is the model by
itself: that decides where none adds anything, and is what is served should the online experts fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.blend_spaces import FLOOR
from core.metrics import METRICS, score
from core.predictions import Outcome, Prediction
from core.setting_types import Task
from core.settings import Settings
from flows.evaluation import online_blend
from flows.examples import Examples

Array = np.ndarray[Any, np.dtype[np.float64]]

_SHARES = np.linspace(0.0, 1.0, 21)
_ENOUGH = 0.5
_ALONE = 0.1


class Company:
    """The blend of the online experts on some rows, as it would have been served there without a champion.

    Parameters
    ----------
    settings : Settings
        The project file.
    rows : Examples
        Rows that the candidates were not fitted on, with what the online experts predicted at the time.
    """

    def __init__(self, settings: Settings, rows: Examples) -> None:
        self._task = settings.task
        kept, online = online_blend(settings, rows)
        self._kept = kept if len(kept) >= _ENOUGH * len(rows) else []
        self._outcomes = [rows.outcomes[row] for row in kept]
        self._all_outcomes = rows.outcomes
        self._online = online

    def loss(self, predictions: Sequence[Prediction]) -> float | None:
        """Return the loss of the best mixture with a candidate, a tenth of it the candidate's own.

        Where the experts are silent it is all the candidate's own.

        Parameters
        ----------
        predictions : sequence
            What the candidate predicts on the rows; all finite.

        Returns
        -------
        float or None
            The loss that gates compare; None if there are no rows.
        """
        alone = score(self._task, predictions, self._all_outcomes)[METRICS[self._task][0]]
        if alone is None or not self._kept:
            return alone
        own = [predictions[row] for row in self._kept]
        mixed = min(mixture_losses(self._task, own, self._online, self._outcomes))
        return (1.0 - _ALONE) * mixed + _ALONE * alone


def mixture_losses(
    task: Task, own: Sequence[Prediction], online: Sequence[Prediction], outcomes: Sequence[Outcome]
) -> list[float]:
    """Return the mean loss of each of 21 mixtures, from none of `own` to nothing else, mixed as the blend does.

    Examples
    --------
    >>> losses = mixture_losses("regression", [0.0, 0.0], [4.0, 4.0], [1.0, 1.0])
    >>> losses[0], min(losses), losses[-1]
    (3.0, 0.0, 1.0)
    """
    if task == "regression":
        first, second, truth = (np.array(values, dtype=float) for values in (online, own, outcomes))
        return [float(np.abs(first + share * (second - first) - truth).mean()) for share in _SHARES]
    if task == "binary":
        signs = np.where(np.array(outcomes, dtype=int) == 1, 1.0, -1.0)
        first, second = _logits(online), _logits(own)
        return [float(np.logaddexp(0.0, -signs * (first + share * (second - first))).mean()) for share in _SHARES]
    classes = sorted({name for value in (*own, *online) for name in _of(value)} | {str(one) for one in outcomes})
    first, second = _logs(online, classes), _logs(own, classes)
    at = (np.arange(len(outcomes)), np.array([classes.index(str(one)) for one in outcomes]))
    return [_cross_entropy(first + share * (second - first), at) for share in _SHARES]


def _logits(chances: Sequence[Prediction]) -> Array:
    chance = np.clip(np.array(chances, dtype=float), FLOOR, 1.0 - FLOOR)
    logits: Array = np.log(chance / (1.0 - chance))
    return logits


def _of(prediction: Prediction) -> dict[str, float]:
    assert isinstance(prediction, dict)
    return prediction


def _logs(predictions: Sequence[Prediction], classes: Sequence[str]) -> Array:
    chances = np.array([[_of(value).get(name, 0.0) for name in classes] for value in predictions])
    logs: Array = np.log(np.maximum(chances, FLOOR))
    return logs


def _cross_entropy(logs: Array, at: tuple[Any, Any]) -> float:
    top = logs.max(axis=1)
    return float((top + np.log(np.exp(logs - top[:, None]).sum(axis=1)) - logs[at]).mean())
