"""Volume: how many events a window usually has, and whether one has far fewer, or far more. Pure.

What is usual follows from the predictions over the champion's days, labelled or not: of each weekday where there are
three weeks, and of each time of day for windows that a day is divided into. As with the other signals, windows are put
together from those days, and how far their own numbers are from what is expected says what is no news
(:mod:`monitoring.calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from core.durations import DAY, HOUR
from core.loop_settings import DriftSettings
from core.recorded import ROW_TIME
from core.settings import Settings
from core.tables import milliseconds
from monitoring.calibration import FEWEST_BLOCKS, WEEKDAY_BLOCKS, Floats, Positions, chance_of, draw_windows
from monitoring.days import named
from monitoring.windows import WindowStage

FEWER, MORE = 0.5, 3.0
"""Shares of the expected events: whatever is usual, less of a loss and less of a flood are nobody's alert."""

LOST = 0.1
"""A day with less than this share of its events, and with less than half of the quietest day known, is named."""

SHARE = 0.1
"""Share of ``drift.false_alarms`` that volume has on top of the drift of both stages: little, because an outage is far
beyond any limit."""

_DAY_EXPECTS = 30
"""A day that expects fewer is never named: by chance alone less than a tenth of 30 comes once in a billion days."""

_FEW = 30
"""Expected events below which chance alone moves a number by a fifth: there its distance counts for less."""

_RESTS = 0.1
"""Share of empty days from which a stream rests now and then; fewer were outages, and are no part of what is usual."""

_WEEKDAYS = 7
_MOST_TIMES = 1_440
"""Times of day that are told apart at most: minutes."""

_MOST_BLOCKS = 100_000
"""The latest that are counted: more would take seconds and say no more."""


@dataclass(frozen=True)
class Volume:
    """How many events are usual.

    Attributes
    ----------
    block : int
        Length of a block of time, ms: a day, or a shorter window.
    expected : list of float
        Events of a block, by its number since 1970: weekday or time of day after which it begins anew.
    quietest : float
        The smallest share of its expected events that a block had.
    within, across : list of float
        How far drawn windows were from what was expected by all blocks, and by those that they do not have.
    blocks : int
        Blocks that were counted.
    labelled : float
        Share of the events whose labels came; 0 where that is not known.
    """

    block: int
    expected: list[float]
    quietest: float
    within: list[float]
    across: list[float]
    blocks: int
    labelled: float = 0.0

    def expects(self, start: int, end: int) -> float:
        """Return how many events are expected between two times, ms.

        Examples
        --------
        >>> Volume(10, [6.0, 2.0], 1.0, [0.0], [0.0], 8).expects(5, 30)
        11.0
        """
        total = 0.0
        for number in range(start // self.block, -(-end // self.block)):
            inside = min(end, (number + 1) * self.block) - max(start, number * self.block)
            total += self.expected[number % len(self.expected)] * inside / self.block
        return total

    def chance(self, count: int, expected: float) -> float:
        """Return how likely an unchanged window is as far from what is expected."""
        far = float(_distances(np.array([count]), np.array([expected]))[0])
        return chance_of(far, self.within, self.across)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any] | None) -> Volume | None:
        """Read what :meth:`to_json` wrote; None for a reference that was written before there was any."""
        return None if body is None else cls(**body)


