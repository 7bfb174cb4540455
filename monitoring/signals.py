"""The signals of many windows: the columns of a table, coded once, compared in parts. Pure.

The same distances as of :mod:`monitoring.comparison`, for some rows of a table against others of it; a test holds them
equal. Coding once makes a comparison twenty times faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.settings import Settings
from core.tables import feature_column, prediction_column
from monitoring.columns import MAX_CATEGORIES, SMALL_DEVIATION, most_likely, numbers, to_numbers, to_text
from monitoring.comparison import LABEL, PREDICTION
from monitoring.distances import category_distance, number_distance
from monitoring.rows import losses_of

SERVED_LOSS = "loss of the served prediction"

Calibrated = Literal["data", "labels", "prediction"]
"""The signals of each stage; and the served predictions by themselves, since a promotion moves them too."""

Positions = NDArray[np.int64]
Compare = Callable[[Positions, Positions, Positions], float]


class Signals:
    """Compares rows of a table with other rows of it.

    Parameters
    ----------
    compared : mapping of str to callable
        Each signal; it takes the positions of both sides and of the rows that tell its scale, and returns the
        distance, NaN where there is none.
    """

    def __init__(self, compared: Mapping[str, Compare]) -> None:
        self._compared = compared

    @classmethod
    def of_features(cls, rows: pa.Table, settings: Settings) -> Signals:
        """Return the signals of a window's data: each feature that is watched."""
        kinds = {name: kind for name, kind in settings.batch_kinds.items() if feature_column(name) in rows.column_names}
        return cls(
            {
                name: (_numbers if kind == "number" else _categories)(rows[feature_column(name)])
                for name, kind in kinds.items()
            }
        )

    @classmethod
    def of_labels(cls, rows: pa.Table, settings: Settings) -> Signals:
        """Return the signals of a window's labels: the labels, and the loss of what was served."""
        compare = _numbers if settings.task == "regression" else _categories
        return cls({LABEL: compare(rows["label"]), SERVED_LOSS: _mean_loss(rows)})

    @classmethod
    def of_prediction(cls, rows: pa.Table, settings: Settings) -> Signals:
        """Return the signal of the served predictions: values, or the most likely class."""
        column = rows[prediction_column("served")]
        if settings.task == "multiclass":
            classes = pa.array([most_likely(cell) for cell in column.to_pylist()], pa.string())
            return cls({PREDICTION: _categories(pa.chunked_array([classes]))})
        return cls({PREDICTION: _numbers(column)})

    @classmethod
    def of(cls, rows: pa.Table, settings: Settings, what: Calibrated) -> Signals:
        """Return the signals that are judged together."""
        made = {"data": cls.of_features, "labels": cls.of_labels, "prediction": cls.of_prediction}
        return made[what](rows, settings)

    def distances(self, current: Positions, reference: Positions, scale: Positions | None = None) -> dict[str, float]:
        """Return the distance of each signal; one that cannot be compared is left out.

        Parameters
        ----------
        current, reference : array of int
            Rows of the table.
        scale : array of int, optional
            Rows whose standard deviation is the unit for numbers; those of the reference if left out.
        """
        unit = reference if scale is None else scale
        found = {name: compare(current, reference, unit) for name, compare in self._compared.items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def _numbers(column: pa.ChunkedArray) -> Compare:
    """Compare values, and how many are missing: the larger distance counts."""
    values = to_numbers(column)
    missing = np.isnan(values)

    def compare(current: Positions, reference: Positions, scale: Positions) -> float:
        gone, gone_before = missing[current], missing[reference]
        pair = numbers("", values[current], values[reference])
        known = number_distance(pair.current[~np.isnan(pair.current)], pair.reference[~np.isnan(pair.reference)])
        if scale is not reference:
            known *= _spread(values[reference]) / _spread(values[scale])
        if not (gone.any() or gone_before.any()):
            return known
        counts = (np.array([np.sum(side), np.sum(~side)], dtype=float) for side in (gone, gone_before))
        silent = category_distance(next(counts), next(counts))
        return silent if math.isnan(known) else max(known, silent)

    return compare


def _spread(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return max(float(known.std()), SMALL_DEVIATION) if len(known) else SMALL_DEVIATION


def _categories(column: pa.ChunkedArray) -> Compare:
    """Compare how often each category comes; all but the most frequent count as one."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    shown = to_text(encoded.dictionary)
    names = sorted(set(shown))
    places = {name: place for place, name in enumerate(names)}
    codes = np.array([places[name] for name in shown], dtype=np.int64)[encoded.indices.to_numpy()]

    def compare(current: Positions, reference: Positions, scale: Positions) -> float:
        counts = [np.bincount(codes[side], minlength=len(names)).astype(float) for side in (current, reference)]
        shares = sum(count / max(count.sum(), 1.0) for count in counts)
        order = np.argsort(-shares, kind="stable")
        kept, rest = order[:MAX_CATEGORIES], order[MAX_CATEGORIES:]
        merged = [np.append(count[kept], count[rest].sum()) for count in counts]
        return category_distance(*merged)

    return compare


def _mean_loss(rows: pa.Table) -> Compare:
    """Take the mean loss of the current side."""
    cells, outcomes = rows[prediction_column("served")].to_pylist(), rows["label"].to_pylist()
    losses = np.array(losses_of(cells, outcomes), dtype=np.float64)

    def mean(current: Positions, reference: Positions, scale: Positions) -> float:
        known = losses[current][~np.isnan(losses[current])]
        return float(known.mean()) if len(known) else math.nan

    return mean
