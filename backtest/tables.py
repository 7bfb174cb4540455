"""The tables in memory: what :class:`core.store.TableStore` is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.tables import Filter, Rows

_COMPARISONS = {
    "=": pc.equal,
    "==": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


class MemoryTables:
    """Holds tables as they are appended.

    Examples
    --------
    >>> tables = MemoryTables()
    >>> tables.append("t", pa.table({"x": [1, 2, 3]}), app="a", sequence=1)
    1
    >>> tables.read("t", where=[("x", ">", 1)])["x"].to_pylist()
    [2, 3]
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[pa.Table]] = {}
        self._sequences: dict[tuple[str, str], int] = {}

    def append(self, table: str, rows: Rows, *, app: str, sequence: int) -> int:
        """See :meth:`core.store.TableStore.append`."""
        made = rows(self.last_sequence(table, app)) if callable(rows) else rows
        self._parts.setdefault(table, []).append(made)
        self._sequences[table, app] = sequence
        return len(self._parts[table])

    def last_sequence(self, table: str, app: str) -> int | None:
        """See :meth:`core.store.TableStore.last_sequence`."""
        return self._sequences.get((table, app))

    def exists(self, table: str) -> bool:
        """See :meth:`core.store.TableStore.exists`."""
        return table in self._parts

    def whole(self, table: str) -> pa.Table:
        """Return everything that was appended."""
        parts = self._parts[table]
        if len(parts) > 1:
            self._parts[table] = parts = [pa.concat_tables(parts).combine_chunks()]
        return parts[0]

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: Sequence[Filter] | None = None,
    ) -> pa.Table:
        """See :meth:`core.store.TableStore.read`; there is one version."""
        rows = self.whole(table)
        mask = matching(rows, where or ())
        rows = rows if mask is None else rows.filter(mask)
        return rows if columns is None else rows.select(list(columns))


def matching(rows: pa.Table, where: Sequence[Filter]) -> Any:
    """Return a mask of the rows for which all conditions hold; None for no condition."""
    mask = None
    for column, operator, value in where:
        found = _COMPARISONS[operator](rows[column], pa.scalar(value, rows.schema.field(column).type))
        mask = found if mask is None else pc.and_(mask, found)
    return mask
