"""How predictions and labels agree, from -1 to 1: Gini, Cohen's kappa or rank correlation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from core.metrics import score
from core.predictions import Outcome, Prediction, is_sane
from core.setting_types import Task
from core.tables import prediction_column, prediction_of

FEWEST_LABELS = 100
"""Labels below which nothing is said."""

_DRAWS = 100
_DEVIATIONS = 3.0


def agreement(table: pa.Table, expert: str, task: Task) -> float | None:
    """Return how an expert's predictions agree with the labels; None where that cannot be told."""
    return _agreement(*_paired(table, expert), task)


def largest_agreement(table: pa.Table, expert: str, task: Task) -> float | None:
    """Return what the agreement may be at most, for all that so few rows can tell: three deviations above it.

    The deviation is that of drawing the rows again with replacement (Efron 1979): it needs no formula for each task.
    """
    predictions, labels = _paired(table, expert)
    seen = _agreement(predictions, labels, task)
    if seen is None:
        return None
    draw, drawn = np.random.default_rng(len(labels)), []
    for _ in range(_DRAWS):
        rows = draw.integers(0, len(labels), len(labels)).tolist()
        drawn.append(_agreement([predictions[row] for row in rows], [labels[row] for row in rows], task))
    known = [value for value in drawn if value is not None]
    return seen + _DEVIATIONS * float(np.std(known)) if len(known) == _DRAWS else None


def _paired(table: pa.Table, expert: str) -> tuple[list[Prediction], list[Outcome]]:
    column = prediction_column(expert)
    if column not in table.column_names or "label" not in table.column_names:
        return [], []
    predictions, labels = [], []
    for cell, label in zip(table[column].to_pylist(), table["label"].to_pylist(), strict=True):
        prediction = prediction_of(cell)
        if label is not None and prediction is not None and is_sane(prediction):
            predictions.append(prediction)
            labels.append(label)
    return predictions, labels


def _agreement(predictions: Sequence[Prediction], labels: Sequence[Outcome], task: Task) -> float | None:
    if len(labels) < FEWEST_LABELS:
        return None
    if task == "regression":
        return _rank_correlation(predictions, labels)
    found = score(task, predictions, labels)["roc_auc" if task == "binary" else "kappa"]
    return None if found is None else 2.0 * found - 1.0 if task == "binary" else found


def _rank_correlation(predictions: Sequence[Any], labels: Sequence[Any]) -> float | None:
    from scipy.stats import spearmanr

    if len(set(predictions)) < 2 or len(set(labels)) < 2:
        return None
    return float(spearmanr(predictions, labels).statistic)
