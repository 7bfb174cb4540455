"""Whether the data of a retraining can be trained on at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from core.predictions import Outcome
from core.setting_types import Task
from core.settings import Settings


def data_problems(outcomes: Sequence[Outcome | None], settings: Settings) -> list[str]:
    """Return why nothing should be fitted on examples with these labels; empty if it can.

    Examples
    --------
    >>> settings = Settings.model_validate(
    ...     {"name": "a", "id": "id", "time": "t", "fields": {"x": "number"}, "label": "y",
    ...      "retrain": {"min_examples": 3}})
    >>> data_problems([1, 0], settings)
    ['2 labelled examples, 3 are needed (retrain.min_examples)']
    """
    problems = []
    needed = settings.retrain.min_examples
    if len(outcomes) < needed:
        problems.append(f"{len(outcomes)} labelled examples, {needed} are needed (retrain.min_examples)")
    if unusable := sum(not _usable(outcome, settings.task) for outcome in outcomes):
        problems.append(f"{unusable} labels are missing, not finite or not of the task's type: correct them, or task")
    counts = Counter(outcomes)
    if settings.task != "regression" and len(counts) == 1:
        problems.append(
            f"every label is {next(iter(counts))}: there is nothing to learn; "
            "is it what label in the project file should read, and do other labels come?"
        )
    return problems


def column_problems(missing: Sequence[str], other_type: Sequence[str] = ()) -> list[str]:
    """Return why a table without these columns, or with other types in them, cannot be trained on.

    Examples
    --------
    >>> column_problems([], ["f_x"])
    ['the examples table has another type in the columns f_x: give a field of a new type a new name']
    """
    problems = []
    if missing:
        problems.append(f"the examples table lacks the columns {', '.join(missing)}: were the fields renamed?")
    if other_type:
        columns = ", ".join(other_type)
        problems.append(
            f"the examples table has another type in the columns {columns}: give a field of a new type a new name"
        )
    return problems


def _usable(outcome: Outcome | None, task: Task) -> bool:
    if task == "binary":
        return outcome in (0, 1)
    if task == "multiclass":
        return isinstance(outcome, str) and bool(outcome)
    return isinstance(outcome, (int, float)) and math.isfinite(outcome)
