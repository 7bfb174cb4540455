"""A recorded stream in a CSV or Parquet file: one row an event, with the outcome in a column."""

from __future__ import annotations

import gzip
import heapq
import io
import lzma
import math
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.durations import ROW
from core.errors import SourceError
from core.project import Project
from core.recorded import FIRST_ROW, ROW_ID, ROW_TIME
from core.records import read_time
from core.settings import Settings
from core.stream_settings import FieldSettings, ReplaySettings

if TYPE_CHECKING:
    import pandas as pd

Item = tuple[int, str, str, Any]
_BOOLS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
"""What pandas reads as a bool where a whole column is bools."""
_DAMAGED = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


def read_file(project: Project) -> Iterator[Item]:
    """Yield (time in ms, "event" or "label", id, payload) in time order; at equal times the event comes first.

    Raises
    ------
    SourceError
        If the file cannot be read, or lacks a column that the project file names.
    """
    settings = project.settings
    assert settings.replay is not None and settings.replay.file is not None
    path = project.folder / settings.replay.file
    table = _with_rows(_read(path, settings), settings)
    _check_columns(table, path, settings)
    times = _times(table[settings.time], path, settings)
    table = table.assign(**{ROW_TIME: times}).sort_values(ROW_TIME, kind="stable")
    events = ((item[0], 0, item) for item in _events(table, settings))
    labels = ((item[0], 1, item) for item in _labels(table, path, settings, settings.replay))
    for _, _, item in heapq.merge(events, labels, key=lambda entry: entry[:2]):
        yield item


def _read(path: Path, settings: Settings) -> pd.DataFrame:
    import pandas as pd

    try:
        if path.name.removesuffix(".gz").endswith((".parquet", ".pq")):
            return _read_parquet(path)
        return _read_csv(path, settings)
    except EOFError as error:
        raise SourceError(f"{path}: is cut off: it ends within its compressed data; give the whole file") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not text in UTF-8; give a CSV file, gzip too, or a Parquet file") from error
    except pd.errors.EmptyDataError as error:
        raise SourceError(f"{path}: is empty, without even a line of column names; give a recorded stream") from error
    except pd.errors.ParserWarning as error:
        raise SourceError(
            f"{path}: its lines have more cells than there are column names; give every column a name"
        ) from error
    except pd.errors.ParserError as error:
        what = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise SourceError(f"{path}: is not a table: {what}; give every line a cell for each column name") from error
    except (OSError, ValueError, ImportError, *_DAMAGED) as error:
        raise SourceError(
            f"{path}: cannot be read as a recorded stream: {error}; give a CSV or Parquet file"
        ) from error


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file as its columns are, whatever pandas' own notes in it say of an index or of types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path)
    for place, column in enumerate(table.schema):
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(pa.string()))
        elif pa.types.is_dictionary(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(column.type.value_type))
    read: pd.DataFrame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    return read


def _read_csv(path: Path, settings: Settings) -> pd.DataFrame:
    """Read a CSV file; a cell that is not of its column's type is the text that it is, the others what they are."""
    import pandas as pd

    texts = {field.path or name for name, field in settings.fields.items() if field.type in ("category", "text")}
    texts |= {settings.id, settings.label.path} if settings.task == "multiclass" else {settings.id}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # of columns that are mended here
        warnings.simplefilter("error", pd.errors.ParserWarning)  # of cells that have no column
        table = pd.read_csv(path, dtype=dict.fromkeys(texts, "str"), index_col=False)
    typed = _typed_columns(settings)
    mixed = [name for name in typed if name not in texts and name in table.columns and table[name].dtype.kind == "O"]
    mended = {name: _cell_by_cell(table[name], bools=typed[name]) for name in mixed}
    times = {settings.time, (settings.replay and settings.replay.label_time) or settings.time} - texts
    numbers = [name for name in times if name in table.columns and _is_mostly_numbers(table[name])]
    mended |= {name: _cell_by_cell(table[name], bools=False) for name in numbers}
    return table.assign(**mended)


def _is_mostly_numbers(column: pd.Series[Any]) -> bool:
    """Tell whether a column that pandas read as text would be numbers but for some cells."""
    import pandas as pd

    if column.dtype.kind != "O":
        return False
    known = column.dropna()
    return bool(pd.to_numeric(known, errors="coerce").notna().sum() * 2 > len(known))


def _typed_columns(settings: Settings) -> dict[str, bool]:
    """Return the columns that hold numbers or bools, and whether bools are among what they may hold."""
    fields = settings.fields.items()
    typed = {field.path or name: field.type == "bool" for name, field in fields if field.type in ("number", "bool")}
    label = settings.label
    if settings.task == "regression":
        typed.setdefault(label.path, False)
    elif settings.task == "binary" and not isinstance(label.positive, str) and not isinstance(label.negative, str):
        typed[label.path] = True
    return typed


