"""The online models: River's behind one small interface, and two of ours. River is imported here only.

``linear``, ``tree``, ``forest`` (River), ``prior`` and ``no_change`` (ours).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, Protocol

from core.predictions import Features, Outcome, Prediction
from core.setting_types import Kind
from core.settings import Settings

_MAX_LEAVES = 500


class OnlineModel(Protocol):
    """What an expert needs of a model."""

    def predict(self, features: Features) -> Prediction | None:
        """Return a prediction, or None while nothing has been learned.

        Asked again when a label comes late; so it must leave nothing behind.
        """

    def learn(self, features: Features, outcome: Outcome) -> None:
        """Learn from one example."""


class _Outcomes:
    """What River is shown of an outcome: a bool (binary), a float, or the number of a class.

    River keeps classes in sets. Sets of text are walked through in an order that differs from process to
    process, so that sums over classes would differ in their last bit; sets of small numbers are not.
    """

    def __init__(self, settings: Settings) -> None:
        self._task = settings.task
        self._numbers = {name: number for number, name in enumerate(settings.label.classes)}

    def shown(self, outcome: Outcome) -> Any:
        """Return what River learns from."""
        if self._task == "binary":
            return bool(outcome)
        return self._numbers.setdefault(str(outcome), len(self._numbers)) if self._task == "multiclass" else outcome

    def read(self, chances: dict[Any, float]) -> Prediction | None:
        """Return what River's probabilities mean, None where it has none."""
        if self._task == "binary":
            return float(chances.get(True, 0.0)) if chances else None
        found = {name: chances[number] for name, number in self._numbers.items() if number in chances}
        return found or None


class RiverModel:
    """A River model; it is given the features that batch models get too, missing ones left out."""

    def __init__(self, model: Any, settings: Settings) -> None:
        self._model = model
        self._task = settings.task
        self._outcomes = _Outcomes(settings)
        self._use = list(settings.batch_kinds)
        self._learned = False

    def predict(self, features: Features) -> Prediction | None:
        """Return River's prediction, None before the first example."""
        if not self._learned:
            return None
        given = self._given(features)
        if self._task == "regression":
            return float(self._model.predict_one(given))
        return self._outcomes.read(self._model.predict_proba_one(given))

    def learn(self, features: Features, outcome: Outcome) -> None:
        """Let River learn from one example."""
        self._model.learn_one(self._given(features), self._outcomes.shown(outcome))
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
        self._outcomes = _Outcomes(settings)
        self._target = stats.Mean(), stats.Var()
        self._learned = 0

    def predict(self, features: Features) -> Prediction | None:
        if not self._learned:
            return None
        encoded = self._encoder.encode(features)
        if self._task == "regression":
            mean, spread = self._target_scale()
            return float(mean + spread * self._model.predict_one(encoded))
        return self._outcomes.read(self._model.predict_proba_one(encoded))

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
            self._model.learn_one(encoded, self._outcomes.shown(outcome))

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


class _Trees(RiverModel):
    """River's trees, none of which splits any more while it has many leaves; drift cuts them back.

    River's own bound counts bytes, which differ between a model and the same one restored, and are looked at once in
    a million examples only.

    Parameters
    ----------
    max_leaves : int
        Leaves from which a tree does not split.
    """

    LOOK_EVERY = 500

    def __init__(self, model: Any, settings: Settings, max_leaves: int) -> None:
        super().__init__(model, settings)
        self._max_leaves = max_leaves
        self._grace_period = model.grace_period
        self._unlooked = 0

    def learn(self, features: Features, outcome: Outcome) -> None:
        super().learn(features, outcome)
        self._unlooked += 1
        if self._unlooked >= self.LOOK_EVERY:
            self._unlooked = 0
            for tree in self._trees():
                tree.grace_period = self._grace_period if _leaves(tree) < self._max_leaves else math.inf

    def _trees(self) -> list[Any]:
        """Return the tree, or those of a forest and those that grow in the background."""
        if not hasattr(self._model, "n_models"):
            return [self._model]
        return [tree for tree in [*self._model, *(self._model._background or [])] if tree is not None]


def _leaves(tree: Any) -> int:
    """Count a tree's leaves, with those of the subtrees that may take the place of others."""
    roots = [tree._root, getattr(tree._root, "_alternate_tree", None)]
    return sum(1 for root in roots if root is not None for _ in root.iter_leaves())


def _tree(settings: Settings, params: dict[str, Any]) -> OnlineModel:
    from river import tree

    max_leaves = int(params.pop("max_leaves", _MAX_LEAVES))
    defaults = {"seed": 1, "memory_estimate_period": sys.maxsize}
    if settings.task == "regression":
        model = tree.HoeffdingAdaptiveTreeRegressor(**{**defaults, "leaf_prediction": "mean", **params})
    else:
        model = tree.HoeffdingAdaptiveTreeClassifier(**{**defaults, "leaf_prediction": "nba", **params})
    return _Trees(model, settings, max_leaves)


def _forest(settings: Settings, params: dict[str, Any]) -> OnlineModel:
    from river import forest

    max_leaves = int(params.pop("max_leaves", _MAX_LEAVES))
    defaults = {"seed": 1, "n_models": 5, "memory_estimate_period": sys.maxsize}
    if settings.task == "regression":
        model = forest.ARFRegressor(**{**defaults, "leaf_prediction": "mean", **params})
    else:
        model = forest.ARFClassifier(**{**defaults, **params})
    return _Trees(model, settings, max_leaves)


def _refuse(params: dict[str, Any]) -> None:
    if params:
        raise TypeError(f"unknown parameter {sorted(params)[0]!r}")


BUILT_IN: dict[str, Callable[[Settings, dict[str, Any]], OnlineModel]] = {
    "linear": _Linear,
    "tree": _tree,
    "forest": _forest,
    "prior": _Prior,
    "no_change": _NoChange,
}
"""Each factory that a project file may name, by its name."""
