"""Each gate alone stops a challenger, and what is not known does not pass."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from core.audit import CHALLENGER_BLEND, CHAMPION_BLEND
from core.gate_settings import GateSettings
from flows.cost import Cost
from flows.evaluation import CalibrationOf, Evaluation
from flows.gates import champion_gate, check_gates, labels_gate, passed, reasons, servable_gate
from flows.intervals import Difference
from flows.reliability import Rise
from flows.slices import SliceLoss

LIMITS = GateSettings(max_relative_loss=1.0)


def losses(**values: float | None) -> dict[str, dict[str, float | None]]:
    return {name: {"log_loss": value} for name, value in values.items()}


def one_slice(name: str, relative: float, low: float | None) -> SliceLoss:
    return SliceLoss(name, 0.4 * (1 + relative), 0.4, Difference(250, 7, 0.4 * relative, relative, low, None))


COST = Cost(fit_seconds=2.0, energy_kwh=None, bytes=10_000, prediction_us=100.0, call_ms=5.0)
GOOD = Evaluation(
    task="binary",
    rows=500,
    start=0,
    end=1,
    experts=["linear"],
    not_finite=0,
    champion=1,
    cost=COST,
    metrics=losses(challenger=0.4, champion=0.5, baseline=0.6, **{CHALLENGER_BLEND: 0.38, CHAMPION_BLEND: 0.39}),
    over={CHAMPION_BLEND: Difference(500, 7, -0.01, -0.02, -0.04, 0.0)},
    alone=Difference(500, 7, -0.1, -0.2, -0.3, -0.1),
    slices=[one_slice("hub=a", -0.1, -0.2), one_slice("hub=b", 0.3, -0.1)],
    calibration={CHALLENGER_BLEND: CalibrationOf(0.01, 0.001)},
    calibration_rise=Rise(0.001, -0.002, 0.004),
)
FIRST = replace(
    GOOD,
    champion=None,
    metrics=losses(challenger=0.4, baseline=0.6, **{CHALLENGER_BLEND: 0.38}),
    over={},
    alone=None,
    slices=None,
    calibration_rise=None,
)


def failed(evaluation: Evaluation, limits: GateSettings = LIMITS) -> list[str]:
    return [result.name for result in check_gates(evaluation, limits) if not result.passed]


def changed(evaluation: Evaluation, name: str, value: float | None) -> Evaluation:
    return replace(evaluation, metrics={**evaluation.metrics, name: {"log_loss": value}})


def test_a_good_challenger_passes():
    assert failed(GOOD) == []
    assert failed(FIRST) == []


@pytest.mark.parametrize(
    ("evaluation", "gate"),
    [
        (replace(GOOD, rows=199), "rows"),
        (replace(GOOD, not_finite=1), "finite"),
        (replace(GOOD, cost=replace(COST, prediction_us=5_100.0)), "latency"),
        (replace(GOOD, cost=replace(COST, prediction_us=math.nan)), "latency"),
        (replace(GOOD, cost=replace(COST, call_ms=1_001.0)), "latency"),
        (replace(GOOD, cost=replace(COST, call_ms=math.nan)), "latency"),
        (replace(GOOD, cost=replace(COST, bytes=2**28 + 1)), "size"),
        (replace(GOOD, cost=replace(COST, bytes=None)), "size"),
        (replace(GOOD, slices=[one_slice("hub=b", 0.3, 0.11)]), "slices"),
        (replace(GOOD, slices=[SliceLoss("hub=b", 0.1, 0.0, Difference(250, 7, 0.1, None, None, None))]), "slices"),
        (replace(GOOD, slices=[one_slice("hub=b", math.nan, None)]), "slices"),
        (replace(GOOD, slices=None), "slices"),
        (replace(GOOD, alone=Difference(500, 7, 0.01, 0.03, 0.001, 0.06)), "alone"),
        (replace(GOOD, alone=Difference(0, 0, None, None, None, None)), "alone"),
        (replace(GOOD, alone=None), "alone"),
        (replace(GOOD, calibration_rise=Rise(0.05, 0.021, 0.08)), "calibration"),
        (replace(GOOD, calibration_rise=Rise(0.021, None, None)), "calibration"),
        (replace(GOOD, calibration_rise=None), "calibration"),
        (replace(GOOD, calibration={}), "calibration"),
        (replace(FIRST, calibration={CHALLENGER_BLEND: CalibrationOf(math.nan, 0.0)}), "calibration"),
        (changed(GOOD, CHALLENGER_BLEND, 0.391), "blend"),
        (changed(GOOD, CHAMPION_BLEND, None), "blend"),
        (changed(GOOD, CHAMPION_BLEND, math.nan), "blend"),
        (changed(GOOD, CHAMPION_BLEND, 0.0), "blend"),
        (changed(FIRST, "challenger", 0.6), "baseline"),
        (changed(FIRST, "baseline", None), "baseline"),
        (changed(FIRST, "baseline", math.nan), "baseline"),
        (changed(GOOD, "challenger", math.nan), "finite"),
    ],
)
def test_each_gate_alone_stops_it(evaluation: Evaluation, gate: str):
    assert failed(evaluation) == [gate]


def skilled(champion: float | None, challenger: float | None, promised: float | None = 0.5) -> Evaluation:
    areas = {"champion": champion, "challenger": challenger}
    metrics = {
        name: {**GOOD.metrics[name], "roc_auc": None if of is None else (1 + of) / 2} for name, of in areas.items()
    }
    return replace(GOOD, promised=promised, metrics={**GOOD.metrics, **metrics})


def test_labels_that_agree_with_nobody_are_doubted():
    assert failed(skilled(0.15, 0.16)) == ["skill"]
    assert failed(skilled(0.06, 0.05)) == ["skill"]
    assert failed(skilled(0.15, 0.16), replace_skill(0.3)) == []
    assert failed(skilled(0.15, 0.16), replace_skill(0.0)) == []
    assert failed(skilled(0.15, 0.19, promised=0.4)) == []  # a bad week, not wrong labels


def test_a_world_that_has_changed_is_no_reason_to_doubt_its_labels():
    assert failed(skilled(0.12, 0.2)) == []  # the challenger has learned it
    assert failed(skilled(0.02, 0.01)) == []  # or will: what the champion knew holds no more
    assert failed(skilled(-0.6, 0.02)) == []


@pytest.mark.parametrize("promised", [None, 0.0, -0.1])
def test_a_champion_that_promised_nothing_makes_no_label_doubted(promised: float | None):
    assert failed(skilled(0.0, 0.0, promised)) == []


def test_labels_that_are_all_alike_tell_nobodys_skill():
    assert failed(skilled(None, None)) == []


def replace_skill(share: float) -> GateSettings:
    return LIMITS.model_copy(update={"min_skill": share})


def test_a_missing_metric_does_not_pass():
    assert "blend" in failed(replace(GOOD, metrics={}))
    assert "baseline" in failed(replace(FIRST, metrics={}))


def test_the_bootstrap_says_so_and_keeps_its_margin():
    results = check_gates(FIRST, GateSettings(baseline_margin=0.5))
    assert [result.name for result in results if not result.passed] == ["baseline"]
    assert "bootstrap" in reasons(results)[0]


def test_a_tolerated_loss_passes():
    assert failed(changed(GOOD, CHALLENGER_BLEND, 0.395), GateSettings(max_relative_loss=1.02)) == []


def test_what_may_be_chance_refuses_no_slice_and_no_calibration():
    assert failed(replace(GOOD, slices=[one_slice("hub=b", 0.5, None)], calibration_rise=Rise(0.1, 0.01, 0.2))) == []
    assert failed(replace(GOOD, slices=[])) == []


def test_one_that_is_worse_by_itself_passes_only_where_the_blend_with_it_is_surely_better():
    worse = replace(GOOD, alone=Difference(500, 7, 0.01, 0.03, 0.001, 0.06))
    assert failed(worse) == ["alone"]
    assert failed(replace(worse, over={CHAMPION_BLEND: Difference(500, 7, -0.01, -0.02, -0.03, -0.01)})) == []
    assert failed(replace(GOOD, alone=Difference(500, 7, 0.01, 0.03, -0.001, 0.06))) == []


def test_the_reason_names_the_worst_slice():
    results = check_gates(replace(GOOD, slices=[one_slice("hub=a", 0.9, 0.0), one_slice("hub=b", 0.4, 0.2)]), LIMITS)
    (said,) = reasons(results)
    assert said.startswith(
        "slices: 1 of 2 slices surely above 1.1 times the loss with champion 1; worst hub=b: 0.56000"
    )


def test_too_few_new_labels_stop_it():
    assert labels_gate(200, 1, LIMITS).passed
    assert not labels_gate(199, 1, LIMITS).passed
    assert "since champion 7 was trained" in labels_gate(199, 7, LIMITS).reason


@pytest.mark.parametrize(
    ("expected", "reloaded", "good"),
    [
        ([0.1, 0.2], [0.1, 0.2], True),
        ([0.1, 0.2], [0.1, 0.20001], False),
        ([0.1, 0.2], [0.1], False),
        ([0.1, 0.2], None, False),
        ([], [], False),
        ([math.nan], [math.nan], False),
    ],
)
def test_a_registered_model_must_answer_the_same(expected, reloaded, good):
    assert servable_gate(expected, reloaded, "gone").passed is good


def test_no_gates_is_not_a_pass():
    assert not passed([])
    assert not passed([champion_gate("gone")])
