"""Numbers that jumped as they never did: a unit or a meaning was changed between training and hold-out. Pure.

The rows are cut into parts in time, and each of the latest is compared with the part before it: by the mean distance
of their quantiles, as a share of the largest such step before. A season moves far in many steps, a unit in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.clocks import Clock
from core.quarantine import Span
from core.settings import Settings
from flows.checks.columns import MIN_ROWS, Column, Numbers, Times, time_parts
from flows.checks.report import DataCheck, allow_it, found, to_check

PARTS_OF_HOLDOUT = 2
"""Parts of half the hold-out's length: a unit that changes in its middle is seen too."""

JUDGED = 3 * PARTS_OF_HOLDOUT
"""So many of the latest parts are judged: a unit may have changed before the hold-out began."""

FAR = 0.4
"""Standard deviations below which nothing is a jump."""

FITS = 0.2
"""A change of unit explains a jump if it leaves no more than this share of the distance."""

_SPREADS = 1.75
"""And the spread must be what it makes of it, give or take this factor: near 0 much fits."""

_RATIO, _RATIOS_OF_FEW = 1.5, ((8, 3.5), (20, 2.1))
"""How many times the largest step before a jump is; of less than so many steps the largest says less."""

_UNNAMED_RATIO, _LEAST_NAMED, _LEAST_UNNAMED = 2.5, 2, 20
"""The same without a change of unit that explains it, and the steps that must be known with and without one."""

_LEAST_COUNTED = 8
_DISTINCT = 5
"""Different quantiles that a part needs. What has fewer is a code (a month, a count of nothing much): it steps anyway,
and some change of unit leads through any one or two of them."""

_MOST_PARTS = 120
_QUANTILES = np.linspace(0.02, 0.98, 25)

_FACTORS = {
    "miles and kilometres": 1.609344,
    "metres and feet": 3.28084,
    "inches and millimetres": 25.4,
    "metres a second and miles an hour": 2.23694,
    "kilograms and pounds": 2.20462,
    "inches of mercury and hectopascals": 33.8639,
    "a number and its tenth": 10.0,
    "a share and percent": 100.0,
    "thousands and ones": 1000.0,
    "minutes and seconds": 60.0,
    "hours and seconds": 3600.0,
}
CONVERSIONS: list[tuple[str, float, float]] = [
    *((f"between {name}", factor, 0.0) for name, factor in _FACTORS.items()),
    *((f"between {name}", 1.0 / factor, 0.0) for name, factor in _FACTORS.items()),
    ("from Fahrenheit to Celsius", 1.0 / 1.8, -32.0 / 1.8),
    ("from Celsius to Fahrenheit", 1.8, 32.0),
    ("from Celsius to Kelvin", 1.0, 273.15),
    ("from Kelvin to Celsius", 1.0, -273.15),
]
"""Changes of unit by name: the new value is the first number times the old one, plus the second."""


@dataclass(frozen=True)
class Step:
    """From one part to a later one.

    Attributes
    ----------
    far : float
        How far the values moved, in standard deviations of all before.
    times : float
        How many times the largest step before; infinite if there was none.
    known : int
        Steps before.
    at : int
        Where the later part begins, event time, ms.
    unit : str or None
        The changes of unit that explain it, the best first.
    """

    far: float
    times: float
    known: int
    at: int
    unit: str | None

    def is_jump(self, limit: float) -> bool:
        """Tell whether it is none that the stream makes; `limit` is for one without a change of unit, deviations.

        Examples
        --------
        >>> Step(2.5, 3.0, 20, 0, "from Fahrenheit to Celsius").is_jump(3.0), Step(2.5, 3.0, 20, 0, None).is_jump(3.0)
        (True, False)
        """
        if self.unit is not None and self.known >= _LEAST_NAMED:
            needed = next((ratio for few, ratio in _RATIOS_OF_FEW if self.known < few), _RATIO)
            return self.far >= FAR and self.times >= needed
        return self.known >= _LEAST_UNNAMED and self.far >= limit and self.times >= _UNNAMED_RATIO


