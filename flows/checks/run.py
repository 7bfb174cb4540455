"""Every check of a retraining's data, in order; the flow and the backtest make the same. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.features import OTHER
from core.quarantine import Span
from core.settings import Settings
from flows.checks.columns import Column, columns_of
from flows.checks.constants import constant_checks
from flows.checks.leaks import Labels, absence_checks, leak_checks
from flows.checks.report import DataReport
from flows.checks.rows import balance_checks, duplicate_check, left_out_checks, missing_checks, missing_shares
from flows.checks.schema import schema_checks
from flows.checks.shift import shift_checks
from flows.examples import Examples, LeftOut
from flows.splits import Split, inner_split

LATER = 0.3
"""Share of the rows, the latest, on which a feature is tried alone."""


def check_data(
    rows: Examples, split: Split, left_out: LeftOut, settings: Settings, *, wait: int, accepted: Sequence[Span] = ()
) -> DataReport:
    """Check what a retraining would be fitted and judged on.

    Parameters
    ----------
    rows : Examples
        The mature rows, in order of event time.
    split : Split
        How they are split into training and hold-out.
    left_out : LeftOut
        What was left out of them.
    wait : int
        Age from which a row counts as mature, ms.
    accepted : sequence of (int, int)
        Windows of breaks that have lasted (:func:`core.quarantine.released`): what jumped there is how the stream is.
    """
    columns, holdout = columns_of(rows.frame, settings), np.asarray(rows.event_time >= split.start)
    span = max(int(rows.event_time.max()) + 1 - split.start, 1) if len(rows) else 1
    inner = inner_split(rows.event_time, rows.label_clock, LATER)
    labels = Labels.of(rows.outcomes, inner.train, inner.holdout)
    leaks, alone = leak_checks(columns, labels, settings)
    train, held = (np.flatnonzero(side) for side in (split.train, split.holdout))
    outcomes = rows.outcomes
    checks = [
        *schema_checks(columns, outcomes, settings),
        *missing_checks(columns, rows.event_time, holdout, span, settings),
        duplicate_check(len(rows), left_out, settings),
        *balance_checks([outcomes[row] for row in train], [outcomes[row] for row in held], settings),
        *left_out_checks(left_out, settings, wait),
        *constant_checks(columns, rows.event_time, holdout, span, settings),
        *shift_checks(columns, rows.event_time, span, accepted, settings),
        *leaks,
        *absence_checks(columns, labels, settings),
    ]
    facts = {column.name: {**_facts(column, holdout), "alone": alone.get(column.name)} for column in columns}
    counts = {"training": len(train), "hold-out": len(held), **left_out.as_json()}
    return DataReport(checks, counts, _spans(rows, split), facts)


def _facts(column: Column, holdout: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Mapping[str, float | None]:
    before, latest = missing_shares(column, holdout)
    facts: dict[str, float | None] = {"missing": before, "missing in hold-out": latest}
    if column.kind == "category":
        place = column.categories.index(OTHER) if OTHER in column.categories else -1
        return {
            **facts,
            "categories": float(len(column.categories)),
            "other": float((column.values == place).sum()) / max(1, len(column.values)),
        }
    for side, where in (("", ~holdout), (" in hold-out", holdout)):
        known = column.values[where & ~column.missing]
        low, middle, high = np.quantile(known, [0.01, 0.5, 0.99]).tolist() if len(known) else (None, None, None)
        facts |= {f"1 %{side}": low, f"median{side}": middle, f"99 %{side}": high}
    return facts


def _spans(rows: Examples, split: Split) -> dict[str, tuple[int, int]]:
    if not len(rows):
        return {}
    first, end = int(rows.event_time[0]), int(rows.event_time[-1]) + 1
    return {"training": (first, split.start), "hold-out": (split.start, max(end, split.start))}
