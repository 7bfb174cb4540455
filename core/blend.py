"""Step 3: the blend. Several experts become one served prediction, with weights on the simplex.

Weights move by exponentiated gradient with a fixed share handed round (Herbster & Warmuth 1998, "Tracking
the best expert"), so the regret to the best changing sequence of mixtures is bounded. The learning
rate is not tuned: several run side by side, with equal weights as one more, and a Bayesian mixture over
them (Vovk's aggregating algorithm) is what is served.

* binary: experts are mixed in logit space, the mixtures of the rates in probability space;
* multiclass: a floored, renormalised geometric mean over the union of the classes seen by any expert;
* regression: a convex mean, gradients divided by a running mean absolute error and clipped.

Experts may come and go: those absent from a prediction sleep (Freund et al. 1997), their weight does not move.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol, cast

from core.predictions import Outcome, Prediction
from core.settings import BlendSettings, Task

_FLOOR = 1e-4
_MAX_GRADIENT = 4.0
_META_SHARE = 1e-3


class _Space(Protocol):
    """How one task mixes predictions and how wrong a mixture was."""

    def mix(self, weights: Mapping[str, float], predictions: Mapping[str, Prediction]) -> Prediction: ...

    def average(self, weighted: Iterable[tuple[float, Prediction]]) -> Prediction: ...

    def gradients(
        self, mixed: Prediction, predictions: Mapping[str, Prediction], outcome: Outcome
    ) -> dict[str, float]: ...

    def loss(self, mixed: Prediction, outcome: Outcome) -> float: ...

    def observe(self, mixed: Prediction, outcome: Outcome) -> None: ...


class Blend:
    """Weights of the experts, moved by every label.

    Parameters
    ----------
    task : {'binary', 'multiclass', 'regression'}
        Decides the space in which predictions are mixed.
    settings : BlendSettings
        Learning rates that run side by side, and the share handed round.

    Examples
    --------
    >>> blend = Blend("binary", BlendSettings())
    >>> for _ in range(200):
    ...     blend.update({"good": 0.9, "bad": 0.2}, 1)
    >>> blend.mix({"good": 0.9, "bad": 0.2}) > 0.8
    True
    """

    def __init__(self, task: Task, settings: BlendSettings) -> None:
        self._rates = [0.0, *settings.rates]
        self._share = settings.share
        self._space: _Space = _SPACES[task]()
        self._weights: list[dict[str, float]] = [{} for _ in self._rates]
        self._belief = [1.0 / len(self._rates)] * len(self._rates)

    def mix(self, predictions: Mapping[str, Prediction]) -> Prediction:
        """Return the served prediction of these experts' predictions (at least one; all finite)."""
        self._admit(predictions)
        mixtures = [self._space.mix(_awake(weights, predictions), predictions) for weights in self._weights]
        return self._space.average(zip(self._belief, mixtures, strict=True))

    def update(self, predictions: Mapping[str, Prediction], outcome: Outcome) -> None:
        """Move the weights by how well each of these experts had predicted `outcome`."""
        self._admit(predictions)
        losses, mixtures = [], []
        for rate, weights in zip(self._rates, self._weights, strict=True):
            awake = _awake(weights, predictions)
            mixed = self._space.mix(awake, predictions)
            mixtures.append(mixed)
            losses.append(self._space.loss(mixed, outcome))
            if rate and len(predictions) > 1:
                gradients = self._space.gradients(mixed, predictions, outcome)
                _move(weights, awake, gradients, rate, self._share)
        self._space.observe(self._space.average(zip(self._belief, mixtures, strict=True)), outcome)
        self._believe(losses)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each expert seen so far, averaged over the rates; they sum to 1."""
        return {
            name: sum(belief * weights[name] for belief, weights in zip(self._belief, self._weights, strict=True))
            for name in self._weights[0]
        }

    def _admit(self, predictions: Mapping[str, Prediction]) -> None:
        """Give an expert that was never seen an equal part of the weight."""
        for name in predictions:
            if name in self._weights[0]:
                continue
            part = 1.0 / (len(self._weights[0]) + 1)
            for weights in self._weights:
                for other in weights:
                    weights[other] *= 1.0 - part
                weights[name] = part

    def _believe(self, losses: list[float]) -> None:
        least = min(losses)
        raised = [belief * math.exp(least - loss) for belief, loss in zip(self._belief, losses, strict=True)]
        total = sum(raised)
        even = _META_SHARE / len(raised)
        self._belief = [(1.0 - _META_SHARE) * value / total + even for value in raised]


def _awake(weights: Mapping[str, float], predictions: Mapping[str, Prediction]) -> dict[str, float]:
    total = sum(weights[name] for name in predictions)
    return {name: weights[name] / total for name in predictions}


def _move(
    weights: dict[str, float],
    awake: Mapping[str, float],
    gradients: Mapping[str, float],
    rate: float,
    share: float,
) -> None:
    """Exponentiated gradient with fixed share among the awake experts, whose total weight stays."""
    total = sum(weights[name] for name in awake)
    raised = {name: weight * math.exp(-rate * gradients[name]) for name, weight in awake.items()}
    norm = sum(raised.values())
    even = share / len(raised)
    for name, value in raised.items():
        weights[name] = total * ((1.0 - share) * value / norm + even)


class _Binary:
    def mix(self, weights: Mapping[str, float], predictions: Mapping[str, Prediction]) -> Prediction:
        return _sigmoid(sum(weights[name] * _logit(_number(value)) for name, value in predictions.items()))

    def average(self, weighted: Iterable[tuple[float, Prediction]]) -> Prediction:
        return math.fsum(weight * _number(value) for weight, value in weighted)

    def gradients(self, mixed: Prediction, predictions: Mapping[str, Prediction], outcome: Outcome) -> dict[str, float]:
        error = _number(mixed) - float(outcome)
        return {name: error * _logit(_number(value)) for name, value in predictions.items()}

    def loss(self, mixed: Prediction, outcome: Outcome) -> float:
        chance = _number(mixed)
        return -math.log(max(chance if outcome else 1.0 - chance, 1e-12))

    def observe(self, mixed: Prediction, outcome: Outcome) -> None:
        """Nothing to track: log loss has a scale of its own."""


class _Multiclass:
    def mix(self, weights: Mapping[str, float], predictions: Mapping[str, Prediction]) -> Prediction:
        classes = _union(predictions.values())
        scores = {
            name: sum(weights[expert] * _log(value, name) for expert, value in predictions.items()) for name in classes
        }
        peak = max(scores.values())
        raised = {name: math.exp(value - peak) for name, value in scores.items()}
        total = sum(raised.values())
        return {name: value / total for name, value in raised.items()}

    def average(self, weighted: Iterable[tuple[float, Prediction]]) -> Prediction:
        total: dict[str, float] = {}
        for weight, value in weighted:
            assert isinstance(value, dict)
            for name, chance in value.items():
                total[name] = total.get(name, 0.0) + weight * chance
        return total

    def gradients(self, mixed: Prediction, predictions: Mapping[str, Prediction], outcome: Outcome) -> dict[str, float]:
        assert isinstance(mixed, dict)
        truth = str(outcome)
        found = {}
        for expert, value in predictions.items():
            expected = sum(chance * _log(value, name) for name, chance in mixed.items())
            found[expert] = _clip(expected - _log(value, truth))
        return found

    def loss(self, mixed: Prediction, outcome: Outcome) -> float:
        assert isinstance(mixed, dict)
        return -math.log(max(mixed.get(str(outcome), 0.0), _FLOOR))

    def observe(self, mixed: Prediction, outcome: Outcome) -> None:
        """Nothing to track: log loss has a scale of its own."""


class _Regression:
    def __init__(self) -> None:
        self._scale = 0.0
        self._seen = 0

    def mix(self, weights: Mapping[str, float], predictions: Mapping[str, Prediction]) -> Prediction:
        return math.fsum(weights[name] * _number(value) for name, value in predictions.items())

    def average(self, weighted: Iterable[tuple[float, Prediction]]) -> Prediction:
        return math.fsum(weight * _number(value) for weight, value in weighted)

    def gradients(self, mixed: Prediction, predictions: Mapping[str, Prediction], outcome: Outcome) -> dict[str, float]:
        centre = _number(mixed)
        error = centre - float(outcome)
        direction = math.copysign(1.0, error) if error else 0.0
        unit = self._scale or 1.0
        return {name: _clip(direction * (_number(value) - centre) / unit) for name, value in predictions.items()}

    def loss(self, mixed: Prediction, outcome: Outcome) -> float:
        return min(abs(_number(mixed) - float(outcome)) / (self._scale or 1.0), 2 * _MAX_GRADIENT)

    def observe(self, mixed: Prediction, outcome: Outcome) -> None:
        """Track the mean absolute error; an outlier counts at most as four times it."""
        error = abs(_number(mixed) - float(outcome))
        self._seen += 1
        if self._seen > 20:
            error = min(error, _MAX_GRADIENT * self._scale)
        self._scale += (error - self._scale) / min(self._seen, 1000)


_SPACES: dict[Task, type[_Binary] | type[_Multiclass] | type[_Regression]] = {
    "binary": _Binary,
    "multiclass": _Multiclass,
    "regression": _Regression,
}


def _number(value: Prediction) -> float:
    return cast(float, value)


def _logit(chance: float) -> float:
    chance = min(max(chance, _FLOOR), 1.0 - _FLOOR)
    return math.log(chance / (1.0 - chance))


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def _log(value: Prediction, name: str) -> float:
    assert isinstance(value, dict)
    return math.log(max(value.get(name, 0.0), _FLOOR))


def _clip(value: float) -> float:
    return min(max(value, -_MAX_GRADIENT), _MAX_GRADIENT)


def _union(predictions: Iterable[Prediction]) -> list[str]:
    return sorted({name for value in predictions if isinstance(value, dict) for name in value})
