"""The distances of the drift reports without the report. Pure.

Evidently's own definitions (``legacy/calculations/stattests``), computed with SciPy: a test holds them equal to the
report's. Evidently takes ten seconds to import and one to report; these take a millisecond a column.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.columns import SMALL_DEVIATION, Column


def distances(columns: Mapping[str, Column]) -> dict[str, float]:
    """Return the distance of each column that has a finite one.

    Numbers: the Wasserstein distance in standard deviations of the reference. Categories: the Jensen-Shannon distance
    in nats (0 to 0.83).

    Examples
    --------
    >>> column = Column("x", True, current=np.array([1.0, 3.0]), reference=np.array([0.0, 2.0]))
    >>> distances({"x": column})
    {'x': 1.0}
    """
    found = {name: _distance(column) for name, column in columns.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _distance(column: Column) -> float:
    if column.is_number:
        current, reference = (side[~np.isnan(side)] for side in (column.current, column.reference))
        return number_distance(current, reference)
    sides = Counter(column.current.tolist()), Counter(column.reference.tolist())
    names = sorted(sides[0] | sides[1])
    current, reference = (np.array([side[name] for name in names], dtype=float) for side in sides)
    return category_distance(current, reference)


def number_distance(current: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the Wasserstein distance of two samples in standard deviations of the reference; NaN if one is empty."""
    from scipy.stats import wasserstein_distance

    if not len(current) or not len(reference):
        return math.nan
    distance: Any = wasserstein_distance(reference, current)
    return float(distance) / max(float(np.std(reference)), SMALL_DEVIATION)


def category_distance(current: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the Jensen-Shannon distance of two counts of the same categories; NaN if one is empty."""
    from scipy.spatial.distance import jensenshannon

    if not current.sum() or not reference.sum():
        return math.nan
    return float(jensenshannon(reference / reference.sum(), current / current.sum()))
