"""The axes of a chart: where a time stands on it, and which values get a label. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime

from core.clocks import ROW_CLOCK, UTC_CLOCK, Clock
from core.durations import DAY, HOUR, MINUTE, ROW, SECOND, WEEK
from core.recorded import FIRST_ROW

_SMALL, _FLAT = 1e-3, 1e-9
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_STEPS = [
    *(SECOND * n for n in (1, 5, 15, 30)),
    *(MINUTE * n for n in (1, 5, 15, 30)),
    *(HOUR * n for n in (1, 3, 6, 12)),
    *(DAY * n for n in (1, 2)),
    *(WEEK * n for n in (1, 2)),
]
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200)
_MONDAY = 4 * DAY  # the first one after 1970 began


def nice_step(span: float, count: int) -> float:
    """Return a round step that divides `span` into at most `count` parts.

    Examples
    --------
    >>> nice_step(0.37, 5), nice_step(45_312, 6)
    (0.1, 10000.0)
    """
    power = 10.0 ** math.floor(math.log10(span / count))
    return power * next(nice for nice in _NICE if power * nice * count >= span * (1 - 1e-9))


@dataclass(frozen=True)
class ValueAxis:
    """An axis of losses.

    Attributes
    ----------
    ticks : list of float
        The labelled values, evenly spaced, from the lower end of the axis to the upper.
    step : float
        The distance between two.
    """

    ticks: list[float]
    step: float

    @classmethod
    def over(cls, low: float, high: float, count: int = 5) -> ValueAxis:
        """Return the axis that holds `low` to `high` between round values.

        Examples
        --------
        >>> [ValueAxis.over(0.42, 0.61).text(tick) for tick in ValueAxis.over(0.42, 0.61).ticks]
        ['0.40', '0.45', '0.50', '0.55', '0.60', '0.65']
        """
        largest = max(abs(low), abs(high), _SMALL)
        if high - low <= _FLAT * largest:
            room = largest / 10
            low, high = low - room, high + room
        step = nice_step(high - low, count)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls([number * step for number in range(first, last + 1)], step)

    def place(self, value: float) -> float:
        """Return where a value stands: 0 at the lower end, 1 at the upper."""
        return (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])

    def text(self, tick: float) -> str:
        """Write a labelled value with as many places as the step needs."""
        places = next(places for places in range(16) if math.isclose(round(self.step, places), self.step))
        return f"{tick:,.{places}f}"


@dataclass(frozen=True)
class TimeAxis:
    """An axis of event time.

    Attributes
    ----------
    start, end : int
        Its two ends, ms.
    rows : bool
        Whether time counts the rows of a file.
    """

    start: int
    end: int
    rows: bool

    @property
    def clock(self) -> Clock:
        """How times are written."""
        return ROW_CLOCK if self.rows else UTC_CLOCK

    def read(self, value: str | float) -> int:
        """Read a time of the result, to ms."""
        return self.clock.from_json(value)

    def percent(self, moment: float) -> float:
        """Return where a time (ms) stands, in percent of the axis."""
        return round(100 * (moment - self.start) / (self.end - self.start), 3)

    def text(self, moment: int) -> str:
        """Write a time, ms: as a row's number, or in UTC as exactly as it needs.

        Examples
        --------
        >>> TimeAxis(0, DAY, rows=False).text(6 * HOUR), TimeAxis(0, DAY, rows=False).text(DAY)
        ('1970-01-01 06:00', '1970-01-02')
        >>> TimeAxis(FIRST_ROW, FIRST_ROW + DAY, rows=True).text(FIRST_ROW + 2_000 * ROW)
        'row 2,000'
        """
        if self.rows:
            return self.clock.moment(moment)
        form = "%Y-%m-%d" if moment % DAY == 0 else "%Y-%m-%d %H:%M" if moment % MINUTE == 0 else "%Y-%m-%d %H:%M:%S"
        return datetime.fromtimestamp(moment / 1000, UTC).strftime(form)

    def ticks(self, count: int = 7) -> list[tuple[int, str]]:
        """Return at most about `count` round times (ms) on the axis, and how they are written."""
        if self.rows:
            step = max(int(nice_step((self.end - self.start) / ROW, count)), 1) * ROW
            return [(moment, f"{(moment - FIRST_ROW) // ROW:,}") for moment in self._each(step, FIRST_ROW)]
        at = bisect_left(_STEPS, (self.end - self.start) / count)
        if at == len(_STEPS):
            return self._months(count)
        step = _STEPS[at]
        form = "%Y-%m-%d" if step >= DAY else "%m-%d %H:%M" if step >= MINUTE else "%H:%M:%S"
        return [
            (moment, datetime.fromtimestamp(moment / 1000, UTC).strftime(form))
            for moment in self._each(step, _MONDAY if step >= WEEK else 0)
        ]

    def _each(self, step: int, origin: int) -> range:
        return range(self.start + (origin - self.start) % step, self.end + 1, step)

    def _months(self, count: int) -> list[tuple[int, str]]:
        first, last = (_month(moment) for moment in (self.start, self.end))
        step = next((step for step in _MONTHS if (last - first) / step <= count), _MONTHS[-1])
        found = []
        for month in range(-(-first // step) * step, last + 1, step):
            began = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
            moment = round(began.timestamp() * 1000)
            if self.start <= moment <= self.end:
                found.append((moment, began.strftime("%Y" if step >= 12 else "%Y-%m")))
        return found


def _month(moment: int) -> int:
    """Return the number of a time's month."""
    when = datetime.fromtimestamp(moment / 1000, UTC)
    return when.year * 12 + when.month - 1
