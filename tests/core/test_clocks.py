"""A moment and a span as the user of a stream writes them: in time, or in rows of a file without times."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clocks import ROW_CLOCK, UTC_CLOCK, clock_of
from core.durations import LONGEST, ROW, parse_duration
from core.recorded import FIRST_ROW, ROW_TIME

clocks = st.sampled_from([UTC_CLOCK, ROW_CLOCK])


@given(clocks, st.integers(FIRST_ROW, FIRST_ROW + LONGEST))
def test_what_json_gets_is_read_back(clock, at):
    assert clock.from_json(json.loads(json.dumps(clock.to_json(at)))) == at


@given(clocks, st.integers(0, LONGEST))
def test_a_length_is_written_as_the_project_file_takes_it(clock, length):
    assert parse_duration(clock.setting(length)) == length


@given(st.integers(0, 10**8))
def test_a_row_is_named_by_its_number_alone(row):
    at = FIRST_ROW + row * ROW
    assert ROW_CLOCK.to_json(at) == row
    assert ROW_CLOCK.moment(at) == ROW_CLOCK.brief(at) == f"row {row:,}"
    assert ROW_CLOCK.key(at) == f"row-{row}"


@pytest.mark.parametrize(
    ("length", "said"),
    [(0, "0 rows"), (1, "1 row"), (9_000, "9,000 rows"), (0.1, "less than a row"), (1_500.6, "1,501 rows")],
)
def test_spans_of_rows_are_counts(length, said):
    assert ROW_CLOCK.span(round(length * ROW)) == said


def test_the_window_in_which_the_file_begins_is_said_to_begin_with_it():
    assert ROW_CLOCK.between(FIRST_ROW - 800 * ROW, FIRST_ROW + 200 * ROW) == "rows 0 to 200"


def test_only_a_file_without_times_counts_rows():
    assert (clock_of(ROW_TIME), clock_of("at")) == (ROW_CLOCK, UTC_CLOCK)
