"""What a version uses: its features, ranked by how much worse it predicts held-out rows where they are shuffled. Pure.

The rows, and so the seconds, are bounded: with many features fewer rows are asked about.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from core.batch_model import FittedModel
from flows.examples import Examples
from flows.importance import MOST_ROWS, REPEATS, importance
from flows.selection import NOTHING

_MAX_PREDICTIONS = 120_000
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
    loss : float
        The mean loss without any.
    """

    feature: str
    rises: list[float]
    loss: float

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
        """Whether it is more than twice its spread, and more than what selection takes for nothing.

        Examples
        --------
        >>> FeatureImportance("delay", [0.2, 0.21], 0.5).is_sure, FeatureImportance("noise", [0.01, -0.01], 0.5).is_sure
        (True, False)
        """
        return self.mean > max(2.0 * self.spread, NOTHING * self.loss)


@dataclass(frozen=True)
class Ranking:
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


def ranked(model: FittedModel, rows: Examples, seed: int, without: Collection[str] = ()) -> Ranking | None:
    """Shuffle each feature among some of the rows; None without rows. The same rows and seed give the same.

    Parameters
    ----------
    model : FittedModel
        One that has not seen these rows.
    without : collection of str
        Features that it does without.

    Raises
    ------
    RegistryError
        If the pipeline fails on the rows.
    """
    names = [name for name in rows.frame.columns if name not in without]
    some = rows.spread(rows_for(len(names)))
    found = importance(model, some, names, seed=seed, repeats=REPEATS)
    if found is None:
        return None
    features = [FeatureImportance(name, list(rises), found.loss) for name, rises in found.rises.items()]
    return Ranking(len(some), REPEATS, found.loss, sorted(features, key=lambda one: (-one.mean, one.feature)))


def rows_for(features: int) -> int:
    """Return how many rows are shuffled, so that the model is not asked about more than 120,000.

    Examples
    --------
    >>> rows_for(10), rows_for(16), rows_for(5_000)
    (2000, 1500, 100)
    """
    return min(MOST_ROWS, max(_MAX_PREDICTIONS // max(features * REPEATS, 1), _FEWEST_ROWS))
