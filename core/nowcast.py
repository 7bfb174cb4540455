"""What losses are by now, from labels of predictions that were made long ago. Pure.

A label that comes late is of a prediction that was late too: by it alone, experts that have learned of a change since
are judged as they were before. What they say *now* of the same event, before they learn its label, is younger, but
too easy: they have learned its neighbours meanwhile. A nowcast is the loss of what they say now, and what such losses
were too low in the mean until here (a control variate): in the long run it adds up to the losses that were served, and
it follows a change as many labels earlier as labels are late.

Predicting again when a label comes is from Grzenda, Gomes & Bifet (2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.blend_history import Array


class Nowcast:
    """Of an array of losses that may grow.

    Parameters
    ----------
    axes : int
        How many axes it has.

    Examples
    --------
    >>> nowcast, all_of_it = Nowcast(1), (slice(None),)
    >>> for _ in range(100):
    ...     steady = nowcast.of(np.array([0.7]), np.array([0.5]), all_of_it, (1,), remembered=800)
    >>> float(steady[0])
    0.7
    >>> better_since = nowcast.of(np.array([0.7]), np.array([0.1]), all_of_it, (1,), remembered=800)
    >>> bool(better_since[0] < 0.35)
    True
    """

    def __init__(self, axes: int) -> None:
        self._advantage: Array = np.zeros((0,) * axes)
        self._seen: Array = np.zeros((0,) * axes)

    def of(self, then: Array, now: Array, where: tuple[Any, ...], shape: tuple[int, ...], remembered: float) -> Array:
        """Return losses by now, and remember what predicting late was worth.

        Parameters
        ----------
        then, now : array
            Losses of what was predicted, and of what is predicted late, of the same event.
        where : tuple of index
            Which part of the whole they are.
        shape : tuple of int
            That of the whole; it may grow.
        remembered : float
            Labels after which the oldest count a third.
        """
        if self._seen.shape != shape:
            self._advantage, self._seen = _grown(self._advantage, shape), _grown(self._seen, shape)
        seen = self._seen[where] + 1.0
        advantage: Array = self._advantage[where]
        advantage = advantage + (then - now - advantage) / np.minimum(seen, remembered)
        self._advantage[where], self._seen[where] = advantage, seen
        found: Array = now + advantage
        return found


def _grown(array: Array, shape: tuple[int, ...]) -> Array:
    return np.pad(array, [(0, new - old) for old, new in zip(array.shape, shape, strict=True)])
