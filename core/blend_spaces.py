"""The spaces in which a blend mixes: logits of chances, logarithms of classes' probabilities, and values. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np

from core.blend_history import Array
from core.predictions import Prediction

FLOOR = 1e-4
"""No probability counts as less: else an expert that was sure and wrong once would have lost everything."""


def within(values: Array, limit: float) -> Array:
    """Clip; faster than numpy's own on small arrays."""
    return np.minimum(np.maximum(values, -limit), limit)


def chances_of(mixed: Array) -> Array:
    """Return the chances of mixed logits, which count up to 9 from 0."""
    return 1.0 / (1.0 + np.exp(-within(mixed, 9.0)))


def logits_of(predictions: Mapping[str, Prediction]) -> Array:
    """Return each expert's logit of its floored chance."""
    return np.array([_logit(cast(float, value)) for value in predictions.values()])


def _logit(chance: float) -> float:
    chance = min(max(chance, FLOOR), 1.0 - FLOOR)
    return math.log(chance / (1.0 - chance))


def values_of(predictions: Mapping[str, Prediction]) -> Array:
    """Return each expert's value."""
    return np.array([cast(float, value) for value in predictions.values()])


def logs_of(predictions: Mapping[str, Prediction], also: str | None = None) -> tuple[list[str], Array]:
    """Return the union of the classes, and the logarithm of each expert's floored, renormalised probabilities."""
    found = [cast(dict[str, float], value) for value in predictions.values()]
    classes = sorted({name for value in found for name in value} | ({also} if also is not None else set()))
    chances = np.array([[max(value.get(name, 0.0), FLOOR) for name in classes] for value in found])
    return classes, np.log(chances / chances.sum(axis=1, keepdims=True))


def softmax(scores: Array) -> Array:
    """Return the probabilities of scores, along the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return cast(Array, raised / raised.sum(axis=-1, keepdims=True))
