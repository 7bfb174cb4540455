"""Where a blend stood when a prediction was mixed, for labels that come late; kept in bounded room."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_State = TypeVar("_State")

_PER_LEVEL = 32
_LOOK_EVERY = 64


@dataclass(frozen=True, eq=False)
class Position:
    """Where a blend stands; never changed, so that it can be remembered.

    Attributes
    ----------
    weights : array of member by expert
        The mixtures' first; then each expert alone, in the order in which they came.
    beliefs : array of belief by member
    trust : array of belief
    updates : int
        Labels learned so far.
    """

    weights: Array
    beliefs: Array
    trust: Array
    updates: int = 0


class History(Generic[_State]):
    """Remembers states that are never changed, the older the sparser: of age n about every n/32th.

    Examples
    --------
    >>> nothing = np.zeros(0)
    >>> history = History[Position]()
    >>> for step in range(10_000):
    ...     history.add(step, Position(nothing, nothing, nothing, step + 1))
    >>> [history.at(step).updates for step in (10_000, 9_990, 9_000)], len(history) < 500
    ([10000, 9990, 8992], True)
    """

    def __init__(self) -> None:
        self._added = 0
        self._numbers: list[int] = []
        self._after: list[int] = []
        self._states: list[_State] = []

    def __len__(self) -> int:
        return len(self._states)

    def add(self, after: int, state: _State) -> None:
        """Remember what is valid for mixes after a step; for one step the latest counts."""
        if self._after and self._after[-1] == after:
            self._states[-1] = state
            return
        self._added += 1
        self._numbers.append(self._added)
        self._after.append(after)
        self._states.append(state)
        if self._added % _LOOK_EVERY == 0:
            self._thin()

    def at(self, step: int) -> _State | None:
        """Return the state that held for a mix at a step, or for one a little before; None before the first label."""
        found = bisect_left(self._after, step) - 1
        return self._states[max(found, 0)] if self._states else None

    def _thin(self) -> None:
        """Keep a number that 2**n divides for as long as 32 * 2**n others were added after it."""
        kept = [
            at for at, number in enumerate(self._numbers) if self._added - number <= _PER_LEVEL * (number & -number)
        ]
        self._numbers = [self._numbers[at] for at in kept]
        self._after = [self._after[at] for at in kept]
        self._states = [self._states[at] for at in kept]
