from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_lab import SPAN, drifted, looks, make_settings, play, stage

from core.audit import LedgerRecord, RetrainRequest
from monitoring.decision import PolicyState
from monitoring.gain import Gain, Prospect, expected_gain, gains
from monitoring.judgement import Evidence, judge
from monitoring.policy import decide
from monitoring.windows import due_stages, start_progress


@given(st.lists(looks, max_size=40))
def test_drift_never_retrains_inside_the_cooldown_nor_while_one_is_open(seen):
    chosen = make_settings({"persistence": 1, "of_windows": 1}, every="60s")
    last = None
    for evidence, decision in play(chosen, seen):
        if decision.trigger is None:
            continue
        assert not evidence.open_retraining
        assert decision.reasons
        now = evidence.window.due
        if decision.trigger == "drift":
            assert last is not None
            assert now - last >= chosen.drift.cooldown
        last = now


@given(st.lists(looks, max_size=40), st.integers(1, 3))
@settings(max_examples=50)
def test_drift_retrains_only_when_enough_of_the_latest_windows_have_drifted(seen, persistence):
    chosen = make_settings({"persistence": persistence, "of_windows": 3, "cooldown": 1})
    found = play(chosen, seen, horizon=1)
    for index, (evidence, decision) in enumerate(found):
        if decision.trigger != "drift":
            continue
        earlier = [e for e, _ in found[: index + 1] if e.champion == evidence.champion]
        drifted = {e.window.start for e in earlier if judge(e, chosen.drift).verdict == "drifted"}
        assert len(drifted) >= persistence
        assert evidence.window.start in drifted


def test_persistent_drift_retrains_and_then_the_cooldown_holds():
    chosen, state, triggers, told = make_settings(), PolicyState(champion=1), [], []
    for number in range(8):
        decision, state = decide(drifted(number), state, chosen)
        triggers.append(decision.trigger)
        told.append("alert" if decision.alert else "watch" if decision.watch else "nothing")
    assert triggers == [None, "drift", None, None, None, "drift", None, None]
    assert told == ["alert", "watch", "watch", "watch", "alert", "watch", "watch", "watch"]


def test_a_retraining_on_drift_names_the_windows_and_what_drifted_where_its_own_stage_is_steady():
    chosen, state, decisions = make_settings(), PolicyState(champion=1), []
    for number in range(2):
        for evidence in (
            drifted(number, open_retraining=number == 1),
            Evidence(stage(number, "labels"), 0, champion=1, rows=900, label=0.0),
        ):
            decision, state = decide(evidence, PolicyState.from_json(json.loads(json.dumps(state.to_json()))), chosen)
            decisions.append(decision)
    assert [decision.trigger for decision in decisions] == [None, None, None, "drift"]
    assert decisions[-1].reasons == (
        "2 of the latest 2 judged windows have drifted (limit 2 of 3): "
        "that from 1970-01-01T00:00:00Z (a), that from 1970-01-01T00:00:10Z (a).",
    )


def test_many_drifted_windows_are_not_all_named():
    chosen, state = make_settings({"persistence": 5, "of_windows": 5}), PolicyState(champion=1)
    for number in range(5):
        decision, state = decide(drifted(number), state, chosen)
    assert "(limit 5 of 5): 2 earlier, that from 1970-01-01T00:00:20Z (a), " in decision.reasons[0]
    assert len(json.dumps(state.to_json())) < 1_000


@given(st.lists(st.tuples(looks, st.booleans()), max_size=40))
def test_nothing_is_retrained_before_all_stages_of_its_moment_are_known(seen):
    eager = make_settings({"persistence": 1, "of_windows": 1, "cooldown": 1}, every="10s")
    found = play(eager, [{**look, "broken": broken} for look, broken in seen], horizon=SPAN)
    for evidence, decision in found:
        assert not (decision.trigger and (decision.quarantine or not evidence.window.is_last))


def test_of_two_stages_due_at_once_the_later_decides_what_the_first_found():
    labels, data = [
        entry for entry in due_stages(start_progress(0, SPAN), SPAN, SPAN, 5 * SPAN) if entry.due == 5 * SPAN
    ]
    chosen = make_settings(growth=1.5)
    grown = Evidence(labels, 0, champion=1, rows=900, label=0.0, examples=3_000, trained_rows=1_000)
    first, state = decide(grown, PolicyState(champion=1), chosen)
    assert (first.trigger, first.sentence.startswith("ignore: A retraining is decided once")) == (None, True)
    state = PolicyState.from_json(json.loads(json.dumps(state.to_json())))
    calm = Evidence(data, 0, champion=1, rows=900, features={"a": 0.0})
    then, after = decide(calm, state, chosen)
    assert (then.trigger, after.last_retraining, after.held) == ("growth", data.due, None)
    assert "3.0 times the 1,000" in then.sentence
    broken, after = decide(replace(calm, breaks=("a is gone.",)), state, chosen)
    assert (broken.action, after.last_retraining, after.held) == ("quarantine", None, None)
    assert decide(replace(calm, open_retraining=True), state, chosen)[0].trigger is None, "somebody asked meanwhile"


