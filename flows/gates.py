"""The gates between a challenger and its promotion. Pure; every gate fails closed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.audit import CHALLENGER_BLEND, CHAMPION_BLEND
from core.loop_settings import GateSettings
from core.predictions import Prediction
from flows.evaluation import Evaluation


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
    compared = _baseline(evaluation, settings) if evaluation.champion is None else _blend(evaluation, settings)
    return [rows_gate(evaluation.rows, settings), _finite(evaluation), compared, _latency(evaluation, settings)]


def rows_gate(rows: int, settings: GateSettings) -> GateResult:
    """Judge whether there are enough untouched rows to compare on."""
    needed = settings.min_holdout_rows
    said = f"{rows} untouched rows on which all predicted, {needed} are needed (gates.min_holdout_rows)"
    return GateResult("rows", rows >= needed, float(rows), float(needed), said)


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
        Those of the model loaded from the registry; None if it does not load.
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
    said = (
        f"loss {new:.5f} with the challenger, {old:.5f} with champion {evaluation.champion}: "
        f"at most {limit:g} times as much is allowed"
    )
    return GateResult("blend", value is not None and value <= limit, value, limit, said)


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
    limit, value = settings.max_latency_ms, evaluation.latency_ms
    if not _known(value):
        return GateResult("latency", False, None, limit, "latency is not known")
    said = f"{value:.3f} ms a prediction, {limit:g} ms allowed"
    return GateResult("latency", value <= limit, value, limit, said)


def _ratio(new: float, old: float) -> float | None:
    if new == old:
        return 1.0
    return new / old if old > 0.0 else None


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
