"""Each gate alone stops a challenger, and what is not known does not pass."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from core.audit import CHALLENGER_BLEND, CHAMPION_BLEND
from core.loop_settings import GateSettings
from flows.evaluation import Evaluation
from flows.gates import champion_gate, check_gates, passed, reasons, servable_gate

LIMITS = GateSettings(max_relative_loss=1.0)


def losses(**values: float | None) -> dict[str, dict[str, float | None]]:
    return {name: {"log_loss": value} for name, value in values.items()}


GOOD = Evaluation(
    task="binary",
    rows=500,
    start=0,
    end=1,
    experts=["linear"],
    not_finite=0,
    latency_ms=0.1,
    champion=1,
    metrics=losses(challenger=0.4, champion=0.5, baseline=0.6, **{CHALLENGER_BLEND: 0.38, CHAMPION_BLEND: 0.39}),
)
FIRST = replace(GOOD, champion=None, metrics=losses(challenger=0.4, baseline=0.6, **{CHALLENGER_BLEND: 0.38}))


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
        (replace(GOOD, latency_ms=5.1), "latency"),
        (replace(GOOD, latency_ms=math.nan), "latency"),
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


def test_a_missing_metric_does_not_pass():
    assert "blend" in failed(replace(GOOD, metrics={}))
    assert "baseline" in failed(replace(FIRST, metrics={}))


def test_the_bootstrap_says_so_and_keeps_its_margin():
    results = check_gates(FIRST, GateSettings(baseline_margin=0.5))
    assert [result.name for result in results if not result.passed] == ["baseline"]
    assert "bootstrap" in reasons(results)[0]


def test_a_tolerated_loss_passes():
    assert failed(changed(GOOD, CHALLENGER_BLEND, 0.395), GateSettings(max_relative_loss=1.02)) == []


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
