"""Digests of rows and of predictions: two that are equal were made of the same values, to the bit. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.predictions import Prediction
from flows.examples import Examples

SAMPLE = 2_000


def rows_digest(rows: Examples) -> str:
    """Return the SHA-256 over ids, times, features and labels of rows, as a fit gets them.

    The order counts: :func:`flows.examples.read_examples` returns the same rows in the same order, however they lie
    in the table's files. A missing number is one NaN whatever its bits.
    """
    total = hashlib.sha256()
    columns: list[tuple[str, Any]] = [
        ("id", rows.table["id"]),
        ("event_time", rows.event_time),
        ("clock", rows.clock),
        ("label_clock", rows.label_clock),
        *((f"feature {name}", rows.frame[name].to_numpy()) for name in rows.frame.columns),
        ("label", rows.table["label"]),
    ]
    for name, values in columns:
        _add(total, name, values)
    return total.hexdigest()


def predictions_digest(predictions: Sequence[Prediction]) -> str:
    """Return the SHA-256 over predictions, in their order.

    Examples
    --------
    >>> predictions_digest([0.5, 0.25]) == predictions_digest([0.5, 0.25000000000000006])
    False
    >>> predictions_digest([{"a": 0.5, "b": 0.5}]) == predictions_digest([{"b": 0.5, "a": 0.5}])
    True
    """
    total = hashlib.sha256()
    names = sorted({name for prediction in predictions if isinstance(prediction, dict) for name in prediction})
    if names:
        for name in names:
            shares = [prediction[name] for prediction in predictions if isinstance(prediction, dict)]
            _add(total, name, np.array(shares, dtype=np.float64))
    else:
        _add(total, "prediction", np.array(predictions, dtype=np.float64))
    return total.hexdigest()


def columns_digest(rows: Examples, columns: Sequence[str]) -> str:
    """Return the SHA-256 over columns of rows as they lie in memory: quick, to compare within one process.

    Parameters
    ----------
    columns : sequence of str
        Those that the table lacks are left out.
    """
    chosen = rows.table.select([name for name in columns if name in rows.table.column_names]).combine_chunks()
    written = pa.BufferOutputStream()
    with pa.ipc.new_stream(written, chosen.schema) as stream:
        stream.write_table(chosen)
    return hashlib.sha256(written.getvalue()).hexdigest()


def sample(rows: int, at_most: int = SAMPLE) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the positions of the rows whose predictions are compared: evenly over all of them, the first and last too.

    Examples
    --------
    >>> sample(3).tolist(), sample(10, at_most=4).tolist()
    ([0, 1, 2], [0, 3, 6, 9])
    """
    return np.unique(np.linspace(0, rows - 1, min(rows, at_most)).astype(np.int64))


def _add(total: Any, name: str, values: Any) -> None:
    """Add a column: its name and length, then its values in one form whatever they were held in."""
    if isinstance(values, pa.ChunkedArray):
        number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
        values = values.to_numpy() if number else values.cast(pa.string()).combine_chunks()
    elif values.dtype == object:
        values = pa.array(values, pa.string())
    total.update(f"{name}\0{len(values)}\0".encode())
    if isinstance(values, np.ndarray):
        _add_numbers(total, values)
    else:
        _add_texts(total, values)


def _add_numbers(total: Any, values: np.ndarray[Any, Any]) -> None:
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.nan, values).astype("<f8")
    else:
        values = values.astype("<i8")
    total.update(f"{values.dtype.str}\0".encode())
    total.update(values.tobytes())


def _add_texts(total: Any, values: pa.Array) -> None:
    """Add how long each is, -1 where it is missing, then all of them in one piece."""
    lengths = pc.fill_null(pc.binary_length(values), -1).to_numpy(zero_copy_only=False)
    total.update(lengths.astype("<i4").tobytes())
    one = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), pc.fill_null(values, ""))
    total.update(pc.binary_join(one, "")[0].as_buffer())
