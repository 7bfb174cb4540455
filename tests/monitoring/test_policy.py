from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_lab import DRIFT, INFINITE, LIMITS, SPAN, drifted, looks, make_settings, play, stage

from core.durations import ROW
from core.loop_settings import DriftSettings
from core.recorded import FIRST_ROW, ROW_TIME
from core.settings import Settings
from monitoring.calibration import Signal, Surprise
from monitoring.decision import Decision, PolicyState
from monitoring.judgement import Evidence, judge
from monitoring.policy import decide
from monitoring.windows import WindowStage, due_stages, start_progress


@given(st.lists(looks, max_size=40))
def test_too_few_rows_neither_alert_nor_retrain_on_drift(seen):
    few = [{**look, "rows": min(look["rows"], 499)} for look in seen]
    decisions = [decision for _, decision in play(make_settings({"persistence": 1, "of_windows": 1}), few)]
    assert not any(decision.alert or decision.trigger == "drift" for decision in decisions)


@given(st.lists(looks, max_size=40))
def test_infinite_thresholds_never_alert(seen):
    found = play(make_settings({**INFINITE, "persistence": 1, "of_windows": 1}), seen)
    assert all(decision.trigger in (None, "bootstrap") and not decision.alert for _, decision in found)


def test_an_infinite_distance_does_not_reach_an_infinite_threshold():
    endless = DriftSettings(**INFINITE)
    evidence = Evidence(stage(0), 0, champion=1, rows=900, features={"a": float("inf")}, prediction=float("inf"))
    assert judge(evidence, endless).verdict == "steady"
    assert judge(evidence, DRIFT).verdict == "drifted"


@given(st.lists(looks, max_size=40))
def test_a_window_alerts_once(seen):
    alerts = [evidence.window.start for evidence, decision in play(make_settings(), seen) if decision.alert]
    assert len(alerts) == len(set(alerts))


def test_a_stream_of_rows_is_told_of_rows():
    own = {**dict.fromkeys(LIMITS), "prediction_threshold": 0.75}
    rows = make_settings(own, every=4_000 * ROW).model_copy(update={"time": ROW_TIME})
    stages = due_stages(start_progress(FIRST_ROW, 10 * ROW), 10 * ROW, ROW, FIRST_ROW + 9_000 * ROW, rows.clock)
    data = [stage for stage in stages if stage.stage == "data"]
    assert data[3].name == "row-30_data"
    surprise = Surprise(1e-3, (Signal("a", 0.9, usual=0.3, score=4.0),))
    seen = Evidence(data[3], FIRST_ROW, champion=1, rows=900, features={"a": 0.9}, surprise=surprise)
    drift = rows.drift.model_copy(update={"false_alarms": 50 * ROW})
    assert "once in 5,000 rows (limit: once in 50 rows)" in judge(seen, drift).reasons[0]
    state = PolicyState(champion=1, last_retraining=FIRST_ROW + 1_000 * ROW)
    decision, _ = decide(replace(seen, window=data[800]), state, rows)
    assert decision.trigger == "schedule"
    said = "The latest retraining was decided at row 1,000; a retraining is due every 4,000 rows."
    assert decision.reasons == (said,)


def test_after_a_promotion_the_verdicts_start_empty():
    state = PolicyState(champion=1)
    _, state = decide(drifted(0), state, make_settings())
    decision, state = decide(replace(drifted(1), champion=2), state, make_settings())
    assert decision.action == "watch", "the stream goes on as it did: nobody is told twice within a cooldown"
    assert len(state.data) == 1


def test_a_problem_alerts_once_a_window_and_is_no_verdict():
    chosen = make_settings({"persistence": 1, "of_windows": 1})
    decision, state = decide(drifted(0, problem="The reference is damaged."), PolicyState(champion=1), chosen)
    assert decision == Decision(alert=("The reference is damaged.",))
    assert state.data == ()
    repeated, _ = decide(drifted(0, problem="The reference is damaged.", alerted=True), state, chosen)
    assert repeated.action == "ignore"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"prediction": 0.3}, "served predictions moved by 0.30"),
        ({"label": 0.2}, "labels moved by 0.20"),
        ({"champion_loss": 0.56, "validation_loss": 0.5, "loss_rows": 500}, "10% above its validation loss"),
        ({"features": {"a": 0.25, "b": 0.1, "c": 0.1}}, "1 of 3 features"),
    ],
)
def test_each_kind_of_drift_gives_its_reason(more, words):
    evidence = Evidence(stage(0), 0, champion=1, rows=500, **more)
    judgement = judge(evidence, DRIFT)
    assert judgement.verdict == "drifted"
    assert words in judgement.reasons[0]


