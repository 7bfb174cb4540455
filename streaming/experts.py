"""The online experts: River models behind one small interface, watched for divergence. The only river import.

Built-in factories: ``linear``, ``tree``, ``forest`` (River), ``prior`` and ``no_change`` (ours). A project adds
its own with ``file.py:function`` (returns a River model) or names a River class, ``river.tree.SGTRegressor``.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any, Protocol

from core.errors import ProjectCodeError
from core.predictions import Features, Outcome, Prediction
from core.project import Project
from core.settings import ExpertSettings, Kind, Settings, Task
from streaming.plausible import Plausible


class OnlineModel(Protocol):
    """What an expert needs of a model."""

    def predict(self, features: Features) -> Prediction | None:
        """Return a prediction, or None while nothing has been learned."""

    def learn(self, features: Features, outcome: Outcome) -> None:
        """Learn from one example."""


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
        try:
            if entry.factory in _BUILT_IN:
                return _BUILT_IN[entry.factory](settings, dict(entry.params))
            if entry.factory.startswith("river."):
                module, _, name = entry.factory.rpartition(".")
                model = getattr(importlib.import_module(module), name)(**entry.params)
            else:
                model = self._project.load_function(entry.factory)(**entry.params)
        except Exception as error:  # the factory may be the user's code
            raise ProjectCodeError(
                f"online expert {entry.name!r}: {entry.factory!r} does not build: {error}; "
                f"known names: {', '.join(sorted(_BUILT_IN))}; or file.py:function, or river.package.Class"
            ) from error
        if hasattr(model, "predict") and hasattr(model, "learn"):
            return model  # type: ignore[no-any-return]
        wanted = "predict_one" if settings.task == "regression" else "predict_proba_one"
        if not (hasattr(model, "learn_one") and hasattr(model, wanted)):
            raise ProjectCodeError(
                f"online expert {entry.name!r}: {entry.factory!r} gives a {type(model).__name__}; a {settings.task} "
                f"task needs a River model with learn_one and {wanted}, or an object with predict and learn"
            )
        return _River(model, settings)


class _River:
    """A River model; it is given the features that batch models get too, missing ones left out."""

    def __init__(self, model: Any, settings: Settings) -> None:
        self._model = model
        self._task = settings.task
        self._use = list(settings.batch_kinds)
        self._learned = False

    def predict(self, features: Features) -> Prediction | None:
        if not self._learned:
            return None
        given = self._given(features)
        if self._task == "regression":
            return float(self._model.predict_one(given))
        chances = self._model.predict_proba_one(given)
        if self._task == "multiclass":
            return chances or None
        return float(chances.get(True, 0.0)) if chances else None

    def learn(self, features: Features, outcome: Outcome) -> None:
        self._model.learn_one(self._given(features), bool(outcome) if self._task == "binary" else outcome)
        self._learned = True

    def _given(self, features: Features) -> dict[str, Any]:
        return {name: value for name in self._use if (value := features[name]) is not None}


class _Encoder:
    """Numbers scaled by running mean and deviation, clipped; categories one-hot; missing ones flagged.

    What lies far outside moves mean and deviation only as far as `FAR` deviations: one absurd value would
    else flatten a feature for good.
    """

    CLIP = 5.0
    FAR = 20.0
    WARM = 30.0

    def __init__(self, kinds: dict[str, Kind]) -> None:
        self._kinds = {name: kind for name, kind in kinds.items() if kind != "text"}
        self._moments: dict[str, list[float]] = {n: [0.0, 0.0, 0.0] for n, k in kinds.items() if k == "number"}

    def encode(self, features: Features) -> dict[str, float]:
        """Return the encoded features: at most one entry a feature, and a bias-free scale."""
        encoded: dict[str, float] = {}
        for name, kind in self._kinds.items():
            value = features[name]
            if value is None:
                encoded[f"{name}?"] = 1.0
            elif kind == "number":
                count, mean, squares = self._moments[name]
                spread = math.sqrt(squares / count) if count > 1 else 0.0
                if spread > 0.0:
                    scaled = (value - mean) / spread  # type: ignore[operator]
                    encoded[name] = min(max(scaled, -self.CLIP), self.CLIP)
            elif kind == "category":
                encoded[f"{name}={value}"] = 1.0
            else:
                encoded[name] = 1.0 if value else 0.0
        return encoded

    def observe(self, features: Features) -> None:
        """Update means and deviations (Welford 1962)."""
        for name, moments in self._moments.items():
            value = features[name]
            if value is None:
                continue
            number = float(value)
            if moments[0] >= self.WARM and moments[2] > 0.0:
                reach = self.FAR * math.sqrt(moments[2] / moments[0])
                number = min(max(number, moments[1] - reach), moments[1] + reach)
            moments[0] += 1.0
            delta = number - moments[1]
            moments[1] += delta / moments[0]
            moments[2] += delta * (number - moments[1])


class _Linear:
    """River's linear model of the task on encoded features, with bounded gradients and scaled targets."""

    def __init__(self, settings: Settings, params: dict[str, Any]) -> None:
        from river import linear_model, multiclass, optim, stats

        self._task = settings.task
        self._encoder = _Encoder(settings.feature_kinds)
        rate = float(params.pop("rate", 0.02 if settings.task != "regression" else 0.01))
        clip = float(params.pop("clip_gradient", 4.0))
        if settings.task == "regression":
            self._model = linear_model.LinearRegression(optimizer=optim.SGD(rate), clip_gradient=clip, **params)
        else:
            one = linear_model.LogisticRegression(optimizer=optim.SGD(rate), clip_gradient=clip, **params)
            self._model = one if settings.task == "binary" else multiclass.OneVsRestClassifier(one)
        self._target = stats.Mean(), stats.Var()
        self._learned = 0

    def predict(self, features: Features) -> Prediction | None:
        if not self._learned:
            return None
        encoded = self._encoder.encode(features)
        if self._task == "regression":
            mean, spread = self._target_scale()
            return float(mean + spread * self._model.predict_one(encoded))
        chances = self._model.predict_proba_one(encoded)
        return float(chances[True]) if self._task == "binary" else (chances or None)

    def learn(self, features: Features, outcome: Outcome) -> None:
        self._encoder.observe(features)
        encoded = self._encoder.encode(features)
        self._learned += 1
        if self._task == "regression":
            value = float(outcome)
            for statistic in self._target:
                statistic.update(value)
            mean, spread = self._target_scale()
            scaled = (value - mean) / spread
            self._model.learn_one(encoded, min(max(scaled, -_Encoder.CLIP), _Encoder.CLIP))
        else:
            self._model.learn_one(encoded, bool(outcome) if self._task == "binary" else outcome)

    def _target_scale(self) -> tuple[float, float]:
        mean, variance = (statistic.get() for statistic in self._target)
        return mean, math.sqrt(variance) if variance > 0 else 1.0


