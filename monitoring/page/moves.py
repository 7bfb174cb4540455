"""How each signal of a stage differs from the reference: by how much, and in what. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.loop_settings import DriftSettings
from core.settings import Settings
from monitoring.columns import take_sample
from monitoring.comparison import LABEL, PREDICTION
from monitoring.inspection import Inspection
from monitoring.judgement import feature_limit, is_calibrated, label_limit
from monitoring.page.values import Values, missing_share, shares, values_of

QUANTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}
MOST_CHANGES = 3
_SMALLEST = 0.005


@dataclass(frozen=True)
class Change:
    """A quantile, or the share of a value, in the reference and in the window."""

    what: str
    before: float
    now: float


@dataclass(frozen=True)
class Move:
    """How a signal differs from the reference.

    Attributes
    ----------
    distance, limit : float or None
        How far it moved, and what that usually does not exceed (or the fixed limit); None where that is not known.
    missing : tuple of float or None
        The share of missing values in the reference and in the window.
    changes : tuple of Change
        Quantiles of numbers; of categories the values that grew or shrank most.
    is_number : bool
        Whether these are numbers.
    note : str
        Why it was not compared.
    """

    name: str
    distance: float | None = None
    limit: float | None = None
    missing: tuple[float, float] | None = None
    changes: tuple[Change, ...] = ()
    is_number: bool = False
    note: str = ""

    @property
    def is_far(self) -> bool:
        """Whether it moved further than is usual."""
        return self.distance is not None and self.limit is not None and self.distance > self.limit


def moves(found: Inspection, settings: Settings) -> list[Move]:
    """Return the signals of a stage, those that moved most first; none where it could not be compared."""
    if found.sides is None:
        return []
    sides, sample = found.sides, settings.windows.sample
    current, reference = take_sample(sides.current, sample), take_sample(sides.reference, sample)
    distances, limits = _distances(found), limits_of(found, settings.drift)
    names = _ranked(found, distances, limits)
    names += [name for name in found.report.skipped if name not in names]
    return [
        _move(
            name,
            (values_of(reference, name, settings), values_of(current, name, settings)),
            Move(name, distances.get(name), limits.get(name), note=found.report.skipped.get(name, "")),
        )
        for name in names
    ]


def limits_of(found: Inspection, drift: DriftSettings) -> dict[str, float]:
    """Return of each signal what it usually does not exceed, or its fixed limit."""
    surprise = found.surprise
    if surprise is not None and is_calibrated(found.evidence(0), drift):
        limits = {signal.name: signal.usual for signal in surprise.moved}
    elif found.stage.stage == "data":
        limits = dict.fromkeys(found.report.features, feature_limit(drift))
    else:
        limits = {LABEL: label_limit(drift)}
    if found.stage.stage == "data":
        limits[PREDICTION] = max(_usual_prediction(found), drift.prediction_threshold)
    return {name: limit for name, limit in limits.items() if math.isfinite(limit)}


def _usual_prediction(found: Inspection) -> float:
    usual = found.reference.calibrations.get("prediction") if found.reference else None
    moved = found.report.prediction
    if usual is None or moved is None:
        return 0.0
    return usual.surprise({PREDICTION: moved}, found.stage.start).moved[0].usual


def _distances(found: Inspection) -> dict[str, float]:
    report = found.report
    others = {PREDICTION: report.prediction, LABEL: report.label}
    return {**report.features, **{name: far for name, far in others.items() if far is not None}}


def _ranked(found: Inspection, distances: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """Return the compared signals as the policy ranks them: the most unusual first, predictions after the features."""
    surprising = [] if found.surprise is None else [signal.name for signal in found.surprise.moved]
    places = {name: place for place, name in enumerate(surprising)}

    def rank(name: str) -> tuple[bool, bool, int, float, str]:
        far = distances[name] > limits.get(name, math.inf)
        return name == PREDICTION, not far, places.get(name, len(places)), -distances[name], name

    return sorted(distances, key=rank)


def _move(name: str, sides: tuple[Values | None, Values | None], known: Move) -> Move:
    before, now = sides
    if before is None or now is None:
        return known
    missing = missing_share(before), missing_share(now)
    if isinstance(before, list) or isinstance(now, list):
        assert isinstance(before, list) and isinstance(now, list)
        return Move(name, known.distance, known.limit, missing, _shifts(before, now), note=known.note)
    return Move(name, known.distance, known.limit, missing, _quantiles(before, now), is_number=True, note=known.note)


def _quantiles(before: NDArray[np.float64], now: NDArray[np.float64]) -> tuple[Change, ...]:
    if np.isnan(before).all() or np.isnan(now).all():
        return ()
    sides = (np.nanquantile(side, list(QUANTILES.values())).tolist() for side in (before, now))
    return tuple(Change(what, was, now) for what, was, now in zip(QUANTILES, *sides, strict=True))


def _shifts(before: list[str], now: list[str]) -> tuple[Change, ...]:
    """Return the values whose shares changed most, those that grew first."""
    was, found = shares(before), shares(now)
    changes = [Change(value, was.get(value, 0.0), found.get(value, 0.0)) for value in sorted(was.keys() | found.keys())]
    largest = sorted(changes, key=lambda change: -abs(change.now - change.before))[:MOST_CHANGES]
    told = [change for change in largest if abs(change.now - change.before) >= _SMALLEST]
    return tuple(sorted(told, key=lambda change: change.before - change.now))
