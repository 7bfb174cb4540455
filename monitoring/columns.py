"""Columns of a window and of the reference, side by side and fit to be compared. Pure.

What the stream may bring (nulls, infinities, numbers of any size, thousands of categories, markup in
their names) is brought here into a form with which distances and plots are defined.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.setting_types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

MISSING = "‹missing›"
OTHER = "‹other›"
MAX_CATEGORIES = 50
MAX_TEXT = 60
BOUND = 1e150
"""Numbers beyond it are cut off: their squares would overflow."""

SMALL_DEVIATION = 1e-3
"""Below it Evidently stops dividing by the reference's standard deviation; such columns are standardised."""

PLOTTABLE = 1e12
"""Above it numpy finds no bins around a constant; such columns are standardised too."""


@dataclass(frozen=True)
class Column:
    """One column of both sides: numbers with NaN for null, or text with a category for null."""

    name: str
    is_number: bool
    current: NDArray[Any]
    reference: NDArray[Any]

    @property
    def has_values(self) -> bool:
        """Tell whether both sides have something to compare."""
        if not self.is_number:
            return bool(len(self.current) and len(self.reference))
        return bool(np.isfinite(self.current).any() and np.isfinite(self.reference).any())


def take_sample(table: pa.Table, rows: int) -> pa.Table:
    """Return at most `rows` rows, always the same: those whose ids hash lowest, in their order.

    A table without ``id`` is thinned out evenly.

    Examples
    --------
    >>> take_sample(pa.table({"id": ["a", "b", "c"]}), 2).num_rows
    2
    """
    if table.num_rows <= rows:
        return table
    if "id" not in table.column_names:
        return table.take(np.linspace(0, table.num_rows - 1, rows).astype(np.int64))
    from pandas.util import hash_array

    hashes = hash_array(table["id"].to_numpy(zero_copy_only=False).astype(object), categorize=False)
    return table.take(np.sort(np.argsort(hashes, kind="stable")[:rows]))


def prepare(current: pa.Table, reference: pa.Table, column: str, kind: Literal["number", "category"]) -> Column | str:
    """Return a column of both tables, or why it cannot be compared."""
    name = column.removeprefix("f_")
    for side, table in (("window", current), ("reference", reference)):
        if column not in table.column_names:
            return f"is not in the {side}"
    if kind == "number":
        return numbers(name, to_numbers(current[column]), to_numbers(reference[column]))
    return _categories(name, to_text(current[column]), to_text(reference[column]))


def served_column(current: pa.Table, reference: pa.Table, column: str, task: Task) -> Column | str:
    """Return the served predictions: numbers, or the most likely class. A side of ingested rows has none."""
    for side, table in (("window", current), ("reference", reference)):
        if column in table.column_names and table.num_rows and table[column].null_count == table.num_rows:
            return f"was never served in the {side}"
    if task == "multiclass":
        return prepare(_with_class(current, column), _with_class(reference, column), column, "category")
    return prepare(current, reference, column, "number")


def label_column(current: pa.Table, reference: pa.Table, task: Task) -> Column | str:
    """Return the labels: numbers for regression, else categories."""
    return prepare(current, reference, "label", "number" if task == "regression" else "category")


def missing_flag(name: str, column: Column | str | None) -> Column | None:
    """Return "is it missing?" of a number column with nulls; None for any other column."""
    if not isinstance(column, Column) or not column.is_number:
        return None
    gone, gone_before = np.isnan(column.current), np.isnan(column.reference)
    if not (len(gone) and len(gone_before)) or not (gone.any() or gone_before.any()):
        return None
    return Column(f"{name} is missing", False, gone.astype(str).astype(object), gone_before.astype(str).astype(object))


def most_likely(prediction: Any) -> str | None:
    """Return the class with the highest probability; the first by name of equal ones.

    Examples
    --------
    >>> most_likely([("b", 0.4), ("a", 0.6)]), most_likely([])
    ('a', None)
    """
    shares = {name: share for name, share in prediction or [] if share is not None}
    return max(sorted(shares), key=lambda name: shares[name]) if shares else None


def _with_class(table: pa.Table, column: str) -> pa.Table:
    if column not in table.column_names or not pa.types.is_map(table.schema.field(column).type):
        return table
    classes = pa.array([most_likely(entry) for entry in table[column].to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index(column), column, classes)


def to_numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a column as numbers: NaN for null, infinite or no number."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        return np.full(len(values), np.nan)
    numbers = np.asarray(pc.fill_null(values.cast(pa.float64(), safe=False), np.nan).to_numpy(), dtype=float)
    return np.clip(np.where(np.isfinite(numbers), numbers, np.nan), -BOUND, BOUND)


def numbers(name: str, current: NDArray[np.float64], reference: NDArray[np.float64]) -> Column:
    """Return numbers of both sides, rounded and scaled where distances or plots would not be defined."""
    current, reference = _rounded(current, reference)
    known = reference[np.isfinite(reference)]
    if not len(known):
        return Column(name, True, current, reference)
    deviation, largest = float(known.std()), max(_largest(current), _largest(reference))
    if deviation <= 1e-11 * largest:  # the rounding error of a constant's mean
        deviation = 0.0
    if largest <= PLOTTABLE and not 0.0 < deviation < SMALL_DEVIATION:
        return Column(name, True, current, reference)
    middle, scale = float(known.mean()), 1.0 / (deviation or largest)
    sides = (np.clip((side - middle) * scale, -PLOTTABLE, PLOTTABLE) for side in (current, reference))
    return Column(name, True, next(sides), next(sides))


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _rounded(*sides: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Drop what is below 1e-12 of the largest number: a plot's bins would have no width."""
    largest = max(_largest(side) for side in sides)
    unit = largest * 1e-12
    if largest < 1e-100:
        return [np.where(np.isfinite(side), 0.0, np.nan) for side in sides]
    return [np.round(side / unit) * unit for side in sides]


def to_text(values: pa.Array | pa.ChunkedArray) -> list[str]:
    """Return a column as text that can be shown, with a category for null."""
    return [MISSING if value is None else _clean(str(value)) for value in values.to_pylist()]


def _clean(text: str) -> str:
    """Make a category safe to show: it goes into a script element of the report as it is."""
    return text[:MAX_TEXT].replace("<", "‹").replace(">", "›")


def _categories(name: str, current: list[str], reference: list[str]) -> Column:
    shares: Counter[str] = Counter()
    for side in (current, reference):
        shares.update({text: count / len(side) for text, count in Counter(side).items()})
    kept = {text for text, _ in sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:MAX_CATEGORIES]}
    sides = (
        np.array([text if text in kept else OTHER for text in side], dtype=object) for side in (current, reference)
    )
    return Column(name, False, next(sides), next(sides))
