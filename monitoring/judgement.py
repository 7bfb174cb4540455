"""The verdict on a window's stage: drifted and why, steady, or not judged. Pure.

What is unusual for this very stream has drifted: the limit of a stage is the surprise that its reference's own days
give half of ``drift.false_alarms`` times (:mod:`monitoring.calibration`; the other stage gives the other half). Fixed
limits hold where the project file sets them, and where a reference has too few days to be calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.loop_settings import DriftSettings
from core.quarantine import Span
from core.wording import NAMED, listed, told_apart
from monitoring.calibration import Signal, Surprise
from monitoring.gain import Gain
from monitoring.windows import WindowStage

VerdictName = Literal["drifted", "steady", "not judged"]

FEATURE_THRESHOLD, LABEL_THRESHOLD, QUALITY_DROP = 0.5, 0.25, 0.25
"""Fixed limits where neither the project file nor the reference says what is usual."""

_STAGES = 2
_CALM = 4.0
_LOSS = "champion's loss"


@dataclass(frozen=True)
class Evidence:
    """What is known about a window at one of its stages.

    Attributes
    ----------
    window : WindowStage
        The stage; its due time is the policy's *now*.
    first_event : int
        Event time of the stream's first event, ms.
    champion : int or None
        Version of the champion now; None before the first promotion.
    rows : int
        Rows of this stage: predictions, or examples once labels are due.
    features : mapping of str to float
        Distance of each feature that could be compared.
    prediction, label : float or None
        Distance of the served predictions and of the labels.
    champion_loss, validation_loss : float or None
        Mean loss of the champion in the window, over `loss_rows` rows, and on its hold-out.
    season : tuple of int or None
        The season that it was compared with, event time, ms; None for the champion's reference.
    surprise : Surprise or None
        How unusual that is for this stream; None where its reference is not calibrated.
    prediction_chance : float or None
        How likely the served predictions of an unchanged window move as far; None where that is not known.
    breaks : tuple of str
        Why the window is not to be learned from, one sentence each.
    doubts : tuple of str
        Why it is still broken, if the window before was.
    kept_out : bool
        Whether the window is in quarantine already.
    detected : tuple of str
        When the loss began to rise, a sentence each: no reason by itself, but told beside those that there are.
    volume : str or None
        What is unusual in the number of the window's events: worth an alert, and no drift.
    problem : str or None
        Why the window cannot be judged though it should be (a damaged reference): worth an alert.
    examples : int
        Labelled examples so far, but for those of windows in quarantine.
    trained_rows : int
        Rows that the champion was trained on; 0 where that is not known.
    shortfall : float or None
        By how much the champion's loss has risen against the served one since its validation: a difference of logs.
    past : tuple of Gain
        What former retrainings gained.
    alerted : bool
        Whether the window's other stage alerted already.
    open_retraining : bool
        Whether a retraining is under way.
    retrainings : tuple of int
        Event times of the retrainings decided by anybody, ms.
    in_shadow : int or None
        The challenger that predicts in shadow and is not decided yet, if there is one.
    """

    window: WindowStage
    first_event: int
    champion: int | None = None
    rows: int = 0
    features: Mapping[str, float] = field(default_factory=dict)
    prediction: float | None = None
    label: float | None = None
    champion_loss: float | None = None
    validation_loss: float | None = None
    loss_rows: int = 0
    season: Span | None = None
    surprise: Surprise | None = None
    prediction_chance: float | None = None
    breaks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    kept_out: bool = False
    detected: tuple[str, ...] = ()
    volume: str | None = None
    problem: str | None = None
    examples: int = 0
    trained_rows: int = 0
    shortfall: float | None = None
    past: tuple[Gain, ...] = ()
    alerted: bool = False
    open_retraining: bool = False
    retrainings: tuple[int, ...] = ()
    in_shadow: int | None = None


@dataclass(frozen=True)
class Judgement:
    """What a stage says of its window: drifted and why, or why it is not judged; calm if it is far from drifted.

    What has drifted is in `what` by its names, the farthest first, as short as it can be remembered.
    """

    verdict: VerdictName
    reasons: tuple[str, ...] = ()
    what: tuple[str, ...] = ()
    drifted_share: float | None = None
    calm: bool = False


@dataclass(frozen=True)
class _Found:
    """What has drifted: a sentence, and the names of what moved."""

    reason: str
    names: tuple[str, ...]


def judge(evidence: Evidence, drift: DriftSettings) -> Judgement:
    """Return whether the stage says that its window has drifted.

    Examples
    --------
    >>> window = WindowStage(0, 10, "data", 10)
    >>> seen = Evidence(window, 0, champion=1, rows=900, features={"a": 0.7, "b": 0.1}, prediction=0.1)
    >>> judge(seen, DriftSettings()).reasons
    ('1 of 2 features moved by 0.50 or more (share 0.50, limit 0.30): a 0.70.',)
    """
    why_not = _why_not_judged(evidence, drift)
    if why_not is not None:
        return Judgement("not judged", (why_not,))
    found = [
        *(_surprise_reasons(evidence, drift) if is_calibrated(evidence, drift) else _fixed_reasons(evidence, drift)),
        _prediction_reason(evidence, drift),
    ]
    drifted = [one for one in found if one is not None]
    reasons = tuple(one.reason for one in drifted)
    return Judgement(
        "drifted" if reasons else "steady",
        (*reasons, *evidence.detected) if reasons else (),
        tuple(dict.fromkeys(name for one in drifted for name in one.names)),
        _share_moved(evidence, drift),
        calm=not reasons and (evidence.surprise is None or evidence.surprise.chance >= _CALM * _limit(evidence, drift)),
    )


def is_calibrated(evidence: Evidence, drift: DriftSettings) -> bool:
    """Tell whether what is usual decides: it is known, and the project file sets no limit of its own."""
    data = evidence.window.stage == "data"
    own = [drift.feature_threshold] if data else [drift.label_threshold, drift.quality_drop]
    return evidence.surprise is not None and all(limit is None for limit in own)


def _surprise_reasons(evidence: Evidence, drift: DriftSettings) -> list[_Found | None]:
    surprise, window = evidence.surprise, evidence.window
    assert surprise is not None
    behind = _behind_reason(evidence)
    if surprise.chance >= _limit(evidence, drift):
        return [behind]
    once_in = float(f"{(window.end - window.start) / _STAGES / max(surprise.chance, 1e-9):.2g}")
    farthest = [signal for signal in surprise.moved if signal.distance > signal.usual] or surprise.moved[:1]
    reason = (
        f"Unusual for {_what_is_usual(evidence)}: {listed([*map(_far, farthest)])}. "
        f"Unchanged it would show as much once in {window.clock.span(round(once_in))} "
        f"(limit: once in {window.clock.span(drift.false_alarms)})."
    )
    return [_Found(reason, tuple(signal.name for signal in farthest[:NAMED])), behind]


def _what_is_usual(evidence: Evidence) -> str:
    if evidence.season is None:
        return "this stream"
    start, end = map(evidence.window.clock.moment, evidence.season)
    return f"the season a year ago, {start} to {end}"


def _far(signal: Signal) -> str:
    far = signal.distance > signal.usual
    distance, usual = told_apart(signal.distance, signal.usual if far else signal.typical)
    return f"{signal.name} {distance} (usually {'below' if far else 'around'} {usual})"


def _behind_reason(evidence: Evidence) -> _Found | None:
    """The champion has fallen behind what is served, on the same rows: no hard week explains that."""
    shortfall = evidence.shortfall
    if shortfall is None or shortfall <= math.log1p(QUALITY_DROP):
        return None
    reason = (
        f"The champion's loss has risen by {math.expm1(shortfall):.0%} against that of the served prediction "
        f"since its validation (limit {QUALITY_DROP:.0%})."
    )
    return _Found(reason, (_LOSS,))


def _prediction_reason(evidence: Evidence, drift: DriftSettings) -> _Found | None:
    """The served predictions moved far, and further than they usually do."""
    chance = evidence.prediction_chance
    if chance is not None and chance >= _limit(evidence, drift):
        return None
    return _distance_reason("served predictions", evidence.prediction, drift.prediction_threshold)


def _limit(evidence: Evidence, drift: DriftSettings) -> float:
    """Return the chance below which a stage has drifted."""
    return min((evidence.window.end - evidence.window.start) / drift.false_alarms, 1.0) / _STAGES


def _fixed_reasons(evidence: Evidence, drift: DriftSettings) -> list[_Found | None]:
    return [_features_reason(evidence, drift), _label_reason(evidence, drift), _quality_reason(evidence, drift)]


def _why_not_judged(evidence: Evidence, drift: DriftSettings) -> str | None:
    if evidence.problem is not None:
        return evidence.problem
    if evidence.champion is None:
        return "No reference: there is no champion yet."
    if evidence.kept_out:
        return "The window is in quarantine: what it says of drift does not count."
    what = "predictions" if evidence.window.stage == "data" else "labels"
    if evidence.rows < drift.min_rows:
        return f"Too few rows: {evidence.rows} {what}, at least {drift.min_rows} are needed."
    compared = (evidence.prediction, evidence.label, evidence.champion_loss)
    if not evidence.features and all(value is None for value in compared):
        return "Nothing to compare: no column has values both in the window and in the reference."
    return None


def _reaches(value: float | None, threshold: float) -> bool:
    return value is not None and math.isfinite(threshold) and value >= threshold


def feature_limit(drift: DriftSettings) -> float:
    """Return the fixed limit on a feature's distance."""
    return FEATURE_THRESHOLD if drift.feature_threshold is None else drift.feature_threshold


