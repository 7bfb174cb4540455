from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.durations import ROW
from core.loop_settings import DriftSettings
from core.recorded import FIRST_ROW, ROW_TIME
from core.settings import Settings
from monitoring.calibration import Signal, Surprise
from monitoring.decision import Decision, PolicyState
from monitoring.gain import Gain, Prospect, expected_gain
from monitoring.judgement import Evidence, judge
from monitoring.policy import decide
from monitoring.windows import due_stages, start_progress

SPAN = 10_000
LIMITS = {"feature_threshold": 0.25, "prediction_threshold": 0.2, "label_threshold": 0.2, "quality_drop": 0.1}
DRIFT = DriftSettings(**LIMITS)
INFINITE = dict.fromkeys(("feature_threshold", "prediction_threshold", "label_threshold", "quality_drop"), float("inf"))


def make_settings(drift: dict[str, Any] | None = None, **retrain: Any) -> Settings:
    return Settings.model_validate(
        {
            "name": "x",
            "id": "id",
            "time": "t",
            "fields": {"a": "number"},
            "label": "y",
            "windows": {"span": SPAN},
            "drift": {"cooldown": 35_000, **LIMITS, **(drift or {})},
            "retrain": {"bootstrap_after": 20_000, "every": None, **retrain},
        }
    )


looks = st.fixed_dictionaries(
    {
        "far": st.booleans(),
        "rows": st.sampled_from([10, 499, 500, 5_000]),
        "loss": st.sampled_from([None, 0.5, 0.9]),
        "ends": st.booleans(),
    }
)


def _play(chosen: Settings, seen: list[dict[str, Any]], horizon: int = 15_000) -> list[tuple[Evidence, Decision]]:
    """Let the policy see a stream; a retraining stays open until a look says that it ends."""
    stages = due_stages(start_progress(0, SPAN), SPAN, horizon, 10**9)
    state, found, is_open, alerted, champion = PolicyState(), [], False, set(), None
    for look, stage in zip(seen, stages, strict=False):
        if is_open and look["ends"]:
            is_open, champion = False, (champion or 0) + 1
        evidence = Evidence(
            stage,
            0,
            champion=champion,
            rows=look["rows"],
            features={"a": 0.9 if look["far"] else 0.0} if stage.stage == "data" else {},
            label=0.0 if stage.stage == "labels" else None,
            champion_loss=look["loss"],
            validation_loss=0.5,
            loss_rows=look["rows"],
            examples=5_000,
            alerted=stage.start in alerted,
            open_retraining=is_open,
        )
        decision, state = decide(evidence, PolicyState.from_json(json.loads(json.dumps(state.to_json()))), chosen)
        found.append((evidence, decision))
        is_open = is_open or decision.trigger is not None
        alerted |= {stage.start} if decision.alert else set()
    return found


@given(st.lists(looks, max_size=40))
def test_drift_never_retrains_inside_the_cooldown_nor_while_one_is_open(seen):
    chosen = make_settings({"persistence": 1, "of_windows": 1}, every="60s")
    last = None
    for evidence, decision in _play(chosen, seen):
        if decision.trigger is None:
            continue
        assert not evidence.open_retraining
        assert decision.reasons
        now = evidence.window.due
        if decision.trigger == "drift":
            assert last is not None
            assert now - last >= chosen.drift.cooldown
        last = now


@given(st.lists(looks, max_size=40))
def test_too_few_rows_neither_alert_nor_retrain_on_drift(seen):
    few = [{**look, "rows": min(look["rows"], 499)} for look in seen]
    decisions = [decision for _, decision in _play(make_settings({"persistence": 1, "of_windows": 1}), few)]
    assert not any(decision.alert or decision.trigger == "drift" for decision in decisions)


@given(st.lists(looks, max_size=40))
def test_infinite_thresholds_never_alert(seen):
    found = _play(make_settings({**INFINITE, "persistence": 1, "of_windows": 1}), seen)
    assert all(decision.trigger in (None, "bootstrap") and not decision.alert for _, decision in found)


