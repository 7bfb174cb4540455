"""What a model uses: by how much its loss rises when one feature's values are shuffled among held-out rows. Pure.

Permutation importance (Breiman 2001; of held-out rows, as in Fisher, Rudin & Dominici 2019). Two features that say the
same share their importance or hide each other's: each is shuffled by itself. The rows, and so the seconds, are bounded:
with many features fewer rows are asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.batch_model import FittedModel
from core.metrics import loss
from core.predictions import Outcome
from flows.examples import Examples
from flows.references import sample

if TYPE_CHECKING:
    import pandas as pd

REPEATS = 5
MAX_ROWS = 2_000
_MAX_PREDICTIONS = 250_000
_FEWEST_ROWS = 100


@dataclass(frozen=True)
class FeatureImportance:
    """One feature's.

    Attributes
    ----------
    feature : str
        Its name.
    rises : list of float
        By how much the mean loss rises, for each shuffle.
    """

    feature: str
    rises: list[float]

    @property
    def mean(self) -> float:
        """The mean rise."""
        return float(np.mean(self.rises))

    @property
    def spread(self) -> float:
        """The standard deviation over the shuffles."""
        return float(np.std(self.rises, ddof=1)) if len(self.rises) > 1 else 0.0

    @property
    def is_sure(self) -> bool:
        """Whether it is more than twice its spread above nothing.

        Examples
        --------
        >>> FeatureImportance("delay", [0.2, 0.21]).is_sure, FeatureImportance("noise", [0.01, -0.01]).is_sure
        (True, False)
        """
        return self.mean > 2.0 * self.spread


@dataclass(frozen=True)
class Importance:
    """Every feature's, the most important first.

    Attributes
    ----------
    rows : int
        Held-out rows that were shuffled.
    repeats : int
        How often each feature was.
    loss : float
        The mean loss of these rows as they are.
    features : list of FeatureImportance
        Sorted by their mean.
    """

    rows: int
    repeats: int
    loss: float
    features: list[FeatureImportance]


def importance(model: FittedModel, rows: Examples, seed: int, repeats: int = REPEATS) -> Importance | None:
    """Shuffle each feature among a sample of rows; None without rows. The same rows and seed give the same.

    Parameters
    ----------
    model : FittedModel
        One that has not seen these rows.

    Raises
    ------
    RegistryError
        If the pipeline fails on the rows.
    """
    names = list(rows.frame.columns)
    if not len(rows):
        return None
    some = rows.take(np.array(sample(len(rows), seed, rows_for(len(names), repeats))))
    draw = np.random.default_rng(seed)
    base = _mean_loss(model, some.frame, some.outcomes)
    found = [FeatureImportance(name, _rises(model, some, name, base, repeats, draw)) for name in names]
    return Importance(len(some), repeats, base, sorted(found, key=lambda one: (-one.mean, one.feature)))


def rows_for(features: int, repeats: int) -> int:
    """Return how many rows are shuffled, so that the model is not asked about more than 250,000.

    Examples
    --------
    >>> rows_for(16, 5), rows_for(100, 5), rows_for(5_000, 5)
    (2000, 500, 100)
    """
    return min(MAX_ROWS, max(_MAX_PREDICTIONS // max(features * repeats, 1), _FEWEST_ROWS))


def _rises(
    model: FittedModel, rows: Examples, name: str, base: float, repeats: int, draw: np.random.Generator
) -> list[float]:
    values = rows.frame[name].to_numpy()
    frame = rows.frame.copy()
    rises = []
    for _ in range(repeats):
        frame[name] = values[draw.permutation(len(values))]
        rises.append(_mean_loss(model, frame, rows.outcomes) - base)
    return rises


def _mean_loss(model: FittedModel, frame: pd.DataFrame, outcomes: Sequence[Outcome]) -> float:
    predictions = model.predict_frame(frame)
    return float(np.mean([loss(one, outcome) for one, outcome in zip(predictions, outcomes, strict=True)]))