def _moved(evidence: Evidence, drift: DriftSettings) -> dict[str, float]:
    limit = feature_limit(drift)
    return {name: far for name, far in evidence.features.items() if _reaches(far, limit)}


def _share_moved(evidence: Evidence, drift: DriftSettings) -> float | None:
    return len(_moved(evidence, drift)) / len(evidence.features) if evidence.features else None


def _features_reason(evidence: Evidence, drift: DriftSettings) -> _Found | None:
    moved, share, total = _moved(evidence, drift), _share_moved(evidence, drift), len(evidence.features)
    if share is None or not _reaches(share, drift.feature_share):
        return None
    farthest = sorted(moved.items(), key=lambda item: (-item[1], item[0]))
    names = listed([f"{name} {distance:.2f}" for name, distance in farthest])
    reason = (
        f"{len(moved)} of {total} features moved by {feature_limit(drift):.2f} or more "
        f"(share {share:.2f}, limit {drift.feature_share:.2f}): {names}."
    )
    return _Found(reason, tuple(name for name, _ in farthest[:NAMED]))


def _label_reason(evidence: Evidence, drift: DriftSettings) -> _Found | None:
    return _distance_reason("labels", evidence.label, label_limit(drift))


def label_limit(drift: DriftSettings) -> float:
    """Return the fixed limit on the labels' distance."""
    return LABEL_THRESHOLD if drift.label_threshold is None else drift.label_threshold


def _distance_reason(what: str, distance: float | None, threshold: float) -> _Found | None:
    if distance is None or not _reaches(distance, threshold):
        return None
    moved, limit = told_apart(distance, threshold)
    return _Found(f"The {what} moved by {moved} (limit {limit}).", (what,))


def _quality_reason(evidence: Evidence, drift: DriftSettings) -> _Found | None:
    loss, validation = evidence.champion_loss, evidence.validation_loss
    limit = QUALITY_DROP if drift.quality_drop is None else drift.quality_drop
    if loss is None or validation is None or evidence.loss_rows < drift.min_rows:
        return None
    if not math.isfinite(limit) or loss <= (1 + limit) * validation:
        return None
    reason = f"The champion's mean loss {loss:.4f} is more than {limit:.0%} above its validation loss {validation:.4f}."
    return _Found(reason, (_LOSS,))
