"""Types and ranges, by a pandera schema made from the settings that the stream's records are decoded by.

The only import of pandera. It is not imported before it is used: that takes half a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from core.predictions import MAX_CATEGORY_LENGTH, MAX_MAGNITUDE, MAX_OUTCOME, Outcome
from core.settings import Settings
from flows.checks.columns import Column
from flows.checks.report import DataCheck

if TYPE_CHECKING:
    import pandera.pandas as pa

_LABEL = "label"
_PREFIX = "f_"
"""Before a feature's name: there may be one that is called label."""


def schema_checks(columns: Sequence[Column], outcomes: Sequence[Outcome], settings: Settings) -> list[DataCheck]:
    """Return what is wrong with types and ranges; one that failed for each rule that is broken.

    Bounds and nullability of fields hold for the features where the fields are the features.
    """
    import pandera.pandas as pa

    frame = pd.DataFrame({_PREFIX + column.name: _series(column) for column in columns})
    classes = settings.task == "multiclass"
    labels = np.array(outcomes, dtype=object if classes else np.float64)
    frame[_LABEL] = pd.Categorical(labels) if classes else labels
    try:
        schema_of(settings).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        return [_failed(error, len(frame)) for error in errors.schema_errors]
    said = f"Types and ranges of {len(columns)} features and the label are as the project file says."
    return [DataCheck("schema", "passed", 0.0, 0.0, said)]


def schema_of(settings: Settings) -> pa.DataFrameSchema:
    """Return the schema of the features, named ``f_...``, and of ``label``.

    Categories and classes are columns of pandas' type ``category``, missing is NaN.
    """
    import pandera.pandas as pa

    columns = {
        _PREFIX + name: pa.Column(
            "category" if kind == "category" else float,
            _feature_rules(name, kind, settings),
            nullable=settings.features is not None or settings.fields[name].nullable,
        )
        for name, kind in settings.batch_kinds.items()
    }
    columns[_LABEL] = pa.Column(
        "category" if settings.task == "multiclass" else float, _label_rules(settings), nullable=False
    )
    return pa.DataFrameSchema(columns, strict=True)


def _feature_rules(name: str, kind: str, settings: Settings) -> list[pa.Check]:
    import pandera.pandas as pa

    if kind == "bool":
        return [pa.Check.isin([0.0, 1.0], error="are neither true nor false")]
    if kind == "category":
        return [pa.Check(_is_category, error=f"are no text of at most {MAX_CATEGORY_LENGTH} characters")]
    field = None if settings.features is not None else settings.fields[name]
    low, high = (None, None) if field is None else (field.minimum, field.maximum)
    where = "features" if field is None else f"fields.{name}"
    return _bounds(low, high, MAX_MAGNITUDE, where)


def _label_rules(settings: Settings) -> list[pa.Check]:
    import pandera.pandas as pa

    label = settings.label
    if settings.task == "binary":
        return [pa.Check.isin([0.0, 1.0], error="are neither label.negative nor label.positive")]
    if settings.task == "regression":
        return _bounds(label.minimum, label.maximum, MAX_OUTCOME, "label")
    classes = list(dict.fromkeys([*label.classes, *([] if label.missing is None else [str(label.missing)])]))
    declared = [pa.Check.isin(classes, error="are none of label.classes")] if label.classes else []
    return [pa.Check(_is_category, error=f"are no text of at most {MAX_CATEGORY_LENGTH} characters"), *declared]


def _bounds(low: float | None, high: float | None, largest: float, where: str) -> list[pa.Check]:
    import pandera.pandas as pa

    return [
        pa.Check.ge(-largest if low is None else low, error=_bound(f"{where}.minimum", low, "below", -largest)),
        pa.Check.le(largest if high is None else high, error=_bound(f"{where}.maximum", high, "above", largest)),
    ]


def _bound(setting: str, bound: float | None, side: str, largest: float) -> str:
    return f"are {side} {largest:g}, as no number may be" if bound is None else f"are {side} {setting}, {bound:g}"


def _is_category(values: pd.Series[Any]) -> pd.Series[bool]:
    """Look at each category once, however many rows have it."""
    fine = [isinstance(text, str) and len(text) <= MAX_CATEGORY_LENGTH for text in values.cat.categories]
    codes = values.cat.codes.to_numpy()
    return pd.Series(np.array([*fine, True])[codes], index=values.index)


def _series(column: Column) -> Any:
    if column.kind != "category":
        return column.values
    codes = np.where(column.missing, -1, column.values).astype(np.int64)
    return pd.Categorical.from_codes(codes, categories=pd.Index(column.categories, dtype=object))


def _failed(error: pa.errors.SchemaError, rows: int) -> DataCheck:
    """Say which rule is broken, and in how many rows; values stay where they are: a report is read by many."""
    column = str(error.column_name if error.schema is None else error.schema.name)
    feature = None if column == _LABEL else column.removeprefix(_PREFIX)
    count = len(error.failure_cases) if isinstance(error.failure_cases, pd.DataFrame) else rows
    rule = getattr(error.check, "error", None) or (
        f"are missing, and fields.{feature}.nullable is false" if "null" in str(error.check) else "have the wrong type"
    )
    subject = "labels" if feature is None else f"values of {feature}"
    said = f"{count:,} of {rows:,} {subject} {rule}; correct the rows or the project file."
    return DataCheck("schema", "failed", float(count), 0.0, said, feature)