def test_an_infinite_distance_does_not_reach_an_infinite_threshold():
    endless = DriftSettings(**INFINITE)
    evidence = Evidence(_stage(0), 0, champion=1, rows=900, features={"a": float("inf")}, prediction=float("inf"))
    assert judge(evidence, endless).verdict == "steady"
    assert judge(evidence, DRIFT).verdict == "drifted"


@given(st.lists(looks, max_size=40))
def test_a_window_alerts_once(seen):
    alerts = [evidence.window.start for evidence, decision in _play(make_settings(), seen) if decision.alert]
    assert len(alerts) == len(set(alerts))


@given(st.lists(looks, max_size=40), st.integers(1, 3))
@settings(max_examples=50)
def test_drift_retrains_only_when_enough_of_the_latest_windows_have_drifted(seen, persistence):
    chosen = make_settings({"persistence": persistence, "of_windows": 3, "cooldown": 1})
    found = _play(chosen, seen, horizon=1)
    for index, (evidence, decision) in enumerate(found):
        if decision.trigger != "drift":
            continue
        earlier = [e for e, _ in found[: index + 1] if e.champion == evidence.champion]
        drifted = {e.window.start for e in earlier if judge(e, chosen.drift).verdict == "drifted"}
        assert len(drifted) >= persistence
        assert evidence.window.start in drifted


def _stage(number: int, stage: str = "data"):
    stages = due_stages(start_progress(0, SPAN), SPAN, 1_000, 10**7)
    return [entry for entry in stages if entry.stage == stage][number]


def _drifted(number: int, **more: Any) -> Evidence:
    return Evidence(_stage(number), 0, champion=1, rows=900, features={"a": 0.9, "b": 0.0}, **more)


def test_persistent_drift_retrains_and_then_the_cooldown_holds():
    chosen, state, triggers, told = make_settings(), PolicyState(champion=1), [], []
    for number in range(8):
        decision, state = decide(_drifted(number), state, chosen)
        triggers.append(decision.trigger)
        told.append("alert" if decision.alert else "watch" if decision.watch else "nothing")
    assert triggers == [None, "drift", None, None, None, "drift", None, None]
    assert told == ["alert", "watch", "watch", "watch", "alert", "watch", "watch", "watch"]


