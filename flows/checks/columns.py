"""The features of a retraining's rows, each as one array of numbers, and how rows are cut into parts in time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.batch_model import MISSING
from core.setting_types import Kind
from core.settings import Settings

Numbers = NDArray[np.float64]
Times = np.ndarray[Any, np.dtype[np.int64]]
MIN_ROWS = 50
"""Rows below which a part says nothing."""


@dataclass(frozen=True, eq=False)
class Column:
    """One feature.

    Attributes
    ----------
    name : str
        The feature.
    kind : {'number', 'bool', 'category'}
        Its type.
    values : array of float
        One a row, NaN where it is missing; of a category the position in `categories`.
    categories : list of str
        All there are, in order of appearance; empty for other types.
    """

    name: str
    kind: Kind
    values: Numbers
    categories: list[str]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where it is missing."""
        return np.isnan(self.values)


def columns_of(frame: pd.DataFrame, settings: Settings) -> list[Column]:
    """Return the columns of a frame made by :func:`core.batch_model.feature_frame`.

    Examples
    --------
    >>> settings = Settings.model_validate(
    ...     {"name": "a", "id": "id", "time": "t", "fields": {"hub": "category"}, "label": "y"})
    >>> (hub,) = columns_of(pd.DataFrame({"hub": ["x", MISSING, "x"]}, dtype=object), settings)
    >>> hub.values, hub.categories
    (array([ 0., nan,  0.]), ['x'])
    """
    return [_column(str(name), settings.batch_kinds[str(name)], frame[name].to_numpy()) for name in frame.columns]


def time_parts(event_time: Times, span: int, most: int | None = None) -> list[slice]:
    """Cut rows in order of time into parts of one length, back from the last; parts of a few rows are left out.

    Parameters
    ----------
    span : int
        Length of a part, ms.
    most : int, optional
        Number of parts; longer ones are made where there would be more.

    Examples
    --------
    >>> time_parts(np.arange(200), 100)
    [slice(0, 100, None), slice(100, 200, None)]
    """
    if not len(event_time):
        return []
    first, end = int(event_time[0]), int(event_time[-1]) + 1
    length = max(span, 1, -(-(end - first) // most) if most else 1)
    count = max((end - first) // length, 1)
    cuts = np.searchsorted(event_time, end - length * np.arange(count, -1, -1))
    parts = [slice(int(start), int(stop)) for start, stop in pairwise(cuts)]
    return [part for part in parts if part.stop - part.start >= MIN_ROWS]


def _column(name: str, kind: Kind, values: NDArray[Any]) -> Column:
    if kind != "category":
        return Column(name, kind, np.asarray(values, dtype=np.float64), [])
    codes, found = pd.factorize(values)
    numbers = codes.astype(np.float64)
    categories = found.tolist()
    if MISSING in categories:
        gone = categories.index(MISSING)
        numbers[codes == gone] = np.nan
        numbers -= codes > gone
        categories.remove(MISSING)
    return Column(name, kind, numbers, categories)
