"""A database table or query of the past, row by row. The only import of SQLAlchemy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Executable, create_engine, quoted_name, select, table, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from core.errors import SourceError
from core.history_settings import HistorySettings
from streaming.ingest_files import missing_column
from streaming.ingest_rows import Row, column_of

_AT_ONCE = 4_096


def database_name(source: HistorySettings, folder: Path) -> str:
    """Return a database's address for people, without a password.

    Raises
    ------
    SourceError
        If there is no address, or it is none.
    """
    return _address(source, folder).render_as_string(hide_password=True)


def read_database(source: HistorySettings, folder: Path, wanted: list[str]) -> Iterator[Row]:
    """Yield the rows of a table or query, as the database sends them.

    Parameters
    ----------
    source : HistorySettings
        Says where.
    folder : Path
        The project folder, to which the file of an SQLite database is relative.
    wanted : list of str
        Paths; each is a column, or its first part is one that holds structures.

    Raises
    ------
    SourceError
        If the database cannot be reached or asked, or the rows lack a column.
    """
    address = _address(source, folder)
    shown = address.render_as_string(hide_password=True)
    statement = _statement(source)
    try:
        engine = create_engine(address)
        with engine.connect().execution_options(stream_results=True, max_row_buffer=_AT_ONCE) as connection:
            result = connection.execute(statement)
            there = list(result.keys())
            for name in wanted:
                if column_of(name, there) is None:
                    raise SourceError(missing_column(shown, name, there))
            for rows in result.mappings().partitions(_AT_ONCE):
                yield from map(dict, rows)
        engine.dispose()
    except (NoSuchModuleError, ImportError) as error:
        raise SourceError(
            f"{shown}: the driver of this database is not installed ({error}); "
            "for PostgreSQL install headrace[postgres]"
        ) from error
    except (SQLAlchemyError, ValueError) as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        raise SourceError(f"{shown}: cannot be read: {said[0]}") from error


def _statement(source: HistorySettings) -> Executable:
    if source.query is not None:
        return text(source.query.replace(":", r"\:"))
    schema, _, name = (source.table or "").rpartition(".")
    return select(text("*")).select_from(table(quoted_name(name, quote=True), schema=schema or None))


def _address(source: HistorySettings, folder: Path) -> URL:
    given = source.url
    if source.url_from is not None:
        given = os.environ.get(source.url_from)
        if not given:
            raise SourceError(
                f"the environment variable {source.url_from}, which history names in url_from, is not set; "
                "put the database's URL there"
            )
    try:
        address = make_url(given or "")
    except ArgumentError as error:
        where = source.url_from or "url"
        raise SourceError(f"{where}: is no SQLAlchemy URL; write dialect://user@host/database") from error
    if address.get_backend_name() != "sqlite" or not address.database:
        return address
    file = folder / address.database
    if not file.is_file():  # SQLite would make an empty one
        raise SourceError(f"{file}: there is no such database")
    return address.set(database=str(file))
