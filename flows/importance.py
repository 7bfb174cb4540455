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
    used = rows.spread(MOST_ROWS)
    name = METRICS[task][0]
    known = score(task, model.predict_frame(used.frame), used.outcomes)[name] if len(used) else None
    if known is None:
        return None
    draw, found = np.random.default_rng(seed), dict[str, list[float]]()
    repeated = used.frame.iloc[np.tile(np.arange(len(used)), repeats)].reset_index(drop=True)
    for feature in features:
        orders = np.concatenate([draw.permutation(len(used)) for _ in range(repeats)])
        shuffled = repeated.assign(**{feature: used.frame[feature].take(orders).to_numpy()})
        shuffled[feature] = shuffled[feature].astype(used.frame[feature].dtype)
        answers = model.predict_frame(shuffled)  # all repeats at once: half of a call's time is not for its rows
        parts = [answers[part * len(used) : (part + 1) * len(used)] for part in range(repeats)]
        losses = [score(task, part, used.outcomes)[name] for part in parts]
        found[feature] = [loss - known for loss in losses if loss is not None]
    return Importance(known, found)
