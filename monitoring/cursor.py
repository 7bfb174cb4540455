"""Where the monitor is among the stages. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monitoring.windows import Progress, WindowStage


@dataclass(frozen=True)
class Cursor:
    """What the monitor remembers between stages; durable in the ledger.

    Attributes
    ----------
    progress : Progress
        Which stages are done.
    first_event : int
        Event time of the stream's first event, ms, as known when monitoring began.
    appended : int
        Rows appended to the ``windows`` table: the number of the latest append.
    closed, reported, alerts : int
        Windows whose data stage is done, of which a report was made, that alerted.
    """

    progress: Progress
    first_event: int
    appended: int = 0
    closed: int = 0
    reported: int = 0
    alerts: int = 0

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Cursor:
        """Read a cursor from the ledger."""
        return cls(**{**body, "progress": Progress(**body["progress"])})


@dataclass(frozen=True)
class Due:
    """A stage that is due, and where the monitor was when it began with it.

    Attributes
    ----------
    stage : WindowStage
    cursor : Cursor
        Read together with the stage: it tells which row of the ``windows`` table is the stage's.
    remembered : dict or None
        What the ledger held of it; None before the first stage.
    """

    stage: WindowStage
    cursor: Cursor
    remembered: dict[str, Any] | None
