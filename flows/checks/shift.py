"""Numbers whose unit changed: from one row to the next all values are another, known unit's. Pure.

A world that changed is what a retraining is for, so a jump alone is nothing. A change of unit is sought that is as
abrupt, larger than any jump before it, lasts, and after whose undoing the values go on as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.clocks import Clock
from core.quarantine import Span
from core.settings import Settings
from flows.checks.columns import MIN_ROWS, Column, Numbers, Times
from flows.checks.report import DataCheck, allow_it, found, to_check

JUDGED = 3
"""So many hold-outs' lengths are judged: a unit may have changed before the latest began."""

_KNOWN = 20
"""Stretches before the judged ones that are needed to say what is usual."""

_HISTORY = 120_000
"""Rows before the judged ones that say what is usual, the latest."""

_DISTINCT = 5
"""Different quantiles that a stretch needs. What has fewer is a code (a month, a count of nothing much), which steps
anyway, and some change of unit leads through any one or two of them."""

_ABRUPT, _NEAR = 0.75, 5
"""Share of a jump that must be there between the nearest fifths of its stretches: a walk goes far in many steps."""

_LASTS, _STRETCHES, _SETTLED = 0.75, 4, 7
"""Share of the later stretches that must be nearer to the new unit than to the old one, how many there must be, and the
part of a hold-out's length that they must cover: a swing of the day is over by then."""

_LONG = 2.0
"""Between all later rows and as many before, a change of unit may leave so many times as much as between stretches."""

_QUANTILES = np.linspace(0.02, 0.98, 25)


@dataclass(frozen=True)
class Conversion:
    """A change of unit: the new value is `factor` times the old one, plus `offset`.

    Attributes
    ----------
    name : str
        As it is said.
    factor, offset : float
        The affine map.
    """

    name: str
    factor: float
    offset: float = 0.0

    def apply(self, values: Numbers) -> Numbers:
        """Return the values in the new unit.

        Examples
        --------
        >>> FAHRENHEIT_TO_CELSIUS.apply(np.array([32.0, 212.0])).round(9)
        array([  0., 100.])
        """
        return np.asarray(self.factor * values + self.offset, dtype=np.float64)


_FACTORS = {
    "miles and kilometres": 1.609344,
    "kilograms and pounds": 2.20462,
    "metres a second and miles an hour": 2.23694,
    "metres and feet": 3.28084,
    "metres a second and kilometres an hour": 3.6,
    "gallons and litres": 3.78541,
    "a number and its tenth": 10.0,
    "inches and millimetres": 25.4,
    "inches of mercury and hectopascals": 33.8639,
    "minutes and seconds, or hours and minutes": 60.0,
    "a share and percent": 100.0,
    "thousands and ones": 1000.0,
    "hours and seconds": 3600.0,
}
FAHRENHEIT_TO_CELSIUS = Conversion("from Fahrenheit to Celsius", 1.0 / 1.8, -32.0 / 1.8)
CONVERSIONS = [
    FAHRENHEIT_TO_CELSIUS,
    Conversion("from Celsius to Fahrenheit", 1.8, 32.0),
    Conversion("from Celsius to Kelvin", 1.0, 273.15),
    Conversion("from Kelvin to Celsius", 1.0, -273.15),
    *(Conversion(f"between {name}", factor) for name, factor in _FACTORS.items()),
    *(Conversion(f"between {name}", 1.0 / factor) for name, factor in _FACTORS.items()),
]
"""Changes of unit by name."""


@dataclass(frozen=True)
class _Demand:
    """What a jump must be to be a change of unit.

    Attributes
    ----------
    times : float
        How many times the largest jump before, at least.
    left : float
        Share of the jump that the change of unit leaves unexplained, at most.
    """

    times: float
    left: float


_BY_OFFSET, _BY_FACTOR = _Demand(1.3, 0.35), _Demand(2.0, 0.1)
"""Between Fahrenheit and Celsius values move and shrink in a way that nothing else does. A factor of 2 is also what
prices do: there the shape must be the same as well as a stable history shows it."""

_OFFSET_COUNTS = 0.25
"""Share of the jump that the offset must make up: of values in the thousands 32 degrees are nothing, only a factor."""


@dataclass(frozen=True)
class Jump:
    """A change of unit.

    Attributes
    ----------
    row : int
        The first row in the new unit, among those where the feature is known.
    times : float
        How many times the largest jump before.
    left : float
        Share of the jump that the conversion leaves unexplained.
    conversion : Conversion
        The one that leaves least.
    """

    row: int
    times: float
    left: float
    conversion: Conversion


def shift_checks(
    columns: Sequence[Column], event_time: Times, span: int, accepted: Sequence[Span], settings: Settings
) -> list[DataCheck]:
    """Return the numbers whose unit changed lately.

    Parameters
    ----------
    span : int
        Length of the hold-out, ms.
    accepted : sequence of (int, int)
        Windows of a break that has lasted: what begins there is how the stream is now.
    """
    failed = []
    for column in to_check(columns, "shift", settings):
        if column.kind != "number":
            continue
        known = np.isfinite(column.values)
        times = event_time[known]
        jump = unit_change(column.values[known], times, span)
        if jump is not None and not _inside(int(times[jump.row]), span, accepted):
            failed.append(_jumped(column.name, jump, int(times[jump.row]), settings.clock))
    return found(failed, DataCheck("shift", "passed", None, None, "No number's unit changed lately."))


