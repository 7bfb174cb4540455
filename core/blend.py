"""The blend: several experts become one served prediction, on the simplex, with a regret bound."""

from __future__ import annotations

from collections.abc import Mapping

from core.predictions import Outcome, Prediction
from core.settings import BlendSettings, Task


class Blend:
    """Signature only for now; being written.

    Parameters
    ----------
    task : {'binary', 'multiclass', 'regression'}
    settings : BlendSettings
    """

    def __init__(self, task: Task, settings: BlendSettings) -> None:
        raise NotImplementedError

    def mix(self, predictions: Mapping[str, Prediction]) -> Prediction:
        """Return the served prediction of these experts' predictions (at least one; all finite)."""
        raise NotImplementedError

    def update(self, predictions: Mapping[str, Prediction], outcome: Outcome) -> None:
        """Move the weights by how well each of these experts had predicted `outcome`."""
        raise NotImplementedError