def shift_checks(
    columns: Sequence[Column], event_time: Times, span: int, accepted: Sequence[Span], settings: Settings
) -> list[DataCheck]:
    """Return the numbers that jumped in one of the latest parts.

    Parameters
    ----------
    span : int
        Length of the hold-out, ms.
    accepted : sequence of (int, int)
        Windows of a break that has lasted: what begins there is how the stream is now.
    """
    parts = time_parts(event_time, span // PARTS_OF_HOLDOUT, _MOST_PARTS)
    limit, largest, failed = settings.validation.max_shift, 0.0, []
    for column in to_check(columns, "shift", settings):
        if column.kind != "number":
            continue
        steps = [one for one in latest_steps(column.values, event_time, parts) if not _inside(one.at, span, accepted)]
        jumps = [one for one in steps if one.is_jump(limit)]
        if jumps:
            failed.append(_jumped(column.name, max(jumps, key=lambda one: one.far), limit, settings.clock))
        largest = max([largest, *(one.far for one in steps)])
    said = f"No number jumped in the latest {min(JUDGED, len(parts))} of {len(parts)} parts of the rows."
    return found(failed, DataCheck("shift", "passed", largest, limit, said))


def latest_steps(values: Numbers, event_time: Times, parts: Sequence[slice]) -> list[Step]:
    """Return the steps to the latest parts: from the part before, and from the one before that.

    A unit that changes within a part is half in it: from the part before that the step is a whole one.
    Of numbers that count up (a date, an odometer) there are none, nor of codes: they jump when they begin again.
    """
    kept = [(part, numbers) for part in parts if len(numbers := _known(values[part])) >= MIN_ROWS]
    curves = [np.quantile(numbers, _QUANTILES) for _, numbers in kept]
    found_steps: list[Step] = []
    for lag in (1, 2):
        sizes = [float(np.abs(new - old).mean()) for old, new in zip(curves, curves[lag:], strict=False)]
        for place in range(max(len(sizes) - JUDGED, 1), len(sizes)):
            if _counts(curves[: place + lag]) or _is_code(curves[place]) or _is_code(curves[place + lag]):
                continue
            start = kept[place + lag][0].start
            deviation = float(_known(values[:start]).std())
            if deviation > 0.0 and sizes[place] > 0.0:
                before = sizes[: place - lag + 1]  # the steps that ended where this one begins, or earlier
                usual = max(before, default=0.0)
                times = sizes[place] / usual if usual else np.inf
                unit = _conversion(curves[place], curves[place + lag], sizes[place])
                found_steps.append(Step(sizes[place] / deviation, times, len(before), int(event_time[start]), unit))
    return found_steps


def _known(values: Numbers) -> Numbers:
    return values[np.isfinite(values)]


def _counts(curves: Sequence[Numbers]) -> bool:
    middles = np.diff([curve[len(curve) // 2] for curve in curves])
    one_way = bool((middles >= 0).all() or (middles <= 0).all())
    return one_way and len(middles) >= _LEAST_COUNTED and 2 * int((middles != 0).sum()) > len(middles)


def _is_code(curve: Numbers) -> bool:
    return len(np.unique(curve)) < _DISTINCT


def _conversion(old: Numbers, new: Numbers, size: float) -> str | None:
    """Return the changes of unit that turn one part's quantiles into the other's, the best first."""
    spread = _spread(new) / _spread(old)
    left = [
        (float(np.abs(factor * old + offset - new).mean()), name)
        for name, factor, offset in CONVERSIONS
        if factor / _SPREADS <= spread <= factor * _SPREADS
    ]
    return " or ".join(name for distance, name in sorted(left) if distance <= FITS * size) or None


def _spread(curve: Numbers) -> float:
    return float(curve[-3] - curve[2]) or np.inf


def _inside(at: int, span: int, accepted: Sequence[Span]) -> bool:
    return any(start < at + span and at - span < end for start, end in accepted)


def _jumped(name: str, step: Step, limit: float, clock: Clock) -> DataCheck:
    guess = f"as a change of unit would move it, {step.unit}" if step.unit else "was its unit or its meaning changed?"
    times = f"{step.times:.1f} times its largest step before" if np.isfinite(step.times) else "it never moved before"
    said = (
        f"{name} moved by {step.far:.2f} standard deviations about {clock.moment(step.at)}, {times}: {guess}. "
        f"Mend its source and the rows, or {allow_it(name, 'shift')}."
    )
    return DataCheck("shift", "failed", step.far, FAR if step.unit else limit, said.replace("?.", "?"), name)