def test_a_retraining_on_drift_names_the_windows_and_what_drifted_where_its_own_stage_is_steady():
    chosen, state, decisions = make_settings(), PolicyState(champion=1), []
    for number in range(2):
        for evidence in (
            _drifted(number, open_retraining=number == 1),
            Evidence(_stage(number, "labels"), 0, champion=1, rows=900, label=0.0),
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
        decision, state = decide(_drifted(number), state, chosen)
    assert "(limit 5 of 5): 2 earlier, that from 1970-01-01T00:00:20Z (a), " in decision.reasons[0]
    assert len(json.dumps(state.to_json())) < 1_000


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


def test_somebody_elses_retraining_starts_the_cooldown_too():
    state = PolicyState(champion=1)
    _, state = decide(_drifted(0), state, make_settings())
    decision, state = decide(_drifted(1, retrainings=(15_000,)), state, make_settings())
    assert decision.action == "watch"
    assert state.last_retraining == 15_000


def test_after_a_promotion_the_verdicts_start_empty():
    state = PolicyState(champion=1)
    _, state = decide(_drifted(0), state, make_settings())
    decision, state = decide(replace(_drifted(1), champion=2), state, make_settings())
    assert decision.action == "watch", "the stream goes on as it did: nobody is told twice within a cooldown"
    assert len(state.data) == 1


def test_the_labels_stage_counts_with_the_data_stage_of_other_windows():
    chosen, state = make_settings(), PolicyState(champion=1)
    _, state = decide(_drifted(0), state, chosen)
    _, state = decide(Evidence(_stage(0, "labels"), 0, champion=1, rows=900, label=0.0), state, chosen)
    calm = replace(_drifted(1), features={"a": 0.0})
    _, state = decide(calm, state, chosen)
    worse = Evidence(
        _stage(1, "labels"), 0, champion=1, rows=900, label=0.0,
        champion_loss=0.9, validation_loss=0.5, loss_rows=900,
    )  # fmt: skip
    decision, _ = decide(worse, state, chosen)
    assert decision.trigger == "drift"
    assert "mean loss 0.9000" in decision.alert[0]


def test_bootstrap_waits_for_time_and_examples_and_is_tried_again_a_span_later():
    chosen, state = make_settings(), PolicyState()
    early, _ = decide(Evidence(_stage(0), 0, examples=10_000), state, chosen)
    few, _ = decide(Evidence(_stage(2), 0, examples=999), state, chosen)
    first, state = decide(Evidence(_stage(2), 0, examples=1_000), state, chosen)
    labels, state = decide(Evidence(_stage(2, "labels"), 0, examples=1_000), state, chosen)
    again, state = decide(Evidence(_stage(3), 0, examples=1_000), state, chosen)
    assert [d.trigger for d in (early, few, first, labels, again)] == [None, None, "bootstrap", None, "bootstrap"]


def test_the_schedule_counts_from_the_latest_retraining():
    chosen = make_settings(every="25s")
    calm = replace(_drifted(3), features={"a": 0.0})
    due, _ = decide(calm, PolicyState(champion=1, last_retraining=15_000), chosen)
    soon, _ = decide(calm, PolicyState(champion=1, last_retraining=20_000), chosen)
    assert (due.trigger, soon.trigger) == ("schedule", None)
    assert due.alert == ()


def _grown(examples: int, **more: Any) -> Evidence:
    """A calm window; the champion was trained on 10,000 rows."""
    return replace(_drifted(3), features={"a": 0.0}, trained_rows=10_000, examples=examples, **more)


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
    recent = PolicyState(champion=1, last_retraining=_stage(3).due - 34_999)
    rested = PolicyState(champion=1, last_retraining=_stage(3).due - 35_000)
    assert [decide(_grown(90_000), state, make_settings())[0].trigger for state in (recent, rested)] == [None, "growth"]
    both = replace(_drifted(3), trained_rows=10_000, examples=90_000)
    assert decide(both, rested, make_settings({"persistence": 1}))[0].trigger == "drift"


def test_a_schedule_that_is_due_is_named_where_growth_does_not_pay():
    decision, _ = decide(
        _grown(90_000), PolicyState(champion=1, last_retraining=0), make_settings(min_gain=0.5, every="25s")
    )
    assert decision.trigger == "schedule"


def test_drift_does_not_retrain_where_the_project_says_no():
    chosen, state = make_settings(on_drift=False), PolicyState(champion=1)
    for number in range(3):
        decision, state = decide(_drifted(number), state, chosen)
        assert decision.action in ("alert", "watch")


def test_a_problem_alerts_once_a_window_and_is_no_verdict():
    chosen = make_settings({"persistence": 1, "of_windows": 1})
    decision, state = decide(_drifted(0, problem="The reference is damaged."), PolicyState(champion=1), chosen)
    assert decision == Decision(alert=("The reference is damaged.",))
    assert state.data == ()
    repeated, _ = decide(_drifted(0, problem="The reference is damaged.", alerted=True), state, chosen)
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
    evidence = Evidence(_stage(0), 0, champion=1, rows=500, **more)
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
    assert judge(Evidence(_stage(0), 0, champion=1, rows=500, **more), DRIFT).verdict == "steady"


def test_without_anything_to_compare_a_window_is_not_judged():
    assert judge(Evidence(_stage(0), 0, champion=1, rows=500), DRIFT).verdict == "not judged"
    judgement = judge(Evidence(_stage(0), 0, rows=500, features={"a": 9.0}), DRIFT)
    assert judgement.reasons == ("No reference: there is no champion yet.",)


def _with_surprise(number: int, chance: float, **more: Any) -> Evidence:
    signal = Signal("a", 0.9, usual=0.3, score=4.0)
    return replace(_drifted(number, **more), features={"a": 0.9}, surprise=Surprise(chance, (signal,)))


def test_what_is_usual_decides_where_it_is_known_and_no_limit_is_set():
    calibrated = DriftSettings(false_alarms="1 per 100s")  # type: ignore[arg-type]
    limit = SPAN / 100_000 / 2
    assert judge(_with_surprise(0, limit * 0.9), calibrated).verdict == "drifted"
    assert judge(_with_surprise(0, limit * 1.1), calibrated).verdict == "steady"
    (reason,) = judge(_with_surprise(0, limit / 2), calibrated).reasons
    assert "a 0.90 (usually below 0.30)" in reason
    assert "once in 3.3m (limit: once in 1.7m)" in reason
    assert judge(_with_surprise(0, 1e-9), DriftSettings(feature_threshold=float("inf"))).verdict == "steady"


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
        decision, state = decide(_drifted(number), state, chosen)
        calm = Evidence(_stage(number, "labels"), 0, champion=1, rows=900, label=0.0)
        _, state = decide(calm, state, chosen)
        told.append(decision.action)
    assert told == ["alert", "watch", "watch"]


def test_a_window_after_a_break_is_broken_until_it_agrees_again():
    chosen, state, seen = make_settings({"quarantine_windows": 3}), PolicyState(champion=1), []
    doubts = ("The labels do not agree again.",)
    for number, (breaks, doubt) in enumerate([((), doubts), (("Turned.",), ()), ((), doubts), ((), ())]):
        steady = replace(_drifted(number, breaks=breaks, doubts=doubt), features={"a": 0.0})
        decision, state = decide(steady, state, chosen)
        seen.append(decision)
    assert [one.action for one in seen] == ["ignore", "quarantine", "quarantine", "ignore"]
    assert seen[2].quarantine == doubts
    assert [one.unlearn for one in seen] == [(), (), (), (SPAN, 2 * SPAN)]


def test_whether_a_break_is_over_cannot_be_told_of_few_rows():
    chosen, state, seen = make_settings({"quarantine_windows": 3}), PolicyState(champion=1), []
    for number, rows in enumerate([900, 100, 0, 900]):
        breaks = ("The column is gone.",) if number == 0 else ()
        window = replace(_drifted(number, breaks=breaks), features={"a": 0.0}, rows=rows)
        decision, state = decide(window, state, chosen)
        seen.append(decision)
    assert [one.action for one in seen] == ["quarantine", "quarantine", "ignore", "ignore"]
    assert seen[3].unlearn == (0, SPAN), "a window without an event has nothing to learn from"


def test_a_break_is_kept_out_until_it_is_over():
    chosen, state, seen = make_settings({"quarantine_windows": 3}), PolicyState(champion=1), []
    for number, is_broken in enumerate([False, True, True, False, False]):
        breaks = ("The column is gone.",) if is_broken else ()
        decision, state = decide(replace(_drifted(number, breaks=breaks), features={"a": 0.0}), state, chosen)
        seen.append(decision)
    assert [one.action for one in seen] == ["ignore", "quarantine", "quarantine", "ignore", "ignore"]
    assert [bool(one.alert) for one in seen] == [False, True, False, False, False]
    assert not any(one.trigger for one in seen)
    assert [one.unlearn for one in seen] == [(), (), (), (SPAN, 2 * SPAN), ()], "once, when it is over"


def test_a_break_that_lasts_is_how_the_stream_is_now():
    chosen = make_settings({"quarantine_windows": 2, "persistence": 1, "of_windows": 1})
    state, seen = PolicyState(champion=1), []
    for number in range(4):
        decision, state = decide(_drifted(number, breaks=("The unit was changed.",)), state, chosen)
        seen.append(decision)
    assert [one.action for one in seen[:3]] == ["quarantine", "quarantine", "retrain"]
    assert seen[2].release == (0, SPAN)
    assert not seen[3].release
    after, _ = decide(replace(_drifted(4), features={"a": 0.0}), state, chosen)
    assert not any(one.unlearn for one in [*seen, after]), "how the stream is now must not be forgotten"


def test_the_labels_of_a_broken_window_are_no_drift():
    chosen, state = make_settings({"persistence": 1, "of_windows": 1}), PolicyState(champion=1)
    _, state = decide(_drifted(0, breaks=("The column is gone.",)), state, chosen)
    late = Evidence(_stage(0, "labels"), 0, champion=1, rows=900, label=0.9)
    decision, state = decide(late, state, chosen)
    assert decision == Decision()


def test_drift_retrains_only_where_it_is_worth_it():
    cheap = make_settings({"persistence": 1, "of_windows": 1})
    dear = make_settings({"persistence": 1, "of_windows": 1}, cost=1000.0, worth=1.0)
    grown = _drifted(0, trained_rows=1_000, examples=2_000)
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


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(-1, 1), st.floats(-0.2, 0.2)), max_size=30))
def test_the_expected_gain_lies_between_what_was_thought_and_what_was_seen(past):
    seen = [Gain(Prospect(1.0), gain) for _, _, gain in past]
    expected = expected_gain(Prospect(1.0), seen)
    values = [0.01, *(one.gain for one in seen)]
    assert min(values) - 1e-9 <= expected <= max(values) + 1e-9
    mixed = [Gain(Prospect(growth, shortfall), gain) for growth, shortfall, gain in past]
    assert abs(expected_gain(Prospect(0.0), mixed)) < 1e-12


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
        action, state = _told(Evidence(_stage(number), 0, champion=1, volume=OUTAGE if down else None), state)
        state = PolicyState.from_json(json.loads(json.dumps(state.to_json())))
        told.append(action)
    assert told == ["ignore", "alert", "watch", "watch", "watch", "alert", "ignore", "alert"]


