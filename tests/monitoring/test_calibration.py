"""What is usual for a stream: from its own days, for its own windows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from core.durations import DAY
from core.settings import Settings
from monitoring.calibration import Calibration, calibrate, calibrations, draw_windows
from monitoring.comparison import compare_data, compare_labels
from monitoring.distances import distances
from monitoring.signals import SERVED_LOSS, Signals

ROWS_A_DAY = 200


def make_settings(task="binary", **windows):
    return Settings.model_validate(
        {
            "name": "x",
            "task": task,
            "id": "id",
            "time": "t",
            "fields": {"wet": "number", "size": "number", "kind": "category"},
            "label": "y",
            "windows": {"span": "7d", "sample": 1000, **windows},
            "drift": {"min_rows": 100},
        }
    )


def make_days(days, seed=0, *, start=0, weekend=0.0, shift=0.0, spread=1.0):
    """Days that differ from each other: `wet` has the weather of its day, which many rows share."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(start, start + days), ROWS_A_DAY)
    weather = np.repeat(draw.normal(0, spread, days), ROWS_A_DAY)
    at_weekend = day % 7 >= 5
    chance = 1 / (1 + np.exp(-weather))
    label = (draw.random(len(day)) < chance).astype(np.int64)
    wet = weather + draw.normal(0, 1, len(day)) + shift
    return pa.table(
        {
            "id": [str(row + start * ROWS_A_DAY) for row in range(len(day))],
            "event_time": pa.array((day * DAY + draw.integers(0, DAY, len(day))) * 1000, pa.timestamp("us", tz="UTC")),
            "f_wet": pa.array(np.where(draw.random(len(day)) < 0.1, np.nan, wet), from_pandas=True),
            "f_size": draw.normal(0, 1, len(day)) + weekend * at_weekend,
            "f_kind": draw.choice(["a", "b", "c"], len(day)),
            "p_served": np.clip(chance + draw.normal(0, 0.05, len(day)), 0.01, 0.99),
            "label": label,
        }
    ).sort_by("event_time")


def chance_of(calibration, rows, window, settings, stage="data"):
    both = pa.concat_tables([rows, window])
    signals = Signals.of(both, settings, stage)
    found = signals.distances(np.arange(len(rows), len(both)), np.arange(len(rows)))
    return calibration.surprise(found)


def test_rows_alone_do_not_make_a_window_unusual_but_a_change_beyond_the_days_does():
    settings, rows = make_settings(), make_days(56)
    calibration = calibrate(rows, settings, "data")
    same, other = make_days(7, seed=9, start=56), make_days(7, seed=9, start=56, shift=3.0)
    assert chance_of(calibration, rows, same, settings).chance > 0.05
    surprise = chance_of(calibration, rows, other, settings)
    assert surprise.chance < 0.002
    assert surprise.moved[0].name == "wet"
    assert surprise.moved[0].distance > surprise.moved[0].usual


def test_weekends_are_no_drift_of_a_week_and_days_that_differ_widen_the_limit():
    settings, rows = make_settings(), make_days(56, weekend=5.0)
    calibration = calibrate(rows, settings, "data")
    assert chance_of(calibration, rows, make_days(7, seed=3, start=56, weekend=5.0), settings).chance > 0.05
    calm = calibrate(make_days(56, spread=0.1), settings, "data")
    wild = calibrate(make_days(56, spread=3.0), settings, "data")
    usual = [found.surprise({"wet": 0.5}).moved for found in (calm, wild)]
    limits = [next(signal.usual for signal in moved if signal.name == "wet") for moved in usual]
    assert limits[0] < limits[1]


def test_the_rate_of_false_alarms_is_about_what_was_asked_for():
    """Over many unchanged streams; the bounds are four deviations wide."""
    settings, alarms, count = make_settings(sample=500), 0, 0
    for seed in range(12):
        rows = make_days(98, seed=seed)
        known = rows.filter(pa.array(np.arange(len(rows)) < 42 * ROWS_A_DAY))
        calibration = calibrate(known, settings, "data")
        for week in range(6, 14):
            window = rows.slice(week * 7 * ROWS_A_DAY, 7 * ROWS_A_DAY)
            alarms += chance_of(calibration, known, window, settings).chance < 0.2
            count += 1
    assert abs(alarms / count - 0.2) < 4 * np.sqrt(0.2 * 0.8 / count)


