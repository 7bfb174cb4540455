"""Shapley values of one prediction (Shapley 1953; Lundberg & Lee 2017), where shap is installed. Its only import.

``pip install 'headrace[explain]'`` brings it. What it mixes are not values, but numbers of rows: of the event's and of
the reference's. So categories, missing values and numbers are alike to it.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.contributions import AskFor
from flows.intervals import Array

if TYPE_CHECKING:
    import pandas as pd

INSTALL = "pip install 'headrace[explain]'"
ROWS = 100
"""Rows of the reference that an event is mixed with."""

_ROUNDS = 10


def is_installed() -> bool:
    """Tell whether shap is there, without importing it: that takes seconds."""
    return find_spec("shap") is not None


def shapley(ask: AskFor, row: pd.DataFrame, background: pd.DataFrame, seed: int) -> tuple[float, float, Array]:
    """Return the prediction, the mean one of the background, and each feature's share of what is between them.

    Parameters
    ----------
    background : pandas.DataFrame
        Some rows of the reference.
    """
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # compiling takes 20 s, and saves none of so few numbers
    import pandas as pd
    import shap

    pool = pd.concat([background, row], ignore_index=True)
    own, width = len(background), len(row.columns)

    def mixed(places: Any) -> Array:
        taken = np.asarray(places, dtype=int)
        columns = {name: pool[name].to_numpy()[taken[:, number]] for number, name in enumerate(pool.columns)}
        return ask(pd.DataFrame(columns))

    others = np.repeat(np.arange(own)[:, None], width, axis=1).astype(float)
    masker = shap.maskers.Independent(others, max_samples=own)
    explainer = shap.PermutationExplainer(mixed, masker, seed=seed)
    found = explainer(np.full((1, width), float(own)), max_evals=_ROUNDS * (2 * width + 1), silent=True)
    prediction = float(ask(row)[0])
    return prediction, float(np.ravel(found.base_values)[0]), np.asarray(found.values[0], dtype=float)
