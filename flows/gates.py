"""The gates between a challenger and its promotion. Pure; every gate but `skill` fails closed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.audit import CHALLENGER_BLEND, CHAMPION_BLEND
from core.gate_settings import GateSettings
from core.predictions import Prediction
from flows.evaluation import Evaluation
from flows.intervals import Difference
from flows.slices import SliceLoss

_LEARNED_ANEW = 1.5
"""Times the champion's skill: wrong labels take the same share of each model's, a changed world the champion's."""

_ANY_SKILL = 0.1
"""Of the skill promised: wrong labels leave some of it, a world that has turned none."""


@dataclass(frozen=True)
class GateResult:
    """What one gate said; `value` and `limit` are None where there is no number."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def check_gates(evaluation: Evaluation, settings: GateSettings) -> list[GateResult]:
    """Judge a challenger; it may go on only if every result passed.

    With a champion the blends are compared; at the bootstrap there is none, and the trivial baseline
    takes its place.
    """
    first = evaluation.champion is None
    compared = (
        [_baseline(evaluation, settings)]
        if first
        else [_blend(evaluation, settings), _alone(evaluation, settings), *_skill(evaluation, settings)]
    )
    return [
        rows_gate(evaluation.rows, settings),
        _finite(evaluation),
        *compared,
        _slices(evaluation, settings),
        _calibration(evaluation, settings),
        _latency(evaluation, settings),
        _size(evaluation, settings),
    ]


def labels_gate(labels: int, since_version: int | None, settings: GateSettings) -> GateResult:
    """Judge whether there are enough labelled examples that the champion was not trained on.

    Parameters
    ----------
    labels : int
        Mature examples behind the champion's data; of all at the bootstrap.
    since_version : int or None
        The champion's; None at the bootstrap.
    """
    needed = settings.min_new_labels or settings.min_holdout_rows
    since = "" if since_version is None else f" since champion {since_version} was trained"
    said = f"{labels} labelled examples{since}, {needed} are needed (gates.min_new_labels)"
    return GateResult("labels", labels >= needed, float(labels), float(needed), said)


def rows_gate(rows: int, settings: GateSettings) -> GateResult:
    """Judge whether there are enough untouched rows to compare on."""
    needed = settings.min_holdout_rows
    said = f"{rows} untouched rows on which all predicted, {needed} are needed (gates.min_holdout_rows)"
    return GateResult("rows", rows >= needed, float(rows), float(needed), said)


def reference_gate(problem: str) -> GateResult:
    """Return the failed gate of a champion without the reference that drift is judged by."""
    return GateResult("reference", False, None, None, problem)


def champion_gate(problem: str) -> GateResult:
    """Return the failed gate of a champion that is there but cannot be compared with."""
    return GateResult("champion", False, None, None, f"the champion cannot be compared with: {problem}")


def servable_gate(expected: Sequence[Prediction], reloaded: Sequence[Prediction] | None, problem: str) -> GateResult:
    """Judge whether the registered model, loaded again, answers as the fitted one.

    Parameters
    ----------
    expected : sequence
        Predictions of the fitted model.
    reloaded : sequence or None
        Those of the model loaded from the registry in another process; None if it does not load.
    problem : str
        Why it does not load.
    """
    if reloaded is None:
        return GateResult("servable", False, None, 0.0, f"the registered model does not load: {problem}")
    differing = sum(one != other for one, other in zip(expected, reloaded, strict=False))
    differing += abs(len(expected) - len(reloaded))
    passed = differing == 0 and len(expected) > 0
    said = f"{differing} of {len(expected)} predictions differ after loading the registered model"
    return GateResult("servable", passed, float(differing), 0.0, said)


def passed(results: Sequence[GateResult]) -> bool:
    """Tell whether every gate passed; no gates is not a pass."""
    return bool(results) and all(result.passed for result in results)


def reasons(results: Sequence[GateResult]) -> list[str]:
    """Return why it failed: one reason for each gate that did not pass."""
    return [f"{result.name}: {result.reason}" for result in results if not result.passed]


def _finite(evaluation: Evaluation) -> GateResult:
    count = evaluation.not_finite
    losses = [evaluation.loss("challenger"), evaluation.loss(CHALLENGER_BLEND)]
    fine = count == 0 and evaluation.rows > 0 and all(_known(loss) for loss in losses)
    said = f"{count} predictions are not finite" if count or fine else "the challenger's loss is not known"
    return GateResult("finite", fine, float(count), 0.0, said)


def _blend(evaluation: Evaluation, settings: GateSettings) -> GateResult:
    limit = settings.max_relative_loss
    new, old = evaluation.loss(CHALLENGER_BLEND), evaluation.loss(CHAMPION_BLEND)
    if new is None or old is None or not (_known(new) and _known(old)):
        return GateResult("blend", False, None, limit, "the loss of one of the blends is not known")
    value = _ratio(new, old)
    over = evaluation.over.get(CHAMPION_BLEND)
    said = (
        f"loss {new:.5f} with the challenger, {old:.5f} with champion {evaluation.champion}: "
        f"at most {limit:g} times as much is allowed{_surely(over)}"
    )
    return GateResult("blend", value is not None and value <= limit, value, limit, said)


def _alone(evaluation: Evaluation, settings: GateSettings) -> GateResult:
    """Judge the challenger by itself: in the blend a bad model does little harm, until it is all there is."""
    limit, over, blend = settings.max_alone_loss, evaluation.alone, evaluation.over.get(CHAMPION_BLEND)
    if over is None or over.relative is None or not _known(over.relative):
        return GateResult("alone", False, None, limit, "the loss of one of the two by itself is not known")
    worse = over.low is not None and 1.0 + over.low > limit
    better = blend is not None and blend.high is not None and blend.high < 0.0
    said = (
        f"by itself {1.0 + over.relative:.4f} times the loss of champion {evaluation.champion}{_surely(over)}; surely "
        f"more than {limit:g} is refused, unless the blend with it is surely better"
    )
    return GateResult("alone", better or not worse, 1.0 + over.relative, limit, said)


def _skill(evaluation: Evaluation, settings: GateSettings) -> list[GateResult]:
    """Judge the labels: doubted where nobody knows what was known, and nothing says that the world has changed."""
    if evaluation.task == "regression":
        return []
    limit, promised = settings.min_skill, evaluation.promised
    new, old = evaluation.skill("challenger"), evaluation.skill("champion")
    if promised is None or promised <= 0.0:
        said = f"it is not known that champion {evaluation.champion} had any skill before its promotion"
        return [GateResult("skill", True, None, limit, said)]
    if new is None or old is None:
        return [GateResult("skill", True, None, limit, "the labels are all alike: they tell nobody's skill")]
    kept, turned, anew = max(new, old) / promised, old < _ANY_SKILL * promised, new >= _LEARNED_ANEW * old
    said = (
        f"of a skill of {promised:.3f} before its promotion, champion {evaluation.champion} has {old:.3f} left, the "
        f"challenger {new:.3f}; below {limit:g} times as much the labels are doubted, unless the champion "
        f"has less than {_ANY_SKILL:g} times as much, or the challenger {_LEARNED_ANEW:g} times the champion's"
    )
    return [GateResult("skill", kept >= limit or turned or anew, kept, limit, said)]


def _surely(over: Difference | None) -> str:
    if over is None or over.low is None or over.high is None:
        return ""
    return f"; over {over.blocks} spans between {1.0 + over.low:.4f} and {1.0 + over.high:.4f} times"


def _slices(evaluation: Evaluation, settings: GateSettings) -> GateResult:
    """Judge each slice; what is chance there (few spans, many slices) refuses nothing."""
    limit = settings.max_slice_loss
    if evaluation.champion is None:
        return GateResult("slices", True, None, limit, "bootstrap: no champion to compare with on slices")
    slices = evaluation.slices
    if slices is None or not all(_known(one.challenger) and _known(one.champion) for one in slices):
        return GateResult("slices", False, None, limit, "the losses on slices are not known")
    if not slices:
        return GateResult("slices", True, None, limit, f"no slice has {settings.min_slice_rows} rows or more")
    worse = [one for one in slices if (one.over.low is not None and 1.0 + one.over.low > limit) or _lost_all(one)]
    shown = max(worse or slices, key=lambda one: one.over.relative or 0.0)
    said = (
        f"{len(worse)} of {len(slices)} slices surely above {limit:g} times the loss with champion "
        f"{evaluation.champion}; worst {shown.name}: {shown.challenger:.5f} instead of {shown.champion:.5f} on "
        f"{shown.over.rows} rows"
    )
    relative = shown.over.relative
    return GateResult("slices", not worse, None if relative is None else 1.0 + relative, limit, said)


def _lost_all(one: SliceLoss) -> bool:
    """Tell whether there is a loss where the champion has none: no ratio says how much worse that is."""
    return one.champion == 0.0 and one.challenger > 0.0


def _calibration(evaluation: Evaluation, settings: GateSettings) -> GateResult:
    limit, blend = settings.max_calibration_rise, evaluation.calibration.get(CHALLENGER_BLEND)
    if blend is None or not (_known(blend.error) and _known(blend.bias)):
        return GateResult("calibration", False, None, limit, "the blend's calibration is not known")
    own = f"calibration error {blend.error:.4f}, bias {blend.bias:+.4f}"
    if evaluation.champion is None:
        return GateResult("calibration", True, None, limit, f"bootstrap, nothing to compare with: {own}")
    rise = evaluation.calibration_rise
    if rise is None or not _known(rise.value):
        return GateResult("calibration", False, None, limit, "the calibration with the champion is not known")
    surely = rise.value if rise.low is None else rise.low
    sure = "" if rise.low is None else f", surely {rise.low:+.4f}"
    said = (
        f"{own} with the challenger: {rise.value:+.4f}{sure} against champion {evaluation.champion}, {limit:g} allowed"
    )
    return GateResult("calibration", surely <= limit, rise.value, limit, said)


def _baseline(evaluation: Evaluation, settings: GateSettings) -> GateResult:
    margin = settings.baseline_margin
    new, trivial = evaluation.loss("challenger"), evaluation.loss("baseline")
    if new is None or trivial is None or not (_known(new) and _known(trivial)):
        return GateResult("baseline", False, None, margin, "bootstrap: the loss of one of the two is not known")
    gain = 1.0 - new / trivial if trivial > 0.0 else -math.inf
    said = (
        f"bootstrap, no champion yet: loss {new:.5f}, trivial baseline {trivial:.5f}; "
        f"a relative gain above 0 and of at least {margin:g} is needed"
    )
    value = gain if math.isfinite(gain) else None
    return GateResult("baseline", gain > 0.0 and gain >= margin, value, margin, said)


def _latency(evaluation: Evaluation, settings: GateSettings) -> GateResult:
    limit, value, call = settings.max_latency_ms, evaluation.cost.prediction_us / 1000.0, evaluation.cost.call_ms
    if not (_known(value) and _known(call)):
        return GateResult("latency", False, None, limit, "latency is not known")
    said = (
        f"{value:.3f} ms a prediction, {limit:g} ms allowed (gates.max_latency_ms); "
        f"{call:.1f} ms for a single one, {settings.max_call_ms:g} ms allowed (gates.max_call_ms)"
    )
    return GateResult("latency", value <= limit and call <= settings.max_call_ms, value, limit, said)


def _size(evaluation: Evaluation, settings: GateSettings) -> GateResult:
    limit, size = settings.max_bytes, evaluation.cost.bytes
    if size is None:
        return GateResult("size", False, None, float(limit), "the model cannot be pickled")
    said = f"{size:,} bytes pickled, {limit:,} allowed (gates.max_bytes)"
    return GateResult("size", size <= limit, float(size), float(limit), said)


def _ratio(new: float, old: float) -> float | None:
    if new == old:
        return 1.0
    return new / old if old > 0.0 else None


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