def test_labels_and_the_served_loss_are_calibrated_too():
    settings, rows = make_settings(), make_days(56)
    calibration = calibrate(rows, settings, "labels")
    assert set(calibration.signals) == {"true label", SERVED_LOSS}
    turned = make_days(7, seed=5, start=56)
    turned = turned.set_column(turned.column_names.index("label"), "label", pa.array(1 - turned["label"].to_numpy()))
    assert chance_of(calibration, rows, turned, settings, "labels").chance < 0.01


def test_too_few_days_are_not_calibrated():
    settings = make_settings()
    assert calibrations(make_days(13), settings) == {}
    assert set(calibrations(make_days(14), settings)) == {"data", "labels", "prediction"}


def test_the_same_rows_give_the_same_and_it_survives_json():
    settings, rows = make_settings(), make_days(28)
    one, other = (calibrate(rows, settings, "data") for _ in range(2))
    assert one == other
    assert Calibration.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("stage", ["data", "labels"])
def test_signals_are_the_distances_of_the_comparison(stage):
    settings, rows, window = make_settings(), make_days(3), make_days(2, seed=4, start=3, shift=0.4)
    both = pa.concat_tables([rows, window])
    found = Signals.of(both, settings, stage).distances(np.arange(len(rows), len(both)), np.arange(len(rows)))
    common = {"task": "binary", "sample": 10_000}
    if stage == "data":
        compared = compare_data(window, rows, kinds=settings.batch_kinds, **common)
        assert found == pytest.approx(compared.report(distances(compared.columns)).features)
    else:
        compared = compare_labels(window, rows, **common)
        assert found["true label"] == pytest.approx(distances(compared.columns)["true label"])


def test_windows_that_a_day_is_divided_into_are_compared_with_their_time_of_day():
    def with_nights(rows):
        night = (rows["event_time"].cast(pa.int64()).to_numpy() // 1000) % DAY < DAY // 2
        return rows.set_column(
            rows.column_names.index("f_size"), "f_size", pa.array(rows["f_size"].to_numpy() + 6.0 * night)
        )

    settings = make_settings(span="12h")
    rows = with_nights(make_days(28, spread=0.2))
    calibration = calibrate(rows, settings, "data")
    start = 28 * DAY
    next_day = with_nights(make_days(1, seed=4, start=28, spread=0.2))
    night = next_day.filter(pa.array(next_day["event_time"].cast(pa.int64()).to_numpy() < (start + DAY // 2) * 1000))
    both = pa.concat_tables([rows, night])
    found = Signals.of(both, settings, "data").distances(np.arange(len(rows), len(both)), np.arange(len(rows)))
    assert calibration.surprise(found, start).chance > 0.05
    by_day = next(signal for signal in calibration.surprise(found, start + DAY // 2).moved if signal.name == "size")
    by_night = next(signal for signal in calibration.surprise(found, start).moved if signal.name == "size")
    assert by_night.usual == pytest.approx(by_day.usual, rel=0.5), "half of all are as far, on either side"
    assert calibration.surprise({**found, "size": 4 * found["size"]}, start).chance < 0.02


@pytest.mark.parametrize("in_a_day", [2, 4, 24])
@pytest.mark.parametrize("blocks", [199 * 24, 400, 401])
def test_whatever_their_number_windows_of_all_times_of_day_are_drawn(in_a_day, blocks):
    drawn = [int(window[0]) for window in draw_windows(np.arange(blocks), 1, np.random.default_rng(0))]
    assert len(set(drawn)) == len(drawn)
    counts = np.bincount(np.array(drawn) % in_a_day, minlength=in_a_day)
    assert counts.min() >= 0.25 * len(drawn) / in_a_day
