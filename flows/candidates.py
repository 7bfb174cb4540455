"""The batch model's families: small search spaces and scikit-learn pipelines with their preprocessing inside.

A project's own candidate is ``file.py:function`` with the signature ``function(task, kinds, draw)``: it
returns an unfitted scikit-learn estimator for data frames with the project's features; `draw` is a
`numpy.random.Generator` from which it may take its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.batch_model import used_features
from core.errors import ProjectCodeError
from core.project import Project
from core.setting_types import Kind, Task

Params = dict[str, Any]
_MAX_CATEGORIES = 250  # HistGradientBoosting holds 255 bins


@dataclass(frozen=True)
class Candidate:
    """One setting of one family; `trial` 0 is the family's default.

    Attributes
    ----------
    start : int or None
        Event time of the earliest row that it is fitted on, ms; None for all.
    """

    family: str
    trial: int
    params: Mapping[str, Any]
    start: int | None = None


def candidates(project: Project) -> list[Candidate]:
    """Return every candidate of the project, the same for the same seed."""
    batch = project.settings.batch
    return [
        Candidate(family, trial, _draw(family, _generator(project, family, trial), trial))
        for family in batch.candidates
        for trial in range(batch.trials)
    ]


def build(project: Project, candidate: Candidate) -> Any:
    """Return the unfitted pipeline of a candidate.

    Raises
    ------
    ProjectCodeError
        If the family is not known, or the project's function does not return an estimator.
    """
    settings = project.settings
    kinds = used_features(settings.batch_kinds)
    if ":" in candidate.family:
        return _from_project(project, candidate, kinds)
    builder = _BUILDERS[candidate.family]
    return builder(settings.task, kinds, dict(candidate.params), settings.batch.seed, settings.batch.threads)


def single_threaded(pipeline: Any) -> Any:
    """Return a fitted pipeline that answers in one thread: threads would add up in varying order."""
    names = [name for name in pipeline.get_params() if name.rpartition("__")[2] == "n_jobs"]
    return pipeline.set_params(**dict.fromkeys(names, 1))


def _generator(project: Project, family: str, trial: int) -> np.random.Generator:
    position = project.settings.batch.candidates.index(family)
    return np.random.default_rng([project.settings.batch.seed, position, trial])


def _draw(family: str, draw: np.random.Generator, trial: int) -> Params:
    if ":" in family:
        return {}
    if family not in _SPACES:
        raise ProjectCodeError(
            f"batch.candidates: {family!r} is not known; write {', '.join(_SPACES)} or file.py:function"
        )
    space = _SPACES[family]
    drawn = {name: values[int(draw.integers(len(values)))] for name, values in space.items()}
    return {name: values[0] for name, values in space.items()} if trial == 0 else drawn


_SPACES: dict[str, dict[str, list[Any]]] = {
    "gradient_boosting": {
        "learning_rate": [0.06, 0.04, 0.1],
        "max_iter": [150, 80, 250],
        "max_leaf_nodes": [31, 8, 15],
        "min_samples_leaf": [40, 20, 100],
        "l2_regularization": [1.0, 0.0, 10.0],
        "max_features": [0.5, 0.3, 1.0],
    },
    "linear": {"strength": [1.0, 0.01, 0.1, 10.0], "min_frequency": [20, 50]},
    "forest": {
        "min_samples_leaf": [10, 5, 20, 40],
        "max_features": ["sqrt", 0.3, 0.5],
        "max_depth": [16, 12],
    },
}


def _columns(kinds: Mapping[str, Kind]) -> tuple[list[str], list[str]]:
    names = [name for name, kind in kinds.items() if kind == "category"]
    return [name for name in kinds if name not in names], names


def _coded(kinds: Mapping[str, Kind]) -> Any:
    """Numbers as they are (missing stays missing), categories as bounded codes (unseen is missing)."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    numbers, names = _columns(kinds)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=_MAX_CATEGORIES)
    return ColumnTransformer([("numbers", "passthrough", numbers), ("categories", codes, names)])


def _gradient_boosting(task: Task, kinds: Mapping[str, Kind], params: Params, seed: int, threads: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline

    numbers, names = _columns(kinds)
    chosen = {
        **params,
        "random_state": seed,
        "early_stopping": False,
        "categorical_features": list(range(len(numbers), len(numbers) + len(names))) or None,
    }
    if task == "regression":
        model = HistGradientBoostingRegressor(loss="absolute_error", **chosen)
    else:
        model = HistGradientBoostingClassifier(**chosen)
    return Pipeline([("features", _coded(kinds)), ("model", model)])


def _forest(task: Task, kinds: Mapping[str, Kind], params: Params, seed: int, threads: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.pipeline import Pipeline

    family = RandomForestRegressor if task == "regression" else RandomForestClassifier
    model = family(n_estimators=100, random_state=seed, n_jobs=threads, **params)
    return Pipeline([("features", _coded(kinds)), ("model", model)])


def _linear(task: Task, kinds: Mapping[str, Kind], params: Params, seed: int, threads: int) -> Any:
    from scipy.sparse import csr_matrix
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    numbers, names = _columns(kinds)
    # Sparse rows are multiplied one by one: a row's prediction does not depend on its neighbours.
    scaled = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)),
            ("scale", StandardScaler()),
            ("sparse", FunctionTransformer(csr_matrix)),
        ]
    )
    known = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=params["min_frequency"], max_categories=_MAX_CATEGORIES
    )
    features = ColumnTransformer([("numbers", scaled, numbers), ("categories", known, names)], sparse_threshold=1.0)
    strength = params["strength"]
    if task == "regression":
        model = Ridge(alpha=1.0 / strength, solver="lsqr")
    else:
        model = LogisticRegression(C=strength, max_iter=300)
    return Pipeline([("features", features), ("model", model)])


_BUILDERS: dict[str, Callable[[Task, Mapping[str, Kind], Params, int, int], Any]] = {
    "gradient_boosting": _gradient_boosting,
    "linear": _linear,
    "forest": _forest,
}


def _from_project(project: Project, candidate: Candidate, kinds: Mapping[str, Kind]) -> Any:
    function = project.load_function(candidate.family)
    draw = _generator(project, candidate.family, candidate.trial)
    try:
        made = function(project.settings.task, dict(kinds), draw)
    except Exception as error:
        raise ProjectCodeError(f"{candidate.family}: {type(error).__name__}: {error}") from error
    wanted = ["fit", "get_params", "predict" if project.settings.task == "regression" else "predict_proba"]
    if lacks := [name for name in wanted if not hasattr(made, name)]:
        raise ProjectCodeError(
            f"{candidate.family}: returned {type(made).__name__} without {', '.join(lacks)}; "
            "return an unfitted scikit-learn estimator"
        )
    return made
