"""Weights of experts on the simplex: many mixtures side by side, and one prediction of them all. Pure.

Many members run side by side: each expert alone, and one mixture of the experts for each learning rate, share and
sharpness of the settings. Within a mixture, weights move by exponentiated gradient (Kivinen & Warmuth 1997) with a
fixed share handed round (Herbster & Warmuth 1998), so its regret to the best changing weights is bounded. Beliefs over
the members, from fast to slow, move by the members' own loss in the same way (Vovk 1998), and a trust over the beliefs
by theirs. What is served is their average: never much worse than the best expert, because that expert is a member.

Labels come late. A prediction is judged with the weights of the time when it was made (Weinberger & Ordentlich 2002):
with those of today, fast members would look good that have already seen the labels of its neighbours. Where
experts are asked again when a label comes, weights, trust and half of the beliefs move by what losses are by now
(`core.nowcast`), the other half of the beliefs by those of then. Trust moves the slower the later labels come (Joulani,
Gyorgy & Szepesvari 2013).

The best member may have changed since the last label that is known. So where the loss is logarithmic, beliefs serve
as if their share had been handed round for each outstanding label too, and more of the trust is handed round. A part
given to a bad member costs a logarithmic loss that part, and an absolute one the part times how wrong it is: values
are left alone.

* binary: a mixture averages logits, sharpness multiplies them; the members' probabilities are averaged;
* multiclass: logarithms of floored probabilities likewise, over the union of the classes that any expert names;
* regression: values; gradients are divided by a running mean absolute error and clipped.

Experts may come and go: those absent from a prediction sleep (Freund et al. 1997), their weight does not move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

import numpy as np

from core.blend_history import Array, History, Position
from core.blend_spaces import chances_of, logits_of, logs_of, softmax, values_of, within
from core.judging import Judged, Nowcasts, RunningScale, judge_chances, judge_classes, judge_values
from core.loop_settings import BlendSettings
from core.predictions import Outcome, Prediction
from core.setting_types import Task

_MAX_STEP = 1.0
_BELIEF_RATES: Array = np.array(2 * [[0.5], [0.5], [0.05], [0.005], [0.0005]])
_BELIEF_SHARES: Array = np.array(2 * [[1e-3], [1e-4], [1e-4], [1e-4], [1e-5]])
_BELIEF_SHARES_OF_VALUES: Array = np.array(2 * [[1e-3], [1e-5], [1e-4], [1e-5], [1e-6]])
"""Of the beliefs by losses of then, and of those by losses by now."""
_TRUST_RATE = 0.5
_TRUST_SHARE = 1e-5
_TRUST_SHARE_BY_LABEL = 1e-6
_MOST_OUTSTANDING = 1_000.0
_SHARPNESS: dict[Task, list[float]] = {"binary": [0.5, 1.0, 2.0], "multiclass": [0.7, 1.0, 1.3], "regression": [1.0]}
_TINY = 1e-300


@dataclass(frozen=True)
class _Part:
    """Experts that predicted, by column, and the members that are awake with them: the mixtures, and each alone."""

    columns: list[int]
    members: list[int]


_Awake = _Part | None
"""None: all are awake."""


class Mixtures:
    """Mixtures of the experts, moved by every label; the parameters are those of `core.blend.Blend`."""

    def __init__(self, task: Task, settings: BlendSettings) -> None:
        sharpness = _SHARPNESS[task] if settings.sharpness is None or task == "regression" else settings.sharpness
        mixtures = np.array(list(product(settings.rates, settings.shares, sharpness)))
        self._task = task
        self._rates, self._shares, self._sharpness = (mixtures[:, [column]] for column in range(3))
        self._mixtures = len(mixtures)
        self._members_sharpness = self._sharpness
        beliefs = np.full((len(_BELIEF_RATES), len(mixtures)), 1.0 / len(mixtures))
        trust = np.full(len(beliefs), 1.0 / len(beliefs))
        self._now = Position(np.empty((len(mixtures), 0)), beliefs, trust)
        self._names: dict[str, int] = {}
        self._scale = RunningScale()
        self._lag = 0.0
        self._nowcasts = Nowcasts()
        self._made_at = 0
        self._history = History[Position]()

    def mix(self, predictions: Mapping[str, Prediction], made_at: int | None = None) -> Prediction:
        """Return the one prediction of these experts' (at least one; all finite), see `Blend.mix`."""
        found, awake = self._in_order(predictions)
        if made_at is not None:
            self._made_at = made_at
        at = self._serving(self._now, awake)
        average = at.trust @ at.beliefs
        if self._task == "multiclass":
            classes, logs = logs_of(found)
            served = average @ softmax(self._sharp(awake) * (at.weights @ logs))
            return dict(zip(classes, (served / served.sum()).tolist(), strict=True))
        if self._task == "binary":
            return float(average @ chances_of(self._sharp(awake)[:, 0] * (at.weights @ logits_of(found))))
        return float(average @ (at.weights @ values_of(found)))

    def update(
        self,
        predictions: Mapping[str, Prediction],
        outcome: Outcome,
        made_at: int | None = None,
        *,
        hindsight: float | None = None,
        anew: Mapping[str, Prediction] | None = None,
    ) -> None:
        """Move weights, beliefs and trust by how well each of these experts had predicted, see `Blend.update`."""
        found, awake = self._in_order(predictions)
        then = self._then(made_at, found)
        at = self._serving(then, awake)
        if self._task == "regression":
            self._scale.observe(abs(float(at.trust @ (at.beliefs @ (at.weights @ values_of(found)))) - float(outcome)))
        judged = by_now = self._judge(at, awake, found, outcome)
        if anew is not None:
            by_now = self._by_now(awake, judged, self._judge(at, awake, self._in_order(anew)[0], outcome))
        counts = 1.0 if hindsight is None else hindsight
        of_members = counts * np.repeat([judged.losses, by_now.losses], len(_BELIEF_RATES) // 2, axis=0)
        of_beliefs = by_now.of_beliefs if hindsight is None else np.zeros(len(_BELIEF_RATES))
        updates = self._now.updates + 1
        self._lag += (self._now.updates - then.updates - self._lag) / min(updates, 1000)
        weights, beliefs = self._weighed(awake, counts * by_now.gradients), self._believed(awake, of_members)
        self._now = Position(weights, beliefs, self._trusted(of_beliefs), updates)
        if made_at is not None:
            self._history.add(self._made_at, self._now)

    def renew(self, name: str) -> None:
        """Give an expert at least the part that one gets that was never seen: another has come under its name."""
        column, now = self._names.get(name), self._now
        if column is None:
            return
        weights, alone = now.weights.copy(), self._mixtures + column
        weights[: self._mixtures] = _with_at_least(weights[: self._mixtures], column, 1.0 / len(self._names))
        self._now = replace(now, weights=weights, beliefs=_with_at_least(now.beliefs, alone, 1.0 / len(weights)))

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each expert seen so far, averaged over the members; they sum to 1."""
        at = self._serving(self._now, None)
        average = at.trust @ at.beliefs @ at.weights
        return {name: float(average[column]) for name, column in self._names.items()}

    def _weighed(self, awake: _Awake, gradients: Array) -> Array:
        """Return the weights after a step of exponentiated gradient of the mixtures."""
        weights = self._now.weights.copy()
        mixtures = weights[: self._mixtures]
        part = mixtures if awake is None else mixtures[:, awake.columns]
        if part.shape[1] > 1:
            total = part.sum(axis=1, keepdims=True)
            part = np.maximum(part, _TINY)
            raised = part * np.exp(within(-self._rates * gradients, _MAX_STEP))
            raised /= raised.sum(axis=1, keepdims=True)
            raised = (1.0 - self._shares) * raised + self._shares / part.shape[1]
            mixtures[:, slice(None) if awake is None else awake.columns] = total * np.where(
                self._rates > 0.0, raised, part / part.sum(axis=1, keepdims=True)
            )
        return weights

    def _believed(self, awake: _Awake, losses: Array) -> Array:
        """Return the beliefs after the members' losses, belief by member."""
        beliefs = self._now.beliefs
        part = beliefs if awake is None else beliefs[:, awake.members]
        total = part.sum(axis=1, keepdims=True)
        raised = np.maximum(part, _TINY) * np.exp(-_BELIEF_RATES * (losses - losses.min(axis=1, keepdims=True)))
        raised *= (1.0 - self._belief_shares) / raised.sum(axis=1, keepdims=True)
        raised = cast(Array, total * (raised + self._belief_shares / part.shape[1]))
        if awake is None:
            return raised
        beliefs = beliefs.copy()
        beliefs[:, awake.members] = raised
        return beliefs

    def _trusted(self, losses: Array) -> Array:
        """Return the trust after the beliefs' losses."""
        trust = self._now.trust * np.exp(-_TRUST_RATE / math.sqrt(1.0 + self._lag) * (losses - losses.min()))
        share = _TRUST_SHARE + _TRUST_SHARE_BY_LABEL * self._outstanding
        return cast(Array, (1.0 - share) * trust / trust.sum() + share / len(trust))

    def _judge(self, at: Position, awake: _Awake, predictions: Mapping[str, Prediction], outcome: Outcome) -> Judged:
        if self._task == "multiclass":
            return judge_classes(at, self._mixtures, self._sharp(awake), predictions, str(outcome))
        if self._task == "binary":
            return judge_chances(at, self._mixtures, self._sharp(awake), predictions, bool(outcome))
        return judge_values(at, self._mixtures, self._scale.value, predictions, float(outcome))

    def _by_now(self, awake: _Awake, then: Judged, late: Judged) -> Judged:
        """Return how all stands by now, from what was predicted then, and late."""
        members, experts = (None, None) if awake is None else (awake.members, awake.columns)
        whole: tuple[int, int] = self._now.weights.shape
        return self._nowcasts.of(then, late, members, experts, whole, self._lag)

    def _in_order(self, predictions: Mapping[str, Prediction]) -> tuple[Mapping[str, Prediction], _Awake]:
        """Return the predictions in the order in which their experts came, and who is awake; None if all are."""
        for name in predictions:
            if name not in self._names:
                self._admit(name)
        found = {name: predictions[name] for name in self._names if name in predictions}
        if len(found) == len(self._names):
            return found, None
        columns = [self._names[name] for name in found]
        return found, _Part(columns, [*range(self._mixtures), *(self._mixtures + column for column in columns)])

    def _sharp(self, awake: _Awake) -> Array:
        return self._members_sharpness if awake is None else self._members_sharpness[awake.members]

    @property
    def _belief_shares(self) -> Array:
        return _BELIEF_SHARES_OF_VALUES if self._task == "regression" else _BELIEF_SHARES

    @property
    def _outstanding(self) -> float:
        """Labels that are missing when a prediction is mixed, as far as that many make it less sure."""
        return 0.0 if self._task == "regression" else min(self._lag, _MOST_OUTSTANDING)

    def _serving(self, position: Position, awake: _Awake) -> Position:
        """Return a position among those that are awake, normalised, with the beliefs that serve."""
        at = self._among(position, awake)
        if not self._outstanding:
            return at
        kept = (1.0 - self._belief_shares) ** self._outstanding
        return replace(at, beliefs=kept * at.beliefs + (1.0 - kept) / at.beliefs.shape[1])

    def _among(self, position: Position, awake: _Awake) -> Position:
        """Return a position among those that are awake, normalised."""
        if awake is None:
            return position
        weights = np.maximum(position.weights[np.ix_(awake.members, awake.columns)], _TINY)
        beliefs = np.maximum(position.beliefs[:, awake.members], _TINY)
        weights /= weights.sum(axis=1, keepdims=True)
        return Position(weights, beliefs / beliefs.sum(axis=1, keepdims=True), position.trust, position.updates)

    def _admit(self, name: str) -> None:
        """Give an expert that was never seen its part of every mixture, and let it be a member of its own."""
        now, known = self._now, len(self._names)
        part, believed = 1.0 / (known + 1), 1.0 / (len(now.weights) + 1)
        self._names[name] = known
        weights = np.zeros((len(now.weights) + 1, known + 1))
        weights[:-1, :-1] = now.weights
        weights[: self._mixtures, :-1] *= 1.0 - part
        weights[: self._mixtures, -1] = part
        weights[-1, -1] = 1.0
        beliefs = np.hstack([now.beliefs * (1.0 - believed), np.full((len(now.beliefs), 1), believed)])
        self._now = replace(now, weights=weights, beliefs=beliefs)
        self._members_sharpness = np.vstack([self._members_sharpness, [[1.0]]])

    def _then(self, made_at: int | None, predictions: Mapping[str, Prediction]) -> Position:
        """Return where the blend stood at a step; where it stands now if it did not know the experts then."""
        then = None if made_at is None else self._history.at(made_at)
        if then is None or any(self._names[name] >= then.weights.shape[1] for name in predictions):
            return self._now
        return then


def _with_at_least(rows: Array, column: int, part: float) -> Array:
    """Return rows that sum to 1 with at least so much in a column, the others' proportions kept."""
    others = 1.0 - rows[:, [column]]
    raised: Array = rows * (1.0 - part) / np.maximum(others, _TINY)
    raised[:, column] = part
    return np.where(rows[:, [column]] < part, raised, rows)
