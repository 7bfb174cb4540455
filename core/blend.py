"""Step 3: the blend. Several experts become one served prediction, with weights on the simplex.

Many mixtures run side by side: one for each learning rate, share and sharpness of the settings. Within each,
weights move by exponentiated gradient (Kivinen & Warmuth 1997) with a fixed share handed round (Herbster & Warmuth
1998), so its regret to the best changing weights is bounded. Nothing is tuned: a belief over the mixtures moves by
their own loss in the same way (Vovk 1998), and their average under that belief is what is served.

* binary: logits are averaged; sharpness multiplies them;
* multiclass: logarithms of floored probabilities, over the union of the classes that any expert names;
* regression: values; gradients are divided by a running mean absolute error and clipped.

Experts may come and go: those absent from a prediction sleep (Freund et al. 1997), their weight does not move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from core.loop_settings import BlendSettings
from core.predictions import Outcome, Prediction
from core.setting_types import Task

Array = NDArray[np.float64]

_FLOOR = 1e-4
_MAX_STEP = 1.0
_MAX_GRADIENT = 4.0
_BELIEF_RATE = 0.5
_BELIEF_SHARE = 1e-3
_TINY = 1e-300


class Blend:
    """Weights of the experts, moved by every label.

    Parameters
    ----------
    task : {'binary', 'multiclass', 'regression'}
        Decides the space in which predictions are mixed.
    settings : BlendSettings
        The rates, shares and sharpnesses that run side by side; a rate of 0 is equal weights.

    Examples
    --------
    >>> blend = Blend("binary", BlendSettings())
    >>> for _ in range(200):
    ...     blend.update({"good": 0.9, "bad": 0.2}, 1)
    >>> blend.mix({"good": 0.9, "bad": 0.2}) > 0.8
    True
    """

    def __init__(self, task: Task, settings: BlendSettings) -> None:
        sharpness = settings.sharpness if task != "regression" else [1.0]
        members = np.array(list(product(settings.rates, settings.shares, sharpness)))
        self._task = task
        self._rates, self._shares, self._sharpness = (members[:, [column]] for column in range(3))
        self._belief: Array = np.full(len(members), 1.0 / len(members))
        self._weights: Array = np.empty((len(members), 0))
        self._names: dict[str, int] = {}
        self._scale = _RunningScale()

    def mix(self, predictions: Mapping[str, Prediction]) -> Prediction:
        """Return the served prediction of these experts' predictions (at least one; all finite)."""
        weights, _ = self._awake(predictions)
        if self._task == "multiclass":
            classes, logs = _logs(predictions)
            served = _softmax(self._belief @ (self._sharpness * (weights @ logs)))
            return dict(zip(classes, served.tolist(), strict=True))
        if self._task == "binary":
            mixed = self._sharpness[:, 0] * (weights @ _logits(predictions))
            return float(_sigmoid(float(self._belief @ mixed)))
        return float(self._belief @ (weights @ _values(predictions)))

    def update(self, predictions: Mapping[str, Prediction], outcome: Outcome) -> None:
        """Move the weights by how well each of these experts had predicted `outcome`."""
        weights, columns = self._awake(predictions)
        losses, gradients = self._judge(weights, predictions, outcome)
        if len(predictions) > 1:
            steps = np.clip(-self._rates * gradients, -_MAX_STEP, _MAX_STEP)
            raised = weights * np.exp(steps)
            raised /= raised.sum(axis=1, keepdims=True)
            raised = (1.0 - self._shares) * raised + self._shares / len(predictions)
            raised = np.where(self._rates > 0.0, raised, weights)
            total = self._weights[:, columns].sum(axis=1, keepdims=True)
            self._weights[:, columns] = total * raised
        believed = self._belief * np.exp(-_BELIEF_RATE * (losses - losses.min()))
        self._belief = (1.0 - _BELIEF_SHARE) * believed / believed.sum() + _BELIEF_SHARE / len(believed)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each expert seen so far, averaged over the mixtures; they sum to 1."""
        average = self._belief @ self._weights
        return {name: float(average[column]) for name, column in self._names.items()}

    def _judge(self, weights: Array, predictions: Mapping[str, Prediction], outcome: Outcome) -> tuple[Array, Array]:
        """Return each mixture's loss, and its gradient by each awake expert's weight."""
        if self._task == "multiclass":
            return _judge_classes(weights, self._sharpness, predictions, str(outcome))
        if self._task == "binary":
            logits = _logits(predictions)
            plain = weights @ logits
            mixed = np.clip(self._sharpness[:, 0] * plain, -9.0, 9.0)
            chances = 1.0 / (1.0 + np.exp(-mixed))
            errors = self._sharpness[:, 0] * (chances - float(outcome))
            losses = -np.log(chances if outcome else 1.0 - chances)
            return losses, errors[:, None] * (logits[None, :] - plain[:, None])
        values, truth = _values(predictions), float(outcome)
        mixed = weights @ values
        self._scale.observe(abs(float(self._belief @ mixed) - truth))
        scale = self._scale.value
        losses = np.minimum(np.abs(mixed - truth) / scale, 2 * _MAX_GRADIENT)
        gradients = np.sign(mixed - truth)[:, None] * (values[None, :] - mixed[:, None]) / scale
        return losses, np.clip(gradients, -_MAX_GRADIENT, _MAX_GRADIENT)

    def _awake(self, predictions: Mapping[str, Prediction]) -> tuple[Array, Any]:
        """Return the normalised weights of the experts that predicted, in their order, and their columns."""
        for name in predictions:
            if name not in self._names:
                self._admit(name)
        if list(predictions) == list(self._names):
            return self._weights, slice(None)
        columns = [self._names[name] for name in predictions]
        awake = np.maximum(self._weights[:, columns], _TINY)
        return awake / awake.sum(axis=1, keepdims=True), columns

    def _admit(self, name: str) -> None:
        """Give an expert that was never seen an equal part of the weight."""
        part = 1.0 / (len(self._names) + 1)
        self._names[name] = len(self._names)
        column = np.full((len(self._weights), 1), part)
        self._weights = np.hstack([self._weights * (1.0 - part), column])


class _RunningScale:
    """A running mean of absolute errors; an outlier counts at most as four times it."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._seen = 0

    @property
    def value(self) -> float:
        return self._mean or 1.0

    def observe(self, error: float) -> None:
        self._seen += 1
        if self._seen > 20 and self._mean > 0.0:
            error = min(error, _MAX_GRADIENT * self._mean)
        self._mean += (error - self._mean) / min(self._seen, 1000)


