import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.durations import DAY, LATEST, format_duration, format_time, parse_duration, parse_iso
from core.spans import next_due, window_origin


@given(st.integers(0, LATEST))
def test_a_duration_written_is_read_back(milliseconds):
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("28d", 28 * DAY), ("1h30m", 5_400_000), ("250ms", 250), ("1.5 s", 1500), ("2W", 14 * DAY), ("0s", 0)],
)
def test_durations_as_people_write_them(text, milliseconds):
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "text", ["", "28", "d", "-5m", "5 minutes", "1h-30m", "1e5d", "5m3", None, True, "9" * 400 + "d"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a duration|longer than"):
        parse_duration(text)


@given(st.integers(0, LATEST // 1000))
def test_a_time_written_is_read_back(seconds):
    assert parse_iso(format_time(seconds * 1000)) == seconds * 1000


@given(st.integers(0, 50), st.integers(1, 40), st.integers(0, 90), st.integers(0, 300))
def test_the_next_due_time_is_the_first_of_all_due_times(origin, span, horizon, after):
    ends = {origin + k * span for k in range(1, 400)}
    due = ends | {end + horizon for end in ends}
    assert next_due(origin, span, horizon, after) == min(time for time in due if time > after)


@given(st.integers(0, 10**13), st.integers(1000, 30 * DAY))
def test_a_window_origin_is_at_or_before_the_first_event(first, span):
    origin = window_origin(first, span)
    assert origin <= first < origin + min(span, DAY)
