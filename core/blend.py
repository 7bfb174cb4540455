"""Step 3: the blend. Several experts become one served prediction.

Each expert is there with its own prediction and, where that is of chances, with a second opinion: what came when it
had said the same, as surely (`core.recalibration`). Of all of these, mixtures with weights on the simplex make one
(`core.mixtures`). An expert that looks at labels alone needs no second opinion: its own is how often they came.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from core.loop_settings import BlendSettings
from core.mixtures import Mixtures
from core.predictions import Outcome, Prediction
from core.recalibration import Recalibration
from core.setting_types import Task
from core.settings import Settings

_SECOND = " again"
"""Behind an expert's name, for its second opinion; no name in a project has a space."""


class Blend:
    """Weights of the experts, moved by every label.

    Parameters
    ----------
    task : {'binary', 'multiclass', 'regression'}
        Decides the space in which predictions are mixed.
    settings : BlendSettings
        The rates, shares and sharpnesses that run side by side; a rate of 0 is equal weights.
    blind : collection of str
        Experts that look at labels alone.

    Examples
    --------
    >>> blend = Blend("binary", BlendSettings())
    >>> for _ in range(200):
    ...     blend.update({"good": 0.9, "bad": 0.2}, 1)
    >>> blend.mix({"good": 0.9, "bad": 0.2}) > 0.8
    True
    """

    def __init__(self, task: Task, settings: BlendSettings, blind: Collection[str] = ()) -> None:
        self._mixtures = Mixtures(task, settings)
        self._second = None if task == "regression" else Recalibration()
        self._blind = frozenset(blind)
        self._mixed_at = 0

    @classmethod
    def of(cls, settings: Settings) -> Blend:
        """Return the blend of a project, which has seen nothing."""
        return cls(settings.task, settings.blend, settings.blind_experts)

    def mix(self, predictions: Mapping[str, Prediction], made_at: int | None = None) -> Prediction:
        """Return the served prediction of these experts' predictions (at least one; all finite).

        Parameters
        ----------
        made_at : int, optional
            The step at which it is made; never falls.
        """
        if made_at is not None:
            self._mixed_at = made_at
        return self._mixtures.mix(self._with_second(predictions), made_at)

    def update(
        self,
        predictions: Mapping[str, Prediction],
        outcome: Outcome,
        made_at: int | None = None,
        *,
        hindsight: float | None = None,
        anew: Mapping[str, Prediction] | None = None,
    ) -> None:
        """Move weights, beliefs and trust by how well each of these experts had predicted `outcome`.

        Parameters
        ----------
        made_at : int, optional
            The step at which the predictions were mixed; just now if left out.
        hindsight : float, optional
            Given if an expert predicted only after that: these predictions were never mixed. They count by that share,
            and say nothing of which belief would have served best.
        anew : mapping of str to prediction, optional
            What experts say of the event by now, before they learn its label; what is not named here stands.
            See `asks_again`.
        """
        then, now = self._with_second(predictions, made_at), None
        if anew:
            now = self._with_second({name: anew.get(name, said) for name, said in predictions.items()})
        self._mixtures.update(then, outcome, made_at, hindsight=hindsight, anew=now)
        if self._second is not None:
            self._second.learn(self._seeing(predictions), outcome, None if made_at is None else self._mixed_at)

    def renew(self, name: str) -> None:
        """Give an expert at least the part that one gets that was never seen: another has come under its name."""
        if self._second is not None:
            self._second.renew(name, self._mixed_at)
        for each in (name, name + _SECOND):
            self._mixtures.renew(each)

    @property
    def asks_again(self) -> bool:
        """Whether what experts say when a label comes is worth asking for: of chances, not of values."""
        return self._second is not None

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each expert seen so far with its second opinion, averaged over the members; they sum to 1."""
        found: dict[str, float] = {}
        for name, weight in self._mixtures.weights.items():
            expert = name.removesuffix(_SECOND)
            found[expert] = found.get(expert, 0.0) + weight
        return found

    def _with_second(
        self, predictions: Mapping[str, Prediction], made_at: int | None = None
    ) -> Mapping[str, Prediction]:
        """Return the experts' predictions, and their second opinions as at a step; now if it is left out."""
        if self._second is None:
            return predictions
        opinions = self._second.opinions(self._seeing(predictions), made_at)
        return {**predictions, **{name + _SECOND: opinion for name, opinion in opinions.items()}}

    def _seeing(self, predictions: Mapping[str, Prediction]) -> Mapping[str, Prediction]:
        return {name: said for name, said in predictions.items() if name not in self._blind}
