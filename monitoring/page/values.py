"""The values of a signal's column: numbers with NaN for null, or text with a category for null. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.settings import Settings
from core.tables import feature_column, prediction_column
from monitoring.columns import MISSING, most_likely, to_numbers
from monitoring.comparison import LABEL, PREDICTION

Values: TypeAlias = "NDArray[np.float64] | list[str]"


def values_of(table: pa.Table, signal: str, settings: Settings) -> Values | None:
    """Return the values of a feature, of the served predictions, or of the labels; None if they are not there."""
    column = _column_name(signal)
    if column not in table.column_names:
        return None
    cells = table[column]
    if is_number(signal, settings):
        return to_numbers(cells)
    if pa.types.is_map(cells.type):
        return [MISSING if (kind := most_likely(cell)) is None else kind for cell in cells.to_pylist()]
    return [MISSING if value is None else str(value) for value in cells.to_pylist()]


def is_number(signal: str, settings: Settings) -> bool:
    """Tell whether a signal is compared as numbers."""
    if signal == PREDICTION:
        return settings.task != "multiclass"
    if signal == LABEL:
        return settings.task == "regression"
    return settings.batch_kinds.get(signal) == "number"


def missing_share(values: Values) -> float:
    """Return the share of values that are missing.

    Examples
    --------
    >>> missing_share(np.array([1.0, np.nan])), missing_share([])
    (0.5, 0.0)
    """
    if not len(values):
        return 0.0
    if isinstance(values, list):
        return values.count(MISSING) / len(values)
    return float(np.isnan(values).mean())


def shares(values: list[str]) -> dict[str, float]:
    """Return how often each value comes.

    Examples
    --------
    >>> shares(["a", "b", "a", "a"])
    {'a': 0.75, 'b': 0.25}
    """
    return {value: count / len(values) for value, count in Counter(values).items()}


def _column_name(signal: str) -> str:
    return {PREDICTION: prediction_column("served"), LABEL: "label"}.get(signal) or feature_column(signal)
