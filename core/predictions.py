"""What a prediction and an outcome are, for each task.

=============  =====================================  ======================
task           prediction                             outcome (a label's)
=============  =====================================  ======================
binary         ``float``, probability of positive     ``int``, 0 or 1
multiclass     ``dict`` of class to probability       ``str``
regression     ``float``, the value                   ``float``
=============  =====================================  ======================
"""

from __future__ import annotations

import math

Prediction = float | dict[str, float]
Outcome = int | float | str
FeatureValue = float | str | bool | None
Features = dict[str, FeatureValue]

MAX_MAGNITUDE = 1e30
"""The largest number that a field or a feature may have: squares of it are far from overflowing."""
MAX_OUTCOME = 1e12
"""The largest outcome of a regression."""
MAX_CATEGORY_LENGTH = 256
"""Characters that a category, and a class, may have."""


def is_sane(prediction: object) -> bool:
    """Tell whether a prediction is finite throughout.

    Examples
    --------
    >>> is_sane(0.2), is_sane(float("nan")), is_sane({"a": 1.0}), is_sane({})
    (True, False, True, False)
    """
    if isinstance(prediction, dict):
        return bool(prediction) and all(math.isfinite(share) for share in prediction.values())
    return isinstance(prediction, (int, float)) and math.isfinite(prediction)
