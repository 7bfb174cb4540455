"""The champion as everybody sees it: features in, predictions out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.predictions import Features, Prediction

CHAMPION = "champion"
"""The alias of the version that serves, and the name of the expert that it is."""

CHALLENGER, PREVIOUS = SHADOWS = ("challenger", "previous")
"""The aliases of versions that may predict in shadow: every event, and none of it is served."""


class BatchModel(Protocol):
    """A fitted batch model.

    `predict` takes any number of rows; a row's prediction must not depend on the rows beside it.
    """

    @property
    def version(self) -> int:
        """Number of the model's version in the registry; 0 for one that is not registered."""

    def predict(self, rows: Sequence[Features]) -> list[Prediction]:
        """Predict each row of features."""
