"""Calibration: how far the signals of a window usually move, from the reference's own days. Pure.

A distance says nothing by itself: a week's weather is always some way off the month's. So windows are put together
from whole days of the reference (what belongs to a day stays together; where there are days enough, each weekday is
drawn from its like), compared with the reference's other days as a window of the stream will be, and what comes out
is how far each signal usually is from the reference. Of a window one number is judged: how unusual its most unusual
signal is. Its own distribution over the same draws takes care of there being many signals, and of their moving
together; one such statistic, calibrated, needs no correction for many tests (Westfall & Young 1993).

What is usual is estimated from the same few days that it is then applied to: for the drawn windows that makes the
statistic too small, and leaving out each window's own days makes it too large. The chance of a window is a mean of the
logarithms of both, weighted as in the .632 bootstrap (Efron 1983). Beyond what was drawn the tail is taken to be
exponential (peaks over a threshold; Pickands 1975), with the allowance for having estimated it from few draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.durations import DAY
from core.recorded import ROW_TIME
from core.settings import Settings
from core.tables import milliseconds
from monitoring.signals import SERVED_LOSS, Calibrated, Signals

DRAWS = 200
"""Windows that are drawn at most."""

WEEKDAY_BLOCKS = 21
_PARTS_OF_A_WINDOW = 10
_SMALLEST = 0.05
_LEAST_DEVIATION, _LEAST_OF_LOSS = 0.3, 0.1
_FEWEST_OTHERS = 5
_STEPS, _FEWEST_STEPS = 60, 8
_TAIL = 0.2
_OF_WITHIN = 0.632
FEWEST_BLOCKS = 8

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Usual:
    """The logarithm of a signal's distance over the drawn windows: its mean and deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Signal:
    """A signal of a window.

    Attributes
    ----------
    distance, usual, typical : float
        How far it is from the reference, what that hardly exceeds, and what it is in the middle.
    score : float
        By how many deviations it is more than typical.
    """

    name: str
    distance: float
    usual: float
    score: float
    typical: float = 0.0


@dataclass(frozen=True)
class Surprise:
    """How unusual a window is.

    Attributes
    ----------
    chance : float
        How likely a window of an unchanged stream is at least as unusual.
    moved : tuple of Signal
        Its signals, the most unusual first.
    """

    chance: float
    moved: tuple[Signal, ...]


