"""Step 5 for one event: score what was predicted, then move the weights of every blend, then let the experts learn.

Where labels were learned since the event was predicted, the experts are asked again before they learn its own.

The worker and whoever learns its past again go through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from core.blend import Blend
from core.predictions import Outcome, Prediction
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
    learned_at: int


def predicted_anew(learners: Learners, event: Predicted) -> dict[str, Prediction] | None:
    """Return what the online experts that predicted an event say of it by now.

    None if they learned nothing since, or the blend does not ask.
    """
    if learners.learned_at <= event.step or not learners.blend.asks_again:
        return None
    asked = [expert for expert in learners.experts if expert.name in event.predictions]
    said = {expert.name: expert.predict_anew(event.features) for expert in asked}
    return {name: prediction for name, prediction in said.items() if prediction is not None}


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
    learners.learned_at = step
