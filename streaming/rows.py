"""The rows of a partition that wait for the tables: when they are to be written, and without whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from core.project import Project
from core.store import TableStore
from streaming.erasure import Erasures, name_in
from streaming.outputs import Output
from streaming.phases import Phases
from streaming.state import State
from streaming.table_writer import TableWriter

_MAX_UNWRITTEN = 4  # times state.flush_rows: rows that may wait while the disk is full


class Rows:
    """Collects the rows of committed steps and writes them when told.

    Parameters
    ----------
    project : Project
        The project.
    partition : int
        Whose rows these are.
    state : State
        The partition's.
    erasures : Erasures
        Which ids are to be erased: no row of one that is not yet goes into a table.
    phases : Phases
        Told what is being done.

    Attributes
    ----------
    flushed_through : int
        Clock up to which the tables have everything, ms.
    """

    def __init__(self, project: Project, partition: int, state: State, erasures: Erasures, phases: Phases) -> None:
        self.flushed_through = state.clock
        self._settings = project.settings.state
        self._state = state
        self._erasures = erasures
        self._phases = phases
        self._writer = TableWriter(TableStore(project.tables), project.settings, partition)
        self._flushed_at = time.monotonic()

    @property
    def waiting(self) -> int:
        """Number of rows that wait."""
        return self._writer.rows

    @property
    def are_many(self) -> bool:
        """Whether so many wait that they are to be written."""
        return self.waiting >= self._settings.flush_rows

    @property
    def are_old(self) -> bool:
        """Whether some have waited so long that they are to be written."""
        return self.waiting > 0 and time.monotonic() - self._flushed_at >= self._settings.flush_every / 1000

    @property
    def are_too_many(self) -> bool:
        """Whether so many wait that there may be no more of them."""
        return self.waiting >= _MAX_UNWRITTEN * self._settings.flush_rows

    def add(self, outputs: Iterable[Output]) -> None:
        """Take in what followed from committed steps."""
        self._writer.add(outputs)

    def write(self) -> None:
        """Write what waits.

        Raises
        ------
        StoreError
            If a table cannot be written; what waits is kept.
        """
        self._writer.flush(self._state.step, self._erased())

    def flush(self) -> None:
        """Write what waits, which is all that was stepped through.

        Raises
        ------
        StoreError
            See `write`.
        """
        with self._phases.enter("table flush"):
            self.write()
        self.flushed_through = self._state.clock
        self._flushed_at = time.monotonic()

    def _erased(self) -> Callable[[str], bool] | None:
        """Return what tells whether an id is to be erased, and is not yet; None where none is."""
        names = {name_in(request) for request in self._erasures.asked() - self._state.erased.keys()}
        return (lambda event_id: self._erasures.name(event_id) in names) if names else None
