"""Features that do not vary: of no use where they never did, and broken where they did before. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.settings import Settings
from core.wording import listed
from flows.checks.columns import MIN_ROWS, Column, Numbers, Times, time_parts
from flows.checks.report import DataCheck, allow_it, found, to_check

VARIED = 0.8
"""A feature varied if no value had more than this share of any earlier part that is as long as the hold-out."""

_LONGER = 3
"""And if it stands still so many times as long as ever before: a month lasts a month."""

"""Features that a sentence names."""


def constant_checks(
    columns: Sequence[Column], event_time: Times, holdout: NDArray[np.bool_], span: int, settings: Settings
) -> list[DataCheck]:
    """Return what varied and stands still in the hold-out, and warn of what never varied at all.

    Parameters
    ----------
    holdout : array of bool
        The hold-out's rows; all before are earlier.
    span : int
        The hold-out's length, ms.
    """
    checked = to_check(columns, "constant", settings)
    never = [column.name for column in checked if _is_constant(column.values)]
    checks = [] if not never else [DataCheck("constant", "warning", float(len(never)), 0.0, _useless(never))]
    for column in checked:
        share = _stands_still(column, event_time, holdout, span)
        if share is not None:
            said = _still(column.name, int((holdout & ~column.missing).sum()), share)
            checks.append(DataCheck("constant", "failed", 1.0, VARIED, said, column.name))
    return found(checks, DataCheck("constant", "passed", None, None, "Every feature varies, in the hold-out too."))


def _stands_still(column: Column, event_time: Times, holdout: NDArray[np.bool_], span: int) -> float | None:
    """Return the largest share of one value in earlier parts, if the hold-out has one value only and that is no usual.

    In a dry week it does not rain, and that is no fault.
    """
    known = ~column.missing
    latest, earlier = column.values[holdout & known], column.values[~holdout & known]
    if len(latest) < MIN_ROWS or not _is_constant(latest):
        return None
    shares = [_largest_share(earlier[part]) for part in time_parts(event_time[~holdout & known], span)]
    if not shares or max(shares) > VARIED or len(latest) < _LONGER * _longest_run(earlier):
        return None
    return max(shares)


def _useless(never: Sequence[str]) -> str:
    verb = "has" if len(never) == 1 else "have"
    return (
        f"{listed(never)} {verb} one value in all of the rows, from which a model learns nothing: "
        f"leave out of the features what will not vary, or {allow_it(never[0], 'constant')}."
    )


def _still(name: str, rows: int, share: float) -> str:
    return (
        f"{name} has one value in all {rows:,} rows of the hold-out that have it, where at most {share:.0%} of those "
        f"of any earlier part had the same: does its source stand still? Mend it, or {allow_it(name, 'constant')}."
    )


def _is_constant(values: Numbers) -> bool:
    """Tell whether every row has the same value; missing in some is a difference."""
    return bool(len(values) and values[0] == values[-1] and (values == values[0]).all())


def _longest_run(values: Numbers) -> int:
    """Return how many rows in a row had one value, at most.

    Examples
    --------
    >>> _longest_run(np.array([1.0, 1.0, 1.0, 2.0]))
    3
    """
    changes = np.flatnonzero(np.diff(values) != 0.0) + 1
    return int(np.diff(np.concatenate([[0], changes, [len(values)]])).max())


def _largest_share(values: Numbers) -> float:
    return float(np.unique(values, return_counts=True)[1].max() / len(values))
