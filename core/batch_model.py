"""The batch model: a fitted scikit-learn pipeline behind the champion's interface.

A pipeline gets one data frame, made here and nowhere else, so that training, evaluation, the registry
and the worker show it the same thing: numbers and bools as float64 (missing is NaN), categories as
objects (missing is ``MISSING``). Text is not used: it must be turned into features by the project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import RegistryError
from core.predictions import Features, Prediction
from core.setting_types import Kind, Task

if TYPE_CHECKING:
    import pandas as pd

MISSING = "<missing>"
"""What a pipeline sees where a category is missing."""


def used_features(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """Return the features that a batch model uses: all but text, in their order."""
    return {name: kind for name, kind in kinds.items() if kind != "text"}


def feature_frame(columns: Mapping[str, Sequence[Any]], kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Return the data frame that a pipeline is fitted on and asked with.

    Parameters
    ----------
    columns : mapping of feature to values
        One value a row; None where it is missing.
    kinds : mapping of feature to kind
        What to use; text is left out.

    Examples
    --------
    >>> feature_frame({"delay": [1, None], "hub": [None, "a"]}, {"delay": "number", "hub": "category"})
       delay        hub
    0    1.0  <missing>
    1    NaN          a
    """
    import pandas as pd

    used = used_features(kinds)
    return pd.DataFrame({name: _values(columns[name], kind) for name, kind in used.items()}, copy=False)


def _values(values: Sequence[Any], kind: Kind) -> np.ndarray[Any, Any]:
    if kind != "category":
        return np.array(values, dtype=np.float64)
    return np.array([MISSING if value is None else value for value in values], dtype=object)


@dataclass(frozen=True)
class FittedModel:
    """A fitted pipeline as :class:`core.models.BatchModel`.

    Attributes
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Fitted on :func:`feature_frame`.
    kinds : mapping of feature to kind
        The features of the project, text included.
    task : {'binary', 'multiclass', 'regression'}
        Decides what a prediction is.
    version : int
        Number of the model's version in the registry; 0 for one that is not registered.
    """

    pipeline: Any
    kinds: Mapping[str, Kind]
    task: Task
    version: int = 0

    def predict(self, rows: Sequence[Features]) -> list[Prediction]:
        """Predict each row of features; a feature that a row lacks is missing.

        Raises
        ------
        RegistryError
            If the pipeline fails on the rows, or does not predict what its task needs.
        """
        if not rows:
            return []
        names = used_features(self.kinds)
        return self.predict_frame(feature_frame({name: [row.get(name) for row in rows] for name in names}, self.kinds))

    def predict_frame(self, frame: pd.DataFrame) -> list[Prediction]:
        """Predict each row of a frame made by :func:`feature_frame`.

        Raises
        ------
        RegistryError
            If the pipeline fails on the rows, or does not predict what its task needs.
        """
        try:
            with _one_thread():
                if self.task == "regression":
                    values: list[Prediction] = self.pipeline.predict(frame).tolist()
                    return values
                shares = self.pipeline.predict_proba(frame)
            return self._predictions(shares, self.pipeline.classes_.tolist())
        except Exception as error:
            raise RegistryError(
                f"model version {self.version}: cannot predict {len(frame)} rows: {type(error).__name__}: {error}"
            ) from error

    def _predictions(self, shares: np.ndarray[Any, Any], classes: list[Any]) -> list[Prediction]:
        if self.task == "multiclass":
            names = [str(name) for name in classes]
            return [dict(zip(names, row, strict=True)) for row in shares.tolist()]
        chances: list[Prediction] = shares[:, classes.index(1)].tolist()
        return chances


def _one_thread() -> AbstractContextManager[Any]:
    """Predict in one thread: on busy cores OpenMP's waiting threads cost thirty times the work (38 for 1.2 ms)."""
    limit: AbstractContextManager[Any] = _thread_pools().limit(limits=1, user_api="openmp")
    return limit


@cache
def _thread_pools() -> Any:
    """Find the thread pools of the loaded libraries; once, because it takes milliseconds."""
    import sklearn.ensemble  # noqa: F401 - loads the pool that is limited
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
