"""The comparison: the blend with the challenger against the blend with the champion, on untouched rows.

Every online expert is taken as it predicted at the time (the examples table has it). Both blends start
with fresh weights and go through the hold-out as the stream did: mix when the event was predicted, learn when its
label was known. Mixing only when the label is known would let weights peek at the labels in between.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from core.audit import CHALLENGER_BLEND, CHAMPION_BLEND
from core.batch_model import FittedModel
from core.blend import Blend
from core.metrics import METRICS, losses, score, skill
from core.predictions import Outcome, Prediction, is_sane
from core.setting_types import Task
from core.settings import Settings
from flows.cost import UNMEASURED, Cost, FitCost, cost_of
from flows.examples import Examples
from flows.intervals import Blocks, Difference, blocks_of, clip_of, difference
from flows.reliability import Reliability, Rise
from flows.slices import SliceLoss, slice_losses

if TYPE_CHECKING:
    import pandas as pd

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class CalibrationOf:
    """Calibration error and bias (:mod:`flows.reliability`)."""

    error: float
    bias: float


@dataclass(frozen=True)
class Evaluation:
    """What the hold-out says.

    Attributes
    ----------
    rows : int
        Hold-out rows on which all of the compared predicted.
    start, end : int
        The hold-out's span in event time, ms.
    experts : list of str
        The online experts in both blends.
    not_finite : int
        Hold-out rows on which the challenger's prediction is not finite.
    champion : int or None
        The champion's version; None at the bootstrap.
    promised : float or None
        The skill (:func:`core.metrics.skill`) that the champion showed on its own hold-out; None where not known.
    cost : Cost
        What the challenger takes.
    metrics : dict
        Of challenger, baseline, both blends, the champion and each expert: each metric of the task.
    over : dict
        The blend with the challenger over each of the others: their paired difference and how sure it is.
    alone : Difference or None
        The challenger over the champion, each by itself; None at the bootstrap.
    slices : list of SliceLoss or None
        Both blends on each slice; None at the bootstrap.
    calibration : dict
        Of each of those that have metrics.
    calibration_rise : Rise or None
        From the blend with the champion to that with the challenger; None at the bootstrap, or where it is not known.
    """

    task: Task
    rows: int
    start: int
    end: int
    experts: list[str]
    not_finite: int
    champion: int | None
    cost: Cost
    promised: float | None = None
    metrics: dict[str, Metrics] = field(default_factory=dict)
    over: dict[str, Difference] = field(default_factory=dict)
    alone: Difference | None = None
    slices: list[SliceLoss] | None = None
    calibration: dict[str, CalibrationOf] = field(default_factory=dict)
    calibration_rise: Rise | None = None

    def loss(self, name: str) -> float | None:
        """Return the loss that gates compare; None where it is not known."""
        return self.metrics.get(name, {}).get(METRICS[self.task][0])

    def skill(self, name: str) -> float | None:
        """Return how well one ranks; None where it is not known."""
        return skill(self.task, self.metrics.get(name, {}))

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)


def evaluate(
    settings: Settings,
    holdout: Examples,
    train_outcomes: Sequence[Outcome],
    challenger: FittedModel,
    champion: FittedModel | None,
    fit: FitCost = UNMEASURED,
    promised: float | None = None,
) -> Evaluation:
    """Compare on the hold-out rows where all of them predicted.

    Parameters
    ----------
    holdout : Examples
        Rows that neither model was fitted on.
    train_outcomes : sequence
        Labels of the training rows: the trivial baseline.
    champion : FittedModel or None
        The loaded champion; None only at the bootstrap.
    fit : FitCost
        What the challenger's fit took.
    promised : float, optional
        The champion's skill on its own hold-out.
    """
    ordered = holdout.take(np.argsort(holdout.label_clock, kind="stable"))
    own: dict[str, Sequence[Prediction | None]] = {"challenger": challenger.predict_frame(ordered.frame)}
    if champion is not None:
        own["champion"] = champion.predict_frame(ordered.frame)
    experts = _active_experts(settings, ordered)
    kept = _common_rows([*own.values(), *experts.values()], len(ordered))
    columns = {name: [values[row] for row in kept] for name, values in {**own, **experts}.items()}
    outcomes = [ordered.outcomes[row] for row in kept]
    columns["baseline"] = [trivial(settings.task, train_outcomes)] * len(kept)
    course = _Course(_in_order(ordered, kept), _anew(ordered, kept, list(experts)))
    columns |= _blends(settings, columns, list(experts), course, champion is not None)
    sure = {name: _sure(values) for name, values in columns.items()}
    found = _Compared(settings, sure, outcomes, blocks_of(ordered.event_time[kept], settings.promotion.block))
    return Evaluation(
        task=settings.task,
        rows=len(kept),
        start=int(holdout.event_time.min()) if len(holdout) else 0,
        end=int(holdout.event_time.max()) if len(holdout) else 0,
        experts=list(experts),
        not_finite=sum(not is_sane(prediction) for prediction in own["challenger"]),
        champion=None if champion is None else champion.version,
        cost=cost_of(challenger, ordered, fit),
        promised=promised,
        metrics={name: score(settings.task, values, outcomes) for name, values in sure.items()},
        over=found.over,
        alone=None if champion is None else found.difference("challenger", "champion"),
        slices=None if champion is None else found.slices(ordered.frame.iloc[kept]),
        calibration={name: CalibrationOf(one.error, one.bias) for name, one in found.reliability.items()},
        calibration_rise=None if champion is None else found.calibration_rise,
    )


class _Compared:
    """What single rows say of the blend with the challenger, beside the others."""

    def __init__(
        self, settings: Settings, columns: Mapping[str, list[Prediction]], outcomes: list[Outcome], blocks: Blocks
    ) -> None:
        self._settings, self._blocks, self._confidence = settings, blocks, settings.gates.confidence
        self._losses = {name: losses(values, outcomes) for name, values in columns.items()}
        self.reliability = {
            name: Reliability.of(settings.task, values, outcomes, blocks) for name, values in columns.items()
        }

    @property
    def over(self) -> dict[str, Difference]:
        others = [name for name in self._losses if name != CHALLENGER_BLEND]
        return {name: self.difference(CHALLENGER_BLEND, name) for name in others}

    def difference(self, name: str, other: str) -> Difference:
        """Return the loss of one over that of another."""
        new, old = self._losses[name], self._losses[other]
        return difference(new, old, self._blocks, self._confidence, clip_of(new, old))

    def slices(self, frame: pd.DataFrame) -> list[SliceLoss]:
        new, old = self._losses[CHALLENGER_BLEND], self._losses[CHAMPION_BLEND]
        return slice_losses(frame, new, old, self._blocks, self._settings)

    @property
    def calibration_rise(self) -> Rise | None:
        new, old = self.reliability[CHALLENGER_BLEND], self.reliability[CHAMPION_BLEND]
        return new.rise_over(old, self._confidence)


def online_blend(settings: Settings, rows: Examples) -> tuple[list[int], list[Prediction]]:
    """Return the rows on which all active online experts predicted, and their blend there, as it would have been."""
    experts = _active_experts(settings, rows)
    kept = _common_rows(list(experts.values()), len(rows)) if experts else []
    members = {name: _sure([values[row] for row in kept]) for name, values in experts.items()}
    return kept, _blended(settings, members, _Course(_in_order(rows, kept), _anew(rows, kept, list(experts))))


def trivial(task: Task, outcomes: Sequence[Outcome]) -> Prediction:
    """Return what a model without features predicts: base rate, class shares or median.

    Examples
    --------
    >>> trivial("binary", [1, 0, 0, 0]), trivial("multiclass", ["a", "b"]), trivial("regression", [1.0, 2.0, 9.0])
    (0.25, {'a': 0.5, 'b': 0.5}, 2.0)
    """
    if task == "regression":
        return float(statistics.median(float(value) for value in outcomes))
    total = len(outcomes)
    if task == "binary":
        return sum(int(value) for value in outcomes) / total
    return {str(name): count / total for name, count in sorted(Counter(outcomes).items())}


def _active_experts(settings: Settings, rows: Examples) -> dict[str, list[Prediction | None]]:
    """Return the online experts' predictions; one that never predicted here would leave no common row."""
    names = [expert.name for expert in settings.online]
    found = {name: rows.predictions(name) for name in names}
    return {name: values for name, values in found.items() if any(is_sane(value) for value in values)}


