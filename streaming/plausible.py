"""What may be served at all: a prediction of the task's kind, in plain finite numbers, near the labels seen."""

from __future__ import annotations

import math

from core.predictions import MAX_OUTCOME, Outcome, Prediction
from core.setting_types import Task

LABELS_TO_JUDGE_A_CHAMPION = 30
"""Labels that tell their range well enough to judge by it a model that was fitted elsewhere."""

_ROUNDING = 1e-6


class Plausible:
    """Tells predictions from nonsense, whoever made them.

    A probability lies in 0 to 1. A value (regression) lies no further outside of the labels seen than their whole
    range; until there are labels to compare with, its magnitude is at most that of the largest label accepted.

    Parameters
    ----------
    task : {'binary', 'multiclass', 'regression'}
        Decides what a prediction is.
    labels : int
        Labels after which their range counts: 1 for a model that has seen nothing else, more for one that was
        fitted elsewhere.

    Examples
    --------
    >>> plausible = Plausible("regression", 2)
    >>> for label in (10.0, 20.0):
    ...     plausible.observe(label)
    >>> plausible.check(29), plausible.check(31.0), plausible.check(float("nan"))
    (29.0, None, None)
    """

    def __init__(self, task: Task, labels: int = 1) -> None:
        self._task = task
        self._wanted = labels
        self._seen = 0
        self._low, self._high = math.inf, -math.inf

    def observe(self, outcome: Outcome) -> None:
        """Take notice of a label."""
        if self._task == "regression":
            value = float(outcome)
            self._seen += 1
            self._low, self._high = min(self._low, value), max(self._high, value)

    def check(self, prediction: object) -> Prediction | None:
        """Return the prediction in plain floats, or None where it must not be used."""
        if self._task == "multiclass":
            return _shares(prediction)
        number = _number(prediction)
        if number is None:
            return None
        if self._task == "binary":
            return _chance(number)
        return number if self._is_near(number) else None

    def _is_near(self, number: float) -> bool:
        if self._seen < self._wanted:
            return abs(number) <= MAX_OUTCOME
        width = max(self._high - self._low, 1e-9 * max(abs(self._low), abs(self._high), 1.0))
        return self._low - width <= number <= self._high + width


def _number(value: object) -> float | None:
    if isinstance(value, (str, bytes, bool)):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # numpy's numbers are welcome
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _chance(number: float) -> float | None:
    return min(max(number, 0.0), 1.0) if -_ROUNDING <= number <= 1.0 + _ROUNDING else None


def _shares(prediction: object) -> Prediction | None:
    if not isinstance(prediction, dict) or not prediction:
        return None
    shares: dict[str, float] = {}
    for name, value in prediction.items():
        number = _number(value)
        share = None if number is None else _chance(number)
        if share is None or not isinstance(name, str):
            return None
        shares[str(name)] = share
    return shares
