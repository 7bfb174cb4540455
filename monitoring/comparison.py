"""What is compared of a window and its reference, and what came of it. Pure.

Distances, not tests: with thousands of rows a test's verdict is "drifted" for any difference.
Numbers get the Wasserstein distance in standard deviations of the reference, categories the
Jensen-Shannon distance (0 to 0.83). Missing values count: a category of their own, and for numbers
the Jensen-Shannon distance of "is missing", so that a column that goes silent is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from core.setting_types import Kind, Task
from core.tables import feature_column, prediction_column
from monitoring.columns import Column, label_column, missing_flag, prepare, served_column, take_sample

PREDICTION = "served prediction"
LABEL = "true label"


@dataclass(frozen=True)
class DriftReport:
    """What a comparison found.

    Attributes
    ----------
    features : dict of str to float
        Each compared feature's distance.
    prediction, label : float or None
        Distance of the served predictions, of the labels; None where not compared.
    skipped : dict of str to str
        Columns that could not be compared, and why.
    html : Path or None
        The report; its JSON has the same name with another suffix. None if none was written.
    """

    features: dict[str, float] = field(default_factory=dict)
    prediction: float | None = None
    label: float | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    html: Path | None = None


@dataclass(frozen=True)
class Compared:
    """Columns fit to be compared.

    Attributes
    ----------
    columns : dict of str to Column
        By the name that a report shows.
    skipped : dict of str to str
        What cannot be compared, and why.
    flags : dict of str to str
        For a number feature with nulls, the name of its "is missing?" column.
    names : tuple of str
        The features asked for; none where labels are compared, and the predictions only shown beside them.
    """

    columns: dict[str, Column]
    skipped: dict[str, str]
    flags: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def report(self, found: Mapping[str, float], html: Path | None = None) -> DriftReport:
        """Return what the distances of these columns say."""
        features = {
            name: max(found.get(name, 0.0), found.get(self.flags.get(name, ""), 0.0))
            for name in self.names
            if name in found or self.flags.get(name) in found
        }
        skipped = {name: why for name, why in self.skipped.items() if name not in features}
        prediction = found.get(PREDICTION) if self.names else None
        return DriftReport(features, prediction, found.get(LABEL), skipped, html if self.columns else None)


def compare_data(
    current: pa.Table, reference: pa.Table, *, kinds: Mapping[str, Kind], task: Task, sample: int
) -> Compared:
    """Return a window's features and served predictions beside the reference's.

    Parameters
    ----------
    current, reference : pyarrow.Table
        Columns as in the ``predictions`` table; a column that is not there is skipped.
    kinds : mapping
        Each feature's type; text is not compared.
    sample : int
        Rows of each that are compared at most, chosen by a hash of the id.
    """
    current, reference = take_sample(current, sample), take_sample(reference, sample)
    pairs = {
        name: prepare(current, reference, feature_column(name), "number" if kind == "number" else "category")
        for name, kind in kinds.items()
        if kind != "text"
    }
    pairs[PREDICTION] = served_column(current, reference, prediction_column("served"), task)
    columns, skipped = _comparable(pairs)
    flags = {name: flag for name in kinds if (flag := missing_flag(name, pairs.get(name))) is not None}
    columns |= {flag.name: flag for flag in flags.values()}
    return Compared(columns, skipped, {name: flag.name for name, flag in flags.items()}, tuple(kinds))


def compare_labels(current: pa.Table, reference: pa.Table, *, task: Task, sample: int) -> Compared:
    """Return a window's labels, and the served predictions of them, beside the reference's.

    Parameters as in :func:`compare_data`; columns as in the ``examples`` table.
    """
    current, reference = (take_sample(_labelled(side), sample) for side in (current, reference))
    pairs = {
        LABEL: label_column(current, reference, task),
        PREDICTION: served_column(current, reference, prediction_column("served"), task),
    }
    return Compared(*_comparable(pairs))


def _labelled(table: pa.Table) -> pa.Table:
    """Return the rows that have both a label and a served prediction; a label only, where nothing was ever served."""
    for column in ("label", prediction_column("served")):
        if column in table.column_names and table[column].null_count < table.num_rows:
            table = table.filter(pc.is_valid(table[column]))
    return table


def _comparable(pairs: Mapping[str, Column | str]) -> tuple[dict[str, Column], dict[str, str]]:
    columns = {name: pair for name, pair in pairs.items() if isinstance(pair, Column) and pair.has_values}
    skipped = {name: pair for name, pair in pairs.items() if isinstance(pair, str)}
    empty = {name: "has no value on one side" for name in pairs if name not in columns and name not in skipped}
    return columns, skipped | empty
