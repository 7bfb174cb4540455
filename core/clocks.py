"""How a stream's moments and spans are written: as times in UTC, or as rows of a recorded file without times. Pure.

Inside headrace both are milliseconds. What people and JSON get is written by the project's clock
(:attr:`core.settings.Settings.clock`): whoever gave windows and delays in rows reads rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from core.durations import DAY, ROW, about, format_duration, format_time, parse_iso
from core.recorded import FIRST_ROW, ROW_TIME
from core.wording import counted


class Clock(Protocol):
    """Writes moments and spans, all given in ms; see :class:`UtcClock` and :class:`RowClock`."""

    @property
    def name(self) -> Literal["UTC", "rows"]:
        """What the clock counts in."""

    @property
    def day(self) -> str:
        """What a day is."""

    def moment(self, at: int) -> str:
        """Write a moment so that it says by itself what it is."""

    def brief(self, at: int) -> str:
        """Write a moment for a place that says elsewhere that times are in UTC."""

    def between(self, start: int, end: int) -> str:
        """Write a stretch [start, end)."""

    def span(self, length: int) -> str:
        """Write a length for reading."""

    def setting(self, length: int) -> str:
        """Write a length exactly, as the project file takes it."""

    def key(self, at: int) -> str:
        """Write a moment as a part of a name."""

    def to_json(self, at: int) -> str | float:
        """Return a moment as a JSON value."""

    def from_json(self, value: str | float) -> int:
        """Read what :meth:`to_json` wrote."""


@dataclass(frozen=True)
class UtcClock:
    """Time of day and date, in UTC.

    Examples
    --------
    >>> clock = UtcClock()
    >>> clock.moment(DAY), clock.brief(DAY), clock.span(36 * 3_600_000)
    ('1970-01-02T00:00:00Z', '1970-01-02 00:00', '1.5d')
    >>> clock.between(0, DAY), clock.from_json(clock.to_json(DAY)) == DAY
    ('1970-01-01 00:00 to 1970-01-02 00:00 UTC', True)
    """

    name: Literal["UTC"] = "UTC"
    day: str = "a day"

    def moment(self, at: int) -> str:
        """Write it as ISO 8601."""
        return format_time(at)

    def brief(self, at: int) -> str:
        """Write it without its zone, as exactly as it needs."""
        return format_time(at).removesuffix("Z").replace("T", " ").removesuffix(":00")

    def between(self, start: int, end: int) -> str:
        """Write both ends."""
        return f"{self.brief(start)} to {self.brief(end)} UTC"

    def span(self, length: int) -> str:
        """Write it in its largest unit, to one place."""
        return about(length)

    def setting(self, length: int) -> str:
        """Write it in the largest unit that is exact."""
        return format_duration(length)

    def key(self, at: int) -> str:
        """Write it as ISO 8601."""
        return format_time(at)

    def to_json(self, at: int) -> str:
        """Return it as ISO 8601."""
        return format_time(at)

    def from_json(self, value: str | float) -> int:
        """Read ISO 8601."""
        return parse_iso(str(value))


@dataclass(frozen=True)
class RowClock:
    """The rows of a file without times, counted from 0; the first window may begin before it, and says 0.

    Examples
    --------
    >>> clock, at = RowClock(), FIRST_ROW + 12_000 * ROW
    >>> clock.moment(at), clock.span(500 * ROW), clock.between(at, at + 500 * ROW)
    ('row 12,000', '500 rows', 'rows 12,000 to 12,500')
    >>> clock.to_json(at), clock.from_json(12_000) == at
    (12000, True)
    """

    name: Literal["rows"] = "rows"
    day: str = counted(DAY // ROW, "row")

    def moment(self, at: int) -> str:
        """Write the row's number."""
        return f"row {self._number(at)}"

    def brief(self, at: int) -> str:
        """Write the row's number."""
        return self.moment(at)

    def between(self, start: int, end: int) -> str:
        """Write both ends; the row at the second is none of them."""
        return f"rows {self._number(start)} to {self._number(end)}"

    def span(self, length: int) -> str:
        """Write how many rows it is."""
        return counted(round(length / ROW), "row") if length >= ROW or not length else "less than a row"

    def setting(self, length: int) -> str:
        """Write how many rows it is, so that it can be read again."""
        return f"{_whole(length / ROW)} rows"

    def key(self, at: int) -> str:
        """Write the row's number."""
        return f"row-{self.to_json(at)}"

    def to_json(self, at: int) -> float:
        """Return the row's number."""
        return _whole(max(at - FIRST_ROW, 0) / ROW)

    def from_json(self, value: str | float) -> int:
        """Read a row's number."""
        return FIRST_ROW + round(float(value) * ROW)

    def _number(self, at: int) -> str:
        return f"{self.to_json(at):,}"


UTC_CLOCK, ROW_CLOCK = UtcClock(), RowClock()


def clock_of(time: str) -> Clock:
    """Return the clock of a stream whose time is in this column.

    Examples
    --------
    >>> clock_of("created_at").name, clock_of(ROW_TIME).name
    ('UTC', 'rows')
    """
    return ROW_CLOCK if time == ROW_TIME else UTC_CLOCK


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number
