"""How many events are usual, and when fewer or more are worth an alert."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_calibration import make_settings

from core.durations import DAY, HOUR
from core.loop_settings import DriftSettings
from core.recorded import ROW_TIME
from monitoring.volume import SHARE, Volume, missing_labels, unusual_volume, usual_volume
from monitoring.windows import WindowStage

DRIFT = DriftSettings()
A_DAY = 400


def make_times(days, start=0, seed=0, *, weekend=1.0, night=1.0, a_day=A_DAY):
    """Event times, ms: Poisson on each day, fewer at weekends and before noon where that is said."""
    draw, times = np.random.default_rng(seed), []
    for day in range(start, start + days):
        count = draw.poisson(a_day * (weekend if day % 7 >= 5 else 1.0))
        at = draw.integers(0, DAY, count)
        at = at[(at >= DAY // 2) | (draw.random(count) < night)]
        times.append(np.sort(at) + day * DAY)
    return np.concatenate(times)


def predicted(times, late=0):
    def stamps(at):
        return pa.array(at * 1000, pa.timestamp("us", tz="UTC"))

    return pa.table({"event_time": stamps(times), "clock": stamps(times + late)})


def usual(times, late=0, **windows):
    return usual_volume(predicted(times, late), make_settings(**windows))


def said(volume, times, start_day=70, span=7 * DAY, drift=DRIFT):
    start = start_day * DAY
    inside = times[(times >= start) & (times < start + span)]
    return unusual_volume(volume, inside, WindowStage(start, start + span, "data", start + span), drift)


KNOWN = usual(make_times(70, weekend=0.5))
WEEK = make_times(7, start=70, seed=1, weekend=0.5)


def without(times, *days):
    return times[~np.isin(times // DAY, days)]


def test_an_ordinary_week_is_no_news_and_a_third_of_one_neither_way():
    assert said(KNOWN, WEEK) is None
    assert said(KNOWN, np.concatenate([WEEK, WEEK])) is None
    assert said(KNOWN, make_times(7, start=70, seed=1, weekend=0.5, a_day=0.6 * A_DAY)) is None


def test_far_fewer_events_are_an_outage_that_says_what_is_usual():
    assert said(KNOWN, WEEK[::20]) == "Only 117 events, where about 2,400 are usual: is a source down?"
    assert said(KNOWN, WEEK[:0]) == "No event, where about 2,400 are usual: is a source down?"


def test_far_more_events_are_told_too():
    assert said(KNOWN, np.tile(WEEK, 4)).endswith("where about 2,400 are usual: does a source send again what it sent?")


def test_days_without_their_events_are_named():
    assert said(KNOWN, without(WEEK, 72, 73)) == "Hardly any events on 1970-03-14 and 1970-03-15: was a source down?"
    most = said(KNOWN, without(WEEK, 70, 71, 74, 75, 76))
    assert most.startswith("Only ")
    assert "hardly any on 1970-03-12, 1970-03-13, 1970-03-16, 1970-03-17 and 1970-03-18: is a source down?" in most


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(70, 76), max_size=6))
def test_just_the_days_that_were_lost_are_named(days):
    reason = said(KNOWN, without(WEEK, *days)) or ""
    dates = {day: str(np.datetime64(day, "D")) for day in range(70, 77)}
    more = 5 if len(days) > 5 else len(days)
    assert [day for day, date in dates.items() if date in reason] == sorted(days)[:more]


def test_weekdays_are_told_apart_after_three_weeks():
    assert KNOWN.expects(0, DAY) == pytest.approx(A_DAY, rel=0.1)
    assert KNOWN.expects(5 * DAY, 6 * DAY) == pytest.approx(A_DAY / 2, rel=0.1)
    assert len(set(usual(make_times(18)).expected)) == 1


def test_a_window_of_hours_is_compared_with_its_time_of_day():
    hours = usual(make_times(30, night=0.02), span="1h")
    assert said(hours, np.array([], np.int64), span=HOUR) is None, "at night nothing is usual"
    noon = WindowStage(70 * DAY + 14 * HOUR, 70 * DAY + 15 * HOUR, "data", 0)
    many = usual(make_times(30, night=0.02, a_day=20_000), span="1h")
    assert unusual_volume(many, np.array([], np.int64), noon, DRIFT).startswith("No event, where about 830")


def test_clocks_that_are_changed_are_no_outage_and_no_flood():
    hours, clock = (
        usual(make_times(30, night=0.02, a_day=20_000), span="1h"),
        make_times(1, 70, 1, night=0.02, a_day=20_000),
    )
    for shift in (-HOUR, HOUR):
        moved = clock + shift
        starts = range(70 * DAY + HOUR, 71 * DAY - HOUR, HOUR)
        inside = [(WindowStage(at, at + HOUR, "data", 0), moved[(moved >= at) & (moved < at + HOUR)]) for at in starts]
        assert [unusual_volume(hours, times, window, DRIFT) for window, times in inside] == [None] * len(inside)


def test_a_stream_whose_weeks_differ_is_told_of_less():
    wild = np.concatenate(
        [make_times(7, 7 * week, week, a_day=size) for week, size in enumerate(np.geomspace(8, 3000, 10)[::-1])]
    )
    assert said(KNOWN, WEEK[::10]) is not None
    fewer = make_times(7, 70, 3, a_day=150)
    assert said(usual(wild), fewer) is None


def test_a_lost_day_of_the_reference_is_not_usual_and_a_day_of_rest_is():
    times = make_times(70)
    assert usual(without(times, 30, 31)).expects(30 * DAY, 31 * DAY) == pytest.approx(A_DAY, rel=0.1)
    resting = usual(without(times, *range(3, 70, 7)))
    assert said(resting, without(make_times(7, 70, 1), 73)) is None


def test_what_comes_after_its_window_is_not_expected_in_it():
    assert usual(make_times(70), late=2 * DAY).expects(0, DAY) == 0
    assert said(usual(make_times(70), late=2 * DAY), WEEK[:0]) is None


def test_too_few_days_and_rows_that_are_counted_say_nothing():
    assert usual(make_times(15)) is None
    assert usual(make_times(9), span="1h") is None
    assert usual(make_times(10), span="1h") is not None
    rows = make_settings().model_copy(update={"time": ROW_TIME})
    assert usual_volume(predicted(make_times(70)), rows) is None
    assert usual_volume(predicted(np.array([], np.int64)), make_settings()) is None


def test_it_comes_back_from_a_file_as_it_was_and_an_older_file_has_none():
    assert Volume.from_json(json.loads(json.dumps(KNOWN.to_json()))) == KNOWN
    assert Volume.from_json(None) is None


def test_an_unchanged_stream_is_not_told_of_more_often_than_is_set():
    """Days differ by a third from each other; volume has a tenth of the rate; the bound is four deviations above."""
    draw, alarms, streams, days = np.random.default_rng(1), 0, 20, 120
    drift = DriftSettings(false_alarms="1 per 70 days")
    for stream in range(streams):
        sizes = draw.lognormal(np.log(A_DAY), 0.33, 70 + days)
        times = np.concatenate([make_times(1, day, stream * 1000 + day, a_day=size) for day, size in enumerate(sizes)])
        volume = usual(times[times < 70 * DAY], span="1d")
        alarms += sum(said(volume, times, day, DAY, drift) is not None for day in range(70, 70 + days))
    allowed = SHARE * streams * days / 70
    assert alarms <= allowed + 4 * np.sqrt(allowed)


def test_labels_that_do_not_come_are_told_of_where_it_is_known_how_many_do():
    known = Volume(DAY, [float(A_DAY)], 1.0, [0.0], [0.0], 8, labelled=0.9)
    assert "Only 9 of 80 events have a label, where 90% is usual" in (missing_labels(known, 80, 9) or "")
    assert missing_labels(known, 80, 60) is None
    assert missing_labels(known, 20, 0) is None, "too few to tell"
    rarely = Volume(DAY, [float(A_DAY)], 1.0, [0.0], [0.0], 8, labelled=0.1)
    assert missing_labels(rarely, 1_000, 90) is None
    assert missing_labels(Volume(DAY, [float(A_DAY)], 1.0, [0.0], [0.0], 8), 1_000, 0) is None, "an older reference"
