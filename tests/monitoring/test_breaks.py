"""What nothing is to be learned from, and what only looks like it."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_calibration import make_days, make_settings

from core.durations import DAY
from core.recorded import ROW_TIME
from core.tables import milliseconds
from monitoring.breaks import Features, data_breaks, data_doubts, label_breaks, label_doubts
from monitoring.calibration import calibrate
from monitoring.comparison import compare_data
from monitoring.distances import distances

SETTINGS = make_settings()
REFERENCE = make_days(70)
USUAL = calibrate(REFERENCE, SETTINGS, "data")
BEFORE = make_days(7, seed=1, start=70)


def broken(window, calibration=USUAL):
    return judged(window, BEFORE, calibration)


def judged(window, before, calibration=USUAL):
    if calibration is None:
        return data_breaks(Features(window, REFERENCE, SETTINGS, {}, None), before)
    compared = compare_data(window, REFERENCE, kinds=SETTINGS.batch_kinds, task="binary", sample=1000)
    surprise = calibration.surprise(compared.report(distances(compared.columns)).features)
    return data_breaks(Features(window, REFERENCE, SETTINGS, calibration.steps, surprise), before)


def doubted(window, earlier):
    compared = compare_data(window, REFERENCE, kinds=SETTINGS.batch_kinds, task="binary", sample=1000)
    surprise = USUAL.surprise(compared.report(distances(compared.columns)).features)
    return data_doubts(Features(window, REFERENCE, SETTINGS, USUAL.steps, surprise), [earlier, earlier])


def changed(window, column, values):
    return window.set_column(window.column_names.index(column), column, values)


def test_an_ordinary_week_and_a_new_weather_are_no_break():
    assert broken(make_days(7, seed=2, start=77)) == []
    assert broken(make_days(7, seed=2, start=77, shift=0.8)) == []


def test_the_largest_of_a_few_steps_says_nothing_of_the_next():
    few = calibrate(make_days(28), SETTINGS, "data")
    window = make_days(7, seed=2, start=77)
    spread = float(np.std(REFERENCE["f_size"].to_numpy()))
    assert judged(changed(window, "f_size", pa.array(window["f_size"].to_numpy() + 2 * spread)), BEFORE, few) == []
    (reason,) = judged(changed(window, "f_size", pa.array(window["f_size"].to_numpy() + 4 * spread)), BEFORE, few)
    assert "largest step" not in reason, "none is known, but this is unheard of"


def test_a_step_is_measured_by_the_reference_and_not_by_a_calm_week_before():
    calm = changed(BEFORE, "f_size", pa.array(np.zeros(len(BEFORE))))
    window = make_days(7, seed=2, start=77)
    assert judged(window, calm) == []


def test_what_never_moved_before_and_moves_now_is_drift():
    still, moved = (changed(rows, "f_size", pa.array(np.zeros(len(rows)))) for rows in (REFERENCE, BEFORE))
    window = make_days(7, seed=2, start=77)
    window = changed(window, "f_size", pa.array(np.ones(len(window))))
    usual = calibrate(still, SETTINGS, "data")
    compared = compare_data(window, still, kinds=SETTINGS.batch_kinds, task="binary", sample=1000)
    surprise = usual.surprise(compared.report(distances(compared.columns)).features)
    assert "size" in {signal.name for signal in surprise.moved}
    assert data_breaks(Features(window, still, SETTINGS, usual.steps, surprise), moved) == []


def test_a_unit_that_changes_is_a_break():
    window = make_days(7, seed=2, start=77)
    window = changed(window, "f_size", pa.array(window["f_size"].to_numpy() * 1.8 + 32))
    (reason,) = broken(window)
    assert re.match(r"size moved by [\d.]+ standard deviations from one window to the next", reason)


def test_a_storm_that_moves_the_mean_by_a_few_rows_is_none():
    window = make_days(7, seed=2, start=77)
    values = window["f_size"].to_numpy().copy()
    values[::20] += 60.0
    stormy = changed(window, "f_size", pa.array(values))
    compared = compare_data(stormy, REFERENCE, kinds=SETTINGS.batch_kinds, task="binary", sample=1000)
    surprise = USUAL.surprise(compared.report(distances(compared.columns)).features)
    assert surprise.moved[0].name == "size" and surprise.moved[0].distance > 2, "unusual, and an alert"
    assert broken(stormy) == []
    values = window["f_size"].to_numpy().copy()
    values[: len(values) // 2] += 60.0
    (reason,) = broken(changed(window, "f_size", pa.array(values)))
    assert reason.startswith("size moved by"), "half of the week in another unit"


def test_a_unit_that_stays_changed_is_still_broken_and_one_that_is_back_is_not():
    week = make_days(7, seed=2, start=77)
    away = changed(week, "f_size", pa.array(week["f_size"].to_numpy() * 1.8 + 32))
    following = make_days(7, seed=3, start=84)
    still = changed(following, "f_size", pa.array(following["f_size"].to_numpy() * 1.8 + 32))
    assert judged(still, away) == [], "there is no step any more"
    (reason,) = doubted(still, BEFORE)
    assert re.match(r"size is still [\d.]+ standard deviations from where", reason)
    assert doubted(following, BEFORE) == doubted(following, away) == []


@pytest.mark.parametrize("calibration", [USUAL, None])
def test_a_column_that_is_gone_is_a_break(calibration):
    window = make_days(7, seed=2, start=77)
    (reason,) = broken(changed(window, "f_kind", pa.nulls(len(window), pa.string())), calibration)
    assert reason == "kind is missing in 100% of the rows, where 0% was usual."


def test_labels_turned_round_are_a_break_and_harder_labels_are_none():
    window = make_days(7, seed=2, start=77).append_column("p_champion", make_days(7, seed=2, start=77)["p_served"])
    turned = changed(window, "label", pa.array(1 - window["label"].to_numpy()))
    noise = changed(window, "label", pa.array(np.random.default_rng(1).integers(0, 2, len(window))))
    assert label_breaks(window, REFERENCE, SETTINGS) == []
    assert label_breaks(noise, REFERENCE, SETTINGS) == []
    (reason,) = label_breaks(turned, REFERENCE, SETTINGS)
    assert "contradict" in reason
    assert label_breaks(turned.slice(0, 50), REFERENCE, SETTINGS) == [], "too few to tell"
    assert label_doubts(window, REFERENCE, SETTINGS) == []
    assert all("again" in label_doubts(one, REFERENCE, SETTINGS)[0] for one in (noise, turned))
    assert label_doubts(noise.slice(0, 50), REFERENCE, SETTINGS) == [], "too few to tell"
    ingested = REFERENCE.slice(0, 0)
    assert label_breaks(turned, ingested, SETTINGS) == label_doubts(turned, ingested, SETTINGS) == []
    assert "+0.80 was usual" in label_breaks(turned, ingested, SETTINGS, skill=0.8)[0]
    assert "+0.80 was usual" in label_doubts(turned, ingested, SETTINGS, 0.8)[0]


def on_days(window, column, values, days):
    """The window with a column's values changed on some of its days alone, by number since 1970."""
    numbers = milliseconds(window["event_time"]) // DAY
    kept = zip(window[column].to_pylist(), values, np.isin(numbers, days).tolist(), strict=True)
    field = window.schema.field(column)
    return changed(window, column, pa.array([new if there else old for old, new, there in kept], field.type))


