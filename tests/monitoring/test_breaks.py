"""What nothing is to be learned from, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from test_calibration import make_days, make_settings

from monitoring.breaks import data_breaks, label_breaks
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
        return data_breaks(window, before, REFERENCE, SETTINGS, {}, None)
    compared = compare_data(window, REFERENCE, kinds=SETTINGS.batch_kinds, task="binary", sample=1000)
    surprise = calibration.surprise(compared.report(distances(compared.columns)).features)
    return data_breaks(window, before, REFERENCE, SETTINGS, calibration.steps, surprise)


def changed(window, column, values):
    return window.set_column(window.column_names.index(column), column, values)


def test_an_ordinary_week_and_a_new_weather_are_no_break():
    assert broken(make_days(7, seed=2, start=77)) == []
    assert broken(make_days(7, seed=2, start=77, shift=0.8)) == []


def test_the_largest_of_a_few_steps_says_nothing_of_the_next():
    few = calibrate(make_days(28), SETTINGS, "data")
    window = make_days(7, seed=2, start=77)
    assert judged(changed(window, "f_size", pa.array(window["f_size"].to_numpy() * 1.8 + 32)), BEFORE, few) == []


def test_a_step_is_measured_by_the_reference_and_not_by_a_calm_week_before():
    calm = changed(BEFORE, "f_size", pa.array(np.zeros(len(BEFORE))))
    window = make_days(7, seed=2, start=77)
    assert judged(window, calm) == []


def test_a_unit_that_changes_is_a_break():
    window = make_days(7, seed=2, start=77)
    window = changed(window, "f_size", pa.array(window["f_size"].to_numpy() * 1.8 + 32))
    (reason,) = broken(window)
    assert reason.startswith("size moved by")


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
