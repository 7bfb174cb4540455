"""Step 5 for one event: score what was predicted, then move the weights of every blend, then let the experts learn.

Where a label is so late that much was learned since, the experts are asked again before they learn it.

The worker and whoever learns its past again go through here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from core.blend import Blend
from core.predictions import Features, Outcome, Prediction
from streaming.experts import Expert
from streaming.join import Predicted
from streaming.keyed import KeyedFeatures
from streaming.plausible import Plausible
from streaming.serving import Scores, learn
from streaming.shadow import Shadows, members_of


class Learners(Protocol):
    """What of a state learns; :class:`streaming.state.State` has it."""

    experts: list[Expert]
    blend: Blend
    plausible: Plausible
    scores: Scores
    shadows: Shadows
    keyed: KeyedFeatures
    learned_at: list[int]


_ASKED_AGAIN_AFTER = 500
"""Labels learned since an event was predicted: after fewer, experts say much the same again."""


def is_asked_again(blend: Blend, predicted_at: int, learned_at: Sequence[int]) -> bool:
    """Tell whether online experts are asked again of an event.

    Parameters
    ----------
    predicted_at : int
        The step at which it was predicted.
    learned_at : sequence of int
        Steps at which the latest labels were learned, in order; see `remember`.
    """
    enough = len(learned_at) >= _ASKED_AGAIN_AFTER and predicted_at < learned_at[-_ASKED_AGAIN_AFTER]
    return enough and blend.asks_again


def remember(learned_at: list[int], step: int) -> None:
    """Add the step at which a label was learned, and forget those that are too long ago to tell anything."""
    learned_at.append(step)
    del learned_at[:-_ASKED_AGAIN_AFTER]


def ask_again(experts: Iterable[Expert], predicted: Collection[str], features: Features) -> dict[str, Prediction]:
    """Return what those of the online experts that had predicted an event say of it by now."""
    said = {expert.name: expert.predict_anew(features) for expert in experts if expert.name in predicted}
    return {name: prediction for name, prediction in said.items() if prediction is not None}


def predicted_anew(learners: Learners, event: Predicted) -> dict[str, Prediction] | None:
    """Return what the online experts that predicted an event say of it by now; None if they are not asked again."""
    if not is_asked_again(learners.blend, event.step, learners.learned_at):
        return None
    return ask_again(learners.experts, event.predictions, event.features)


def learn_event(
    learners: Learners,
    event: Predicted,
    outcome: Outcome,
    step: int,
    successor: Prediction | None = None,
    anew: Mapping[str, Prediction] | None = None,
) -> None:
    """Learn the outcome of an event.

    Parameters
    ----------
    step : int
        The partition's step at which the label came.
    successor, anew : optional
        See :func:`streaming.serving.learn`.
    """
    members = members_of(event, learners.shadows.serving) if event.shadows else None
    learn(
        learners.blend,
        learners.scores,
        learners.plausible,
        event.predictions,
        event.served,
        outcome,
        event.step,
        successor,
        members,
        anew,
    )
    if learners.shadows.by_role:
        learners.shadows.learn(event, outcome, anew)
    if event.keys is not None:
        learners.keyed.observe_label(event.keys, event.time, outcome)
    for expert in learners.experts:
        expert.learn(event.features, outcome)
    remember(learners.learned_at, step)
