"""The data of a retraining: labelled examples of one pinned table version, with their latest labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from core.batch_model import MISSING, feature_frame, used_features
from core.predictions import Outcome, Prediction
from core.quarantine import Span, outside
from core.settings import Settings
from core.spans import label_wait
from core.tables import (
    CORRECTIONS,
    EXAMPLES,
    ReadsTables,
    anew_column,
    examples_schema,
    feature_column,
    milliseconds,
    prediction_column,
    prediction_of,
)

Times = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class DataVersion:
    """The pinned versions of the tables; `corrections` is None where no label was ever corrected."""

    examples: int
    corrections: int | None


@dataclass(frozen=True)
class LeftOut:
    """How many labelled rows are not among the examples, and why.

    Attributes
    ----------
    repeated : int
        Another row has their id, and was labelled later.
    quarantined : int
        Their window is in quarantine.
    older : int
        Beyond ``batch.max_rows``.
    immature : int
        Labels of their age may still come.
    """

    repeated: int = 0
    quarantined: int = 0
    older: int = 0
    immature: int = 0

    def as_json(self) -> dict[str, int]:
        """Return the counts by reason."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples in order of event time.

    Attributes
    ----------
    table : pyarrow.Table
        The rows as in the examples table, with the latest label.
    frame : pandas.DataFrame
        Their features as a pipeline sees them.
    outcomes : list
        Their labels.
    event_time, clock, label_clock : array of int
        When the event was, when it was predicted, and when its label was known, ms.
    """

    table: pa.Table
    frame: pd.DataFrame
    outcomes: list[Outcome]
    event_time: Times
    clock: Times
    label_clock: Times

    def __len__(self) -> int:
        return len(self.outcomes)

    def take(self, where: np.ndarray[Any, Any]) -> Examples:
        """Return the rows at these positions, or where the mask is true."""
        positions = np.flatnonzero(where) if where.dtype == bool else where
        return Examples(
            self.table.take(pa.array(positions)),
            self.frame.iloc[positions].reset_index(drop=True),
            [self.outcomes[position] for position in positions],
            self.event_time[positions],
            self.clock[positions],
            self.label_clock[positions],
        )

    def spread(self, most: int) -> Examples:
        """Return at most so many of the rows, evenly from the first to the last."""
        if len(self) <= most:
            return self
        return self.take(np.linspace(0, len(self) - 1, most).round().astype(int))

    def predictions(self, expert: str) -> list[Prediction | None]:
        """Return what an expert predicted at the time; None where it did not predict."""
        return self._said(prediction_column(expert))

    def anew(self, expert: str) -> list[Prediction | None]:
        """Return what an online expert said when the label came; None where it was not asked again."""
        return self._said(anew_column(expert))

    def _said(self, column: str) -> list[Prediction | None]:
        if column not in self.table.column_names:
            return [None] * len(self)
        return [prediction_of(value) for value in self.table[column].to_pylist()]


def unfit_columns(store: ReadsTables, version: DataVersion, settings: Settings) -> tuple[list[str], list[str]]:
    """Return the columns that a training needs and the pinned table lacks, and those that have another type there."""
    found = store.read(EXAMPLES, version=version.examples, columns=None, where=_up_to(0)).schema
    wanted, needed = examples_schema(settings), _needed(settings)
    missing = [name for name in needed if name not in found.names]
    other = [name for name in needed if name in found.names and not _same(found.field(name), wanted.field(name))]
    return missing, other


def _same(one: pa.Field, other: pa.Field) -> bool:
    """Tell whether two columns hold the same kind of thing; how it is encoded does not matter."""
    return _kind(one.type) == _kind(other.type)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    named = {"bool": pa.types.is_boolean(kind), "time": pa.types.is_timestamp(kind), "map": pa.types.is_map(kind)}
    return "number" if number else next((name for name, fits in named.items() if fits), str(kind))


def read_examples(
    store: ReadsTables, version: DataVersion, settings: Settings, until: int, without: Sequence[Span] = ()
) -> Examples:
    """Read the examples whose label was known by `until`.

    Of rows with one id the one labelled last stays; a correction known by then replaces the label.
    At most ``batch.max_rows`` rows are returned, the latest.

    Parameters
    ----------
    until : int
        Stream time of the request, ms.
    without : sequence of (int, int)
        Windows in quarantine: their events are left out.

    Raises
    ------
    StoreError
        If a table cannot be read.
    """
    return read_counted(store, version, settings, until, without)[0]


def read_counted(
    store: ReadsTables, version: DataVersion, settings: Settings, until: int, without: Sequence[Span] = ()
) -> tuple[Examples, LeftOut]:
    """Read the examples as :func:`read_examples` does; also return how many rows were left out.

    Raises
    ------
    StoreError
        If a table cannot be read.
    """
    known = store.read(EXAMPLES, version=version.examples, where=_up_to(until))
    known = known.select([name for name in examples_schema(settings).names if name in known.column_names])
    if version.corrections is not None:
        later = store.read(CORRECTIONS, version=version.corrections, where=_up_to(until))
        known = _corrected(known, later)
    counts = [len(known)]
    known = _one_row_an_id(known)
    counts.append(len(known))
    if without:
        known = known.filter(pa.array(outside(milliseconds(known["event_time"]), without)))
    counts.append(len(known))
    known = known.take(pc.sort_indices(known, [("event_time", "ascending"), ("id", "ascending")]))
    latest = known.slice(max(len(known) - settings.batch.max_rows, 0))
    counts.append(len(latest))
    repeated, quarantined, older = (more - less for more, less in itertools.pairwise(counts))
    return as_examples(latest, settings), LeftOut(repeated, quarantined, older)


def only_mature(rows: Examples, left_out: LeftOut, settings: Settings, until: int) -> tuple[Examples, LeftOut, int]:
    """Drop the examples whose labels may still come at `until` (ms); also return from which age they stay, ms."""
    wait = label_wait(
        rows.event_time,
        rows.label_clock,
        until=until,
        horizon=settings.label.horizon,
        implied=settings.label.missing is not None,
    )
    kept = rows.take(np.asarray(rows.event_time <= until - wait))
    return kept, replace(left_out, immature=len(rows) - len(kept)), wait


def as_examples(table: pa.Table, settings: Settings) -> Examples:
    """Return rows of the examples table with what training derives from them."""
    return Examples(
        table.combine_chunks(),
        as_frame(table, settings),
        table["label"].to_pylist(),
        milliseconds(table["event_time"]),
        milliseconds(table["clock"]),
        milliseconds(table["label_clock"]),
    )


def as_frame(table: pa.Table, settings: Settings) -> pd.DataFrame:
    """Return the features of rows of the predictions or examples table as a pipeline sees them."""
    kinds = used_features(settings.batch_kinds)
    columns = {name: _column(table[feature_column(name)], kind == "category") for name, kind in kinds.items()}
    return feature_frame(columns, kinds)


def _needed(settings: Settings) -> list[str]:
    features = [feature_column(name) for name in used_features(settings.batch_kinds)]
    return ["id", "event_time", "clock", "label", "label_clock", prediction_column("served"), *features]


def _up_to(until: int) -> list[tuple[str, str, Any]]:
    return [("label_clock", "<=", datetime.fromtimestamp(until / 1000, UTC))]


def _column(column: pa.ChunkedArray, is_category: bool) -> Sequence[Any]:
    if is_category:
        values: Sequence[Any] = column.fill_null(MISSING).to_numpy()
        return values
    numbers: Sequence[Any] = column.cast(pa.float64()).to_numpy()
    return numbers


def _corrected(known: pa.Table, corrections: pa.Table) -> pa.Table:
    """Put the latest correction in place of the label, known from the correction's clock on."""
    ordered = corrections.take(pc.sort_indices(corrections, [("label_clock", "ascending")]))
    latest = {row["id"]: row for row in ordered.select(["id", "label", "label_clock"]).to_pylist()}
    hits = np.flatnonzero(pc.is_in(known["id"], value_set=pa.array(list(latest), pa.string())).to_numpy())
    if not len(hits):
        return known
    for name in ("label", "label_clock"):
        values = known[name].to_pylist()
        for position in hits:
            values[position] = latest[known["id"][int(position)].as_py()][name]
        index = known.column_names.index(name)
        known = known.set_column(index, known.schema.field(name), pa.array(values, known.schema.field(name).type))
    return known


def _one_row_an_id(known: pa.Table) -> pa.Table:
    if pc.count_distinct(known["id"]).as_py() == len(known):
        return known
    order = pc.sort_indices(known, [("label_clock", "ascending"), ("event_time", "ascending")]).to_numpy()
    ids = pd.Series(known["id"].take(pa.array(order)).to_pylist())
    return known.take(pa.array(np.sort(order[~ids.duplicated(keep="last").to_numpy()])))