def test_somebody_elses_retraining_starts_the_cooldown_too():
    state = PolicyState(champion=1)
    _, state = decide(drifted(0), state, make_settings())
    decision, state = decide(drifted(1, retrainings=(15_000,)), state, make_settings())
    assert decision.action == "watch"
    assert state.last_retraining == 15_000


def test_the_labels_stage_counts_with_the_data_stage_of_other_windows():
    chosen, state = make_settings(), PolicyState(champion=1)
    _, state = decide(drifted(0), state, chosen)
    _, state = decide(Evidence(stage(0, "labels"), 0, champion=1, rows=900, label=0.0), state, chosen)
    calm = replace(drifted(1), features={"a": 0.0})
    _, state = decide(calm, state, chosen)
    worse = Evidence(
        stage(1, "labels"), 0, champion=1, rows=900, label=0.0,
        champion_loss=0.9, validation_loss=0.5, loss_rows=900,
    )  # fmt: skip
    decision, _ = decide(worse, state, chosen)
    assert decision.trigger == "drift"
    assert "mean loss 0.9000" in decision.alert[0]


def test_bootstrap_waits_for_time_and_examples_and_is_tried_again_a_span_later():
    chosen, state = make_settings(), PolicyState()
    early, _ = decide(Evidence(stage(0), 0, examples=10_000), state, chosen)
    few, _ = decide(Evidence(stage(2), 0, examples=999), state, chosen)
    first, state = decide(Evidence(stage(2), 0, examples=1_000), state, chosen)
    labels, state = decide(Evidence(stage(2, "labels"), 0, examples=1_000), state, chosen)
    again, state = decide(Evidence(stage(3), 0, examples=1_000), state, chosen)
    assert [d.trigger for d in (early, few, first, labels, again)] == [None, None, "bootstrap", None, "bootstrap"]


def test_the_schedule_counts_from_the_latest_retraining():
    chosen = make_settings(every="25s")
    calm = replace(drifted(3), features={"a": 0.0})
    due, _ = decide(calm, PolicyState(champion=1, last_retraining=15_000), chosen)
    soon, _ = decide(calm, PolicyState(champion=1, last_retraining=20_000), chosen)
    assert (due.trigger, soon.trigger) == ("schedule", None)
    assert due.alert == ()


def _grown(examples: int, **more: Any) -> Evidence:
    """A calm window; the champion was trained on 10,000 rows."""
    return replace(drifted(3), features={"a": 0.0}, trained_rows=10_000, examples=examples, **more)


def test_many_more_rows_retrain_without_drift_and_without_an_alert():
    state = PolicyState(champion=1)
    more, _ = decide(_grown(15_000), state, make_settings())
    fewer, _ = decide(_grown(14_999), state, make_settings())
    assert (more.trigger, fewer.trigger) == ("growth", None)
    assert more.alert == ()
    assert more.reasons[0] == (
        "There are 15,000 labelled rows, 1.5 times the 10,000 that the champion was trained on (limit 1.5)."
    )


@pytest.mark.parametrize(
    ("examples", "retrain", "why"),
    [
        (90_000, {"growth": None}, "the project says never"),
        (90_000, {"growth": 10}, "the limit is higher"),
        (90_000, {"min_gain": 0.5}, "it is not worth it"),
    ],
)
def test_growth_does_not_retrain(examples: int, retrain: dict[str, Any], why: str):
    decision, _ = decide(_grown(examples), PolicyState(champion=1), make_settings(**retrain))
    assert decision.trigger is None, why


def test_rows_that_cannot_be_used_are_no_growth():
    chosen = make_settings()
    chosen = chosen.model_copy(update={"batch": chosen.batch.model_copy(update={"max_rows": 12_000})})
    assert decide(_grown(90_000), PolicyState(champion=1), chosen)[0].trigger is None


def test_growth_waits_for_the_cooldown_and_drift_comes_first():
    recent = PolicyState(champion=1, last_retraining=stage(3).due - 34_999)
    rested = PolicyState(champion=1, last_retraining=stage(3).due - 35_000)
    assert [decide(_grown(90_000), state, make_settings())[0].trigger for state in (recent, rested)] == [None, "growth"]
    both = replace(drifted(3), trained_rows=10_000, examples=90_000)
    assert decide(both, rested, make_settings({"persistence": 1}))[0].trigger == "drift"


