"""Time splits: nothing of the hold-out is known to the training, whatever the delays."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flows.splits import inner_split, mature, split_by_time

rows = st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 300)), min_size=1, max_size=60)


def times(pairs: list[tuple[int, int]]):
    events = np.array([event for event, _ in pairs])
    return events, events + np.array([delay for _, delay in pairs])


@given(rows, st.integers(1, 500), st.none() | st.integers(0, 1_200))
def test_training_ends_before_the_hold_out_begins(pairs, span, after):
    events, clocks = times(pairs)
    split = split_by_time(events, clocks, span=span, after=after)
    assert not np.any(split.train & split.holdout)
    assert np.all(clocks[split.train] < split.start)
    assert np.all(events[split.holdout] >= split.start)
    assert events.max() - split.start < span
    if after is not None:
        assert np.all(events[split.holdout] >= after)


@given(rows)
def test_the_search_validates_on_later_rows_than_it_fits(pairs):
    events, clocks = times(pairs)
    split = inner_split(events, clocks)
    assert split.holdout.any()
    assert split.holdout.sum() >= 0.2 * len(events) - 1
    assert np.all(clocks[split.train] < split.start)


@given(rows, st.integers(0, 400))
def test_implied_labels_wait_for_the_whole_horizon(pairs, horizon):
    events, clocks = times(pairs)
    kept = mature(events, clocks, until=1_000, horizon=horizon, implied=True)
    assert np.all(events[kept] + horizon <= 1_000)


def test_the_wait_follows_the_labels_delays():
    events = np.arange(0, 100_000, 10)
    kept = mature(events, events + 500, until=100_000, horizon=50_000, implied=False)
    assert events[kept].max() == 99_500
