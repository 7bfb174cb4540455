from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.durations import DAY, HOUR
from core.spans import next_due
from monitoring.windows import Progress, WindowStage, due_stages, start_progress

spans = st.integers(1_000, 50_000)
horizons = st.integers(1, 200_000)
moments = st.lists(st.integers(0, 400_000), min_size=1, max_size=6).map(sorted)


def _drain(progress: Progress, span: int, horizon: int, now: int) -> tuple[list[WindowStage], Progress]:
    done = []
    while (stage := next(due_stages(progress, span, horizon, now), None)) is not None:
        done.append(stage)
        progress = progress.after(stage)
    return done, progress


@given(span=spans, horizon=horizons, first=st.integers(0, 100_000), nows=moments)
def test_each_stage_comes_once_and_in_order_however_often_one_asks(span, horizon, first, nows):
    start = start_progress(first, span)
    end = first + nows[-1]
    expected, _ = _drain(start, span, horizon, end)
    progress, found = start, []
    for now in nows:
        done, progress = _drain(progress, span, horizon, first + now)
        found += done
    assert found == expected
    assert found == list(due_stages(start, span, horizon, end))
    assert len({(stage.start, stage.stage) for stage in found}) == len(found)
    assert [stage.due for stage in found] == sorted(stage.due for stage in found)
    windows = max((end - start.origin) // span, 0)
    labelled = max((end - horizon - start.origin) // span, 0)
    assert len(found) == windows + labelled


@given(span=spans, horizon=horizons, first=st.integers(0, 100_000), now=st.integers(0, 300_000))
def test_lockstep_holds_at_exactly_the_due_times(span, horizon, first, now):
    start = start_progress(first, span)
    dues = sorted({stage.due for stage in due_stages(start, span, horizon, now)})
    held, moment = [], start.origin
    while (moment := next_due(start.origin, span, horizon, moment)) <= now:
        held.append(moment)
    assert held == dues


@given(spans=st.lists(spans, min_size=2, max_size=4), horizons=st.lists(horizons, min_size=4, max_size=4))
def test_windows_of_a_stage_never_overlap_when_the_settings_change(spans, horizons):
    progress, found, now = start_progress(0, spans[0]), [], 0
    for span, horizon in zip(spans, horizons, strict=False):
        now += 150_000
        done, progress = _drain(progress, span, horizon, now)
        found += done
    for stage in ("data", "labels"):
        own = [entry for entry in found if entry.stage == stage]
        assert all(a.end <= b.start for a, b in pairwise(own))


@given(span=spans, moment=st.integers(0, 10**9))
def test_skipping_never_goes_back_nor_past_the_moment(span, moment):
    progress = replace(start_progress(0, span), data=7 * span)
    skipped = progress.skip_to("data", moment, span)
    assert skipped.data >= progress.data
    assert skipped.data <= max(moment, progress.data)
    assert skipped.labels == progress.labels


def test_windows_of_days_begin_at_midnight_and_names_are_readable():
    progress = start_progress(1_356_998_400_000 + 5 * HOUR, 7 * DAY)
    stage = next(due_stages(progress, 7 * DAY, HOUR, progress.origin + 8 * DAY))
    assert stage.name == "2013-01-01T00-00-00Z_data"
    assert stage.sibling("labels") == "2013-01-01T00-00-00Z_labels"


@pytest.mark.parametrize("now", [0, 999])
def test_nothing_is_due_before_the_first_window_ends(now):
    assert not list(due_stages(start_progress(0, 1_000), 1_000, 10, now))


def test_of_two_stages_due_at_once_the_older_window_comes_first():
    found = [(stage.stage, stage.start) for stage in due_stages(start_progress(0, 10), 10, 10, 20)]
    assert found == [("data", 0), ("labels", 0), ("data", 10)]
