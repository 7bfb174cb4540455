"""Missing values, rows that were left out, and classes with too few rows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.predictions import Outcome
from core.settings import Settings
from core.wording import counted, listed
from flows.checks.columns import MIN_ROWS, Column, Times, time_parts
from flows.checks.report import DataCheck, allow_it, found, to_check
from flows.examples import LeftOut

_LEFT = 0.1
"""A feature is gone where fewer than this share of the values of any earlier part are left."""

"""Classes that a sentence names."""


def missing_checks(
    columns: Sequence[Column], event_time: Times, holdout: NDArray[np.bool_], span: int, settings: Settings
) -> list[DataCheck]:
    """Return the features that are missing too often in all of the rows, and those that are gone from the hold-out.

    Parameters
    ----------
    span : int
        The hold-out's length, ms: what is missing in many weeks is missing in nearly all of some.
    """
    limit, failed, largest, worst = settings.validation.max_missing, [], 0.0, ""
    parts = time_parts(event_time[~holdout], span)
    checked = {column.name for column in to_check(columns, "missing", settings)}
    for column in columns:
        share, gone = float(column.missing.mean()), _gone(column, holdout, parts, limit)
        largest, worst = max((largest, worst), (share, column.name))
        if column.name in checked and (share > limit or gone is not None):
            said = gone or f"{column.name} is missing in {share:.1%} of the rows"
            said += (
                f", {limit:.0%} is allowed (validation.max_missing): mend its source, leave it out of the features, "
                f"or {allow_it(column.name, 'missing')}."
            )
            measured = max(share, missing_shares(column, holdout)[1])
            failed.append(DataCheck("missing", "failed", measured, limit, said, column.name))
    said = f"The most is missing of {worst}: {largest:.1%} of the rows."
    return found(failed, DataCheck("missing", "passed", largest, limit, said))


def _gone(column: Column, holdout: NDArray[np.bool_], parts: Sequence[slice], limit: float) -> str | None:
    latest, earlier = missing_shares(column, holdout)[1], column.missing[~holdout]
    usual = max((float(earlier[part].mean()) for part in parts), default=0.0)
    if latest <= limit or 1.0 - latest >= _LEFT * (1.0 - usual):
        return None
    return (
        f"{column.name} is missing in {latest:.1%} of the hold-out's rows, and at most in {usual:.1%} of a part before"
    )


def missing_shares(column: Column, holdout: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the shares that are missing before the hold-out and in it; of few rows the share says nothing."""
    gone = column.missing
    sides = (gone[~holdout], gone[holdout])
    before, latest = (float(side.mean()) if len(side) >= MIN_ROWS else 0.0 for side in sides)
    return before, latest


def duplicate_check(rows: int, left_out: LeftOut, settings: Settings) -> DataCheck:
    """Return whether too many of the labelled rows had the id of another one; of each id one row is used."""
    total = rows + left_out.quarantined + left_out.older + left_out.immature + left_out.repeated
    share, limit = left_out.repeated / max(total, 1), settings.validation.max_duplicates
    said = f"{left_out.repeated:,} of {total:,} labelled rows have an id that came again, and were left out"
    if share <= limit:
        return DataCheck("duplicates", "passed", share, limit, f"{said}.")
    said += f"; {limit:.0%} is allowed (validation.max_duplicates): does {settings.id} name each event once?"
    return DataCheck("duplicates", "failed", share, limit, said)


def balance_checks(train: Sequence[Outcome], holdout: Sequence[Outcome], settings: Settings) -> list[DataCheck]:
    """Return the classes that are too few, in training and in the hold-out."""
    if settings.task == "regression":
        return [_spread(train)]
    needed, counts = settings.validation.min_class_rows, Counter(train)
    few = {name: count for name, count in counts.items() if count < needed}
    smallest = min(counts.values(), default=0)
    checks = []
    if len(counts) - len(few) < 2:
        said = f"{_named(counts)}: two classes need {needed} rows each in training (validation.min_class_rows)."
        checks.append(DataCheck("balance", "failed", float(smallest), float(needed), said))
    elif few:
        said = f"Classes of fewer than {needed} training rows are hardly learned: {_named(few)}."
        checks.append(DataCheck("balance", "warning", float(smallest), float(needed), said))
    if holdout and (absent := {name: 0 for name in counts if name not in set(holdout)}):
        said = f"The hold-out has no row of {listed(list(absent))}: nothing is known of them there."
        checks.append(DataCheck("balance", "warning", 0.0, 1.0, said))
    return found(
        checks, DataCheck("balance", "passed", float(smallest), float(needed), f"Training has {_named(counts)}.")
    )


def left_out_checks(left_out: LeftOut, settings: Settings, wait: int) -> list[DataCheck]:
    """Say how many rows were left out because they are too young, and because their window is in quarantine.

    Parameters
    ----------
    wait : int
        Age at which nearly all labels are known, ms.
    """
    young, kept_out = left_out.immature, left_out.quarantined
    implied = " (label.horizon, because a missing label means something)" if settings.label.missing is not None else ""
    age = settings.clock.span(wait) + implied
    mature = f"{counted(young, 'row')} left out: younger than {age}, when labels may still come."
    quarantine = f"{counted(kept_out, 'row')} left out: their windows are in quarantine."
    return [
        DataCheck("mature", "passed", float(young), None, mature),
        DataCheck("quarantine", "passed", float(kept_out), None, quarantine),
    ]


def _spread(train: Sequence[Outcome]) -> DataCheck:
    values = np.array(train, dtype=float)
    if len(values) and values.min() == values.max():
        said = f"Every label of the training rows is {values[0]:g}: there is nothing to learn."
        return DataCheck("balance", "failed", 0.0, 0.0, said)
    spread = float(values.std()) if len(values) else 0.0
    return DataCheck("balance", "passed", spread, 0.0, f"The labels' standard deviation in training is {spread:.4g}.")


def _named(counts: dict[Outcome, int] | Counter[Outcome]) -> str:
    ranked = sorted(counts.items(), key=lambda one: (one[1], str(one[0])))
    return listed([f"{counted(count, 'row')} of {name}" for name, count in ranked])
