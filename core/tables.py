"""The Delta tables: their names and columns.

``predictions``
    One row an event, written when it was predicted: features as used, values of the fields that are in a key
    (``k_merchant``), every expert's prediction. Of each shadow its
    version, its own prediction (``p_challenger``) and the blend with it (``p_with_challenger``). ``p_served`` is the
    blend with the champion. That was served, but where ``canary_version`` names a challenger: there the blend with it.
``examples``
    One row a label that was joined (or implied at the horizon): the prediction's row and the outcome; ``successor`` is
    what the champion predicts that came between the two, ``now_forest`` what an online expert says before it
    learns a label that comes very late, null where it was not asked again.
``events``
    One row of so many events (`state.kept_events`), where the project has a feature function: the fields as it got
    them (``x_carrier``), so that a retraining can make the features again and compare.
``corrections``
    One row a second, different label of an event; batch training uses the latest.
``windows``
    One row a window and stage, written by monitoring.

``step`` and ``label_step`` number what a partition did: they give the order in which it predicted and learned.
Rows that ``headrace ingest`` wrote have partition -1, steps of their own, and nobody's predictions.
Times are UTC. A prediction column is a double for binary (probability of positive) and regression,
and a map of class to probability for multiclass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.models import SHADOWS
from core.predictions import Prediction
from core.settings import Settings

Filter = tuple[str, str, Any]
"""Column, operator and value, such as ``("event_time", ">=", datetime)``."""


Rows: TypeAlias = "pa.Table | Callable[[int | None], pa.Table]"
"""Rows to append, or what makes them, given the sequence up to which the app has appended before."""


class ReadsTables(Protocol):
    """Reads rows; :class:`core.store.TableStore` says what the parameters mean."""

    def exists(self, table: str) -> bool:
        """Tell whether the table has been written at least once."""

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: Sequence[Filter] | None = None,
    ) -> pa.Table:
        """Read rows."""


class WritesTables(Protocol):
    """Appends rows once; :class:`core.store.TableStore` says what the parameters mean."""

    def exists(self, table: str) -> bool:
        """Tell whether the table has been written at least once."""

    def last_sequence(self, table: str, app: str) -> int | None:
        """Return the highest sequence that `app` appended, or None."""

    def append(self, table: str, rows: Rows, *, app: str, sequence: int) -> int:
        """Append rows once and return the table's version."""


PREDICTIONS = "predictions"
EXAMPLES = "examples"
CORRECTIONS = "corrections"
EVENTS = "events"
WINDOWS = "windows"

INGESTED = -1
"""The partition of rows that no worker wrote."""

TIMESTAMP = pa.timestamp("us", tz="UTC")
_FEATURE_TYPES = {"number": pa.float64(), "category": pa.string(), "text": pa.string(), "bool": pa.bool_()}


def feature_column(feature: str) -> str:
    """Return the column that holds `feature`."""
    return f"f_{feature}"


def field_column(field: str) -> str:
    """Return the column of the ``events`` table that holds `field`."""
    return f"x_{field}"


def key_column(field: str) -> str:
    """Return the column that holds the value of `field` as it is in a key: not bounded as a category's."""
    return f"k_{field}"


def prediction_column(expert: str) -> str:
    """Return the column that holds the prediction of an expert, or of ``served``."""
    return f"p_{expert}"


def anew_column(expert: str) -> str:
    """Return the column of ``examples`` that holds what an online expert said when the label came."""
    return f"now_{expert}"


def shadow_columns(role: str) -> tuple[str, str, str]:
    """Return the columns of a shadow: its version, its own prediction, and the blend with it.

    Examples
    --------
    >>> shadow_columns("challenger")
    ('challenger_version', 'p_challenger', 'p_with_challenger')
    """
    return f"{role}_version", prediction_column(role), prediction_column(f"with_{role}")


def prediction_cell(prediction: Prediction | None) -> Any:
    """Return a prediction as it is written to a prediction column.

    Examples
    --------
    >>> prediction_cell({"a": 0.75, "b": 0.25}), prediction_cell(0.5)
    ([('a', 0.75), ('b', 0.25)], 0.5)
    """
    return list(prediction.items()) if isinstance(prediction, dict) else prediction


def prediction_of(cell: Any) -> Prediction | None:
    """Return the prediction that a cell of a prediction column holds: what :func:`prediction_cell` made of it."""
    return dict(cell) if isinstance(cell, list) else cell


def milliseconds(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a column of times as milliseconds since the epoch."""
    return np.asarray(column.cast(pa.int64()).to_numpy() // 1000, dtype=np.int64)


def _prediction_type(settings: Settings) -> pa.DataType:
    return pa.map_(pa.string(), pa.float64()) if settings.task == "multiclass" else pa.float64()


def outcome_type(settings: Settings) -> pa.DataType:
    """Return the type of the ``label`` column."""
    return {"binary": pa.int64(), "multiclass": pa.string(), "regression": pa.float64()}[settings.task]


def predictions_schema(settings: Settings) -> pa.Schema:
    """Columns of the ``predictions`` table."""
    kinds = settings.feature_kinds
    experts = ["served", *settings.expert_names]
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("event_time", TIMESTAMP),
            pa.field("clock", TIMESTAMP),
            pa.field("partition", pa.int32()),
            pa.field("offset", pa.int64()),
            pa.field("step", pa.int64()),
            pa.field("champion_version", pa.int32()),
            pa.field("canary_version", pa.int32()),
            *(pa.field(feature_column(name), _FEATURE_TYPES[kind]) for name, kind in kinds.items()),
            *(pa.field(key_column(name), pa.string()) for name in settings.key_fields),
            *(pa.field(prediction_column(expert), _prediction_type(settings)) for expert in experts),
            *(
                pa.field(name, kind)
                for role in SHADOWS
                for name, kind in zip(
                    shadow_columns(role), [pa.int32(), *[_prediction_type(settings)] * 2], strict=True
                )
            ),
        ]
    )


def examples_schema(settings: Settings) -> pa.Schema:
    """Columns of the ``examples`` table: those of ``predictions``, then the outcome."""
    return pa.schema(
        [
            *predictions_schema(settings),
            pa.field("label", outcome_type(settings)),
            pa.field("label_time", TIMESTAMP),
            pa.field("label_clock", TIMESTAMP),
            pa.field("label_step", pa.int64()),
            pa.field("implied", pa.bool_()),
            pa.field("successor", _prediction_type(settings)),
            *(pa.field(anew_column(expert.name), _prediction_type(settings)) for expert in settings.online),
        ]
    )


def events_schema(settings: Settings) -> pa.Schema:
    """Columns of the ``events`` table."""
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("event_time", TIMESTAMP),
            pa.field("partition", pa.int32()),
            pa.field("step", pa.int64()),
            *(pa.field(field_column(name), _FEATURE_TYPES[field.type]) for name, field in settings.kept_fields.items()),
        ]
    )


def corrections_schema(settings: Settings) -> pa.Schema:
    """Columns of the ``corrections`` table."""
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("label", outcome_type(settings)),
            pa.field("label_time", TIMESTAMP),
            pa.field("label_clock", TIMESTAMP),
        ]
    )