def unit_change(values: Numbers, event_time: Times, span: int) -> Jump | None:
    """Return the change of unit in the latest rows that leaves least unexplained; None if there is none.

    Stretches of 50, 100, 200, ... rows before and behind every row are compared, up to half a hold-out: short ones
    see an hour that falls by 40 degrees, long ones what varies from row to row.

    Parameters
    ----------
    values : array of float
        A number's known values, in order of time.
    event_time : array of int
        When they were, ms.
    span : int
        Length of the hold-out, ms.
    """
    if not len(values):
        return None
    end = int(event_time[-1]) + 1
    judged, held = (int(np.searchsorted(event_time, end - length)) for length in (JUDGED * span, span))
    settled = int(np.searchsorted(event_time, end - span // _SETTLED))
    skipped = max(judged - _HISTORY, 0)
    values, judged, settled = values[skipped:], judged - skipped, settled - skipped
    longest = max((len(event_time) - held) // 2, MIN_ROWS)
    jumps = []
    length = MIN_ROWS
    while length <= longest and judged > _KNOWN * length:
        jumps.append(_jump(values, judged, min(settled, len(values) - _STRETCHES * length), length))
        length *= 2
    best = min((jump for jump in jumps if jump is not None), key=lambda jump: jump.left, default=None)
    return best if best is None else Jump(best.row + skipped, best.times, best.left, best.conversion)


def _jump(values: Numbers, judged: int, settled: int, length: int) -> Jump | None:
    """Judge the largest jump of the mean between stretches of so many rows on both sides of a row in [judged, settled].

    Where it is settled, at least a stretch follows.
    """
    sizes = _steps(values, length)  # the first is at the row `length`
    usual = float(sizes[: judged - 2 * length].max())  # nothing judged is in their stretches
    latest = sizes[judged - length : settled - length + 1]
    if not len(latest) or usual <= 1e-9 * latest.max():
        return None  # what never moved before has no unit that is known
    row, times = judged + int(latest.argmax()), float(latest.max()) / usual
    if times < min(_BY_OFFSET.times, _BY_FACTOR.times) or not _abrupt(values, row, length):
        return None
    before, after = _curves(values, row, length)
    if min(len(np.unique(before)), len(np.unique(after))) < _DISTINCT:
        return None
    fitting = (
        Jump(row, times, left, one)
        for one in CONVERSIONS
        if (left := _left(before, after, one)) <= (demand := _demand(one, before, after)).left
        and times >= demand.times
        and _lasts(values, row, before, one, length)
        and _left(*_curves(values, row, min(len(values) - row, row)), one) <= _LONG * demand.left
    )
    return min(fitting, key=lambda jump: jump.left, default=None)


def _abrupt(values: Numbers, row: int, length: int) -> bool:
    near, size = max(length // _NEAR, 1), (values[row : row + length].mean() - values[row - length : row].mean())
    return bool(abs(values[row : row + near].mean() - values[row - near : row].mean()) >= _ABRUPT * abs(size))


def _curves(values: Numbers, row: int, length: int) -> tuple[Numbers, Numbers]:
    """Return the quantiles of so many rows before a row, and from it on."""
    before, after = values[row - length : row], values[row : row + length]
    return np.quantile(before, _QUANTILES), np.quantile(after, _QUANTILES)


def _steps(values: Numbers, length: int) -> Numbers:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = (sums[length:] - sums[:-length]) / length
    return np.asarray(np.abs(means[length:] - means[:-length]), dtype=np.float64)


def _left(before: Numbers, after: Numbers, conversion: Conversion) -> float:
    """Return the share of the way between two stretches' quantiles that is left, in the finer of the units."""
    way = float(np.abs(after - before).mean())
    left = float(np.abs(after - conversion.apply(before)).mean()) * max(1.0, 1.0 / conversion.factor)
    return left / way if way > 0.0 else np.inf


def _demand(conversion: Conversion, before: Numbers, after: Numbers) -> _Demand:
    by_offset = conversion.factor != 1.0 and abs(conversion.offset) >= _OFFSET_COUNTS * np.abs(after - before).mean()
    return _BY_OFFSET if by_offset else _BY_FACTOR


def _lasts(values: Numbers, row: int, before: Numbers, conversion: Conversion, length: int) -> bool:
    later = values[row:]
    stretches = later[: len(later) // length * length].reshape(-1, length)
    curves = np.quantile(stretches, _QUANTILES, axis=1).T
    new, old = (np.abs(curves - curve).mean(axis=1) for curve in (conversion.apply(before), before))
    return bool((new < old).mean() >= _LASTS)


def _inside(at: int, span: int, accepted: Sequence[Span]) -> bool:
    return any(start < at + span and at - span < end for start, end in accepted)


def _jumped(name: str, jump: Jump, at: int, clock: Clock) -> DataCheck:
    said = (
        f"{name} jumped at {clock.moment(at)} as a change of unit does, {jump.conversion.name}, {jump.times:.1f} times "
        f"as far as it ever did before: mend its source and the rows since, or {allow_it(name, 'shift')}."
    )
    demand = _BY_OFFSET if jump.conversion.offset and jump.conversion.factor != 1.0 else _BY_FACTOR
    return DataCheck("shift", "failed", jump.left, demand.left, said, name)