def _judge_classes(
    weights: Array, sharpness: Array, predictions: Mapping[str, Prediction], truth: str
) -> tuple[Array, Array]:
    classes, logs = _logs(predictions, truth)
    chances = _softmax(sharpness * (weights @ logs))
    at = classes.index(truth)
    gradients = sharpness * (chances @ logs.T - logs[:, at][None, :])
    centred = gradients - (weights * gradients).sum(axis=1, keepdims=True)
    return -np.log(np.maximum(chances[:, at], _FLOOR)), np.clip(centred, -_MAX_GRADIENT, _MAX_GRADIENT)


def _logits(predictions: Mapping[str, Prediction]) -> Array:
    return np.array([_logit(cast(float, value)) for value in predictions.values()])


def _logit(chance: float) -> float:
    chance = min(max(chance, _FLOOR), 1.0 - _FLOOR)
    return math.log(chance / (1.0 - chance))


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def _values(predictions: Mapping[str, Prediction]) -> Array:
    return np.array([cast(float, value) for value in predictions.values()])


def _logs(predictions: Mapping[str, Prediction], also: str | None = None) -> tuple[list[str], Array]:
    """Return the union of the classes, and the logarithm of each expert's floored, renormalised probabilities."""
    found = [cast(dict[str, float], value) for value in predictions.values()]
    classes = sorted({name for value in found for name in value} | ({also} if also is not None else set()))
    chances = np.array([[max(value.get(name, 0.0), _FLOOR) for name in classes] for value in found])
    return classes, np.log(chances / chances.sum(axis=1, keepdims=True))


def _softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return cast(Array, raised / raised.sum(axis=-1, keepdims=True))
