"""What a label's JSON value means for the task. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from core.predictions import MAX_CATEGORY_LENGTH, MAX_OUTCOME, Outcome
from core.settings import Settings


def outcome_reader(settings: Settings) -> Callable[[Any], Outcome | None]:
    """Return the function that turns a label's JSON value into an outcome, None if it is none."""
    label = settings.label

    def binary(value: Any) -> Outcome | None:
        if type(value) is float and value.is_integer():
            value = int(value)
        for wanted, outcome in ((label.positive, 1), (label.negative, 0)):
            if value == wanted and (isinstance(value, str) == isinstance(wanted, str)):
                return outcome
        return None

    def multiclass(value: Any) -> Outcome | None:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            return None
        text = str(value)
        known = not label.classes or text in label.classes
        return text if known and 0 < len(text) <= MAX_CATEGORY_LENGTH else None

    def regression(value: Any) -> Outcome | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        low = -MAX_OUTCOME if label.minimum is None else label.minimum
        high = MAX_OUTCOME if label.maximum is None else label.maximum
        return float(value) if low <= value <= high and abs(value) <= MAX_OUTCOME else None

    return {"binary": binary, "multiclass": multiclass, "regression": regression}[settings.task]


def outcomes_told(settings: Settings, found: Any) -> str:
    """Return what an outcome of the task is, and which settings say so, to somebody whose label is none."""
    label = settings.label
    if settings.task == "binary":
        positive, negative = (json.dumps(one, ensure_ascii=False) for one in (label.positive, label.negative))
        told = f"neither label.positive {positive} nor label.negative {negative}"
        unquoted = isinstance(found, str) and isinstance(label.positive, bool) and isinstance(label.negative, bool)
        return told + ('; YAML reads yes, no, true and false as bools, so quote a text: "yes"' if unquoted else "")
    if settings.task == "regression":
        return "a number (label.minimum, label.maximum)"
    return "a class (label.classes)" if label.classes else "a text or a whole number"
