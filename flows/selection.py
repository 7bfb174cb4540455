"""Which features the batch model does without: those that cost it nothing when their values are shuffled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.batch_model import FittedModel, used_features
from core.lineage import GENERATED, lineage
from core.settings import Settings
from flows.examples import Examples
from flows.importance import importance

NOTHING = 0.001
"""Share of the loss below which a feature adds nothing, and a model without some features is as good."""

_REPEATS = 3
_TINY = 1e-12


def selectable(settings: Settings) -> list[str]:
    """Return the features of the batch model that selection may leave out (``batch.select``), in their order.

    Examples
    --------
    >>> from core.project_file import parse_settings
    >>> text = (
    ...     "{name: a, id: id, time: at, fields: {x: number}, label: y, features: {calendar: [hour]}, "
    ...     "batch: {select: %s}}"
    ... )
    >>> [selectable(parse_settings(text % which)) for which in ("generated", "all", "none")]
    [['event_hour'], ['x', 'event_hour'], []]
    """
    used, which = used_features(settings.batch_kinds), settings.batch.select
    if which == "none":
        return []
    return [one.name for one in lineage(settings) if one.name in used and (which == "all" or one.made_by in GENERATED)]


def idle(judged: Sequence[tuple[FittedModel, Examples]], features: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return the features whose shuffling costs less than a thousandth of the loss, on average over the fits.

    Parameters
    ----------
    judged : sequence of (FittedModel, Examples)
        A fit of each fold, and its later rows.
    features : sequence of str
        Those that are asked about.
    seed : int
        Of the shuffling.
    """
    found = [importance(model, rows, features, seed=seed, repeats=_REPEATS) for model, rows in judged]
    known = [one for one in found if one is not None]
    return tuple(
        name
        for name in features
        if known and np.mean([np.mean(one.rises[name]) / max(one.loss, _TINY) for one in known]) < NOTHING
    )
