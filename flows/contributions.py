"""What each feature of one event did to a prediction, by replacing it. Pure.

Occlusion: the prediction less the one with that feature as is typical of the reference (median, or the most frequent
value). It is exact about that one question, and no more: features that act together are each given what they do
together, or none of it, so the differences do not add up. What is left is said. Shapley values do add up
(:mod:`flows.shapley`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from core.batch_model import MISSING, FittedModel
from core.predictions import FeatureValue
from core.setting_types import Kind
from flows.intervals import Array

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["shap", "occlusion"]
AskFor = Callable[["pd.DataFrame"], Array]
"""Returns one number a row: what the model predicts of what is explained."""


@dataclass(frozen=True)
class Contribution:
    """What one feature did.

    Attributes
    ----------
    feature : str
    value : float, str, bool or None
        As the model got it; None where it was missing.
    contribution : float
        In units of the prediction.
    """

    feature: str
    value: FeatureValue
    contribution: float


@dataclass(frozen=True)
class Contributions:
    """What all did, the largest first.

    Attributes
    ----------
    method : {'shap', 'occlusion'}
    of : str or None
        The class whose probability is explained: of several the most likely one; None for a regression.
    prediction : float
        What the model predicts.
    base : float
        With shap, what it predicts on average of the reference; with occlusion, of an event that is typical throughout.
    features : list of Contribution
    rest : float
        The prediction, less the base, less all contributions: nothing with shap.
    """

    method: Method
    of: str | None
    prediction: float
    base: float
    features: list[Contribution]
    rest: float

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def contributions(
    method: Method, of: str | None, row: pd.DataFrame, kinds: Mapping[str, Kind], found: tuple[float, float, Array]
) -> Contributions:
    """Put what was found of each feature together.

    Parameters
    ----------
    row : pandas.DataFrame
        One row.
    found : (float, float, array of feature)
        The prediction, the base, and each feature's contribution, in the order of the row's columns.
    """
    prediction, base, values = found
    features = [
        Contribution(name, _shown(row[name].iloc[0], kinds[name]), float(value))
        for name, value in zip(row.columns, values, strict=True)
    ]
    ordered = sorted(features, key=lambda one: (-abs(one.contribution), one.feature))
    return Contributions(method, of, prediction, base, ordered, prediction - base - float(values.sum()))


def occlusion(ask: AskFor, row: pd.DataFrame, typical: pd.DataFrame) -> tuple[float, float, Array]:
    """Return the prediction, that of the typical row, and by how much each feature moves it from what is typical.

    Examples
    --------
    >>> import pandas as pd
    >>> both = lambda frame: (frame["a"] * frame["b"]).to_numpy()
    >>> event, typical = pd.DataFrame({"a": [3.0], "b": [5.0]}), pd.DataFrame({"a": [1.0], "b": [1.0]})
    >>> prediction, base, moved = occlusion(both, event, typical)
    >>> prediction, base, moved.tolist()
    (15.0, 1.0, [10.0, 12.0])
    """
    import pandas as pd

    replaced = []
    for name in row.columns:
        one = row.copy()
        one[name] = typical[name].to_numpy()
        replaced.append(one)
    answers = ask(pd.concat([row, typical, *replaced], ignore_index=True))
    return float(answers[0]), float(answers[1]), np.asarray(answers[0] - answers[2:])


def typical_row(reference: pd.DataFrame, kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Return one row with the median of each number and the most frequent value of each category and bool.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"n": [1.0, None, 9.0], "hub": pd.Series(["a", "b", "b"], dtype=object)})
    >>> typical_row(frame, {"n": "number", "hub": "category"}).to_dict("records")
    [{'n': 5.0, 'hub': 'b'}]
    """
    found: dict[str, Any] = {}
    for name in reference.columns:
        column = reference[name]
        found[name] = column.median() if kinds[name] == "number" else next(iter(column.mode()), np.nan)
    made = reference.iloc[:1].copy()
    for name, value in found.items():
        made[name] = np.array([value], dtype=reference[name].to_numpy().dtype)
    return made


def explained(model: FittedModel, row: pd.DataFrame) -> tuple[str | None, AskFor]:
    """Return what is explained of a row, and how to ask for it: a value, the probability of one of two, or the top one.

    Raises
    ------
    RegistryError
        If the pipeline fails on the row.
    """
    (answer,) = model.predict_frame(row)
    if not isinstance(answer, dict):
        of = None if model.task == "regression" else "1"
        return of, lambda frame: np.array(model.predict_frame(frame), dtype=float)
    top = max(sorted(answer), key=lambda name: answer[name])

    def chance(frame: pd.DataFrame) -> Array:
        return np.array([one[top] for one in model.predict_frame(frame) if isinstance(one, dict)])

    return top, chance


def _shown(value: Any, kind: Kind) -> FeatureValue:
    if kind == "category":
        return None if value == MISSING else str(value)
    if np.isnan(value):
        return None
    return bool(value) if kind == "bool" else float(value)
