"""What a model owes to each feature: how much worse it predicts where that feature's values are shuffled. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.batch_model import FittedModel
from core.metrics import METRICS, score
from flows.examples import Examples

REPEATS = 5
MOST_ROWS = 2_000


@dataclass(frozen=True)
class Importance:
    """A model's loss on some rows, and by how much it rises when a feature is shuffled, once for each repeat."""

    loss: float
    rises: Mapping[str, Sequence[float]]


def importance(
    model: FittedModel, rows: Examples, features: Sequence[str], *, seed: int, repeats: int = REPEATS
) -> Importance | None:
    """Shuffle each feature over the rows, and see what that costs the model.

    Permutation importance (Breiman 2001; Fisher, Rudin & Dominici 2019). Of features that say the same, each
    may seem to matter little: the other is still there.

    Parameters
    ----------
    model : FittedModel
        Asked on its whole pipeline, so features are the project's, not columns of an encoding.
    rows : Examples
        Rows that it was not fitted on; of more than 2,000, so many evenly drawn are used.
    features : sequence of str
        Of the columns of ``rows.frame``.
    seed : int
        Of the shuffling.
    repeats : int
        How often each is shuffled.

    Returns
    -------
    Importance or None
        By the loss that gates compare; None where there is none, such as without rows.
    """
    task = model.task
    used = rows.take(np.unique(np.linspace(0, max(len(rows) - 1, 0), MOST_ROWS).round().astype(int))[: len(rows)])
    name = METRICS[task][0]
    known = score(task, model.predict_frame(used.frame), used.outcomes)[name] if len(used) else None
    if known is None:
        return None
    draw, found = np.random.default_rng(seed), dict[str, list[float]]()
    for feature in features:
        losses = []
        for _ in range(repeats):
            order = draw.permutation(len(used))
            shuffled = used.frame.assign(**{feature: used.frame[feature].take(order).to_numpy()})
            shuffled[feature] = shuffled[feature].astype(used.frame[feature].dtype)
            losses.append(score(task, model.predict_frame(shuffled), used.outcomes)[name])
        found[feature] = [loss - known for loss in losses if loss is not None]
    return Importance(known, found)