@pytest.mark.parametrize(
    "more",
    [
        {"prediction": 0.19},
        {"champion_loss": 0.9, "validation_loss": 0.5, "loss_rows": 499},
        {"champion_loss": 0.549, "validation_loss": 0.5, "loss_rows": 500},
        {"champion_loss": 0.9, "validation_loss": None, "loss_rows": 500},
        {"features": {"a": 0.25, "b": 0.1, "c": 0.1, "d": 0.1}},
        {"features": {"a": float("nan")}},
    ],
)
def test_small_moves_are_steady(more):
    assert judge(Evidence(stage(0), 0, champion=1, rows=500, **more), DRIFT).verdict == "steady"


def test_without_anything_to_compare_a_window_is_not_judged():
    assert judge(Evidence(stage(0), 0, champion=1, rows=500), DRIFT).verdict == "not judged"
    judgement = judge(Evidence(stage(0), 0, rows=500, features={"a": 9.0}), DRIFT)
    assert judgement.reasons == ("No reference: there is no champion yet.",)


def _with_surprise(number: int, chance: float, **more: Any) -> Evidence:
    signal = Signal("a", 0.9, usual=0.3, score=4.0)
    return replace(drifted(number, **more), features={"a": 0.9}, surprise=Surprise(chance, (signal,)))


def test_what_is_usual_decides_where_it_is_known_and_no_limit_is_set():
    calibrated = DriftSettings(false_alarms="1 per 100s")  # type: ignore[arg-type]
    limit = SPAN / 100_000 / 2
    assert judge(_with_surprise(0, limit * 0.9), calibrated).verdict == "drifted"
    assert judge(_with_surprise(0, limit * 1.1), calibrated).verdict == "steady"
    (reason,) = judge(_with_surprise(0, limit / 2), calibrated).reasons
    assert "a 0.90 (usually below 0.30)" in reason
    assert "once in 3.3m (limit: once in 1.7m)" in reason
    assert judge(_with_surprise(0, 1e-9), DriftSettings(feature_threshold=float("inf"))).verdict == "steady"


def test_a_distance_just_beyond_its_limit_is_told_apart_from_it():
    (reason,) = judge(
        Evidence(stage(0), 0, champion=1, rows=500, prediction=0.2041), DriftSettings(prediction_threshold=0.2039)
    ).reasons
    assert "moved by 0.2041 (limit 0.2039)" in reason


def test_drift_that_only_wavers_is_one_episode():
    own = {**dict.fromkeys(LIMITS), "prediction_threshold": 0.75}
    chosen = make_settings({"false_alarms": "1 per 100s", "cooldown": "1000s", **own}, on_drift=False)
    state, told = PolicyState(champion=1), []
    for number, chance in enumerate([0.01, 0.1, 0.01, 0.9, 0.01]):
        decision, state = decide(_with_surprise(number, chance), state, chosen)
        told.append(decision.action)
    assert told == ["alert", "ignore", "watch", "ignore", "alert"]


def test_labels_as_ever_do_not_end_what_the_features_do():
    chosen, state, told = make_settings(on_drift=False), PolicyState(champion=1), []
    for number in range(3):
        decision, state = decide(drifted(number), state, chosen)
        calm = Evidence(stage(number, "labels"), 0, champion=1, rows=900, label=0.0)
        _, state = decide(calm, state, chosen)
        told.append(decision.action)
    assert told == ["alert", "watch", "watch"]


def test_a_window_after_a_break_is_broken_until_it_agrees_again():
    chosen, state, seen = make_settings({"quarantine_windows": 3}), PolicyState(champion=1), []
    doubts = ("The labels do not agree again.",)
    for number, (breaks, doubt) in enumerate([((), doubts), (("Turned.",), ()), ((), doubts), ((), ())]):
        steady = replace(drifted(number, breaks=breaks, doubts=doubt), features={"a": 0.0})
        decision, state = decide(steady, state, chosen)
        seen.append(decision)
    assert [one.action for one in seen] == ["ignore", "quarantine", "quarantine", "ignore"]
    assert seen[2].quarantine == doubts
    assert [one.unlearn for one in seen] == [(), (), (), (SPAN, 2 * SPAN)]