def usual_volume(predictions: pa.Table, settings: Settings) -> Volume | None:
    """Return how many events are usual; None where they are too few days for it, or time is a count of rows.

    Parameters
    ----------
    predictions : pyarrow.Table
        ``event_time`` and ``clock`` of all that was predicted over the champion's days, the first and the last of
        which may be parts of days. What came later than its block ended is not counted: a window that is judged when
        it ends does not have it either.
    """
    if settings.time == ROW_TIME or not predictions.num_rows:
        return None
    span = settings.windows.span
    block, length = min(span, DAY), max(round(span / DAY), 1)
    times = milliseconds(predictions["event_time"])
    first, last = (int(times.min()) // DAY + 1) * DAY, int(times.max()) // DAY * DAY
    first = max(first, last - _MOST_BLOCKS * block // DAY * DAY)
    times = times[milliseconds(predictions["clock"]) <= (times // block + 1) * block]
    numbers = np.arange(-(-first // block), last // block)
    if len(numbers) * block < max(2 * length, FEWEST_BLOCKS) * DAY:
        return None
    places = times[(times >= numbers[0] * block) & (times < (numbers[-1] + 1) * block)] // block - numbers[0]
    counted = np.bincount(places, minlength=len(numbers)).astype(np.float64)
    numbers, counts = _without_outages(numbers, counted, block)
    phases = numbers % _cycle(len(numbers), block)
    expected = _means(counts, phases, _cycle(len(numbers), block))
    draw = np.random.default_rng([settings.batch.seed, len(numbers)])
    within, across = _drawn(numbers, counts, phases, expected, length, draw)
    shares = counts[expected[phases] > 0] / expected[phases][expected[phases] > 0]
    return Volume(block, expected.tolist(), float(shares.min(initial=1.0)), within, across, len(numbers))


def unusual_volume(volume: Volume, times: Positions, window: WindowStage, drift: DriftSettings) -> str | None:
    """Return what is unusual in the number of a window's events, and in that of its days; None if nothing is.

    Parameters
    ----------
    times : array of int
        Event times of the window, ms.
    """
    count, expected = len(times), _expected(volume, window, len(times))
    limit = SHARE * min((window.end - window.start) / drift.false_alarms, 1.0)
    far = count < FEWER * expected or count > MORE * expected
    lost = _lost_days(volume, times, window)
    if not far or volume.chance(count, expected) >= limit:
        return None if not lost else f"Hardly any events on {named(lost)}: was a source down?"
    usual = f"where about {_rounded(expected):,} are usual"
    if count > expected:
        return f"{count:,} events, {usual}: does a source send again what it sent?"
    some = 0 < len(lost) * DAY < window.end - window.start
    on = f", and hardly any on {named(lost)}" if some and count else ""
    return f"{f'Only {count:,} events' if count else 'No event'}, {usual}{on}: is a source down?"


def missing_labels(volume: Volume, events: int, labels: int) -> str | None:
    """Return what is unusual in the number of a window's labels once they are due; None if nothing is.

    Parameters
    ----------
    events, labels : int
        The window's events, and how many of them have a label.
    """
    expected = volume.labelled * events
    if expected < _DAY_EXPECTS or labels >= FEWER * expected:
        return None
    usual = f"where {volume.labelled:.0%} is usual"
    return f"Only {labels:,} of {events:,} events have a label, {usual}: do labels still come?"


def _expected(volume: Volume, window: WindowStage, count: int) -> float:
    """Return how many events are expected; of a part of a day, what is closest an hour earlier or later.

    When clocks are changed, a stream that lives by local time comes an hour earlier or later for half a year.
    """
    shifts = (0,) if volume.block == DAY else (0, -HOUR, HOUR)
    usual = [volume.expects(window.start + shift, window.end + shift) for shift in shifts]
    return min(usual, key=lambda expected: abs(math.log((count + 1) / (expected + 1))))


def _lost_days(volume: Volume, times: Positions, window: WindowStage) -> list[int]:
    """Return the whole days of a longer window that have hardly any of their events."""
    if window.end - window.start <= DAY:
        return []
    days = range(-(-window.start // DAY), window.end // DAY)
    expected = {day: volume.expects(day * DAY, (day + 1) * DAY) for day in days}
    found = dict(zip(*(side.tolist() for side in np.unique(times // DAY, return_counts=True)), strict=True))
    limit = min(LOST, volume.quietest / 2)
    return [
        day
        for day, usual in expected.items()
        if usual >= _DAY_EXPECTS and (day not in found or found[day] < limit * usual)
    ]


def _without_outages(numbers: Positions, counts: Floats, block: int) -> tuple[Positions, Floats]:
    """Leave out days without any event, unless the stream rests often."""
    days = numbers * block // DAY - numbers[0] * block // DAY
    empty = np.bincount(days, weights=counts) == 0
    kept = ~empty[days] if empty.mean() < _RESTS else np.ones(len(numbers), dtype=bool)
    return numbers[kept], counts[kept]


def _cycle(blocks: int, block: int) -> int:
    """Return after how many blocks it is the same weekday, or time of day."""
    if block == DAY:
        return _WEEKDAYS if blocks >= WEEKDAY_BLOCKS else 1
    return DAY // block if DAY % block == 0 and DAY // block <= _MOST_TIMES else 1


def _means(counts: Floats, phases: Positions, cycle: int) -> Floats:
    sums, known = np.bincount(phases, weights=counts, minlength=cycle), np.bincount(phases, minlength=cycle)
    return np.asarray(sums / np.maximum(known, 1), dtype=np.float64)


def _drawn(
    numbers: Positions, counts: Floats, phases: Positions, expected: Floats, length: int, draw: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Return how far drawn windows are from what all blocks expect, and from what the others do."""
    cycle = len(expected)
    totals, within, across = [], [], []
    for chosen in draw_windows(numbers, length, draw):
        inside = np.isin(numbers, chosen)
        totals.append(counts[inside].sum())
        within.append(expected[phases[inside]].sum())
        across.append(_means(counts[~inside], phases[~inside], cycle)[phases[inside]].sum())
    found = [_distances(np.array(totals), np.array(usual)) for usual in (within, across)]
    return found[0].tolist(), found[1].tolist()


def _distances(counts: Floats | Positions, expected: Floats) -> Floats:
    """Return how far counts are from what is expected: differences of logarithms, less for a few events."""
    far = np.abs(np.log((counts + 1.0) / (expected + 1.0)))
    return np.asarray(far * np.sqrt(expected / (expected + _FEW)), dtype=np.float64)


def _rounded(expected: float) -> int:
    """Return a number for reading.

    Examples
    --------
    >>> _rounded(6_512.3), _rounded(3.2)
    (6500, 3)
    """
    digits = max(int(math.log10(max(expected, 1.0))) - 1, 0)
    return int(round(expected / 10**digits) * 10**digits)
