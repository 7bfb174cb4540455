"""Slices on which a challenger is judged by itself: every value of a category or bool, and the project's own. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.gate_settings import SliceSettings
from core.settings import Settings
from flows.intervals import Array, Blocks, Difference, clip_of, difference

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SliceLoss:
    """Both blends on one slice.

    Attributes
    ----------
    name : str
        Of the slice, such as ``origin=JFK``.
    challenger, champion : float
        Mean loss of the blend with either.
    over : Difference
        The one over the other; its bounds are as sure as that all slices together are.
    """

    name: str
    challenger: float
    champion: float
    over: Difference


def slice_losses(
    frame: pd.DataFrame, challenger: Array, champion: Array, blocks: Blocks, settings: Settings
) -> list[SliceLoss]:
    """Compare the blends on every slice with enough rows.

    Parameters
    ----------
    frame : pandas.DataFrame
        Features of the rows, as a pipeline sees them.
    challenger, champion : array of row
        Losses of the blend with either.
    blocks : array of row
        See :func:`flows.intervals.blocks_of`.
    """
    clip = clip_of(challenger, champion)
    chosen, _, sure = large_slices(frame, settings)
    return [
        SliceLoss(
            name,
            float(challenger[mask].mean()),
            float(champion[mask].mean()),
            difference(challenger[mask], champion[mask], blocks[mask], sure, clip),
        )
        for name, mask in chosen
    ]


def large_slices(frame: pd.DataFrame, settings: Settings) -> tuple[list[tuple[str, Mask]], list[str], float]:
    """Return the slices with enough rows, the names of the others, and how sure each bound has to be.

    As many slices are looked at, one of them looks bad by chance: each bound is made so sure that all of them together
    are right with `gates.confidence` (Bonferroni).
    """
    limits, found = settings.gates, list(slices_of(frame, settings))
    large = [(name, mask) for name, mask in found if mask.sum() >= limits.min_slice_rows]
    small = [name for name, mask in found if mask.sum() < limits.min_slice_rows]
    return large, small, 1.0 - (1.0 - limits.confidence) / max(len(large), 1)


def slices_of(frame: pd.DataFrame, settings: Settings) -> Iterator[tuple[str, Mask]]:
    """Yield each slice that has rows, and which: those of categories and bools, then the project's own."""
    for feature, kind in settings.batch_kinds.items():
        if kind == "category":
            for value in sorted(frame[feature].unique()):
                yield f"{feature}={value}", _array(frame[feature] == value)
        elif kind == "bool":
            for value in (False, True):
                if (mask := _array(frame[feature] == value)).any():
                    yield f"{feature}={str(value).lower()}", mask
    for name, wanted in settings.gates.slices.items():
        yield name, _named(frame, wanted)


def _named(frame: pd.DataFrame, wanted: SliceSettings) -> Mask:
    mask = np.ones(len(frame), dtype=bool)
    for feature, values in wanted.values.items():
        mask &= _array(frame[feature].isin([float(one) if isinstance(one, bool) else one for one in values]))
    for feature, least in wanted.minimum.items():
        mask &= _array(frame[feature] >= least)
    for feature, most in wanted.maximum.items():
        mask &= _array(frame[feature] <= most)
    return mask


def _array(found: Any) -> Mask:
    return np.asarray(found, dtype=bool)