def test_a_schedule_that_is_due_is_named_where_growth_does_not_pay():
    decision, _ = decide(
        _grown(90_000), PolicyState(champion=1, last_retraining=0), make_settings(min_gain=0.5, every="25s")
    )
    assert decision.trigger == "schedule"


def test_drift_does_not_retrain_where_the_project_says_no():
    chosen, state = make_settings(on_drift=False), PolicyState(champion=1)
    for number in range(3):
        decision, state = decide(drifted(number), state, chosen)
        assert decision.action in ("alert", "watch")


def test_drift_retrains_only_where_it_is_worth_it():
    cheap = make_settings({"persistence": 1, "of_windows": 1})
    dear = make_settings({"persistence": 1, "of_windows": 1}, cost=1000.0, worth=1.0)
    grown = drifted(0, trained_rows=1_000, examples=2_000)
    decision, _ = decide(grown, PolicyState(champion=1), cheap)
    assert decision.trigger == "drift"
    assert decision.gain == pytest.approx(0.01)
    decision, _ = decide(grown, PolicyState(champion=1), dear)
    assert decision.trigger is None
    assert "costs 1000.00 and is expected to be worth 28.00 over 28d" in decision.sentence
    decision, _ = decide(replace(grown, examples=1_010), PolicyState(champion=1), cheap)
    assert "less than retrain.min_gain" in decision.sentence
    decision, _ = decide(replace(grown, retrainings=(1, 2)), PolicyState(champion=1), make_settings(per_day=2))
    assert decision.trigger is None


def test_while_a_challenger_is_in_shadow_only_the_schedule_retrains():
    chosen = make_settings({"persistence": 1, "of_windows": 1}, every="25s")
    worn = drifted(3, trained_rows=1_000, examples=2_000, in_shadow=7)
    early, late = PolicyState(champion=1, last_retraining=20_000), PolicyState(champion=1, last_retraining=0)
    chosen = chosen.model_copy(update={"drift": chosen.drift.model_copy(update={"cooldown": 0})})
    decision, _ = decide(worn, early, chosen)
    assert decision.trigger is None
    assert "Version 7 predicts in shadow, and is decided first" in decision.sentence
    assert decide(replace(worn, in_shadow=None), early, chosen)[0].trigger == "drift"
    assert decide(worn, late, chosen)[0].trigger == "schedule"


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(-1, 1), st.floats(-0.2, 0.2)), max_size=30))
def test_the_expected_gain_lies_between_what_was_thought_and_what_was_seen(past):
    seen = [Gain(Prospect(1.0), gain) for _, _, gain in past]
    expected = expected_gain(Prospect(1.0), seen)
    values = [0.01, *(one.gain for one in seen)]
    assert min(values) - 1e-9 <= expected <= max(values) + 1e-9
    mixed = [Gain(Prospect(growth, shortfall), gain) for growth, shortfall, gain in past]
    assert abs(expected_gain(Prospect(0.0), mixed)) < 1e-12


@pytest.mark.parametrize(
    ("became", "withdrawn_at", "brought"),
    [
        ("promoted", None, -0.25),
        ("shadowing", None, -0.25),
        ("waiting", None, -0.25),
        ("gated", None, 0.0),
        ("shadowing", 1, 0.0),
        ("shadowing", 2, -0.25),
    ],
)
def test_a_challenger_that_was_rejected_brought_nothing_and_took_nothing_away(became, withdrawn_at, brought):
    request = RetrainRequest("r", "drift", 1, 1, body={"prospect": {"growth": 0.5, "shortfall": 0.1}})
    metrics = {"blend_with_challenger": {"log_loss": 0.5}, "blend_with_champion": {"log_loss": 0.4}}
    ends = {end: end == became for end in ("promoted", "shadowing", "waiting")}
    made = LedgerRecord("retraining", "r-1", 1, 0.0, {"request": "r", "version": 4, "metrics": metrics, **ends})
    ended = LedgerRecord("withdrawal", "4", withdrawn_at, 0.0, {"version": 4, "effective_at": withdrawn_at})
    withdrawals = [] if withdrawn_at is None else [ended]
    assert gains([request], [made], withdrawals, "binary", 2) == (Gain(Prospect(0.5, 0.1), pytest.approx(brought)),)
    assert gains([request], [made], withdrawals, "binary", 0) == ()


def test_refused_retrainings_are_tried_less_and_less_often():
    worth, refused = Prospect(0.7), []
    while expected_gain(worth, refused) >= 0.005:
        refused.append(Gain(worth, 0.0))
    assert 1 < len(refused) < 10
