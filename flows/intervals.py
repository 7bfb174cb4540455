"""How sure a difference between two models is, on the same rows. Pure.

The rows of one day depend on each other: a storm is one storm. So days (`promotion.block`) are the units: losses are
added up by the day, and what is left of each day's difference beyond the mean one tells how much another set of days
would have moved it. That is the cluster-robust variance of a ratio (Cochran 1977, chapter 6), with Student's quantiles
for the number of days. Losses are clipped before, so that a single absurd row does not make everything unsure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Blocks = NDArray[np.int64]

FEWEST_BLOCKS = 5
"""With fewer spans than this, the rows are cut into `PARTS` of equally many instead."""

PARTS = 10
_CLIP = 0.999


@dataclass(frozen=True)
class Difference:
    """Losses of a model over those of another on the same rows, less one: 0.01 is one percent more.

    Attributes
    ----------
    rows, blocks : int
        How many it is from.
    mean : float or None
        Mean difference of a row, in units of the loss, not clipped; None without rows.
    relative : float or None
        Relative difference; None where the other has no loss.
    low, high : float or None
        Bounds of the relative difference of clipped losses, each right with the confidence asked for; None where it
        cannot be told.
    """

    rows: int
    blocks: int
    mean: float | None
    relative: float | None
    low: float | None
    high: float | None


def blocks_of(event_time: Any, span: int) -> Blocks:
    """Number the block of each row: whole spans, or ten equal parts in time where there are fewer than five spans.

    Examples
    --------
    >>> blocks_of(np.array([0, 5, 10, 20, 30, 40]), 10).tolist()
    [0, 0, 1, 2, 3, 4]
    >>> blocks_of(np.array([3, 1, 2]), 10).tolist()
    [2, 0, 1]
    """
    times = np.asarray(event_time, dtype=np.int64)
    spans, numbers = np.unique(times // span, return_inverse=True)
    if len(spans) >= FEWEST_BLOCKS or not len(times):
        return np.asarray(numbers, dtype=np.int64)
    places = np.empty(len(times), dtype=np.int64)
    places[np.argsort(times, kind="stable")] = np.arange(len(times))
    return places * min(PARTS, len(times)) // len(times)


def clip_of(one: Array, other: Array) -> float:
    """Return where the losses of two models are clipped: of neither is more than one of a thousand larger.

    Not where one's alone are: beside a model that never says much, a sure and wrong one would look harmless.
    """
    return max(
        (float(np.quantile(losses, _CLIP, method="lower")) for losses in (one, other) if len(losses)), default=math.inf
    )


def difference(new: Array, old: Array, blocks: Blocks, confidence: float, clip: float = math.inf) -> Difference:
    """Compare the losses of two models on the same rows.

    Parameters
    ----------
    new, old : array of row
        Losses.
    blocks : array of row
        See :func:`blocks_of`.
    confidence : float
        Of each bound by itself.
    clip : float
        Larger losses count as this in the bounds.

    Examples
    --------
    >>> days = np.repeat(np.arange(10), 50)
    >>> old = 1.0 + 0.1 * np.sin(np.arange(500))
    >>> found = difference(old + 0.05 + 0.02 * np.cos(days), old, days, 0.95)
    >>> round(found.relative, 3), found.low < found.relative < found.high, found.low > 0.03
    (0.05, True, True)
    """
    rows, kinds = len(new), len(np.unique(blocks))
    if not rows:
        return Difference(0, 0, None, None, None, None)
    mean = float((new - old).mean())
    whole = float(old.sum())
    relative = float(new.sum()) / whole - 1.0 if whole > 0.0 else None
    low, high = _bounds(np.minimum(new, clip), np.minimum(old, clip), blocks, confidence)
    return Difference(rows, kinds, _finite(mean), _finite(relative), low, high)


def _bounds(new: Array, old: Array, blocks: Blocks, confidence: float) -> tuple[float | None, float | None]:
    _, places = np.unique(blocks, return_inverse=True)
    gaps, sizes = np.bincount(places, new - old), np.bincount(places, old)
    count, whole = len(sizes), float(sizes.sum())
    if count < 2 or not whole > 0.0:
        return None, None
    relative = float(gaps.sum()) / whole
    left = gaps - relative * sizes
    error = math.sqrt(count / (count - 1) * float(left @ left)) / whole
    reach = error * student(confidence, count - 1)
    return _finite(relative - reach), _finite(relative + reach)


def student(confidence: float, degrees: int) -> float:
    """Return the one-sided quantile of Student's distribution."""
    from scipy.stats import t

    return float(t.ppf(confidence, degrees))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
