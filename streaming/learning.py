"""Step 5 for one event: score what was predicted, then move the weights of every blend, then let the experts learn.

The worker and whoever learns its past again go through here.
"""

from __future__ import annotations

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


def learn_event(learners: Learners, event: Predicted, outcome: Outcome, successor: Prediction | None = None) -> None:
    """Learn the outcome of an event.

    Parameters
    ----------
    successor : prediction, optional
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
    )
    if learners.shadows.by_role:
        learners.shadows.learn(event, outcome)
    if event.keys is not None:
        learners.keyed.observe_label(event.keys, event.time, outcome)
    for expert in learners.experts:
        expert.learn(event.features, outcome)
