"""The rows of a window's stage, read from the tables as they were when the stage was due.

Only rows whose clock is at or before the due time count, so that a fast and a slow replay, a first
try and a repeated one, see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.metrics import loss
from core.predictions import Outcome, is_sane
from core.quarantine import Span, outside
from core.settings import Settings
from core.tables import (
    CORRECTIONS,
    EXAMPLES,
    PREDICTIONS,
    Filter,
    ReadsTables,
    examples_schema,
    feature_column,
    milliseconds,
    prediction_column,
    prediction_of,
    predictions_schema,
)
from monitoring.windows import WindowStage


@dataclass(frozen=True)
class Losses:
    """Mean losses of a window.

    Attributes
    ----------
    mean : dict of str to float
        Of ``served`` and each expert that predicted, all over the same `rows` rows.
    champion : float or None
        Of the champion's present version alone, over `champion_rows` rows.
    """

    mean: dict[str, float]
    rows: int
    champion: float | None
    champion_rows: int


@dataclass(frozen=True, eq=False)
class Sides:
    """The rows of a window, those of the reference that they were compared with, and the window's known labels."""

    current: pa.Table
    reference: pa.Table
    known: pa.Table


class WindowRows:
    """Reads what a stage needs.

    Parameters
    ----------
    store : ReadsTables
    settings : Settings

    Notes
    -----
    Every method raises StoreError if a table cannot be read; a table not yet written is empty.
    """

    def __init__(self, store: ReadsTables, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def times(self, stage: WindowStage) -> NDArray[np.int64]:
        """Return the event time of each of the window's predictions, ms."""
        where = [*_span(stage), ("clock", "<=", _moment(stage.due))]
        return milliseconds(self._read(PREDICTIONS, ["event_time"], where)["event_time"])

    def predictions(self, stage: WindowStage) -> pa.Table:
        """Return id, event time, features and served prediction of each of the window's predictions."""
        features = [feature_column(name) for name in self._settings.batch_kinds]
        columns = ["id", "event_time", *features, prediction_column("served")]
        return self._read(PREDICTIONS, columns, [*_span(stage), ("clock", "<=", _moment(stage.due))])

    def examples(self, stage: WindowStage) -> pa.Table:
        """Return id, event time, predictions and latest label of each of the window's examples."""
        experts = [prediction_column(name) for name in ("served", *self._settings.expert_names)]
        columns = ["id", "event_time", "champion_version", *experts, "label"]
        due = ("label_clock", "<=", _moment(stage.due))
        table = self._read(EXAMPLES, columns, [*_span(stage), due])
        if not table.num_rows or not self._store.exists(CORRECTIONS):
            return table
        corrections = self._store.read(CORRECTIONS, columns=["id", "label", "label_clock"], where=[due])
        return corrected(table, corrections)

    def count_examples(self, moment: int, without: Sequence[Span]) -> int:
        """Return how many labelled examples there were at event time `moment` (ms), but for windows in quarantine."""
        times = self._read(EXAMPLES, ["event_time"], [("label_clock", "<=", _moment(moment))])["event_time"]
        return int(outside(milliseconds(times), without).sum())

    def next_event(self, moment: int) -> int | None:
        """Return the first event time at or after `moment` in the predictions, ms; None if there is none."""
        times = self._read(PREDICTIONS, ["event_time"], [("event_time", ">=", _moment(moment))])["event_time"]
        first = pc.min(times.cast(pa.int64())).as_py()
        return None if first is None else first // 1000

    def _read(self, table: str, columns: Sequence[str], where: Sequence[Filter]) -> pa.Table:
        if self._store.exists(table):
            return self._store.read(table, columns=columns, where=where)
        schema = examples_schema(self._settings) if table == EXAMPLES else predictions_schema(self._settings)
        return schema.empty_table().select(list(columns))


def corrected(examples: pa.Table, corrections: pa.Table) -> pa.Table:
    """Return the examples with the latest of their labels.

    Examples
    --------
    >>> examples = pa.table({"id": ["a", "b"], "label": [0, 1]})
    >>> corrections = pa.table({"id": ["a", "a"], "label": [0, 1], "label_clock": [5, 9]})
    >>> corrected(examples, corrections)["label"].to_pylist()
    [1, 1]
    """
    ours = corrections.filter(pc.is_in(corrections["id"], pc.unique(examples["id"])))
    ours = ours.filter(pc.is_valid(ours["label"])).sort_by("label_clock")
    latest = dict(zip(ours["id"].to_pylist(), ours["label"].to_pylist(), strict=True))
    if not latest:
        return examples
    pairs = zip(examples["id"].to_pylist(), examples["label"].to_pylist(), strict=True)
    labels = pa.array([latest.get(key, label) for key, label in pairs], examples["label"].type)
    return examples.set_column(examples.column_names.index("label"), "label", labels)


def mean_losses(examples: pa.Table, experts: Sequence[str], champion: int | None) -> Losses:
    """Return the mean losses of a window's examples.

    Parameters
    ----------
    examples : pyarrow.Table
        As of :meth:`WindowRows.examples`.
    experts : sequence of str
        The experts, ``champion`` among them. One that predicted nothing here is left out.
    champion : int or None
        The champion's present version; earlier versions' predictions are not its own.
    """
    outcomes = examples["label"].to_pylist()
    names = ["served", *experts]
    losses = {name: losses_of(examples[prediction_column(name)].to_pylist(), outcomes) for name in names}
    present = {name: values for name, values in losses.items() if any(value is not None for value in values)}
    common = [row for row in zip(*present.values(), strict=True) if None not in row]
    mean = {name: sum(row[i] for row in common) / len(common) for i, name in enumerate(present)} if common else {}
    versions = examples["champion_version"].to_pylist()
    pairs = zip(losses["champion"], versions, strict=True)
    own = [value for value, version in pairs if value is not None and version == champion]
    return Losses(mean, len(common), sum(own) / len(own) if own else None, len(own))


def losses_of(cells: list[Any], outcomes: list[Outcome | None]) -> list[float | None]:
    """Return the loss of each cell of a prediction column; None where there is none."""
    result: list[float | None] = []
    for raw, outcome in zip(cells, outcomes, strict=True):
        prediction = prediction_of(raw)
        known = prediction is not None and outcome is not None and is_sane(prediction)
        result.append(loss(prediction, outcome) if known else None)  # type: ignore[arg-type]
    return result


def _span(stage: WindowStage) -> list[Filter]:
    return [("event_time", ">=", _moment(stage.start)), ("event_time", "<", _moment(stage.end))]


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