def _common_rows(columns: Sequence[Sequence[Prediction | None]], rows: int) -> list[int]:
    return [row for row in range(rows) if all(is_sane(values[row]) for values in columns)]


@dataclass(frozen=True)
class _Moment:
    """A row is predicted (no outcome), or its outcome becomes known."""

    row: int
    outcome: Outcome | None


def _in_order(rows: Examples, kept: Sequence[int]) -> list[_Moment]:
    """Return predictions and labels of the kept rows in the order of the partition's clock; ties: predict first."""
    moments = [(int(rows.clock[row]), 0, index, None) for index, row in enumerate(kept)]
    labels = [(int(rows.label_clock[row]), 1, index, rows.outcomes[row]) for index, row in enumerate(kept)]
    ordered = sorted([*moments, *labels], key=lambda moment: moment[:3])
    return [_Moment(row, outcome) for _, _, row, outcome in ordered]


@dataclass(frozen=True)
class _Course:
    """What happened to some rows in turn, and what the online experts said of each when its label came."""

    moments: list[_Moment]
    anew: list[dict[str, Prediction]]


def _anew(rows: Examples, kept: Sequence[int], experts: Sequence[str]) -> list[dict[str, Prediction]]:
    said = {name: rows.anew(name) for name in experts}
    return [{name: value for name, values in said.items() if (value := values[row]) is not None} for row in kept]


def _blends(
    settings: Settings,
    columns: Mapping[str, Sequence[Prediction | None]],
    experts: list[str],
    course: _Course,
    with_champion: bool,
) -> dict[str, list[Prediction | None]]:
    online = {name: _sure(columns[name]) for name in experts}
    blends = {CHALLENGER_BLEND: {"champion": _sure(columns["challenger"]), **online}}
    if with_champion:
        blends[CHAMPION_BLEND] = {"champion": _sure(columns["champion"]), **online}
    return {name: list(_blended(settings, members, course)) for name, members in blends.items()}


def _blended(settings: Settings, members: Mapping[str, Sequence[Prediction]], course: _Course) -> list[Prediction]:
    blend = Blend.of(settings)
    mixed: dict[int, Prediction] = {}
    made_at = [0] * len(course.moments)
    for step, moment in enumerate(course.moments):
        predictions = {name: values[moment.row] for name, values in members.items()}
        if moment.outcome is None:
            made_at[moment.row] = step
            mixed[moment.row] = blend.mix(predictions, step)
        else:
            blend.update(predictions, moment.outcome, made_at[moment.row], anew=course.anew[moment.row])
    return [mixed[row] for row in range(len(mixed))]


def _sure(values: Sequence[Prediction | None]) -> list[Prediction]:
    return [value for value in values if value is not None]