def _cell_by_cell(column: pd.Series[Any], *, bools: bool) -> pd.Series[Any]:
    """Return a column that pandas read as text, because of some cells, with each cell as what it is."""
    import pandas as pd

    cells = column.tolist()
    for row, number in enumerate(pd.to_numeric(column, errors="coerce").tolist()):
        if isinstance(cells[row], str):
            cells[row] = _BOOLS.get(cells[row], cells[row]) if math.isnan(number) and bools else cells[row]
            cells[row] = cells[row] if math.isnan(number) else number
    return pd.Series(cells, index=column.index, name=column.name, dtype=object)


def _with_rows(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    rows = range(len(table))
    if settings.id == ROW_ID:
        table = table.assign(**{ROW_ID: [str(row) for row in rows]})
    if settings.time == ROW_TIME:
        table = table.assign(**{ROW_TIME: [FIRST_ROW + row * ROW for row in rows]})
    return table


def _check_columns(table: pd.DataFrame, path: Path, settings: Settings) -> None:
    replay = settings.replay
    wanted = [settings.id, settings.time, settings.label.path, *(f.path or n for n, f in settings.fields.items())]
    wanted += [replay.label_time] if replay and replay.label_time else []
    if missing := [name for name in wanted if name not in table.columns]:
        there = [str(name) for name in table.columns if name not in (ROW_ID, ROW_TIME)]
        raise SourceError(
            f"{path}: has no column {' and none '.join(map(repr, missing))}, which headrace.yaml names; "
            f"it has {', '.join(there)}"
        )
    if told := [name for name, field in settings.fields.items() if (field.path or name) == settings.label.path]:
        raise SourceError(
            f"{path}: headrace.yaml names the column {settings.label.path!r} as the label and among the fields, where "
            f"it is not known yet; take {told[0]!r} out of the fields"
        )
    typed = {name: field for name, field in settings.fields.items() if field.type in ("number", "bool")}
    if told := [name for name, field in typed.items() if (field.path or name) == settings.id]:
        raise SourceError(
            f"{path}: headrace.yaml names the column {settings.id!r} as the id, which is a text, and as the "
            f"{typed[told[0]].type} {told[0]!r}; take {told[0]!r} out of the fields"
        )


def _times(column: pd.Series[Any], path: Path, settings: Settings) -> list[int]:
    times = []
    for row, value in zip(column.index, column.tolist(), strict=True):
        time = read_time(_plain(value), settings.time_unit)
        if time is None:
            raise SourceError(
                f"{path}: row {row}, counted from 0: {column.name} {value!r} is no time from 1970 on; "
                f"it must be ISO 8601 or a number of {settings.time_unit} (time_unit)"
            )
        times.append(time)
    return times


def _plain(value: Any) -> Any:
    """Return a time of pandas as text, anything else as it is."""
    return value.isoformat() if hasattr(value, "isoformat") else value


def _events(table: pd.DataFrame, settings: Settings) -> Iterator[Item]:
    columns: dict[str, list[Any]] = {settings.id: _ids(table, settings)}
    columns[settings.time] = [_plain(value) for value in table[settings.time].tolist()]
    for name, field in settings.fields.items():
        columns[field.path or name] = list(map(_converter(field), table[field.path or name].tolist()))
    for row, (time, identifier) in enumerate(zip(table[ROW_TIME].tolist(), columns[settings.id], strict=True)):
        yield time, "event", identifier, nested({name: values[row] for name, values in columns.items()})


def _ids(table: pd.DataFrame, settings: Settings) -> list[str]:
    """Return the ids as text; an empty cell is an empty one, which the decoder refuses."""
    column = table[settings.id]
    return column.astype(str).where(column.notna(), "").tolist()


def _labels(table: pd.DataFrame, path: Path, settings: Settings, replay: ReplaySettings) -> Iterator[Item]:
    label, label_id = settings.label, settings.label.id or settings.id
    known = table[table[label.path].notna()]
    if replay.label_time is None:
        times = [time + replay.label_delay for time in known[ROW_TIME].tolist()]
    else:
        known = known[known[replay.label_time].notna()]
        times = _times(known[replay.label_time], path, settings)
    rows = sorted(
        zip(times, _ids(known, settings), known[label.path].tolist(), strict=True),
        key=lambda row: row[0],
    )
    for time, identifier, outcome in rows:
        payload = {label_id: identifier, label.path: _outcome(outcome, settings)}
        yield time, "label", identifier, nested(payload if label.time is None else {**payload, label.time: time})


def nested(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON in which each value is where its path says: a column ``a.b`` is ``b`` inside ``a``."""
    found: dict[str, Any] = {}
    for path, value in columns.items():
        *parents, leaf = path.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return found


def _outcome(value: Any, settings: Settings) -> Any:
    value = value.item() if hasattr(value, "item") else value
    value = float(value) if isinstance(value, Decimal) else value
    if settings.task == "multiclass":
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return value


def _converter(field: FieldSettings) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if field.type == "number":
            return float(value) if isinstance(value, (int, float, Decimal)) else value
        if field.type == "bool":
            return bool(value) if value in (0, 1) else value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value)

    return convert
