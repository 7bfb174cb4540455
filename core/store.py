"""Delta Lake tables: append once, read a pinned version, compact and vacuum. The only deltalake import."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, FileSystem, PyFileSystem

from core.errors import StoreError, VersionGoneError
from core.tables import Filter, Rows

R = TypeVar("R")

_LOG_RETENTION = "delta.logRetentionDuration"
_FOR_EVER = "interval 36500 days"
"""Delta's own 30 days would take the log of a pinned version from below it: only `maintain` shortens a log."""

_STATISTICS = "delta.dataSkippingStatsColumns"
_COUNTED = ("event_time", "clock", "label_time", "label_clock", "partition", "step", "label_step")
"""Of these columns alone smallest and largest values go into the log, which outlives the rows: none names anybody."""

_SLACK_HOURS = 24
_TRIES = 20
_NOT_IN_THE_LOG = (
    "no files in log segment",
    "logsegment end version",
    "no table metadata or protocol found",
    "expected contiguous commit files",
)


@dataclass(frozen=True)
class Maintenance:
    """What maintaining one table did.

    Attributes
    ----------
    table : str
        Its name.
    files_removed, files_added, files_vacuumed : int
        Files that were compacted, what they became, and files that no kept version needs.
    versions_gone : tuple of int
        Versions that were to be kept and cannot be read any more.
    problem : str or None
        Why it could not be maintained; None if it was.
    """

    table: str
    files_removed: int = 0
    files_added: int = 0
    files_vacuumed: int = 0
    versions_gone: tuple[int, ...] = ()
    problem: str | None = None