@dataclass(frozen=True)
class Calibration:
    """What is usual for windows of an unchanged stream.

    Attributes
    ----------
    signals : dict of str to Usual
        Each signal's distance.
    within, across : list of float
        The statistic of the drawn windows, ascending: by all of them, and by those that share no day with it.
    blocks : int
        Days (or other blocks) that the windows were drawn from.
    steps : dict of str to float
        The largest distance between two windows that followed each other, of each signal.
    phases : list of dict of str to float
        For windows that a day is divided into: what is to be added to each signal's mean at each time of day.
    """

    signals: dict[str, Usual]
    within: list[float]
    across: list[float]
    blocks: int
    steps: dict[str, float] = field(default_factory=dict)
    phases: list[dict[str, float]] = field(default_factory=list)

    def surprise(self, distances: Mapping[str, float], start: int = 0) -> Surprise:
        """Return how unusual a window with these distances, starting at `start` (ms), is.

        Examples
        --------
        >>> calibration = Calibration({"a": Usual(0.0, 1.0)}, [0.1 * step for step in range(20)], [], 20)
        >>> round(calibration.surprise({"a": 1.0}).chance, 3), calibration.surprise({"a": 1e9}).chance < 0.001
        (0.952, True)
        """
        phase = self.phases[start * len(self.phases) // DAY % len(self.phases)] if self.phases else {}
        signals = [_signal(name, distances.get(name), usual, phase) for name, usual in self.signals.items()]
        statistic = float(_statistics(np.array([[signal.score for signal in signals]]))[0])
        chance = chance_of(statistic, self.within, self.across)
        return Surprise(chance, tuple(sorted(signals, key=lambda signal: (-signal.score, signal.name))))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`to_json` wrote."""
        signals = {name: Usual(**usual) for name, usual in body["signals"].items()}
        return cls(
            signals,
            list(body["within"]),
            list(body["across"]),
            body["blocks"],
            dict(body["steps"]),
            list(body["phases"]),
        )


Calibrations = dict[Calibrated, Calibration]
"""What is usual, for all that could be calibrated."""


def calibrations(rows: pa.Table, settings: Settings) -> Calibrations:
    """Calibrate everything; see :func:`calibrate`."""
    whats: tuple[Calibrated, ...] = get_args(Calibrated)
    found = {what: calibrate(rows, settings, what) for what in whats}
    return {what: calibration for what, calibration in found.items() if calibration is not None}


def calibrate(rows: pa.Table, settings: Settings, what: Calibrated) -> Calibration | None:
    """Return what is usual over windows drawn from these rows; None where they are too few days for it.

    Parameters
    ----------
    rows : pyarrow.Table
        What the champion is trained on, as in the ``examples`` table, in order of event time.
    what : {'data', 'labels', 'prediction'}
        Which signals are calibrated together.
    """
    blocks, length = _blocks(milliseconds(rows["event_time"]), settings)
    numbers = np.unique(blocks)
    if len(numbers) < max(2 * length, FEWEST_BLOCKS):
        return None
    signals = Signals.of(rows, settings, what)
    draw = np.random.default_rng([settings.batch.seed, len(numbers)])
    windows = list(draw_windows(numbers, length, draw))
    drawn = [signals.distances(*_sides(blocks, chosen, settings.windows.sample, draw)) for chosen in windows]
    names = list(dict.fromkeys(name for found in drawn for name in found))
    if not names:
        return None
    logs = np.array([[_log(found.get(name)) for name in names] for found in drawn])
    least = np.array([_LEAST_OF_LOSS if name == SERVED_LOSS else _LEAST_DEVIATION for name in names])
    phases = _phases(logs, windows, settings)
    logs = logs - phases[[int(window[0]) % len(phases) for window in windows]]
    mean, deviation = _usual(logs, least)
    usual = {name: Usual(float(mean[at]), float(deviation[at])) for at, name in enumerate(names)}
    steps = _largest_steps(signals, blocks, length, settings.windows.sample, draw)
    within = _statistics((logs - mean) / deviation)
    by_phase = [dict(zip(names, phase.tolist(), strict=True)) for phase in phases]
    across = sorted(_across(logs, least, windows))
    return Calibration(usual, sorted(within.tolist()), across, len(numbers), steps, by_phase)


def _phases(logs: Floats, windows: list[Positions], settings: Settings) -> Floats:
    """Return how each signal differs from its mean at each time of day; one row where a window is no part of a day."""
    span, overall = settings.windows.span, logs.mean(axis=0)
    if settings.time == ROW_TIME or span >= DAY or DAY % span:
        return np.zeros((1, logs.shape[1]))
    numbers = np.array([int(window[0]) for window in windows]) % (DAY // span)
    means = [logs[numbers == phase].mean(axis=0) if phase in numbers else overall for phase in range(DAY // span)]
    return cast(Floats, np.array(means) - overall)


def _largest_steps(
    signals: Signals, blocks: Positions, length: int, sample: int, draw: np.random.Generator
) -> dict[str, float]:
    """Compare each window with the one before it, the latest of them."""
    numbers = (blocks.max() - blocks) // length
    latest = [_some(np.flatnonzero(numbers == number), sample, draw) for number in np.unique(numbers)[: _STEPS + 1]]
    largest: dict[str, float] = {}
    scale = _some(np.arange(len(blocks)), sample, draw)
    for current, previous in pairwise(latest):
        for name, step in signals.distances(current, previous, scale).items():
            largest[name] = max(step, largest.get(name, 0.0))
    return largest if len(latest) > _FEWEST_STEPS else {}


def _across(logs: Floats, least: Floats, windows: list[Positions]) -> list[float]:
    """Return the statistic of each drawn window by the windows that share no block with it."""
    member = np.array([np.isin(np.unique(np.concatenate(windows)), window) for window in windows], dtype=int)
    apart = member @ member.T == 0
    others = [(row, logs[apart[row]]) for row in range(len(logs)) if apart[row].sum() >= _FEWEST_OTHERS]
    scores = [(logs[row] - mean) / deviation for row, rest in others for mean, deviation in [_usual(rest, least)]]
    return [] if not scores else cast(list[float], _statistics(np.array(scores)).tolist())


def _usual(logs: Floats, least: Floats) -> tuple[Floats, Floats]:
    return logs.mean(axis=0), np.maximum(logs.std(axis=0), least)


def _blocks(times: Positions, settings: Settings) -> tuple[Positions, int]:
    """Return the block of each row, and how many blocks make a window."""
    span = settings.windows.span
    in_time = DAY if span >= DAY else span
    size = max(span // _PARTS_OF_A_WINDOW, 1) if settings.time == ROW_TIME else in_time
    return times // size, max(round(span / size), 1)


def draw_windows(numbers: Positions, length: int, draw: np.random.Generator) -> Iterator[Positions]:
    """Yield the blocks of each drawn window."""
    if length == 1:
        chosen = numbers if len(numbers) <= DRAWS else np.sort(draw.choice(numbers, DRAWS, replace=False))
        yield from (chosen[[at]] for at in range(len(chosen)))
        return
    matched = len(numbers) >= WEEKDAY_BLOCKS
    for _ in range(DRAWS):
        shuffled = draw.permutation(numbers)
        if not matched:
            yield shuffled[:length]
            continue
        first = int(draw.integers(7))
        yield np.concatenate(
            [
                shuffled[shuffled % 7 == weekday][: len(range(first + (weekday - first) % 7, first + length, 7))]
                for weekday in range(7)
            ]
        )


def _sides(blocks: Positions, chosen: Positions, sample: int, draw: np.random.Generator) -> tuple[Positions, Positions]:
    """Return the rows of a drawn window, and those of the other blocks, both sampled."""
    inside = np.isin(blocks, chosen)
    return _some(np.flatnonzero(inside), sample, draw), _some(np.flatnonzero(~inside), sample, draw)


def _some(rows: Positions, sample: int, draw: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= sample else np.sort(draw.choice(rows, sample, replace=False))


def _statistics(scores: Floats) -> Floats:
    """Return of each row how unusual its most unusual signal is, or all of them together."""
    together = scores.mean(axis=1) * math.sqrt(scores.shape[1]) / 2
    return cast(Floats, np.maximum(scores.max(axis=1), together))


def chance_of(statistic: float, within: Sequence[float], across: Sequence[float]) -> float:
    """Return how likely an unchanged window's statistic is as large.

    Parameters
    ----------
    within, across : sequence of float
        The statistic of the drawn windows: by all of them, and by those that share no day with it (perhaps none).
    """
    optimistic = _chance_beyond(np.array(within), statistic)
    if not len(across):
        return optimistic
    return float(optimistic**_OF_WITHIN * _chance_beyond(np.array(across), statistic) ** (1.0 - _OF_WITHIN))


def _chance_beyond(drawn: Floats, statistic: float) -> float:
    edge = float(np.quantile(drawn, 1.0 - _TAIL))
    if statistic <= edge:
        return float((1 + np.sum(drawn >= statistic)) / (len(drawn) + 1))
    peaks = drawn[drawn > edge] - edge
    known = max(_TAIL * len(drawn), 2.0)
    return float(
        _TAIL * (1.0 + (statistic - edge) / (known * max(float(peaks.sum()) / max(len(peaks), 1), 1e-9))) ** -known
    )


def _signal(name: str, distance: float | None, usual: Usual, phase: Mapping[str, float]) -> Signal:
    mean = usual.mean + phase.get(name, 0.0)
    typical, limit = (max(math.exp(mean + times * usual.deviation) - _SMALLEST, 0.0) for times in (0.0, 2.0))
    return Signal(name, distance or 0.0, limit, (_log(distance) - mean) / usual.deviation, typical)


def _log(distance: float | None) -> float:
    return math.log((distance or 0.0) + _SMALLEST)