def test_whether_a_break_is_over_cannot_be_told_of_few_rows():
    chosen, state, seen = make_settings({"quarantine_windows": 3}), PolicyState(champion=1), []
    for number, rows in enumerate([900, 100, 0, 900]):
        breaks = ("The column is gone.",) if number == 0 else ()
        window = replace(drifted(number, breaks=breaks), features={"a": 0.0}, rows=rows)
        decision, state = decide(window, state, chosen)
        seen.append(decision)
    assert [one.action for one in seen] == ["quarantine", "quarantine", "ignore", "ignore"]
    assert seen[3].unlearn == (0, SPAN), "a window without an event has nothing to learn from"


def test_a_break_is_kept_out_until_it_is_over():
    chosen, state, seen = make_settings({"quarantine_windows": 3}), PolicyState(champion=1), []
    for number, is_broken in enumerate([False, True, True, False, False]):
        breaks = ("The column is gone.",) if is_broken else ()
        decision, state = decide(replace(drifted(number, breaks=breaks), features={"a": 0.0}), state, chosen)
        seen.append(decision)
    assert [one.action for one in seen] == ["ignore", "quarantine", "quarantine", "ignore", "ignore"]
    assert [bool(one.alert) for one in seen] == [False, True, False, False, False]
    assert not any(one.trigger for one in seen)
    assert [one.unlearn for one in seen] == [(), (), (), (SPAN, 2 * SPAN), ()], "once, when it is over"


def test_a_break_that_lasts_is_how_the_stream_is_now():
    chosen = make_settings({"quarantine_windows": 2, "persistence": 1, "of_windows": 1})
    state, seen = PolicyState(champion=1), []
    for number in range(4):
        decision, state = decide(drifted(number, breaks=("The unit was changed.",)), state, chosen)
        seen.append(decision)
    assert [one.action for one in seen[:3]] == ["quarantine", "quarantine", "retrain"]
    assert seen[2].release == (0, SPAN)
    assert not seen[3].release
    after, _ = decide(replace(drifted(4), features={"a": 0.0}), state, chosen)
    assert not any(one.unlearn for one in [*seen, after]), "how the stream is now must not be forgotten"


def _turned(horizon: int, windows: range, chosen: Settings) -> list[tuple[WindowStage, Decision]]:
    """Let the labels of some windows contradict the champion, which nothing tells before they are due."""
    state, seen = PolicyState(champion=1), []
    for found in itertools.takewhile(
        lambda one: one.start < 14 * SPAN, due_stages(start_progress(0, SPAN), SPAN, horizon, 10**7)
    ):
        late = found.stage == "labels"
        breaks = ("Were they turned round?",) if late and found.start // SPAN in windows else ()
        values = {"label": 0.0} if late else {"features": {"a": 0.0}}
        decision, state = decide(Evidence(found, 0, champion=1, rows=900, breaks=breaks, **values), state, chosen)
        seen.append((found, decision))
    return seen


