"""When quality turned within a window: what the online detectors say of its losses."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.durations import DAY, HOUR
from monitoring.detectors import rises

WEEK_ROWS = 1_400


def make_week(number, chances_of_error, *, champion=1, seed=0, delay=None):
    """A week of a binary stream: each row is as wrong as it is told to be."""
    draw = np.random.default_rng([seed, number])
    times = (number * 7 * DAY + np.sort(draw.integers(0, 7 * DAY, WEEK_ROWS))) // 1000 * 1000
    label = draw.integers(0, 2, WEEK_ROWS)
    wrong = draw.random(WEEK_ROWS) < chances_of_error
    served = np.where(label == 1, 0.9, 0.1)
    served = np.where(wrong, 1 - served, served)
    return pa.table(
        {
            "id": [f"{number}-{row}" for row in range(WEEK_ROWS)],
            "event_time": pa.array(times * 1000, pa.timestamp("us", tz="UTC")),
            "champion_version": pa.array([champion] * WEEK_ROWS, pa.int32()),
            "p_served": served,
            "p_champion": served,
            "label": label,
        }
    )


def turning(share_before, share_after, turn):
    return np.where(np.arange(WEEK_ROWS) < turn, share_before, share_after)


@pytest.mark.parametrize("turn", [200, WEEK_ROWS // 3, WEEK_ROWS // 2, WEEK_ROWS - 300])
def test_the_moment_at_which_quality_turned_is_found_within_the_window(turn):
    window = make_week(1, turning(0.1, 0.5, turn))
    found = rises(make_week(0, 0.1), window, 1)
    assert [(rise.detector, rise.loss) for rise in found] == [
        (name, loss) for loss in ("served", "champion") for name in ("ADWIN", "Page-Hinkley")
    ]
    happened = window["event_time"][turn].as_py().timestamp() * 1000
    (adwin,) = [rise for rise in found if (rise.detector, rise.loss) == ("ADWIN", "served")]
    assert abs(adwin.at - happened) < 12 * HOUR
    assert adwin.before < 0.5 < adwin.after


@given(seed=st.integers(0, 1_000), turn=st.integers(100, WEEK_ROWS - 100))
@settings(max_examples=25, deadline=None)
def test_whatever_is_found_is_a_rise(seed, turn):
    window = make_week(1, turning(0.5, 0.05, turn), seed=seed)
    assert all(rise.after > rise.before for rise in rises(make_week(0, 0.5, seed=seed), window, 1))


@pytest.mark.parametrize("turn", [200, WEEK_ROWS // 2, WEEK_ROWS - 300])
def test_a_loss_that_falls_is_no_finding(turn):
    found = rises(make_week(0, 0.5), make_week(1, turning(0.5, 0.05, turn)), 1)
    assert not [rise for rise in found if rise.detector == "ADWIN"]


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_order_in_which_a_table_returns_its_rows_does_not_matter(random):
    before, window = make_week(0, 0.1), make_week(1, turning(0.1, 0.4, 700))
    order = list(range(WEEK_ROWS))
    random.shuffle(order)
    assert rises(before.take(order), window.take(order), 1) == rises(before, window, 1) != ()


def test_a_rise_at_the_very_start_is_seen_against_the_window_before():
    found = rises(make_week(0, 0.1), make_week(1, 0.5), 1)
    assert abs(found[0].at - 7 * DAY) < 12 * HOUR
    assert not [rise for rise in rises(make_week(0, 0.1).slice(0, 0), make_week(1, 0.5), 1) if rise.detector == "ADWIN"]


def test_a_rise_of_the_window_before_is_not_told_again():
    assert not [rise for rise in rises(make_week(0, turning(0.1, 0.5, 700)), make_week(1, 0.5), 1) if rise.at < 7 * DAY]


def test_of_the_champion_only_its_own_predictions_count():
    before, window = make_week(0, 0.1), make_week(1, turning(0.1, 0.5, 700), champion=2)
    assert {rise.loss for rise in rises(before, window, 1)} == {"served"}
    assert {rise.loss for rise in rises(before, window, 2)} == {"served", "champion"}


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_hardly_any_rows_are_no_finding(rows):
    few = make_week(1, 0.5).slice(0, rows)
    assert rises(few.slice(0, 0), few, 1) == rises(few, few, 1) == ()


def test_rows_without_a_prediction_or_a_label_do_not_count():
    before, window = make_week(0, 0.1), make_week(1, turning(0.1, 0.5, 700))
    holes = pa.table({name: window[name] for name in window.column_names})
    empty = {"p_served": pa.nulls(WEEK_ROWS, pa.float64()), "label": pa.nulls(WEEK_ROWS, pa.int64())}
    for name, column in empty.items():
        gone = holes.set_column(holes.column_names.index(name), name, column)
        both = pa.concat_tables([window, gone])
        served = [rise for rise in rises(before, both, 1) if rise.loss == "served"]
        assert served == [rise for rise in rises(before, window, 1) if rise.loss == "served"]
