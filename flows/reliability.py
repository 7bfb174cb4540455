"""Whether predictions mean what they say: calibration error and bias, and how sure a rise of them is. Pure.

The rows are put into ten bins of about equally many by what was predicted. In a well calibrated bin as many events
happen as were predicted; by how much the bins are off, on average, is the expected calibration error (Naeini et al.
2015; bins of equally many: Nguyen & O'Connor 2015). Of several classes the most likely one counts: was it as often
right as it was sure (Guo et al. 2017)? A regression has one bin and no probability: its error is its bias, relative to
the absolute error of always predicting the median. How sure a rise is, is told by leaving out each block of rows in
turn (the jackknife, Efron & Tibshirani 1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.predictions import Outcome, Prediction
from core.setting_types import Task
from flows.intervals import Array, Blocks, student

_BINS = 10


@dataclass(frozen=True)
class Bin:
    """One of the bins: what was said on average, what happened, and on how many rows."""

    said: float
    happened: float
    rows: int


@dataclass(frozen=True)
class Rise:
    """By how much the calibration error is more than another's; bounds are None where they cannot be told."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Reliability:
    """What was predicted less what happened, added up.

    Attributes
    ----------
    gaps : array of block by bin
    rows : array of block
    """

    gaps: Array
    rows: Array

    @classmethod
    def of(
        cls, task: Task, predictions: Sequence[Prediction], outcomes: Sequence[Outcome], blocks: Blocks
    ) -> Reliability:
        """Add up by block and bin; of rows on which it predicted.

        Examples
        --------
        >>> sure = Reliability.of("binary", [0.9] * 10, [1] * 5 + [0] * 5, np.arange(10))
        >>> round(sure.error, 3), round(sure.bias, 3)
        (0.4, 0.4)
        >>> Reliability.of("regression", [3.0, 3.0], [1.0, 3.0], np.arange(2)).error
        1.0
        """
        said, happened = _said_and_happened(task, predictions, outcomes)
        _, places = np.unique(blocks, return_inverse=True)
        gaps = np.zeros((int(places.max(initial=-1)) + 1, _BINS))
        np.add.at(gaps, (places, _bins_of(task, said)), said - happened)
        return cls(gaps, np.bincount(places).astype(float))

    @property
    def error(self) -> float:
        """How far the bins are off, on average; nan without rows."""
        whole = float(self.rows.sum())
        return float(np.abs(self.gaps.sum(axis=0)).sum()) / whole if whole else math.nan

    @property
    def bias(self) -> float:
        """What was predicted less what happened, on average; nan without rows."""
        whole = float(self.rows.sum())
        return float(self.gaps.sum()) / whole if whole else math.nan

    def rise_over(self, other: Reliability, confidence: float) -> Rise | None:
        """Return by how much the error is more than another's on the same rows; None where it is not known.

        Examples
        --------
        >>> days, happened = np.repeat(np.arange(8), 100), [0, 1] * 400
        >>> fine, sure = ([chance] * 800 for chance in (0.5, 0.8))
        >>> one, two = (Reliability.of("binary", p, happened, days) for p in (fine, sure))
        >>> rise = two.rise_over(one, 0.95)
        >>> round(rise.value, 2), rise.low > 0.2
        (0.3, True)
        """
        value = self.error - other.error
        if not math.isfinite(value):
            return None
        count = len(self.rows)
        if count < 2:
            return Rise(value, None, None)
        without = self._without_each() - other._without_each()
        left = without - without.mean()
        reach = student(confidence, count - 1) * math.sqrt((count - 1) / count * float(left @ left))
        return Rise(value, value - reach, value + reach)

    def _without_each(self) -> Array:
        rest = self.gaps.sum(axis=0) - self.gaps
        return np.asarray(np.abs(rest).sum(axis=1) / (self.rows.sum() - self.rows))


def reliability_bins(task: Task, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> list[Bin]:
    """Return the bins that the calibration error is the average over, as far as there are rows in them.

    Examples
    --------
    >>> reliability_bins("binary", [0.25] * 4 + [0.75] * 4, [0, 0, 0, 1, 1, 1, 1, 1])
    [Bin(said=0.25, happened=0.25, rows=4), Bin(said=0.75, happened=1.0, rows=4)]
    """
    said, happened = _said_and_happened(task, predictions, outcomes)
    places = _bins_of(task, said)
    masks = [places == number for number in np.unique(places)]
    return [Bin(float(said[mask].mean()), float(happened[mask].mean()), int(mask.sum())) for mask in masks]


def _bins_of(task: Task, said: Array) -> Blocks:
    """Number each row's bin: ten of about equally many by what was said; one for a regression."""
    one_bin = task == "regression" or not len(said)
    edges = np.zeros(0) if one_bin else np.quantile(said, np.arange(1, _BINS) / _BINS)
    return np.asarray(np.searchsorted(edges, said, side="right"), dtype=np.int64)


def _said_and_happened(
    task: Task, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]
) -> tuple[Array, Array]:
    if task == "multiclass":
        shares = [one for one in predictions if isinstance(one, dict)]
        likely = [max(sorted(one), key=lambda name: one[name]) for one in shares]
        said = [one[name] for one, name in zip(shares, likely, strict=True)]
        right = [float(name == str(outcome)) for name, outcome in zip(likely, outcomes, strict=True)]
        return np.array(said, dtype=float), np.array(right)
    values, truth = np.array(predictions, dtype=float), np.array(outcomes, dtype=float)
    if task == "regression" and len(truth):
        spread = float(np.abs(truth - np.median(truth)).mean()) or 1.0
        return values / spread, truth / spread
    return values, truth