class _Prior:
    """What usually happens: class frequencies, or the mean, with old outcomes fading.

    Parameters
    ----------
    memory : int
        Number of labels after which an outcome counts 1/e.
    """

    def __init__(self, settings: Settings, params: dict[str, Any]) -> None:
        self._task = settings.task
        self._keep = math.exp(-1.0 / float(params.pop("memory", 5_000)))
        _refuse(params)
        self._weight = 0.0
        self._sums: dict[str, float] = dict.fromkeys(settings.label.classes, 0.0)

    def predict(self, features: Features) -> Prediction | None:
        if self._task == "binary":
            return (self._sums.get("1", 0.0) + 0.5) / (self._weight + 1.0)
        if not self._sums:
            return None
        if self._task == "regression":
            return self._sums["value"] / self._weight
        total = self._weight + len(self._sums)
        return {name: (value + 1.0) / total for name, value in self._sums.items()}

    def learn(self, features: Features, outcome: Outcome) -> None:
        self._weight = self._weight * self._keep + 1.0
        name, amount = ("value", float(outcome)) if self._task == "regression" else (str(outcome), 1.0)
        self._sums.setdefault(name, 0.0)
        for key in self._sums:
            self._sums[key] *= self._keep
        self._sums[name] += amount


class _NoChange:
    """What happened last: how often each outcome followed the last one; for regression the last value."""

    def __init__(self, settings: Settings, params: dict[str, Any]) -> None:
        self._task = settings.task
        self._keep = math.exp(-1.0 / float(params.pop("memory", 2_000)))
        _refuse(params)
        self._last: Outcome | None = None
        self._followed: dict[str, dict[str, float]] = {}

    def predict(self, features: Features) -> Prediction | None:
        if self._last is None:
            return None
        if self._task == "regression":
            return float(self._last)
        after = self._followed.get(str(self._last), {})
        if self._task == "binary":
            return (after.get("1", 0.0) + 0.5) / (sum(after.values()) + 1.0)
        names = sorted(set(self._followed) | set(after))
        total = sum(after.values()) + len(names)
        return {name: (after.get(name, 0.0) + 1.0) / total for name in names}

    def learn(self, features: Features, outcome: Outcome) -> None:
        if self._last is not None and self._task != "regression":
            after = self._followed.setdefault(str(self._last), {})
            for key in after:
                after[key] *= self._keep
            after[str(outcome)] = after.get(str(outcome), 0.0) + 1.0
        if self._task != "regression":
            self._followed.setdefault(str(outcome), {})
        self._last = outcome


def _tree(settings: Settings, params: dict[str, Any]) -> OnlineModel:
    from river import tree

    if settings.task == "regression":
        return _River(tree.HoeffdingAdaptiveTreeRegressor(**{"seed": 1, "leaf_prediction": "mean", **params}), settings)
    return _River(tree.HoeffdingAdaptiveTreeClassifier(**{"seed": 1, "leaf_prediction": "nba", **params}), settings)


def _forest(settings: Settings, params: dict[str, Any]) -> OnlineModel:
    from river import forest

    if settings.task == "regression":
        defaults = {"seed": 1, "n_models": 5, "leaf_prediction": "mean"}
        return _River(forest.ARFRegressor(**{**defaults, **params}), settings)
    return _River(forest.ARFClassifier(**{"seed": 1, "n_models": 5, **params}), settings)


def _refuse(params: dict[str, Any]) -> None:
    if params:
        raise TypeError(f"unknown parameter {sorted(params)[0]!r}")


_BUILT_IN: dict[str, Callable[[Settings, dict[str, Any]], OnlineModel]] = {
    "linear": _Linear,
    "tree": _tree,
    "forest": _forest,
    "prior": _Prior,
    "no_change": _NoChange,
}
