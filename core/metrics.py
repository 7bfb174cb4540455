"""Losses of single predictions and metrics of many, for each task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.predictions import Outcome, Prediction
from core.setting_types import Task

FLOOR = 1e-6

METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("log_loss", "accuracy", "roc_auc"),
    "multiclass": ("log_loss", "accuracy", "kappa"),
    "regression": ("mae", "rmse"),
}
"""The metrics of each task; the first is the one that gates compare, and smaller is better."""

SMALLER_IS_BETTER = frozenset({"log_loss", "mae", "rmse"})
"""The metrics of which the smallest value is the best; of the others it is the largest."""


def loss(prediction: Prediction, outcome: Outcome) -> float:
    """Return the loss of one prediction: log loss (nats, clipped at 1e-6), or absolute error.

    The kind follows from the values: a ``dict`` is multiclass, an ``int`` outcome is binary, a
    ``float`` outcome is regression.

    Examples
    --------
    >>> round(loss(0.8, 1), 3), round(loss({"a": 0.5, "b": 0.5}, "a"), 3), loss(3.0, 5.0)
    (0.223, 0.693, 2.0)
    """
    if isinstance(prediction, dict):
        return -math.log(min(max(prediction.get(str(outcome), 0.0), FLOOR), 1.0))
    if isinstance(outcome, float):
        return abs(prediction - outcome)
    chance = prediction if outcome else 1.0 - prediction
    return -math.log(min(max(chance, FLOOR), 1.0))


def losses(predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    """Return the loss of each prediction, see `loss`."""
    return np.array([loss(one, outcome) for one, outcome in zip(predictions, outcomes, strict=True)], dtype=float)


def score(task: Task, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Return each metric of the task over the same rows; None where it is not defined.

    ROC AUC is not defined while all outcomes are equal; nothing is defined without rows.

    Examples
    --------
    >>> score("regression", [1.0, 2.0], [1.0, 4.0])
    {'mae': 1.0, 'rmse': 1.4142135623730951}
    """
    if not outcomes:
        return dict.fromkeys(METRICS[task])
    if task == "regression":
        errors = np.asarray(predictions, dtype=float) - np.asarray(outcomes, dtype=float)
        return {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt((errors**2).mean()))}
    mean_loss = float(np.mean([loss(p, y) for p, y in zip(predictions, outcomes, strict=True)]))
    if task == "binary":
        right = (np.asarray(predictions, dtype=float) > 0.5) == np.asarray(outcomes, dtype=int)
        return {"log_loss": mean_loss, "accuracy": float(right.mean()), "roc_auc": _roc_auc(predictions, outcomes)}
    chosen = [_most_likely(p) for p in predictions]
    names = [str(y) for y in outcomes]
    return {"log_loss": mean_loss, "accuracy": _accuracy(chosen, names), "kappa": _kappa(chosen, names)}


def skill(task: Task, metrics: Mapping[str, float | None]) -> float | None:
    """Return how far a model's ranking is from chance (0) to right (1); None where that is not known, or of values.

    Twice the area under the ROC curve less one (Gini); of several classes Cohen's kappa. Labels that are wrong by lot,
    whatever the features, shrink it by the same share for every model (Menon et al. 2015): which of two is better can
    be told from wrong labels, too. Of a log loss that does not hold: there, who dares less wins.

    Examples
    --------
    >>> skill("binary", {"roc_auc": 0.75}), skill("multiclass", {"kappa": 0.2}), skill("regression", {"mae": 1.0})
    (0.5, 0.2, None)
    """
    if task == "binary":
        area = metrics.get("roc_auc")
        return None if area is None else 2.0 * area - 1.0
    return metrics.get("kappa") if task == "multiclass" else None


def _roc_auc(predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> float | None:
    from scipy.stats import rankdata

    truth = np.asarray(outcomes, dtype=int) == 1
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(np.asarray(predictions, dtype=float))
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _most_likely(prediction: Prediction) -> str:
    assert isinstance(prediction, dict)
    return max(sorted(prediction), key=lambda name: prediction[name])


def _accuracy(chosen: Sequence[str], names: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(chosen, names, strict=True)) / len(names)


def _kappa(chosen: Sequence[str], names: Sequence[str]) -> float | None:
    """Return Cohen's kappa (Cohen 1960); None where chance alone agrees fully."""
    agreed = _accuracy(chosen, names)
    total = len(names)
    by_chance = sum(chosen.count(c) * names.count(c) for c in set(names)) / total**2
    return None if by_chance >= 1.0 else (agreed - by_chance) / (1.0 - by_chance)
