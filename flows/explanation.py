"""Why an event was predicted as it was: its row in the tables, the version that predicted it, what each feature did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.batch_model import FittedModel, used_features
from core.errors import UsageError
from core.predictions import Outcome, Prediction
from core.project import Project
from core.registry import Registry
from core.settings import Settings
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, feature_column, milliseconds, prediction_column, prediction_of
from flows.contributions import Contributions, contributions, explained, occlusion, typical_row
from flows.examples import as_frame
from flows.references import sample
from flows.shapley import ROWS, is_installed, shapley
from monitoring.reference import load_reference


@dataclass(frozen=True, eq=False)
class FoundEvent:
    """The row of an event.

    Attributes
    ----------
    row : pyarrow.Table
        One row of the predictions or the examples table.
    event_time : int
        When it was, ms.
    champion : int or None
        The version that predicted it; None where none had.
    predicted, served : Prediction or None
        What that version predicted then, and what was served.
    label : Outcome or None
        What happened, as far as it is known.
    rows : int
        How many rows have its id; this is the latest.
    """

    row: pa.Table
    event_time: int
    champion: int | None
    predicted: Prediction | None
    served: Prediction | None
    label: Outcome | None
    rows: int


@dataclass(frozen=True, eq=False)
class Explanation:
    """An event, the version that was asked, and what its features did.

    Attributes
    ----------
    version : int
    as_then : bool or None
        Whether it predicts to the bit what it predicted then; None where it did not.
    """

    found: FoundEvent
    version: int
    as_then: bool | None
    contributions: Contributions

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, but for the id and the times."""
        found = self.found
        event = {"champion": found.champion, "predicted": found.predicted, "served": found.served, "label": found.label}
        return {
            **event,
            "rows": found.rows,
            "version": self.version,
            "as_then": self.as_then,
            **self.contributions.as_json(),
        }


def find_event(store: TableStore, stored_id: str) -> FoundEvent | None:
    """Return the latest row of an id, as it is in the tables; None if there is none.

    Raises
    ------
    StoreError
        If a table cannot be read.
    """
    tables = {table: _rows_of(store, table, stored_id) for table in (PREDICTIONS, EXAMPLES) if store.exists(table)}
    kept = next((rows for rows in tables.values() if len(rows)), None)
    if kept is None:
        return None
    row = kept.take([int(np.argmax(milliseconds(kept["event_time"])))])
    about = row.select([name for name in row.column_names if not name.startswith("f_")]).to_pylist()[0]
    labelled = tables.get(EXAMPLES)
    labels = [] if labelled is None else labelled.sort_by("label_clock")["label"].to_pylist()
    return FoundEvent(
        row=row,
        event_time=int(milliseconds(row["event_time"])[0]),
        champion=about.get("champion_version"),
        predicted=prediction_of(about.get(prediction_column("champion"))),
        served=prediction_of(about.get(prediction_column("served"))),
        label=labels[-1] if labels else None,
        rows=len(kept),
    )


def _rows_of(store: TableStore, table: str, stored_id: str) -> pa.Table:
    """Return the rows of an id, without reading the features of the others; a table of ids cannot be filtered by them.

    After a deletion deltalake hands ids out as views, which pyarrow's filters do not take.
    """
    places = store.read(table, columns=["id", "event_time"])
    times = places.filter(_is(places["id"], stored_id))["event_time"].to_pylist()
    some = store.read(table, where=[("event_time", "in", times)])
    return some.filter(_is(some["id"], stored_id))


def _is(ids: pa.ChunkedArray, stored_id: str) -> pa.ChunkedArray:
    return pc.equal(ids.cast(pa.string()), stored_id)


def explain(project: Project, registry: Registry, found: FoundEvent, version: int | None) -> Explanation:
    """Say what each feature did to a prediction: with shap where it is installed, else by occlusion.

    Parameters
    ----------
    version : int or None
        Which to ask; the one that predicted the event if None.

    Raises
    ------
    UsageError
        If none had predicted it, or its row lacks a feature of today's project.
    CheckpointError
        If the version's reference is not there.
    RegistryError
        If the version cannot be loaded, or fails on the row.
    """
    asked = version or found.champion
    if asked is None:
        raise UsageError("no champion had predicted it: say with --version which one to ask, or retrain first")
    known = [entry.version for entry in registry.versions()]
    if asked not in known:
        there = f"there are {', '.join(map(str, known))}" if known else "none is registered yet"
        raise UsageError(f"model {project.settings.name!r} has no version {asked}; {there}")
    model = registry.load(asked)
    row = _frame(found.row, project.settings)
    reference = load_reference(project.state / "references", asked)
    background = _frame(reference.sample, project.settings)
    (answer,) = model.predict_frame(row)
    as_then = None if asked != found.champion or found.predicted is None else answer == found.predicted
    return Explanation(found, asked, as_then, contributions_of(model, row, background, project.settings))


def contributions_of(model: FittedModel, row: Any, reference: Any, settings: Settings) -> Contributions:
    """Return what each feature of a row did; the same row, reference and seed give the same."""
    of, ask = explained(model, row)
    seed, kinds = settings.batch.seed, used_features(settings.batch_kinds)
    if not is_installed():
        return contributions("occlusion", of, row, kinds, occlusion(ask, row, typical_row(reference, kinds)))
    background = reference.iloc[sample(len(reference), seed, ROWS)].reset_index(drop=True)
    return contributions("shap", of, row, kinds, shapley(ask, row, background, seed))


def _frame(rows: pa.Table, settings: Settings) -> Any:
    wanted = used_features(settings.batch_kinds)
    if lacking := [name for name in wanted if feature_column(name) not in rows.column_names]:
        raise UsageError(
            f"it was kept without the feature {lacking[0]!r}, which the project has now: headrace cannot explain "
            "what was predicted with other features"
        )
    return as_frame(rows, settings)
