"""The curves on a card: calibration, ROC, residuals. Of many rows together, never of a single one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.metrics import score
from core.predictions import Outcome, Prediction
from core.setting_types import Task
from flows.intervals import Array
from flows.reliability import Bin, reliability_bins

_POINTS = 200
_MAX_CLASSES = 10
_PARTS = 20
_FEWEST_IN_A_PART = 10
_BANDS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Roc:
    """Of a class against all others: the share of hits for each share of false alarms.

    Attributes
    ----------
    name : str
        The class; ``1`` of two.
    rows : int
        How many rows are of it.
    area : float
        Below the curve.
    false_alarms, hits : list of float
        At most 200 points, from 0 to 1.
    """

    name: str
    rows: int
    area: float
    false_alarms: list[float]
    hits: list[float]


@dataclass(frozen=True)
class Residuals:
    """What happened less what was predicted, of parts of equally many rows by what was predicted.

    Attributes
    ----------
    predicted : list of float
        The mean of each part.
    rows : list of int
        Of each part.
    bands : dict of str to list of float
        The quantiles 0.05, 0.25, 0.5, 0.75 and 0.95 of each part.
    """

    predicted: list[float]
    rows: list[int]
    bands: dict[str, list[float]]


@dataclass(frozen=True)
class Curves:
    """The curves of a task; what it does not have is empty or None.

    Attributes
    ----------
    rows : int
        Held-out rows that they are made of.
    calibration : list of Bin
        Of probabilities.
    roc : list of Roc
        Of two classes one, of several one each, the ten most frequent.
    residuals : Residuals or None
        Of a regression.
    """

    rows: int
    calibration: list[Bin]
    roc: list[Roc]
    residuals: Residuals | None


def curves_of(task: Task, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> Curves:
    """Return the curves of predictions that are finite.

    Examples
    --------
    >>> found = curves_of("binary", [0.1, 0.4, 0.6, 0.9], [0, 1, 0, 1])
    >>> found.roc[0].area, found.roc[0].false_alarms, found.roc[0].hits
    (0.75, [0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    >>> curves_of("regression", [1.0] * 20, [2.0] * 20).residuals.bands["0.5"]
    [1.0, 1.0]
    """
    if task == "regression":
        return Curves(len(outcomes), [], [], _residuals(predictions, outcomes))
    bins = reliability_bins(task, predictions, outcomes)
    if task == "binary":
        chances = np.array(predictions, dtype=float)
        curves = [_roc("1", chances, np.array(outcomes, dtype=int) == 1)]
    else:
        curves = [_of_class(name, predictions, outcomes) for name in _most_frequent(outcomes)]
    return Curves(len(outcomes), bins, [curve for curve in curves if curve is not None], None)


def _of_class(name: str, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> Roc | None:
    chances = np.array([one.get(name, 0.0) if isinstance(one, dict) else 0.0 for one in predictions])
    return _roc(name, chances, np.array([str(outcome) == name for outcome in outcomes]))


def _most_frequent(outcomes: Sequence[Outcome]) -> list[str]:
    names, counts = np.unique([str(outcome) for outcome in outcomes], return_counts=True)
    order = np.lexsort((names, -counts))[:_MAX_CLASSES]
    return [str(names[place]) for place in order]


def _roc(name: str, chances: Array, happened: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Roc | None:
    positives = int(happened.sum())
    negatives = len(happened) - positives
    area = score("binary", chances.tolist(), happened.astype(int).tolist()).get("roc_auc")
    if area is None:
        return None
    order = np.argsort(-chances, kind="stable")
    last = np.append(np.flatnonzero(np.diff(chances[order])), len(order) - 1)  # equal chances come together
    hits = np.concatenate([[0.0], np.cumsum(happened[order])[last] / positives])
    alarms = np.concatenate([[0.0], np.cumsum(~happened[order])[last] / negatives])
    kept = np.unique(np.linspace(0, len(hits) - 1, min(len(hits), _POINTS)).round().astype(int))
    return Roc(name, positives, area, alarms[kept].tolist(), hits[kept].tolist())


def _residuals(predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> Residuals | None:
    said, truth = np.array(predictions, dtype=float), np.array(outcomes, dtype=float)
    if not len(said):
        return None
    parts = np.array_split(np.argsort(said, kind="stable"), min(_PARTS, max(len(said) // _FEWEST_IN_A_PART, 1)))
    bands = np.array([np.quantile(truth[part] - said[part], _BANDS) for part in parts])
    return Residuals(
        [float(said[part].mean()) for part in parts],
        [len(part) for part in parts],
        {str(level): bands[:, place].tolist() for place, level in enumerate(_BANDS)},
    )
