"""The challenger by itself on each slice, against the trivial baseline; and what of it may be shown. Pure.

A card goes further than a table does. So it names no value of a personal field, not even its hash, and no value that
only a few rows have: slices that are too small are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core.metrics import losses
from core.predictions import Prediction
from core.settings import Settings
from flows.examples import Examples
from flows.intervals import Difference, blocks_of, difference
from flows.slices import SliceLoss, large_slices

HIDDEN = "(personal value)"
_HASH = re.compile(r"\b[0-9a-f]{32}\b")


@dataclass(frozen=True)
class CardSlice:
    """One slice.

    Attributes
    ----------
    name : str
        As it may be shown.
    rows : int
        Held-out rows in it.
    loss, trivial : float
        Mean loss of the challenger by itself, and of the trivial baseline.
    over_trivial : Difference
        The one over the other.
    over_champion : Difference or None
        What would be served with the challenger over what is served with the champion; None at the bootstrap.
    """

    name: str
    rows: int
    loss: float
    trivial: float
    over_trivial: Difference
    over_champion: Difference | None


@dataclass(frozen=True)
class CardSlices:
    """The slices that were judged, the worst first, and how many values of each feature were not.

    Attributes
    ----------
    judged : list of CardSlice
    too_small : dict of str to int
        By feature, or by name of a slice of the project's own: slices with fewer than ``gates.min_slice_rows`` rows.
    """

    judged: list[CardSlice]
    too_small: dict[str, int]


def card_slices(
    rows: Examples,
    predictions: Sequence[Prediction],
    baseline: Prediction,
    compared: Sequence[SliceLoss] | None,
    settings: Settings,
) -> CardSlices:
    """Return the slices of the held-out rows.

    Parameters
    ----------
    rows : Examples
        Held-out rows on which the challenger's predictions are finite.
    compared : sequence of SliceLoss or None
        The comparison of the blends (:mod:`flows.slices`).
    """
    own = losses(predictions, rows.outcomes)
    trivial = losses([baseline] * len(rows), rows.outcomes)
    blocks = blocks_of(rows.event_time, settings.promotion.block)
    blends = {one.name: one.over for one in compared or ()}
    chosen, small, sure = large_slices(rows.frame, settings)
    judged = [
        CardSlice(
            shown(name, settings),
            int(mask.sum()),
            float(own[mask].mean()),
            float(trivial[mask].mean()),
            difference(own[mask], trivial[mask], blocks[mask], sure),
            blends.get(name),
        )
        for name, mask in chosen
    ]
    values = Counter(name.partition("=")[0] for name in small)
    return CardSlices(sorted(judged, key=lambda one: -(one.over_trivial.relative or 0.0)), dict(values))


def shown(text: str, settings: Settings) -> str:
    """Return a text as a card has it: without the hashes of personal values.

    Examples
    --------
    >>> settings = Settings.model_validate({"name": "a", "id": "id", "time": "t", "label": "y",
    ...     "fields": {"email": {"type": "category", "pii": "hash"}, "hub": "category"}})
    >>> shown("hub=JFK", settings), shown("email=aaae2f20e5e551259da2bce7b7b32c3f", settings)
    ('hub=JFK', 'email=(personal value)')
    """
    return _HASH.sub(HIDDEN, text) if settings.is_personal else text