@pytest.mark.parametrize("horizon", [SPAN // 10, SPAN, SPAN + SPAN // 2])
def test_late_labels_that_stay_turned_round_are_how_the_stream_is_now(horizon):
    seen = _turned(horizon, range(5, 99), make_settings({"quarantine_windows": 3}))
    assert [found.start // SPAN for found, decision in seen if decision.quarantine] == [5, 6, 7]
    assert [decision.release for _, decision in seen if decision.release] == [(5 * SPAN, 6 * SPAN, 7 * SPAN)]
    assert [bool(decision.alert) for _, decision in seen].count(True) == 1
    assert not any(decision.unlearn for _, decision in seen)


@pytest.mark.parametrize("horizon", [SPAN // 10, SPAN, SPAN + SPAN // 2])
def test_late_labels_that_were_turned_round_are_unlearned_when_they_are_right_again(horizon):
    seen = _turned(horizon, range(5, 7), make_settings({"quarantine_windows": 3}))
    told = [(found.name, decision.unlearn) for found, decision in seen if decision.unlearn]
    assert [starts for _, starts in told] == [(5 * SPAN, 6 * SPAN)]
    assert told[0][0] == next(found.name for found, _ in seen if (found.start, found.stage) == (7 * SPAN, "labels"))


def test_the_labels_of_a_broken_window_are_no_drift():
    chosen, state = make_settings({"persistence": 1, "of_windows": 1}), PolicyState(champion=1)
    _, state = decide(drifted(0, breaks=("The column is gone.",)), state, chosen)
    late = Evidence(stage(0, "labels"), 0, champion=1, rows=900, label=0.9)
    decision, state = decide(late, state, chosen)
    assert decision == Decision()


OUTAGE = "No event, where about 6,500 are usual: is a source down?"


def _told(evidence: Evidence, state: PolicyState) -> tuple[str, PolicyState]:
    decision, state = decide(evidence, state, make_settings())
    assert decision.trigger is None
    assert not decision.quarantine
    return decision.action, state


def test_an_outage_is_told_when_it_begins_and_after_each_cooldown_and_again_when_it_comes_back():
    state, told = PolicyState(champion=1), []
    for number in range(8):
        down = number not in (0, 6)
        action, state = _told(Evidence(stage(number), 0, champion=1, volume=OUTAGE if down else None), state)
        state = PolicyState.from_json(json.loads(json.dumps(state.to_json())))
        told.append(action)
    assert told == ["ignore", "alert", "watch", "watch", "watch", "alert", "ignore", "alert"]


def test_labels_that_do_not_come_are_told_after_each_cooldown_though_events_do():
    state, told = PolicyState(champion=1), []
    for number in range(8):
        _, state = _told(Evidence(stage(number), 0, champion=1), state)
        action, state = _told(Evidence(stage(number, "labels"), 0, champion=1, volume="Do labels still come?"), state)
        state = PolicyState.from_json(json.loads(json.dumps(state.to_json())))
        told.append(action)
    assert told == ["alert", "watch", "watch", "watch", "alert", "watch", "watch", "watch"]


@pytest.mark.parametrize("volume_at", [None, 10_000])
def test_what_an_older_headrace_remembered_is_read(volume_at):
    older = {**PolicyState(champion=1).to_json(), "volume_at": volume_at}
    del older["told_late"]
    assert PolicyState.from_json(older) == PolicyState(champion=1)


def test_an_outage_and_drift_of_one_stage_are_told_together_and_neither_hides_the_other():
    state = PolicyState(champion=1)
    action, state = _told(drifted(0), state)
    assert action == "alert"
    decision, state = decide(drifted(1, volume=OUTAGE), state, make_settings())
    assert decision.alert == (OUTAGE,)
    assert "features moved" in decision.watch[0]
    decision, _ = decide(drifted(1, volume=OUTAGE), PolicyState(champion=1), make_settings())
    assert "features moved" in decision.alert[0]
    assert decision.alert[1] == OUTAGE


def test_an_outage_does_not_hide_a_quarantine_nor_a_problem_an_outage():
    decision, _ = decide(drifted(0, breaks=("a is gone.",), volume=OUTAGE), PolicyState(champion=1), make_settings())
    assert (decision.quarantine, decision.alert) == (("a is gone.",), ("a is gone.", OUTAGE))
    decision, state = decide(drifted(0, problem="damaged", volume=OUTAGE), PolicyState(champion=1), make_settings())
    assert decision.alert == ("damaged", OUTAGE)
    _, state = decide(drifted(1, problem="damaged"), state, make_settings())
    assert state.volume_at == {"data": stage(0).due}, "a reference that is damaged does not say that it is over"


@pytest.mark.parametrize("drifts", [True, False])
def test_labels_are_told_of_though_the_window_was_an_outage_but_drift_is_told_once(drifts):
    far = {"a": 0.9 if drifts else 0.0}
    state = PolicyState(champion=1)
    decision, state = decide(replace(drifted(0, volume=OUTAGE), features=far), state, make_settings())
    assert OUTAGE in decision.alert
    labels = Evidence(stage(0, "labels"), 0, champion=1, rows=900, label=0.9, alerted=True)
    decision, _ = decide(labels, state, make_settings())
    assert decision.action == ("watch" if drifts else "alert")


@given(st.lists(looks, max_size=20), st.lists(st.booleans(), min_size=20, max_size=20))
def test_what_the_detectors_see_is_told_and_decides_nothing(seen, alarms):
    chosen, told = make_settings({"persistence": 1, "of_windows": 1}), "ADWIN sees the served loss rise."
    plain = detected = PolicyState()
    for (evidence, _), alarm in zip(play(chosen, seen), alarms, strict=False):
        without, plain = decide(evidence, plain, chosen)
        found, detected = decide(replace(evidence, detected=(told,) if alarm else ()), detected, chosen)
        assert detected == plain
        assert (found.action, found.trigger) == (without.action, without.trigger)
        assert (told in found.alert) == (alarm and bool(without.alert))
