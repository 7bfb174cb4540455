"""What the members of a blend, its mixtures and its beliefs lost by an event, once its outcome is known. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from core.blend_history import Array, Position
from core.blend_spaces import FLOOR, chances_of, logits_of, logs_of, softmax, values_of, within
from core.nowcast import Nowcast
from core.predictions import Prediction

_MAX_GRADIENT = 4.0
_REMEMBERED_AT_LEAST = 100.0
_REMEMBERED_BY_LABEL = 8.0
"""An advantage is a mean over many times the labels that are outstanding: over fewer it would follow a change too."""


class Judged(NamedTuple):
    """Each member's loss, each mixture's gradient by the experts' weights, and each belief's loss."""

    losses: Array
    gradients: Array
    of_beliefs: Array


class Nowcasts:
    """Nowcasts of all that is judged."""

    def __init__(self) -> None:
        self._losses, self._gradients, self._of_beliefs = Nowcast(1), Nowcast(2), Nowcast(1)

    def of(
        self,
        then: Judged,
        late: Judged,
        members: list[int] | None,
        experts: list[int] | None,
        whole: tuple[int, int],
        outstanding: float,
    ) -> Judged:
        """Return how all stands by now, from what was predicted then, and late.

        Parameters
        ----------
        members, experts : list of int or None
            Which of them were awake; None for all.
        whole : (int, int)
            How many members and experts there are.
        outstanding : float
            How many labels are, on average.
        """
        remembered = max(_REMEMBERED_AT_LEAST, _REMEMBERED_BY_LABEL * outstanding)
        rows, columns = (slice(None) if awake is None else awake for awake in (members, experts))
        mixtures, beliefs = len(then.gradients), then.of_beliefs.shape
        return Judged(
            self._losses.of(then.losses, late.losses, (rows,), (whole[0],), remembered),
            self._gradients.of(
                then.gradients, late.gradients, (slice(None), columns), (mixtures, whole[1]), remembered
            ),
            self._of_beliefs.of(then.of_beliefs, late.of_beliefs, (slice(None),), beliefs, remembered),
        )


class RunningScale:
    """A running mean of absolute errors; an outlier counts at most as four times it."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._seen = 0

    @property
    def value(self) -> float:
        """The mean; 1 before anything was seen."""
        return self._mean or 1.0

    def observe(self, error: float) -> None:
        """Take in an absolute error."""
        self._seen += 1
        if self._seen > 20 and self._mean > 0.0:
            error = min(error, _MAX_GRADIENT * self._mean)
        self._mean += (error - self._mean) / min(self._seen, 1000)


def judge_chances(
    at: Position, mixtures: int, sharp: Array, predictions: Mapping[str, Prediction], is_positive: bool
) -> Judged:
    """Judge chances of the positive outcome; of the members the first are the mixtures."""
    logits = logits_of(predictions)
    plain = at.weights @ logits
    chances = chances_of(sharp[:, 0] * plain)
    errors = sharp[:mixtures, 0] * (chances[:mixtures] - float(is_positive))
    gradients = errors[:, None] * (logits[None, :] - plain[:mixtures, None])
    true = chances if is_positive else 1.0 - chances
    return Judged(-np.log(true), gradients, -np.log(at.beliefs @ true))


def judge_classes(
    at: Position, mixtures: int, sharp: Array, predictions: Mapping[str, Prediction], truth: str
) -> Judged:
    """Judge chances of classes."""
    classes, logs = logs_of(predictions, truth)
    true = classes.index(truth)
    chances = softmax(sharp * (at.weights @ logs))
    gradients = sharp[:mixtures] * (chances[:mixtures] @ logs.T - logs[:, true][None, :])
    centred = gradients - (at.weights[:mixtures] * gradients).sum(axis=1, keepdims=True)
    found = np.maximum(chances[:, true], FLOOR)
    return Judged(-np.log(found), within(centred, _MAX_GRADIENT), -np.log(at.beliefs @ found))


def judge_values(
    at: Position, mixtures: int, scale: float, predictions: Mapping[str, Prediction], truth: float
) -> Judged:
    """Judge values: absolute errors in units of a scale, bounded."""
    values = values_of(predictions)
    mixed = at.weights @ values
    losses, of_beliefs = (
        np.minimum(np.abs(made - truth) / scale, 2 * _MAX_GRADIENT) for made in (mixed, at.beliefs @ mixed)
    )
    plain = mixed[:mixtures]
    gradients = np.sign(plain - truth)[:, None] * (values[None, :] - plain[:, None]) / scale
    return Judged(losses, within(gradients, _MAX_GRADIENT), of_beliefs)
