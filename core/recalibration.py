"""What came when an expert had said the same, as surely: a second opinion beside each expert's own. Pure.

An expert may be right and timid, or sure and wrong, or take one class for another again and again. How often each
outcome followed what it says most likely, as surely as that, is counted with slow forgetting, and that is its second
opinion: histogram binning (Zadrozny & Elkan 2001), and for several classes a row of a confusion matrix.

A label comes late. What an opinion was is found again with the counts of the time when it was asked for
(`core.blend_history`): with those of today, it would look good that has already seen the labels of its neighbours.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import cast

from core.blend_history import History
from core.predictions import Outcome, Prediction

_SURE_FROM = (0.62, 0.73, 0.88, 0.98)
"""Bounds between chances of what is most likely: logits of about 0.5, 1, 2 and 4."""
_REMEMBERED = 2_000
"""Outcomes of one kind of prediction after which the oldest count a third."""
_PRIOR = 10.0
"""So many outcomes the expert's own prediction counts."""
_FORGOTTEN = 1e-3

_Tally = Mapping[str, float]
_Tallies = Mapping[str, Mapping[str, tuple[_Tally, ...]]]
"""By expert, by what it said most likely, by how surely: how often each outcome came. Never changed in place."""
_NONE: tuple[_Tally, ...] = ({},) * (len(_SURE_FROM) + 1)


class Recalibration:
    """How often each outcome followed what each expert had said.

    Examples
    --------
    >>> timid = {"linear": 0.6}
    >>> second = Recalibration()
    >>> second.opinions(timid)
    {'linear': 0.6}
    >>> for _ in range(100):
    ...     second.learn(timid, 1)
    >>> second.opinions(timid)["linear"] > 0.9
    True
    """

    def __init__(self) -> None:
        self._now: _Tallies = {}
        self._history = History[_Tallies]()
        self._renewed: dict[str, int] = {}

    def opinions(self, predictions: Mapping[str, Prediction], made_at: int | None = None) -> dict[str, Prediction]:
        """Return the second opinion on each prediction of chances, over the classes that any expert names.

        Parameters
        ----------
        made_at : int, optional
            The step at which they were asked for; now if left out.
        """
        then = None if made_at is None else self._history.at(made_at)
        classes = sorted({name for said in predictions.values() if isinstance(said, dict) for name in said})
        found: dict[str, Prediction] = {}
        for expert, prediction in predictions.items():
            at = self._now if then is None or cast(int, made_at) <= self._renewed.get(expert, -1) else then
            likely, sure = _kind(prediction)
            tally = at.get(expert, {}).get(likely, _NONE)[sure]
            if isinstance(prediction, dict):
                raised = {name: tally.get(name, 0.0) + _PRIOR * prediction.get(name, 0.0) for name in classes}
                total = sum(raised.values())
                found[expert] = {name: count / total for name, count in raised.items()} if total else prediction
            else:
                positive = tally.get("1", 0.0) + _PRIOR * prediction
                found[expert] = positive / (tally.get("0", 0.0) + _PRIOR * (1.0 - prediction) + positive)
        return found

    def learn(self, predictions: Mapping[str, Prediction], outcome: Outcome, mixed_at: int | None = None) -> None:
        """Count an outcome for what each of these experts had said.

        Parameters
        ----------
        mixed_at : int, optional
            The latest step that was mixed; remembered for labels that come late if given.
        """
        now, came = dict(self._now), str(outcome)
        for expert, prediction in predictions.items():
            likely, sure = _kind(prediction)
            said = now.get(expert, {})
            tallies = said.get(likely, _NONE)
            counted = (*tallies[:sure], _counted(tallies[sure], came), *tallies[sure + 1 :])
            now[expert] = {**said, likely: counted}
        self._now = now
        if mixed_at is not None:
            self._history.add(mixed_at, now)

    def renew(self, expert: str, mixed_at: int) -> None:
        """Forget an expert, if it is known: from now on another predicts under its name."""
        if expert not in self._now:
            return
        self._now = {name: said for name, said in self._now.items() if name != expert}
        self._renewed[expert] = mixed_at
        self._history.add(mixed_at, self._now)


def _kind(prediction: Prediction) -> tuple[str, int]:
    """Return what is most likely (of equals the last by name), and the class of how surely."""
    if isinstance(prediction, dict):
        chance, likely = max(zip(prediction.values(), prediction, strict=True))
    else:
        chance, likely = max((1.0 - prediction, "0"), (prediction, "1"))
    return likely, bisect_right(_SURE_FROM, chance)


def _counted(tally: _Tally, came: str) -> _Tally:
    kept = 1.0 - 1.0 / _REMEMBERED
    counts = {name: kept * count for name, count in tally.items() if count > _FORGOTTEN}
    counts[came] = counts.get(came, 0.0) + 1.0
    return counts
