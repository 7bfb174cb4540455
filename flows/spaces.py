"""What the search may vary: each family's default setting and space for a task, as the project file changes them.

A family's default setting is a good one without any search; its space is around it. Where the project file narrows a
space so that it no longer holds the default, the nearest value that it holds takes its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import ProjectCodeError
from core.project import Project
from core.search_settings import CandidateSettings, SpaceSettings
from core.setting_types import Task

Params = dict[str, Any]
Space = Mapping[str, SpaceSettings]


@dataclass(frozen=True)
class Family:
    """One model family of the project.

    Attributes
    ----------
    name : str
        gradient_boosting, linear, forest; or file.py:function.
    space : mapping of parameter to SpaceSettings
        What is varied.
    default : dict
        The setting that is tried first: a value for each parameter of the space.
    fixed : dict
        Parameters that are never varied.
    draws : bool
        Whether the project's function draws its settings itself, so that each trial differs though nothing is varied.
    """

    name: str
    space: Space
    default: Params
    fixed: Params
    draws: bool = False

    @property
    def varies(self) -> bool:
        """Whether there is more to try than the default."""
        return self.draws or bool(self.space)


def families(project: Project) -> list[Family]:
    """Return the project's families, in the order of its file."""
    settings = project.settings
    return [
        _own(project, entry) if ":" in entry.family else _known(settings.task, entry)
        for entry in settings.batch.candidates
    ]


def _known(task: Task, entry: CandidateSettings) -> Family:
    usual = _USUAL[entry.family]
    spaces = {name: space for name, (_, space) in usual.items()} | _OF_TASK[task].get(entry.family, {})
    space = {name: one for name, one in {**spaces, **entry.space}.items() if name not in entry.params}
    wished = {name: value for name, (value, _) in usual.items()} | _WITHOUT_SPACE.get(entry.family, {})
    fixed = {name: value for name, value in wished.items() if name not in space} | entry.params
    return Family(entry.family, space, {name: one.nearest(wished.get(name)) for name, one in space.items()}, fixed)


def _own(project: Project, entry: CandidateSettings) -> Family:
    if not entry.space:
        return Family(entry.family, {}, {}, dict(entry.params), draws=True)
    wished = _keywords(project, entry.family)
    default = {name: space.nearest(wished.get(name)) for name, space in entry.space.items()}
    return Family(entry.family, entry.space, default, dict(entry.params))


def _keywords(project: Project, reference: str) -> Params:
    """Return the defaults of a function's keyword arguments; none of one that cannot be loaded: its trials say why."""
    try:
        arguments = inspect.signature(project.load_function(reference)).parameters.values()
    except (ProjectCodeError, ValueError):
        return {}
    return {one.name: one.default for one in arguments if one.default is not inspect.Parameter.empty}


def _range(low: float, high: float, *, log: bool = True) -> SpaceSettings:
    return SpaceSettings(low=low, high=high, log=log)


_USUAL: dict[str, dict[str, tuple[Any, SpaceSettings]]] = {
    "gradient_boosting": {
        "learning_rate": (0.06, _range(0.02, 0.2)),
        "max_iter": (150, _range(40, 250)),
        "max_leaf_nodes": (31, _range(4, 48)),
        "min_samples_leaf": (40, _range(10, 300)),
        "l2_regularization": (1.0, _range(0.01, 100.0)),
        "max_features": (0.5, _range(0.15, 1.0, log=False)),
    },
    "linear": {"strength": (1.0, _range(0.001, 10.0)), "min_frequency": (20, _range(10, 200))},
    "forest": {
        "min_samples_leaf": (10, _range(2, 100)),
        "max_features": ("sqrt", SpaceSettings(choices=["sqrt", 0.15, 0.3, 0.5, 0.8])),
        "max_depth": (16, _range(6, 24)),
    },
}
"""Of each family, parameter to default and space."""

_WITHOUT_SPACE: dict[str, Params] = {"forest": {"n_estimators": 100}}
"""More trees are never worse, only slower: not searched unless the project file gives a space."""

_OF_TASK: dict[Task, dict[str, dict[str, SpaceSettings]]] = {
    "binary": {},
    # one tree for each class and iteration
    "multiclass": {"gradient_boosting": {"max_iter": _range(30, 150)}},
    # without a penalty's scale: half a unit of squared error a row, whatever the target's unit
    "regression": {
        "linear": {"strength": _range(0.0001, 10.0)},
        "forest": {"max_features": SpaceSettings(choices=["sqrt", 0.3, 0.5, 0.8, 1.0])},
    },
}
"""Where a task needs another space than the rest."""
