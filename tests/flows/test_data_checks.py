"""What stops a retraining before anything is fitted, each check alone; honest data passes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from data_lab import KINDS, START, Rows, flights_like, settings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.batch_model import MISSING
from core.durations import DAY
from flows.checks.columns import time_parts
from flows.checks.leaks import Labels, alone, one_label
from flows.checks.page import page, write
from flows.checks.report import DataCheck, DataReport
from flows.checks.shift import CONVERSIONS, Conversion, unit_change
from flows.examples import LeftOut


@pytest.fixture
def rows() -> Rows:
    return flights_like()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("seed", range(4))
def test_honest_rows_pass(task: str, seed: int):
    assert flights_like(seed, task=task).failed() == []


def test_the_strongest_honest_feature_is_measured_and_passes(rows: Rows):
    assert 0.7 < rows.check().features["delay"]["alone"] < 0.85


def test_a_value_out_of_bounds_fails_the_schema(rows: Rows):
    rows.frame.loc[:4, "distance"] = -1.0
    bounded = rows.given(fields={**KINDS, "distance": {"type": "number", "minimum": 0}})
    check = bounded.only("schema", "distance")
    assert check.measured == 5
    assert "fields.distance.minimum, 0" in check.sentence


def test_a_missing_value_fails_the_schema_where_the_field_is_not_nullable(rows: Rows):
    strict = rows.given(fields={**KINDS, "temp": {"type": "number", "nullable": False}})
    assert "nullable is false" in strict.only("schema", "temp").sentence


def test_bounds_of_fields_do_not_hold_for_what_a_function_makes_of_them(rows: Rows):
    rows.frame.loc[:4, "distance"] = -1.0
    fields = {**KINDS, "distance": {"type": "number", "minimum": 0}}
    made = rows.given(fields=fields, features={"function": "features.py:f", "outputs": KINDS})
    assert made.failed() == []


@pytest.mark.parametrize("value", [math.inf, 1e31])
def test_a_number_that_no_field_may_have_fails_the_schema(rows: Rows, value: float):
    rows.frame.loc[7, "delay"] = value
    rows.only("schema", "delay")


def test_labels_out_of_bounds_fail_the_schema():
    bounded = flights_like(task="regression").given(label={"path": "late", "maximum": 1.0})
    assert "label.maximum, 1" in bounded.only("schema", None).sentence


def test_a_class_that_is_not_declared_fails_the_schema():
    declared = flights_like(task="multiclass").given(label={"path": "late", "classes": ["early", "late"]})
    assert "label.classes" in declared.only("schema", None).sentence


def test_a_feature_that_is_nearly_always_missing_fails(rows: Rows):
    rows.frame.loc[np.random.default_rng(1).random(len(rows.frame)) < 0.97, "rain"] = math.nan
    rows.only("missing", "rain")


def test_a_feature_that_is_gone_from_the_hold_out_fails(rows: Rows):
    rows.frame.loc[rows.holdout, "tailnum"] = MISSING
    assert "100.0% of the hold-out" in rows.only("missing", "tailnum").sentence


def test_a_feature_that_is_often_missing_may_be_so_in_nearly_all_of_a_week(rows: Rows):
    draw = np.random.default_rng(1)
    rows.frame.loc[draw.random(len(rows.frame)) < np.where(rows.holdout, 0.965, 0.8), "rain"] = math.nan
    assert rows.failed() == []


def test_too_many_ids_that_came_again_fail(rows: Rows):
    assert replace(rows, left_out=LeftOut(repeated=100)).failed() == []
    check = replace(rows, left_out=LeftOut(repeated=2_000)).only("duplicates", None)
    assert "does id name each event once?" in check.sentence


def test_too_few_rows_of_a_class_fail(rows: Rows):
    few = np.zeros(len(rows.frame), dtype=int)
    few[[10, 5_000, 23_000]] = 1
    assert "2 rows of 1" in replace(rows, outcomes=few.tolist()).only("balance", None).sentence


def test_a_rare_class_among_others_is_a_warning():
    rows = flights_like(task="multiclass")
    rows.outcomes[50] = "diverted"
    assert rows.failed() == []
    assert any("1 row of diverted" in warning for warning in rows.check().warnings)


def test_labels_of_a_regression_that_are_all_the_same_fail():
    rows = flights_like(task="regression")
    assert "nothing to learn" in replace(rows, outcomes=[2.0] * len(rows.frame)).only("balance", None).sentence


def test_what_was_left_out_is_told(rows: Rows):
    report = replace(rows, left_out=LeftOut(quarantined=70, immature=1_200)).check()
    said = " ".join(check.sentence for check in report.checks)
    assert "1,200 rows left out: younger than 3h" in said
    assert "70 rows left out: their windows are in quarantine" in said
    assert report.rows["immature"] == 1_200


def test_a_feature_that_never_varied_is_a_warning_with_the_advice_to_leave_it_out(rows: Rows):
    rows.frame["distance"], rows.frame["rain"] = 500.0, 0.0
    assert rows.failed() == []
    (said,) = [warning for warning in rows.check().warnings if warning.startswith("constant")]
    assert "rain and distance have one value" in said and "leave out of the features" in said
    allowed = rows.given(validation={"allow": {"distance": ["constant"], "rain": ["constant"]}})
    assert not any(warning.startswith("constant") for warning in allowed.check().warnings)


@pytest.mark.parametrize(("name", "value"), [("inbound", 0.0), ("carrier", "AA"), ("delay", 0.25)])
def test_a_feature_that_stands_still_in_the_hold_out_fails(rows: Rows, name: str, value: object):
    rows.frame.loc[rows.holdout, name] = value
    assert ("constant", name) in rows.failed()
    assert rows.given(validation={"allow": {name: ["constant"]}}).failed() == []


def test_a_sensor_that_stands_still_and_fails_at_times_is_found_all_the_same(rows: Rows):
    rows.frame.loc[rows.holdout, "temp"] = 39.92
    rows.frame.loc[np.random.default_rng(0).random(len(rows.frame)) < 0.05, "temp"] = math.nan
    assert "does its source stand still?" in rows.only("constant", "temp").sentence


def test_a_dry_week_is_no_fault(rows: Rows):
    rows.frame.loc[rows.holdout, "rain"] = 0.0
    assert rows.failed() == []


def test_a_month_that_has_just_begun_is_no_fault(rows: Rows):
    rows.frame["distance"] = 1.0 + ((rows.event_time - START) / DAY // 28)
    assert rows.failed() == []


def test_a_month_that_varied_in_every_week_before_may_stand_still_no_longer_than_it_does(rows: Rows):
    steps = np.searchsorted([9.6, 16.8, 24.1, 31.2, 38.3, 45.4, 52.5], (rows.event_time - START) / DAY)
    rows.frame["distance"] = 1.0 + steps
    early = rows.event_time < START + 60 * DAY
    short = replace(
        rows,
        frame=rows.frame[early].reset_index(drop=True),
        outcomes=[outcome for outcome, kept in zip(rows.outcomes, early, strict=True) if kept],
        event_time=rows.event_time[early],
    )
    assert short.failed() == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("days", [2, 4, 7, 10, 14])
def test_fahrenheit_that_becomes_celsius_fails_whenever_it_began(seed: int, days: int):
    rows = flights_like(seed)
    late = rows.event_time > rows.event_time.max() - days * DAY
    rows.frame.loc[late, "temp"] = (rows.frame.loc[late, "temp"] - 32.0) / 1.8
    assert "from Fahrenheit to Celsius" in rows.only("shift", "temp").sentence
    assert rows.given(validation={"allow": {"temp": ["shift"]}}).failed() == []


def test_a_unit_that_is_only_a_factor_is_found_where_the_number_was_stable(rows: Rows):
    rows.frame["distance"] = np.random.default_rng(0).lognormal(6.8, 0.3, len(rows.frame))
    rows.frame.loc[rows.holdout, "distance"] *= 1.609344
    check = rows.only("shift", "distance")
    assert "between miles and kilometres" in check.sentence
    assert "mend its source and the rows since" in check.sentence


@pytest.mark.parametrize(("shift", "scale"), [(0.8, 1.0), (5.0, 1.0), (20.0, 1.0), (0.0, 3.0), (8.0, 0.4)])
def test_a_world_that_changes_is_what_a_retraining_is_for(rows: Rows, shift: float, scale: float):
    rows.frame.loc[rows.holdout, "delay"] = scale * rows.frame.loc[rows.holdout, "delay"] + shift
    rows.frame.loc[rows.holdout, "temp"] += 2 * shift
    assert rows.failed() == []


def test_a_number_that_begins_to_move_is_no_change_of_unit(rows: Rows):
    moving = 0.003 * np.random.default_rng(0).normal(1.0, 0.1, len(rows.frame))
    rows.frame["delay"] = np.where(rows.event_time < rows.event_time.max() - 9 * DAY, 0.003467, moving)
    assert rows.failed() == []


def test_a_day_that_is_over_is_no_change_of_unit(rows: Rows):
    cold = (rows.event_time > rows.event_time.max() - 5 * DAY) & (rows.event_time < rows.event_time.max() - 4 * DAY)
    rows.frame.loc[cold, "temp"] = (rows.frame.loc[cold, "temp"] - 32.0) / 1.8
    assert rows.failed() == []


def test_a_break_that_has_lasted_is_how_the_stream_is(rows: Rows):
    changed = int(rows.event_time.max()) - 18 * DAY
    late = rows.event_time > changed
    rows.frame.loc[late, "temp"] = (rows.frame.loc[late, "temp"] - 32.0) / 1.8
    assert rows.failed() == [("shift", "temp")]
    assert rows.failed(accepted=[(changed - 3 * DAY, changed + 4 * DAY)]) == []


@given(st.sampled_from(CONVERSIONS), st.integers(0, 10_000), st.integers(250, 1_500))
def test_every_change_of_unit_of_a_stable_number_is_found_at_its_row(unit: Conversion, seed: int, ago: int):
    values = np.random.default_rng(seed).normal(20.0, 1.0, 8_000)
    values[-ago:] = unit.apply(values[-ago:])
    jump = unit_change(values, np.arange(8_000), 600)
    assert jump is not None and abs(jump.row - (8_000 - ago)) <= 5
    assert jump.conversion.apply(np.array([20.0])) == pytest.approx(unit.apply(np.array([20.0])), rel=0.1, abs=0.5)


@given(st.integers(0, 10_000), st.floats(-1.0, 1.0), st.floats(0.8, 1.35))
def test_a_level_that_moved_and_a_walk_at_random_are_no_change_of_unit(seed: int, shift: float, scale: float):
    draw = np.random.default_rng(seed)
    level, walk = draw.normal(20.0, 2.0, 6_000), np.cumsum(draw.normal(size=6_000))
    level[-700:] = scale * level[-700:] + shift
    for values in (level, walk):
        assert unit_change(values, np.arange(6_000), 600) is None


@given(st.lists(st.integers(0, 10_000), max_size=400), st.integers(1, 3_000), st.none() | st.integers(1, 20))
def test_parts_in_time_follow_each_other_and_the_last_ends_with_the_rows(times, span, most):
    ordered = np.sort(np.array(times, dtype=np.int64))
    parts = time_parts(ordered, span, most)
    assert all(one.stop <= other.start for one, other in pairwise(parts))
    assert most is None or len(parts) <= most
    for part in parts:
        assert part.stop <= len(ordered)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_leaked_label_fails(task: str):
    rows = flights_like(task=task)
    _, codes = np.unique(np.array(rows.outcomes), return_inverse=True)
    known = np.array(rows.outcomes) * 3.0 + 7.0 if task == "regression" else codes * 100.0
    rows.frame["delay"] = known + np.random.default_rng(0).normal(scale=0.01, size=len(known))
    assert "alone predicts the label" in rows.only("leak", "delay").sentence
    assert rows.given(validation={"allow": {"delay": ["leak"]}}).failed() == []


def test_a_leaked_category_fails(rows: Rows):
    rows.frame["carrier"] = np.where(np.array(rows.outcomes) == 1, "arrived late", "arrived").astype(object)
    rows.only("leak", "carrier")


def test_a_category_with_a_value_for_every_row_does_not_pass_for_a_leak(rows: Rows):
    rows.frame["tailnum"] = np.array([f"{row}" for row in range(len(rows.frame))], dtype=object)
    assert rows.check().features["tailnum"]["alone"] == pytest.approx(0.5)


def test_a_field_that_is_missing_only_where_the_label_is_1_fails_although_it_is_rare(rows: Rows):
    late = np.array(rows.outcomes) == 1
    rows.frame.loc[late & (np.random.default_rng(0).random(len(late)) < 0.04), "tailnum"] = MISSING
    check = rows.only("absence", "tailnum")
    assert "the label is 1 in 100.0%" in check.sentence
    assert rows.given(validation={"allow": {"tailnum": ["absence"]}}).failed() == []


def test_a_field_that_is_there_only_where_the_label_is_1_fails(rows: Rows):
    late = np.array(rows.outcomes) == 1
    there = late & (np.random.default_rng(0).random(len(late)) < 0.3)
    rows.frame.loc[~there, "tailnum"] = MISSING
    rows.only("absence", "tailnum")


def test_a_storm_in_which_a_sensor_fails_is_one_event_and_no_leak(rows: Rows):
    storm = (rows.event_time > START + 30 * DAY) & (rows.event_time < START + 32 * DAY)
    rows.frame.loc[storm, "delay"] = math.nan
    assert replace(rows, outcomes=np.where(storm, 1, rows.outcomes).tolist()).failed() == []


def test_what_is_missing_for_the_label_that_nearly_all_have_is_no_wonder():
    rows = flights_like()
    rare = np.random.default_rng(5).random(len(rows.frame)) < 0.01
    rows.frame.loc[~rare & (np.random.default_rng(6).random(len(rare)) < 0.05), "tailnum"] = MISSING
    assert replace(rows, outcomes=rare.astype(int).tolist()).failed() == []


@given(st.integers(0, 10_000), st.floats(0.02, 0.9))
def test_a_feature_that_is_missing_by_chance_does_not_tell_the_label(seed: int, share: float):
    draw = np.random.default_rng(seed)
    outcomes, group = draw.integers(0, 2, 2_000), draw.random(2_000) < share
    every = np.ones(2_000, dtype=bool)
    told = one_label(group, Labels.of(outcomes.tolist(), every, every))
    assert told is None or told[0] < 0.75


@given(st.integers(0, 10_000), st.sampled_from(["number", "category"]))
def test_noise_alone_predicts_nothing_of_later_labels(seed: int, kind: str):
    from flows.checks.columns import Column

    draw = np.random.default_rng(seed)
    values = draw.integers(0, 500, 3_000).astype(float)
    first = np.arange(3_000) < 2_000
    labels = Labels.of(draw.integers(0, 2, 3_000).tolist(), first, ~first)
    column = Column("x", kind, values, [str(code) for code in range(500)] if kind == "category" else [])
    assert 0.35 < alone(column, labels, "binary") < 0.65


def test_allowing_a_feature_that_there_is_not_is_an_error():
    with pytest.raises(ValidationError, match="no feature of the batch model"):
        settings(validation={"allow": {"gone": ["constant"]}})


def test_the_page_says_what_failed_first_and_holds_no_markup_of_the_stream(rows: Rows, tmp_path):
    rows.frame.loc[rows.holdout, "distance"] = 500.0
    made = rows.check()
    text = page(made, rows.settings, "drift-7/1")
    assert text.index("stopped") < text.index("distance has one value") < text.index("unit changed lately")
    assert "ROC AUC alone" in text
    hostile = DataReport([DataCheck("leak", "failed", 1.0, 0.99, "<script>alert(1)</script>", "x")])
    assert "<script>" not in page(hostile, rows.settings, "k")
    path = write(tmp_path / "reports", made, rows.settings, "drift-7/1")
    assert path is not None and path.name == "data_drift-7-1.html"
    assert path.with_suffix(".json").exists()


def test_a_disk_that_refuses_is_a_warning(rows: Rows, tmp_path, caplog):
    (tmp_path / "reports").write_text("in the way")
    assert write(tmp_path / "reports", rows.check(), rows.settings, "k") is None
    assert "in the ledger only" in caplog.text