def test_an_outage_and_drift_of_one_stage_are_told_together_and_neither_hides_the_other():
    state = PolicyState(champion=1)
    action, state = _told(_drifted(0), state)
    assert action == "alert"
    decision, state = decide(_drifted(1, volume=OUTAGE), state, make_settings())
    assert decision.alert == (OUTAGE,)
    assert "features moved" in decision.watch[0]
    decision, _ = decide(_drifted(1, volume=OUTAGE), PolicyState(champion=1), make_settings())
    assert "features moved" in decision.alert[0]
    assert decision.alert[1] == OUTAGE


def test_an_outage_does_not_hide_a_quarantine_nor_a_problem_an_outage():
    decision, _ = decide(_drifted(0, breaks=("a is gone.",), volume=OUTAGE), PolicyState(champion=1), make_settings())
    assert (decision.quarantine, decision.alert) == (("a is gone.",), ("a is gone.", OUTAGE))
    decision, state = decide(_drifted(0, problem="damaged", volume=OUTAGE), PolicyState(champion=1), make_settings())
    assert decision.alert == ("damaged", OUTAGE)
    _, state = decide(_drifted(1, problem="damaged"), state, make_settings())
    assert state.volume_at == _stage(0).due, "a reference that is damaged does not say that it is over"


@pytest.mark.parametrize("drifts", [True, False])
def test_labels_are_told_of_though_the_window_was_an_outage_but_drift_is_told_once(drifts):
    far = {"a": 0.9 if drifts else 0.0}
    state = PolicyState(champion=1)
    decision, state = decide(replace(_drifted(0, volume=OUTAGE), features=far), state, make_settings())
    assert OUTAGE in decision.alert
    labels = Evidence(_stage(0, "labels"), 0, champion=1, rows=900, label=0.9, alerted=True)
    decision, _ = decide(labels, state, make_settings())
    assert decision.action == ("watch" if drifts else "alert")


@given(st.lists(looks, max_size=20), st.lists(st.booleans(), min_size=20, max_size=20))
def test_what_the_detectors_see_is_told_and_decides_nothing(seen, alarms):
    chosen, told = make_settings({"persistence": 1, "of_windows": 1}), "ADWIN sees the served loss rise."
    plain = detected = PolicyState()
    for (evidence, _), alarm in zip(_play(chosen, seen), alarms, strict=False):
        without, plain = decide(evidence, plain, chosen)
        found, detected = decide(replace(evidence, detected=(told,) if alarm else ()), detected, chosen)
        assert detected == plain
        assert (found.action, found.trigger) == (without.action, without.trigger)
        assert (told in found.alert) == (alarm and bool(without.alert))
