"""The online experts: models behind one small interface, watched for divergence.

Built-in factories are in :mod:`streaming.learners`. A project adds its own with ``file.py:function`` (returns a
River model, or an object with ``predict`` and ``learn``) or names a River class, ``river.tree.SGTRegressor``.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from core.errors import ProjectCodeError
from core.loop_settings import ExpertSettings
from core.predictions import Features, Outcome, Prediction
from core.project import Project
from core.setting_types import Task
from streaming.learners import BUILT_IN, OnlineModel, RiverModel
from streaming.plausible import Plausible


class Expert:
    """An online model that can neither serve nonsense nor stay broken.

    A prediction that is not plausible (:class:`streaming.plausible.Plausible`), or none because the model raised,
    silences the expert for this event; ten such in a row reset its model.

    Parameters
    ----------
    name : str
        Its name in predictions and tables.
    factory : callable
        Makes a fresh `OnlineModel`.
    task : str
        Decides what a sane prediction is.
    """

    MAX_STRIKES = 10

    def __init__(self, name: str, factory: Callable[[], OnlineModel], task: Task) -> None:
        self.name = name
        self.resets = 0
        self.silenced = 0
        self._factory = factory
        self._plausible = Plausible(task)
        self._model = factory()
        self._strikes = 0

    def predict(self, features: Features) -> Prediction | None:
        """Return a plausible prediction, or None."""
        try:
            made = self._model.predict(features)
        except Exception:  # noqa: BLE001  a model may be the user's code and may raise anything; the stream goes on
            self._strike()
            return None
        if made is None:
            return None
        prediction = self._plausible.check(made)
        if prediction is None:
            self._strike()
        else:
            self._strikes = 0
        return prediction

    def predict_anew(self, features: Features) -> Prediction | None:
        """Return what it says by now of an event that it predicted before; None where that is not plausible.

        Only what it says first can silence or reset it.
        """
        try:
            made = self._model.predict(features)
        except Exception:  # noqa: BLE001  as above
            return None
        return None if made is None else self._plausible.check(made)

    def learn(self, features: Features, outcome: Outcome) -> None:
        """Learn from one example; a model that fails in it is reset."""
        self._plausible.observe(outcome)
        try:
            self._model.learn(features, outcome)
        except Exception:  # noqa: BLE001  as above
            self._reset()

    def _strike(self) -> None:
        self.silenced += 1
        self._strikes += 1
        if self._strikes >= self.MAX_STRIKES:
            self._reset()

    def attach(self, fresh: Expert) -> None:
        """After unpickling: take over how a fresh model is made."""
        self._factory = fresh._factory

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_factory"}

    def _reset(self) -> None:
        self.resets += 1
        self._strikes = 0
        self._model = self._factory()


def build_experts(project: Project) -> list[Expert]:
    """Build the experts of the project file, in its order.

    Raises
    ------
    ProjectCodeError
        If a factory is not known, or does not build with its parameters.
    """
    settings = project.settings
    return [Expert(entry.name, _Factory(project, entry), settings.task) for entry in settings.online]


class _Factory:
    """Makes one expert's model from its settings."""

    def __init__(self, project: Project, entry: ExpertSettings) -> None:
        self._project = project
        self._entry = entry
        self()

    def __call__(self) -> OnlineModel:
        settings, entry = self._project.settings, self._entry
        if entry.factory not in BUILT_IN and ":" not in entry.factory and not entry.factory.startswith("river."):
            close = difflib.get_close_matches(entry.factory, BUILT_IN, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ProjectCodeError(
                f"online expert {entry.name!r}: there is no factory {entry.factory!r}; {hint}known names: "
                f"{', '.join(sorted(BUILT_IN))}; or write file.py:function, or river.package.Class"
            )
        try:
            if entry.factory in BUILT_IN:
                return BUILT_IN[entry.factory](settings, dict(entry.params))
            if entry.factory.startswith("river."):
                module, _, name = entry.factory.rpartition(".")
                model = getattr(importlib.import_module(module), name)(**entry.params)
            else:
                model = self._project.load_function(entry.factory)(**entry.params)
        except Exception as error:  # the factory may be the user's code
            raise ProjectCodeError(
                f"online expert {entry.name!r}: {entry.factory!r} does not build: {error}; "
                f"known names: {', '.join(sorted(BUILT_IN))}; or file.py:function, or river.package.Class"
            ) from error
        if hasattr(model, "predict") and hasattr(model, "learn"):
            return model  # type: ignore[no-any-return]
        wanted = "predict_one" if settings.task == "regression" else "predict_proba_one"
        if not (hasattr(model, "learn_one") and hasattr(model, wanted)):
            raise ProjectCodeError(
                f"online expert {entry.name!r}: {entry.factory!r} gives a {type(model).__name__}; a {settings.task} "
                f"task needs a River model with learn_one and {wanted}, or an object with predict and learn"
            )
        return RiverModel(model, settings)
