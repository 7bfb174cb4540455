"""Files of the past, CSV (gzip too) or Parquet, row by row: never more than some thousand rows in memory."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import SourceError
from streaming.ingest_rows import MISSING_TEXTS, Refused, Row, as_number, column_of, numeric_times

_CSV, _PARQUET = (".csv", ".csv.gz"), (".parquet", ".pq")
_AT_ONCE = 4_096
_LONGEST_CELL = 10_000_000


def find_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files that a project names, in the order of their names.

    Parameters
    ----------
    folder : Path
        The project folder, to which `pattern` is relative.
    pattern : str
        A file, a folder, or a pattern (``past/*.parquet``, ``past/**/*.csv.gz``).

    Raises
    ------
    SourceError
        If there is no such file.
    """
    place = (folder / pattern).absolute()
    if place.is_file():
        return [place]
    found = place.rglob("*") if place.is_dir() else Path(place.anchor).glob(str(place.relative_to(place.anchor)))
    files = sorted(path for path in found if path.is_file() and path.name.lower().endswith((*_CSV, *_PARQUET)))
    if not files:
        raise SourceError(f"{place}: there is no such file, and no {', '.join((*_CSV, *_PARQUET))} file below it")
    return files


def is_text(path: Path) -> bool:
    """Tell whether a file's cells are text: whether it is CSV."""
    return not path.name.lower().endswith(_PARQUET)


def read_file(path: Path, wanted: list[str], times: list[str], skip: int = 0) -> Iterator[Row]:
    """Yield a file's rows, with the columns that are wanted.

    Parameters
    ----------
    wanted : list of str
        Paths; each is a column, or its first part is one that holds structures.
    times : list of str
        Those of them that are times: of a CSV file, where most are numbers, numbers.
    skip : int
        Rows to leave out at the beginning.

    Raises
    ------
    SourceError
        If the file cannot be read, or lacks a column.
    """
    try:
        yield from _csv_rows(path, wanted, times, skip) if is_text(path) else _parquet_rows(path, wanted, skip)
    except EOFError as error:
        raise SourceError(f"{path}: is cut off: it ends within its compressed data; give the whole file") from error
    except (OSError, ValueError, csv.Error, zlib.error, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read: {error}; give a CSV file in UTF-8, or a Parquet file") from error


def _parquet_rows(path: Path, wanted: list[str], skip: int) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        columns = _columns(path, wanted, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=_AT_ONCE, columns=columns):
            rest = batch.slice(min(skip, batch.num_rows))
            skip -= batch.num_rows - rest.num_rows
            yield from rest.to_pylist()


def _csv_rows(path: Path, wanted: list[str], times: list[str], skip: int) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    with _opened(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        columns = _columns(path, wanted, header)
        if twice := [name for name in columns if header.count(name) > 1]:
            raise SourceError(f"{path}: has the column {twice[0]!r} twice; rename one")
        places = {name: header.index(name) for name in columns}
        kept: list[list[str]] = []
        numeric: list[str] | None = None
        for cells in reader:
            if not cells:
                continue
            kept.append(cells)
            if len(kept) == _AT_ONCE:
                numeric = _numeric(kept, places, times, len(header)) if numeric is None else numeric
                yield from _rows(kept[skip:], places, numeric, len(header))
                skip, kept = max(skip - len(kept), 0), []
        numeric = _numeric(kept, places, times, len(header)) if numeric is None else numeric
        yield from _rows(kept[skip:], places, numeric, len(header))


def _opened(path: Path) -> TextIO:
    """Open a text; bytes that are no UTF-8 make their own row bad, not the file."""
    options = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    return gzip.open(path, "rt", **options) if path.suffix.lower() == ".gz" else path.open(**options)  # type: ignore[call-overload, no-any-return]


def _numeric(kept: list[list[str]], places: dict[str, int], times: list[str], width: int) -> list[str]:
    whole = [cells for cells in kept if len(cells) == width]
    return [name for name in times if name in places and numeric_times(cells[places[name]] for cells in whole)]


def _rows(kept: list[list[str]], places: dict[str, int], numeric: list[str], width: int) -> Iterator[Row]:
    for cells in kept:
        if len(cells) != width:
            yield Refused(f"has {len(cells)} cells where the header has {width}")
            continue
        row: dict[str, str | int | float] = {name: cells[place] for name, place in places.items()}
        for name in numeric:
            row[name] = _number(str(row[name]))
        yield row


def _number(text: str) -> str | int | float:
    if text in MISSING_TEXTS:
        return text
    whole = text.strip().removeprefix("-")
    if whole.isascii() and whole.isdigit() and len(whole) < 20:
        return int(text)
    number = as_number(text)
    return text if number is None else number


def _columns(path: Path, wanted: list[str], there: list[str]) -> list[str]:
    """Return the columns to read.

    Raises
    ------
    SourceError
        If one is missing.
    """
    found = {name: column_of(name, there) for name in wanted}
    if missing := [name for name, column in found.items() if column is None]:
        raise SourceError(missing_column(str(path), missing[0], there))
    return list(dict.fromkeys(column for column in found.values() if column is not None))


def missing_column(where: str, name: str, there: list[str]) -> str:
    """Return what is said of a column that is not there."""
    return f"{where}: has no column {name!r}, which headrace.yaml names; it has {', '.join(there)}"