class TableStore:
    """The tables below one folder (or object store URI).

    Parameters
    ----------
    root : path or URI
        Folder that holds one Delta table a sub-folder.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = str(root)

    def append(self, table: str, rows: Rows, *, app: str, sequence: int) -> int:
        """Append rows once and return the table's version.

        Columns of the table that the rows do not have are null in them. A second append of the same or a lower
        `sequence` by the same `app` is dropped, also where two of that app write at the same moment: rows are
        committed on the version in which the sequence was looked up, or not at all.

        Parameters
        ----------
        table : str
            Table name.
        rows : pyarrow.Table or callable
            An empty one creates the table if it does not exist, and is nothing else. A callable is asked again
            where another writer of this app was quicker.
        app : str
            Who writes, such as ``worker-0``.
        sequence : int
            Number of this write, increasing with each of the app's writes to this table.

        Raises
        ------
        StoreError
            If the table cannot be written, its columns differ among others.
        """
        with _translated(table, "written"):
            return _repeated(table, lambda: self._append(table, rows, app, sequence))

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
        VersionGoneError
            If there is no such version, or not any more.
        StoreError
            If the table cannot be read.
        """
        with _translated(table, "read"):
            opened = self._open(table, version)
            try:
                return opened.to_pyarrow_table(
                    columns=list(columns) if columns is not None else None,
                    filters=list(where) if where else None,
                )
            except FileNotFoundError as error:
                if version is None:
                    raise
                raise self._gone(table, version) from error

    def widen(self, table: str, schema: pa.Schema) -> None:
        """Add the columns of `schema` that the table does not have yet; null in the rows so far.

        Raises
        ------
        StoreError
            If a column has another type in the table.
        """
        with _translated(table, "widened"):
            _repeated(table, lambda: self._widen(table, schema))

    def maintain(
        self, table: str, *, keep_versions: Callable[[], Sequence[int]], retention_hours: int = 168
    ) -> Maintenance:
        """Compact small files, then remove files and log that no kept version needs.

        Parameters
        ----------
        keep_versions : callable
            Returns the versions that must stay readable whatever their age; asked after compacting, so that a
            version pinned while it was the latest is known. One that is gone does not hold up the others.
        retention_hours : int
            Files younger than this stay anyway; so does a log younger than this and a day.

        Raises
        ------
        StoreError
            If the table cannot be maintained, or it cannot be told whether a kept version can be read: then
            nothing is removed.
        """
        with _translated(table, "maintained"):
            opened = _repeated(table, lambda: self._open_with_log(table))
            compacted = opened.optimize.compact()
            wanted = sorted(set(keep_versions()))
            since = {version: self._written_at(table, version) for version in wanted}
            kept = [version for version in wanted if since[version] is not None]
            removed = opened.vacuum(
                retention_hours=retention_hours,
                dry_run=False,
                enforce_retention_duration=False,
                keep_versions=kept or None,
            )
            oldest = min([time.time() - retention_hours * 3600, *(at for at in since.values() if at is not None)])
            self._shorten_log(table, oldest)
        gone = tuple(version for version in wanted if since[version] is None)
        return Maintenance(table, compacted["numFilesRemoved"], compacted["numFilesAdded"], len(removed), gone)

    def delete(self, table: str, predicate: str) -> int:
        """Delete rows and return how many; the predicate (SQL) stays in the table's log.

        Versions from before have them still, as long as their files are there: see `older_files`.

        Raises
        ------
        StoreError
            If the table cannot be written.
        """
        with _translated(table, "written"):
            done = _repeated(table, lambda: self._open_with_log(table).delete(predicate))
        return int(done["num_deleted_rows"])

    def rewrite(self, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace all rows by what `change` makes of them; nothing of that is in the table's log.

        Raises
        ------
        StoreError
            If the table cannot be written.
        """

        def step() -> None:
            opened = self._open_with_log(table)
            write_deltalake(opened, change(opened.to_pyarrow_table()), mode="overwrite")

        with _translated(table, "written"):
            _repeated(table, step)

    def older_files(self, table: str) -> tuple[FileSystem, list[str]]:
        """Return the table's file system, and in it the data files that its latest version does not have.

        Raises
        ------
        StoreError
            If they cannot be listed.
        """
        with _translated(table, "listed"):
            filesystem = PyFileSystem(DeltaStorageHandler(self._path(table)))
            found = filesystem.get_file_info(FileSelector("", recursive=True))
            names = [entry.path for entry in found if entry.is_file and entry.path.endswith(".parquet")]
            used = set(pa.table(self._open(table).get_add_actions(flatten=True))["path"].to_pylist())
        data = [name for name in names if not name.startswith("_delta_log/")]
        return filesystem, [name for name in data if name not in used]

    def is_whole(self, table: str, version: int) -> bool:
        """Tell whether a version can be read: it is in the log, and all of its files are there.

        Raises
        ------
        StoreError
            If that cannot be told.
        """
        with _translated(table, "looked through"):
            try:
                wanted = pa.table(self._open(table, version).get_add_actions(flatten=True))["path"].to_pylist()
            except VersionGoneError:
                return False
            filesystem = PyFileSystem(DeltaStorageHandler(self._path(table)))
            return all(entry.is_file for entry in filesystem.get_file_info(wanted)) if wanted else True

    def _append(self, table: str, rows: Rows, app: str, sequence: int) -> int:
        opened = self._open_with_log(table) if self.exists(table) else None
        last = None if opened is None else opened.transaction_version(app)
        if opened is not None and last is not None and last >= sequence:
            return opened.version()
        content = rows if isinstance(rows, pa.Table) else rows(last)
        if opened is None:
            return self._create(table, content, Transaction(app, sequence))
        if content.num_rows:
            fewer = set(content.column_names) < {field.name for field in opened.schema().fields}
            write_deltalake(
                opened,
                content,
                mode="append",
                schema_mode="merge" if fewer else None,
                commit_properties=CommitProperties(app_transactions=[Transaction(app, sequence)]),
            )
        return opened.version()

    def _create(self, table: str, rows: pa.Table, transaction: Transaction) -> int:
        """Write version 0; of several that try, one does: Delta would let the others repeat theirs as version 1."""
        try:
            write_deltalake(
                self._path(table),
                rows,
                mode="error",
                configuration=_properties(rows.schema.names, _FOR_EVER),
                commit_properties=CommitProperties(app_transactions=[transaction], max_commit_retries=0),
            )
        except DeltaError as error:
            if self.exists(table):
                raise CommitFailedError(f"{table}: made by another") from error
            raise
        return 0

    def _widen(self, table: str, schema: pa.Schema) -> None:
        opened = self._open_with_log(table)
        types = {field.name: field.type for field in opened.to_pyarrow_dataset().schema}
        for field in schema:
            if types.get(field.name, field.type) != field.type:
                raise StoreError(
                    f"table {table!r}: column {field.name!r} holds {types[field.name]}, and would now be "
                    f"{field.type}; give what it comes from another name in the project file"
                )
        if missing := [field for field in schema if field.name not in types]:
            opened.alter.add_columns(list(Schema.from_arrow(pa.schema(missing)).fields))

    def _written_at(self, table: str, version: int) -> float | None:
        """Return when the newest file of a version was written, s: not after its commit. None if it is gone."""
        try:
            files = pa.table(self._open(table, version).get_add_actions(flatten=True))
        except VersionGoneError:
            return None
        return max(files["modification_time"].to_pylist(), default=0) / 1000

    def _shorten_log(self, table: str, oldest: float) -> None:
        """Remove the log that no version since `oldest`, s, needs; a long log makes every append slow."""
        hours = max(int((time.time() - oldest) / 3600), 0) + _SLACK_HOURS
        _repeated(table, lambda: self._open_with_log(table, f"interval {hours} hours")).cleanup_metadata()
        _repeated(table, lambda: self._open_with_log(table))

    def _path(self, table: str) -> str:
        return f"{self._root}/{table}"

    def _open(self, table: str, version: int | None = None) -> DeltaTable:
        with _translated(table, "opened"):
            try:
                return DeltaTable(self._path(table), version=version)
            except DeltaError as error:
                known = any(text in str(error).lower() for text in _NOT_IN_THE_LOG)
                if version is None or not known or not self.exists(table):
                    raise
                raise self._gone(table, version) from error

    def _open_with_log(self, table: str, kept: str = _FOR_EVER) -> DeltaTable:
        """Open the latest version, after having Delta keep the log so long; an earlier headrace set less."""
        opened = self._open(table)
        wanted = _properties([field.name for field in opened.schema().fields], kept)
        if wanted.items() <= opened.metadata().configuration.items():
            return opened
        opened.alter.set_table_properties(wanted)
        return self._open(table)  # not as it was altered: others' commits may have come before that

    def _gone(self, table: str, version: int) -> VersionGoneError:
        latest = self._open(table).version()
        if version > latest:
            return VersionGoneError(f"table {table!r} has no version {version}; its latest is {latest}")
        return VersionGoneError(
            f"version {version} of table {table!r} is gone: maintenance, headrace erase or privacy.retention has "
            f"removed files or its part of the log; pinned and recent versions are kept, up to the latest, {latest}"
        )


def _properties(columns: Sequence[str], log_kept: str) -> dict[str, str]:
    counted = [name for name in _COUNTED if name in columns]
    return {_LOG_RETENTION: log_kept, **({_STATISTICS: ",".join(counted)} if counted else {})}


def _repeated(table: str, step: Callable[[], R]) -> R:
    """Do a step on the latest version, again where another's commit came between."""
    for _ in range(_TRIES):
        try:
            return step()
        except CommitFailedError as error:
            last = error
    raise StoreError(f"table {table!r}: others wrote to it during {_TRIES} tries in a row: {last}") from last


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
