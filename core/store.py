"""Delta Lake tables: append once, read a pinned version, compact and vacuum. The only deltalake import."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError

from core.errors import StoreError

Filter = tuple[str, str, Any]


@dataclass(frozen=True)
class Maintenance:
    """What maintaining one table did."""

    table: str
    files_removed: int
    files_added: int
    files_vacuumed: int


class TableStore:
    """The tables below one folder (or object store URI).

    Parameters
    ----------
    root : path or URI
        Folder that holds one Delta table a sub-folder.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = str(root)

    def append(self, table: str, rows: pa.Table, *, app: str, sequence: int) -> int:
        """Append rows once and return the table's version.

        Columns of the table that the rows do not have are null in them. A second append of the same or a lower
        `sequence` by the same `app` is dropped: Delta itself would accept it.

        Parameters
        ----------
        table : str
            Table name.
        rows : pyarrow.Table
            Non-empty or empty; an empty one creates the table if it does not exist.
        app : str
            Who writes, such as ``worker-0``.
        sequence : int
            Number of this write, increasing with each of the app's writes to this table.

        Raises
        ------
        StoreError
            If the table cannot be written, its columns differ among others.
        """
        last = self.last_sequence(table, app)
        if last is not None and last >= sequence:
            return self._open(table).version()
        with _translated(table, "written"):
            write_deltalake(
                self._path(table),
                rows,
                mode="append",
                schema_mode="merge" if self._has_more_columns(table, rows) else None,
                commit_properties=CommitProperties(app_transactions=[Transaction(app, sequence)]),
            )
        return self._open(table).version()

    def last_sequence(self, table: str, app: str) -> int | None:
        """Return the highest sequence that `app` appended, or None."""
        if not self.exists(table):
            return None
        with _translated(table, "read"):
            found: int | None = self._open(table).transaction_version(app)
        return found

    def exists(self, table: str) -> bool:
        """Tell whether the table has been written at least once."""
        with _translated(table, "looked for"):
            return bool(DeltaTable.is_deltatable(self._path(table)))

    def version(self, table: str) -> int | None:
        """Return the table's latest version, or None if there is no such table."""
        return self._open(table).version() if self.exists(table) else None

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: Sequence[Filter] | None = None,
    ) -> pa.Table:
        """Read rows.

        Parameters
        ----------
        version : int, optional
            A version of the table; the latest if left out.
        columns : sequence of str, optional
            All if left out.
        where : sequence of (column, operator, value), optional
            All must hold; operators as in pyarrow filters, such as ``("event_time", ">=", datetime)``.

        Raises
        ------
        StoreError
            If the table or the version cannot be read.
        """
        with _translated(table, "read"):
            opened = self._open(table, version)
            return opened.to_pyarrow_table(
                columns=list(columns) if columns is not None else None,
                filters=list(where) if where else None,
            )

    def widen(self, table: str, schema: pa.Schema) -> None:
        """Add the columns of `schema` that the table does not have yet; null in the rows so far.

        Raises
        ------
        StoreError
            If a column has another type in the table.
        """
        with _translated(table, "widened"):
            opened = self._open(table)
            types = {field.name: str(field.type) for field in opened.to_pyarrow_dataset().schema}
            for field in schema:
                if types.get(field.name, str(field.type)) != str(field.type):
                    raise StoreError(
                        f"table {table!r}: column {field.name!r} holds {types[field.name]}, and would now be "
                        f"{field.type}; give what it comes from another name in the project file"
                    )
            if missing := [field for field in schema if field.name not in types]:
                opened.alter.add_columns(list(Schema.from_arrow(pa.schema(missing)).fields))

    def maintain(
        self, table: str, *, keep_versions: Callable[[], Sequence[int]], retention_hours: int = 168
    ) -> Maintenance:
        """Compact small files, then remove files that no kept version needs.

        Parameters
        ----------
        keep_versions : callable
            Returns the versions that must stay readable whatever their age; asked after compacting, so that a
            version pinned while it was the latest is known.
        retention_hours : int
            Files younger than this stay anyway.
        """
        with _translated(table, "maintained"):
            opened = self._open(table)
            compacted = opened.optimize.compact()
            removed = opened.vacuum(
                retention_hours=retention_hours,
                dry_run=False,
                enforce_retention_duration=False,
                keep_versions=sorted(set(keep_versions())) or None,
            )
        return Maintenance(table, compacted["numFilesRemoved"], compacted["numFilesAdded"], len(removed))

    def _has_more_columns(self, table: str, rows: pa.Table) -> bool:
        if not self.exists(table):
            return False
        names = {field.name for field in self._open(table).schema().fields}
        return set(rows.column_names) < names

    def _path(self, table: str) -> str:
        return f"{self._root}/{table}"

    def _open(self, table: str, version: int | None = None) -> DeltaTable:
        with _translated(table, "opened"):
            return DeltaTable(self._path(table), version=version)


@contextmanager
def _translated(table: str, done: str) -> Iterator[None]:
    try:
        yield
    except TableNotFoundError as error:
        raise StoreError(f"table {table!r} does not exist yet: nothing has been written to it") from error
    except StoreError:
        raise
    except Exception as error:  # deltalake has errors of its own, pyarrow's, OSError, and for some a bare Exception
        raise StoreError(f"table {table!r} cannot be {done}: {error}") from error
