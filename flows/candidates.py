"""The batch model's families: scikit-learn pipelines with their preprocessing inside.

A project's own candidate is ``file.py:function`` with the signature ``function(task, kinds, draw)``: it
returns an unfitted scikit-learn estimator for data frames with the project's features; `draw` is a
`numpy.random.Generator` from which it may take its settings. Parameters that the project file gives a
space or a value come as keyword arguments: ``function(task, kinds, draw, *, depth)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.batch_model import used_features
from core.errors import ProjectCodeError
from core.project import Project
from core.setting_types import Kind, Task
from flows.spaces import Params, families

_MAX_CATEGORIES = 250  # HistGradientBoosting holds 255 bins


@dataclass(frozen=True)
class Candidate:
    """One setting of one family; `trial` 0 is the family's default.

    Attributes
    ----------
    start : int or None
        Event time of the earliest row that it is fitted on, ms; None for all.
    without : sequence of str
        Features that it does without.
    """

    family: str
    trial: int
    params: Mapping[str, Any]
    start: int | None = None
    without: Sequence[str] = ()


def defaults(project: Project) -> list[Candidate]:
    """Return each family's default setting, in the order of the project file."""
    return [Candidate(family.name, 0, {**family.default, **family.fixed}) for family in families(project)]


def build(project: Project, candidate: Candidate) -> Any:
    """Return the unfitted pipeline of a candidate.

    Raises
    ------
    ProjectCodeError
        If the project's function fails, or does not return an estimator.
    """
    settings = project.settings
    kinds = {name: kind for name, kind in used_features(settings.batch_kinds).items() if name not in candidate.without}
    if ":" in candidate.family:
        return _from_project(project, candidate, kinds)
    builder = _BUILDERS[candidate.family]
    return builder(settings.task, kinds, dict(candidate.params), settings.batch.seed, settings.batch.threads)


def single_threaded(pipeline: Any) -> Any:
    """Return a fitted pipeline that answers in one thread: threads would add up in varying order."""
    names = [name for name in pipeline.get_params() if name.rpartition("__")[2] == "n_jobs"]
    return pipeline.set_params(**dict.fromkeys(names, 1))


def _generator(project: Project, family: str, trial: int) -> np.random.Generator:
    names = [entry.family for entry in project.settings.batch.candidates]
    return np.random.default_rng([project.settings.batch.seed, names.index(family), trial])


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
    model = family(random_state=seed, n_jobs=threads, **params)
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
        made = function(project.settings.task, dict(kinds), draw, **candidate.params)
    except Exception as error:
        raise ProjectCodeError(f"{candidate.family}: {type(error).__name__}: {error}") from error
    wanted = ["fit", "get_params", "predict" if project.settings.task == "regression" else "predict_proba"]
    if lacks := [name for name in wanted if not hasattr(made, name)]:
        raise ProjectCodeError(
            f"{candidate.family}: returned {type(made).__name__} without {', '.join(lacks)}; "
            "return an unfitted scikit-learn estimator"
        )
    return made
