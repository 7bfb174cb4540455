"""Labels of axes stand at round values, are few, and are on the axis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.page.axes import TimeAxis, ValueAxis
from core.durations import DAY, HOUR, ROW, parse_iso
from core.recorded import FIRST_ROW

moments = st.integers(0, 4_000_000_000_000)


@given(moments, st.integers(1, 2_000_000_000_000), st.booleans())
def test_labels_of_time_are_few_and_on_the_axis(start, length, rows):
    axis = TimeAxis(FIRST_ROW if rows else start, (FIRST_ROW if rows else start) + length, rows)
    ticks = axis.ticks()
    assert len(ticks) <= 9
    assert all(0 <= axis.percent(moment) <= 100 for moment, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("start", "end", "labels"),
    [
        ("2013-01-01", "2014-01-01", ["2013-01", "2013-03", "2013-05", "2013-07", "2013-09", "2013-11", "2014-01"]),
        ("2013-01-30", "2013-02-04", [f"2013-0{day}" for day in ("1-30", "1-31", "2-01", "2-02", "2-03", "2-04")]),
        ("1999-06-01", "2004-06-01", ["2000", "2001", "2002", "2003", "2004"]),
    ],
)
def test_labels_of_time_are_round(start, end, labels):
    assert [text for _, text in TimeAxis(parse_iso(start), parse_iso(end), rows=False).ticks()] == labels


def test_hours_and_rows_are_labelled_in_their_unit():
    assert [text for _, text in TimeAxis(0, 6 * HOUR, rows=False).ticks()][:2] == ["01-01 00:00", "01-01 01:00"]
    axis = TimeAxis(FIRST_ROW, FIRST_ROW + 45_312 * ROW, rows=True)
    assert [text for _, text in axis.ticks()] == ["0", "10,000", "20,000", "30,000", "40,000"]
    assert TimeAxis(0, DAY, rows=False).percent(6 * HOUR) == 25


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_an_axis_of_values_holds_all_of_them(one, other):
    low, high = min(one, other), max(one, other)
    axis = ValueAxis.over(low, high)
    assert 2 <= len(axis.ticks) <= 8
    assert -1e-6 <= axis.place(low) <= axis.place(high) <= 1 + 1e-6
    assert len({axis.text(tick) for tick in axis.ticks}) == len(axis.ticks)
