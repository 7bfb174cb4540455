"""Steps 4 and 6: which predictions the blend gets, and from a label to its weights. Pure.

The worker, whoever learns its past again, and the backtest all go through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.blend import Blend
from core.metrics import loss
from core.models import CHAMPION
from core.predictions import Outcome, Prediction
from streaming.plausible import Plausible

SERVED = "served"
_GONE_AFTER = 1_000
_OF_A_SUCCESSOR = 0.5
"""What counts of a label by which a champion's successor is judged in hindsight: it is younger there than it will be
when it serves, and where there was a champion the blend knows what one is worth. Of the first it knows nothing else.
"""


@dataclass
class Scores:
    """Prequential loss on the rows that every current expert predicted."""

    rows: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    passed_over: int = 0

    def add(self, predictions: dict[str, Prediction], outcome: Outcome) -> None:
        """Score one example; a changed set of experts starts over.

        Labels come in another order than events: after a swap, rows without the new champion still come in for
        a while. They are passed over, unless so many follow each other that an expert must have gone.
        """
        if self.losses.keys() != predictions.keys():
            self.passed_over += 1
            if not predictions.keys() > self.losses.keys() and self.passed_over < _GONE_AFTER:
                return
            self.rows, self.losses = 0, dict.fromkeys(predictions, 0.0)
        self.passed_over = 0
        self.rows += 1
        for name, prediction in predictions.items():
            self.losses[name] += loss(prediction, outcome)

    def means(self) -> dict[str, float]:
        """Return the mean loss of each expert and of what was served."""
        return {name: total / self.rows for name, total in self.losses.items()} if self.rows else {}


def usable(plausible: Plausible, champion: object | None, online: Mapping[str, Prediction]) -> dict[str, Prediction]:
    """Return every expert's prediction that may be used, the champion's first.

    Parameters
    ----------
    champion : object or None
        What the champion predicted, if there is one; left out where it is not plausible.
    online : mapping of str to prediction
        What the online experts predicted, plausible as they come.
    """
    predictions: dict[str, Prediction] = {}
    if champion is not None and (checked := plausible.check(champion)) is not None:
        predictions[CHAMPION] = checked
    predictions.update(online)
    return predictions


def learn(
    blend: Blend,
    scores: Scores,
    plausible: Plausible,
    predictions: Mapping[str, Prediction],
    served: Prediction | None,
    outcome: Outcome,
    step: int,
    successor: Prediction | None = None,
    members: Mapping[str, Prediction] | None = None,
    anew: Mapping[str, Prediction] | None = None,
) -> None:
    """Score what was predicted at `step`, then move the weights.

    Parameters
    ----------
    successor : prediction, optional
        What the champion predicts that has come since: the blend learns at once what it is worth, and need not wait for
        labels of what it is served for.
    members : mapping of str to prediction, optional
        What moves the weights where that is not what was served: the blend is of a champion that was a shadow then.
    anew : mapping of str to prediction, optional
        What the online experts say of the event by now, see `core.blend.Blend.update`.
    """
    plausible.observe(outcome)
    if served is None:
        return
    scores.add({SERVED: served, **predictions}, outcome)
    if successor is None:
        if moving := predictions if members is None else members:
            blend.update(moving, outcome, step, anew=anew)
    else:
        share = _OF_A_SUCCESSOR if CHAMPION in predictions else 1.0
        blend.update({**predictions, CHAMPION: successor}, outcome, step, hindsight=share, anew=anew)
