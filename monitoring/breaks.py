"""What a window must not be learned from: a column gone, a unit changed, labels turned round. Pure.

Drift is how a stream changes; a break is how a pipeline fails. It is large, it comes from one window to the next, and
it leads where the stream's own past has not been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from core.metrics import score
from core.predictions import Prediction, is_sane
from core.setting_types import Task
from core.settings import Settings
from core.tables import feature_column, prediction_column, prediction_of
from monitoring.calibration import Surprise
from monitoring.columns import take_sample
from monitoring.signals import Signals

GONE = 0.5
"""Rise of the share of missing values from which a column is gone."""

ABRUPT = 1.5
"""A break is at least so many times the largest step between two windows of the reference, ..."""

FAR = 1.0
"""... and at least that long: standard deviations for numbers; for categories all of 0.83 but a fifth."""

_FAR_CATEGORIES = 0.65
_UNUSUAL = 2.0
_AGREES, _CONTRADICTS = 0.2, -0.1
_FEWEST_LABELS = 100


def data_breaks(
    current: pa.Table,
    previous: pa.Table,
    reference: pa.Table,
    settings: Settings,
    steps: Mapping[str, float],
    surprise: Surprise | None,
) -> list[str]:
    """Return why a window's features are not to be learned from, a sentence each.

    Parameters
    ----------
    current, previous, reference : pyarrow.Table
        Rows of the window, of the one before it (empty if there was none), and of the reference.
    steps : mapping of str to float
        The largest distance between two windows of the reference that followed each other, of each feature.
    surprise : Surprise or None
        How unusual the window is; without it only columns that are gone are found.
    """
    gone = _gone(current, reference, settings)
    if surprise is None or not previous.num_rows:
        return list(gone.values())
    sides = [take_sample(side, settings.windows.sample) for side in (current, previous, reference)]
    common = [name for name in sides[0].column_names if all(name in side.column_names for side in sides)]
    signals = Signals.of(pa.concat_tables([side.select(common) for side in sides]), settings, "data")
    ends = np.cumsum([len(side) for side in sides])
    places = [np.arange(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    moved = signals.distances(places[0], places[1], places[2])
    scores = {signal.name: signal.score for signal in surprise.moved}
    abrupt = {
        name: f"{name} moved by {step:.2f} from one window to the next (the largest step before was "
        f"{steps.get(name, 0.0):.2f}): was its unit or its meaning changed?"
        for name, step in moved.items()
        if name not in gone and scores.get(name, 0.0) >= _UNUSUAL and _is_abrupt(name, step, settings, steps)
    }
    return [*gone.values(), *abrupt.values()]


def label_breaks(examples: pa.Table, reference: pa.Table, settings: Settings) -> list[str]:
    """Return why a window's labels are not to be learned from: the champion, right before, is wrong the other way.

    Parameters
    ----------
    examples, reference : pyarrow.Table
        Labelled rows of the window that are known by now, and the reference.
    """
    now, before = _agreement(examples, "champion", settings.task), _agreement(reference, "served", settings.task)
    if now is None or before is None or now > _CONTRADICTS or before < _AGREES:
        return []
    return [
        f"The labels contradict the champion: their agreement is {now:+.2f}, where {before:+.2f} was usual; "
        "were they turned round?"
    ]


def _gone(current: pa.Table, reference: pa.Table, settings: Settings) -> dict[str, str]:
    found = {}
    for name in settings.batch_kinds:
        column = feature_column(name)
        if column not in reference.column_names or not current.num_rows or not reference.num_rows:
            continue
        now = current[column].null_count / current.num_rows
        before = reference[column].null_count / reference.num_rows
        if now - before > GONE:
            found[name] = f"{name} is missing in {now:.0%} of the rows, where {before:.0%} was usual."
    return found


def _is_abrupt(name: str, step: float, settings: Settings, steps: Mapping[str, float]) -> bool:
    least = FAR if settings.batch_kinds[name] == "number" else _FAR_CATEGORIES
    return name in steps and step >= max(ABRUPT * steps[name], least)


def _agreement(table: pa.Table, expert: str, task: Task) -> float | None:
    """Return how predictions and labels agree, from -1 to 1: Gini, Cohen's kappa or rank correlation."""
    column = prediction_column(expert)
    if column not in table.column_names or "label" not in table.column_names:
        return None
    predictions: list[Prediction] = []
    labels: list[Any] = []
    for cell, label in zip(table[column].to_pylist(), table["label"].to_pylist(), strict=True):
        prediction = prediction_of(cell)
        if label is not None and prediction is not None and is_sane(prediction):
            predictions.append(prediction)
            labels.append(label)
    if len(labels) < _FEWEST_LABELS:
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
