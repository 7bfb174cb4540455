"""Step 6: predictions, examples and corrections become rows of Delta tables, each once.

Rows carry the partition's step. The last step written is kept by the table itself, so that rows which
come again after a crash are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from core.models import SHADOWS
from core.settings import Settings
from core.tables import (
    CORRECTIONS,
    EVENTS,
    EXAMPLES,
    PREDICTIONS,
    WritesTables,
    anew_column,
    corrections_schema,
    events_schema,
    examples_schema,
    feature_column,
    field_column,
    key_column,
    prediction_cell,
    prediction_column,
    predictions_schema,
    shadow_columns,
)
from streaming.join import Predicted
from streaming.outputs import Correction, Example, Kept, Output
from streaming.shadow import Shadowed

_Row = TypeVar("_Row", Predicted, Example, Correction, Kept)


def table_app(partition: int) -> str:
    """Return the name under which a partition writes to tables."""
    return f"partition-{partition}"


class TableWriter:
    """Collects one partition's outputs and appends them when told.

    Parameters
    ----------
    store : WritesTables
        Where the tables are.
    settings : Settings
        Decides the columns.
    partition : int
        Whose rows these are.
    app : str, optional
        The name under which they are written, if it is not the partition's.
    """

    def __init__(self, store: WritesTables, settings: Settings, partition: int, app: str | None = None) -> None:
        self._store = store
        self._settings = settings
        self._app = app or table_app(partition)
        self._predictions: list[Predicted] = []
        self._examples: list[Example] = []
        self._corrections: list[Correction] = []
        self._kept: list[Kept] = []

    @property
    def rows(self) -> int:
        """Number of rows that wait to be written."""
        return len(self._predictions) + len(self._examples) + len(self._corrections) + len(self._kept)

    def add(self, outputs: Iterable[Output]) -> None:
        """Keep what belongs into a table."""
        for output in outputs:
            if isinstance(output, Predicted):
                self._predictions.append(output)
            elif isinstance(output, Example):
                self._examples.append(output)
            elif isinstance(output, Correction):
                self._corrections.append(output)
            elif isinstance(output, Kept):
                self._kept.append(output)

    def flush(self, step: int, is_erased: Callable[[str], bool] | None = None) -> None:
        """Append everything collected, as of `step`, but rows of an id that is erased.

        Raises
        ------
        StoreError
            If a table cannot be written; what was collected is kept and can be flushed again.
        """
        settings = self._settings
        if is_erased is not None:
            self._predictions[:] = [row for row in self._predictions if not is_erased(row.id)]
            self._examples[:] = [row for row in self._examples if not is_erased(row.predicted.id)]
            self._corrections[:] = [row for row in self._corrections if not is_erased(row.label.id)]
            self._kept[:] = [row for row in self._kept if not is_erased(row.id)]
        self._write(PREDICTIONS, self._predictions, _prediction_rows, predictions_schema(settings), step)
        self._write(EXAMPLES, self._examples, _example_rows, examples_schema(settings), step)
        self._write(CORRECTIONS, self._corrections, _correction_rows, corrections_schema(settings), step)
        if settings.has_function:
            self._write(EVENTS, self._kept, _event_rows, events_schema(settings), step)

    def _write(
        self,
        table: str,
        rows: list[_Row],
        columns: Callable[[Sequence[_Row], Settings], dict[str, list[Any]]],
        schema: pa.Schema,
        step: int,
    ) -> None:
        def beyond(last: int | None) -> pa.Table:
            fresh = rows if last is None else [row for row in rows if row.step > last]
            content = columns(fresh, self._settings)
            return pa.Table.from_arrays([pa.array(content[field.name], field.type) for field in schema], schema=schema)

        if rows:
            self._store.append(table, beyond, app=self._app, sequence=step)
            rows.clear()
        elif not self._store.exists(table):
            self._store.append(table, schema.empty_table(), app=self._app, sequence=0)


def _prediction_rows(rows: Sequence[Predicted], settings: Settings) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in rows],
        "event_time": [row.time * 1000 for row in rows],
        "clock": [row.clock * 1000 for row in rows],
        "partition": [row.partition for row in rows],
        "offset": [row.offset for row in rows],
        "step": [row.step for row in rows],
        "champion_version": [row.champion_version for row in rows],
        "canary_version": [row.canary for row in rows],
    }
    for name in settings.feature_kinds:
        columns[feature_column(name)] = [row.features[name] for row in rows]
    for name in settings.key_fields:
        columns[key_column(name)] = [row.keys.get(name) if row.keys else None for row in rows]
    columns[prediction_column("served")] = [prediction_cell(row.served) for row in rows]
    for name in settings.expert_names:
        columns[prediction_column(name)] = [prediction_cell(row.predictions.get(name)) for row in rows]
    for role in SHADOWS:
        columns |= _shadow_rows([row.shadows.get(role) if row.shadows else None for row in rows], role)
    return columns


def _shadow_rows(rows: Sequence[Shadowed | None], role: str) -> dict[str, list[Any]]:
    version, own, blended = shadow_columns(role)
    return {
        version: [row and row.version for row in rows],
        own: [row and prediction_cell(row.prediction) for row in rows],
        blended: [row and prediction_cell(row.blended) for row in rows],
    }


def _example_rows(rows: Sequence[Example], settings: Settings) -> dict[str, list[Any]]:
    return {
        **_prediction_rows([row.predicted for row in rows], settings),
        "label": [row.outcome for row in rows],
        "label_time": [row.label_time * 1000 for row in rows],
        "label_clock": [row.label_clock * 1000 for row in rows],
        "label_step": [row.step for row in rows],
        "implied": [row.implied for row in rows],
        "successor": [prediction_cell(row.successor) for row in rows],
        **{
            anew_column(expert.name): [prediction_cell(row.anew.get(expert.name)) if row.anew else None for row in rows]
            for expert in settings.online
        },
    }


def _correction_rows(rows: Sequence[Correction], settings: Settings) -> dict[str, list[Any]]:
    return {
        "id": [row.label.id for row in rows],
        "label": [row.label.outcome for row in rows],
        "label_time": [row.label.time * 1000 for row in rows],
        "label_clock": [row.label_clock * 1000 for row in rows],
    }


def _event_rows(rows: Sequence[Kept], settings: Settings) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in rows],
        "event_time": [row.time * 1000 for row in rows],
        "partition": [row.partition for row in rows],
        "step": [row.step for row in rows],
    }
    return columns | {field_column(name): [row.fields[name] for row in rows] for name in settings.kept_fields}
