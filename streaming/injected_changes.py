"""What an injection does to a value: moved, in another unit, replaced, gone. Pure.

A change first learns from the values that came before the injection, where it needs them; at the first value that it
changes, what it has learned is settled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

GONE = object()
"""Stands for a value that is not there any more."""

UNITS = {
    "f-to-c": (5 / 9, -160 / 9),
    "c-to-f": (9 / 5, 32.0),
    "mi-to-km": (1.609344, 0.0),
    "km-to-mi": (1 / 1.609344, 0.0),
    "s-to-ms": (1000.0, 0.0),
    "ms-to-s": (0.001, 0.0),
}
"""Factor and offset of the changes of unit that have a name."""


class Change(Protocol):
    """Changes the values of one field, or the outcomes of labels."""

    def learn(self, value: Any) -> None:
        """Take notice of a value from before the injection."""

    def apply(self, value: Any, share: float) -> Any:
        """Return what the value becomes, or the value itself if this change does not touch it.

        Parameters
        ----------
        share : float
            How much of the change has come, above 0 and up to 1.

        Raises
        ------
        ValueError
            If the values that came before do not tell what the change needs.
        """

    @property
    def learned(self) -> dict[str, float]:
        """What followed from the values that came before, by name."""


class Fixed:
    """The part of a change that learns nothing."""

    def learn(self, value: Any) -> None:
        """Learn nothing."""

    @property
    def learned(self) -> dict[str, float]:
        """Nothing."""
        return {}


class Moments:
    """Mean and deviation of values one by one (Welford 1962).

    Examples
    --------
    >>> moments = Moments()
    >>> for value in (1.0, 3.0):
    ...     moments.add(value)
    >>> moments.mean, round(moments.deviation, 4)
    (2.0, 1.4142)
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Take in one more."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    @property
    def deviation(self) -> float:
        """The standard deviation (n - 1); 0 for less than two values."""
        return math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else 0.0


class Moved:
    """Adds an amount to numbers.

    Parameters
    ----------
    amount : float
        In the field's unit, or in standard deviations of the values that came before.
    """

    def __init__(self, amount: float, *, deviations: bool) -> None:
        self._amount = None if deviations else amount
        self._deviations = amount
        self._moments = Moments()

    def learn(self, value: Any) -> None:
        """Take the value into the standard deviation."""
        if is_number(value):
            self._moments.add(value)

    def apply(self, value: Any, share: float) -> Any:
        """Add that share of the amount."""
        if not is_number(value):
            return value
        if self._amount is None:
            if not self._moments.deviation:
                raise ValueError(
                    f"{self._moments.count} values came before it, and they do not vary: there is no standard "
                    "deviation; write the amount in the field's unit, or a later start"
                )
            self._amount = self._deviations * self._moments.deviation
        return value + share * self._amount

    @property
    def learned(self) -> dict[str, float]:
        """The amount in the field's unit."""
        return {} if self._amount is None else {"amount": self._amount}


class Converted(Fixed):
    """Turns numbers into another unit: factor x value + offset."""

    def __init__(self, factor: float, offset: float) -> None:
        self._factor, self._offset = factor, offset

    def apply(self, value: Any, share: float) -> Any:
        """Convert it."""
        return self._factor * value + self._offset if is_number(value) else value


class Removed(Fixed):
    """Takes values away."""

    def apply(self, value: Any, share: float) -> Any:
        """Return `GONE`."""
        return GONE


class Replaced(Fixed):
    """Turns one category into another."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def apply(self, value: Any, share: float) -> Any:
        """Return the new one for the old one."""
        return self._new if str(value) == self._old else value


class Permuted:
    """Turns each category into the next, in the order of their names, and the last into the first.

    Parameters
    ----------
    most : int
        How many are told apart, in the order in which they come; later ones stay as they are.
    known : sequence of str
        All there are; those that came before if left out.
    """

    def __init__(self, most: int, known: Sequence[str] = ()) -> None:
        self._most = most
        self._given = bool(known)
        self._values: dict[str, Any] = {name: name for name in known}
        self._next: dict[str, Any] = {}

    def learn(self, value: Any) -> None:
        """Take notice of a category."""
        if not self._given and len(self._values) < self._most:
            self._values.setdefault(str(value), value)

    def apply(self, value: Any, share: float) -> Any:
        """Return the next one."""
        if not self._next:
            names = sorted(self._values)
            if len(names) < 2:
                raise ValueError(
                    f"{len(names)} different values came before it, and it takes two to change places; "
                    "write a later start"
                )
            self._next = {name: self._values[after] for name, after in zip(names, [*names[1:], names[0]], strict=True)}
        return self._next.get(str(value), value)

    @property
    def learned(self) -> dict[str, float]:
        """Nothing that is a number."""
        return {}


class Swapped(Fixed):
    """Turns the outcomes of a binary task, 1 and 0, into the JSON value of the other."""

    def __init__(self, positive: Any, negative: Any) -> None:
        self._others = {1: negative, 0: positive}

    def apply(self, value: Any, share: float) -> Any:
        """Return the other one."""
        return self._others[value]


class Mirrored:
    """Turns what lies above the mean of the values that came before into what lies as far below, and the other way.

    Parameters
    ----------
    minimum, maximum : float, optional
        What it keeps within.
    """

    def __init__(self, minimum: float | None, maximum: float | None) -> None:
        self._minimum = -math.inf if minimum is None else minimum
        self._maximum = math.inf if maximum is None else maximum
        self._moments = Moments()
        self._mean: float | None = None

    def learn(self, value: Any) -> None:
        """Take the value into the mean."""
        self._moments.add(value)

    def apply(self, value: Any, share: float) -> Any:
        """Mirror it."""
        if self._mean is None:
            if not self._moments.count:
                raise ValueError("no labels came before it, so that there is no mean to mirror them at")
            self._mean = self._moments.mean
        return min(max(2 * self._mean - value, self._minimum), self._maximum)

    @property
    def learned(self) -> dict[str, float]:
        """The mean."""
        return {} if self._mean is None else {"mean": self._mean}


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