def labelled_week():
    """A week whose labels are what a champion says they are, in its chances."""
    window, draw = make_days(7, seed=2, start=77), np.random.default_rng(3)
    chance = draw.random(len(window))
    labels = pa.array((draw.random(len(window)) < chance).astype(np.int64))
    return changed(window.append_column("p_champion", pa.array(chance)), "label", labels)


LABELLED = labelled_week()


def turned(window, days):
    return on_days(window, "label", (1 - window["label"].to_numpy()).tolist(), days)


def test_a_column_that_is_gone_for_some_days_of_a_week_is_a_break_that_names_them():
    window = make_days(7, seed=2, start=77)
    (reason,) = broken(on_days(window, "f_kind", [None] * len(window), [78, 80]))
    assert reason == "kind is missing in 100% of the rows on 1970-03-20 and 1970-03-22, where 0% was usual on a day."


def test_a_column_that_is_missing_for_half_of_a_day_is_none():
    window = make_days(7, seed=2, start=77)
    half = [value if row % 2 else None for row, value in enumerate(window["f_kind"].to_pylist())]
    assert broken(on_days(window, "f_kind", half, [78])) == []


def test_a_column_that_the_reference_knows_to_be_gone_for_a_day_is_none():
    window = make_days(7, seed=2, start=77)
    window = on_days(window, "f_kind", [None] * len(window), [80])
    usual = on_days(REFERENCE, "f_kind", [None] * len(REFERENCE), [day for day in range(70) if day % 7 == 3])
    assert data_breaks(Features(window, usual, SETTINGS, {}, None), BEFORE) == []


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(77, 83), min_size=1, max_size=3))
def test_labels_turned_round_for_some_days_are_a_break_that_names_just_those(days):
    (reason,) = label_breaks(turned(LABELLED, sorted(days)), REFERENCE, SETTINGS)
    dates = [str(np.datetime64(day, "D")) for day in range(77, 84)]
    assert [date for date in dates if date in reason] == [str(np.datetime64(day, "D")) for day in sorted(days)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_days_on_which_the_champion_has_no_skill_are_none(seed):
    noise = np.random.default_rng(seed).integers(0, 2, len(LABELLED)).tolist()
    assert label_breaks(on_days(LABELLED, "label", noise, [78, 79, 80]), REFERENCE, SETTINGS) == []


def test_a_days_labels_count_once_they_are_due():
    window, horizon = turned(LABELLED, [82]), SETTINGS.label.horizon
    assert label_breaks(window, REFERENCE, SETTINGS, 83 * DAY + horizon - 1) == []
    assert len(label_breaks(window, REFERENCE, SETTINGS, 83 * DAY + horizon)) == 1


def test_rows_that_are_counted_and_windows_of_a_day_have_no_days():
    rows = SETTINGS.model_copy(update={"time": ROW_TIME})
    for without in (rows, make_settings(span="1d")):
        assert label_breaks(turned(LABELLED, [78]), REFERENCE, without) == []
