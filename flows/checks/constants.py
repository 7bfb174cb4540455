"""Features that do not vary: of no use where they never did, and broken where they did before. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.settings import Settings
from flows.checks.columns import MIN_ROWS, Column, Numbers, Times, time_parts
from flows.checks.report import DataCheck, allow_it, found, to_check

VARIED = 0.8
"""A feature varied if no value had more than this share of any earlier part that is as long as the hold-out."""


def constant_checks(
    columns: Sequence[Column], event_time: Times, holdout: NDArray[np.bool_], span: int, settings: Settings
) -> list[DataCheck]:
    """Return the features that never vary, and those that varied and do not in the hold-out.

    Parameters
    ----------
    holdout : array of bool
        The hold-out's rows; all before are earlier.
    span : int
        The hold-out's length, ms.
    """
    failed = []
    for column in to_check(columns, "constant", settings):
        said = _never_varies(column) or _stands_still(column, event_time, holdout, span)
        if said is not None:
            failed.append(DataCheck("constant", "failed", 1.0, VARIED, said, column.name))
    return found(failed, DataCheck("constant", "passed", None, None, "Every feature varies, in the hold-out too."))


def _never_varies(column: Column) -> str | None:
    if not _is_constant(column.values):
        return None
    return (
        f"{column.name} has one value in all of the rows: a model cannot learn from it; "
        f"leave it out of the features, or {allow_it(column.name, 'constant')}."
    )


def _stands_still(column: Column, event_time: Times, holdout: NDArray[np.bool_], span: int) -> str | None:
    """Tell of a feature that the hold-out has one value of; in a dry week it does not rain, and that is no fault."""
    latest = column.values[holdout]
    if len(latest) < MIN_ROWS or not _is_constant(latest):
        return None
    earlier = column.values[~holdout]
    shares = [_largest_share(earlier[part]) for part in time_parts(event_time[~holdout], span)]
    if not shares or max(shares) > VARIED:
        return None
    return (
        f"{column.name} has one value in all {len(latest):,} rows of the hold-out, where at most {max(shares):.0%} "
        f"of the rows of any earlier part had the same: does its source stand still? "
        f"Mend it, or {allow_it(column.name, 'constant')}."
    )


def _is_constant(values: Numbers) -> bool:
    """Tell whether every row has the same value; missing in some is a difference, in all another check's."""
    return bool(len(values) and values[0] == values[-1] and (values == values[0]).all())


def _largest_share(values: Numbers) -> float:
    return float(np.unique(values, return_counts=True, equal_nan=True)[1].max() / len(values))
