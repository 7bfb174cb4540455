"""Windows compared with the same season of a year earlier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitoring_lab import PROJECT, START, Lab

from backtest.simulation import Distances
from backtest.tables import MemoryTables
from core.audit import Ledger
from core.durations import DAY, HOUR, WEEK
from core.project import load_project
from core.settings import Settings
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, WINDOWS, examples_schema, predictions_schema
from monitoring.calibration import calibrations
from monitoring.inspection import Inspector
from monitoring.judgement import judge
from monitoring.monitor import Monitor
from monitoring.reference import Reference
from monitoring.rows import WindowRows
from monitoring.season import YEAR, season_of
from monitoring.windows import WindowStage

ROWS_A_DAY = 60
FIRST = 2 * YEAR
"""Where the stream begins; a Thursday, as every multiple of 52 weeks."""

A_YEAR_ON = 371
"""The season of this day's window is the first fifteen days."""


def make_settings(reference="season", **windows):
    return Settings.model_validate(
        {
            "name": "x",
            "id": "id",
            "time": "t",
            "fields": {"warmth": "number", "size": "number"},
            "label": {"path": "y", "horizon": "1d"},
            "online": ["prior"],
            "windows": {"span": "7d", "sample": 500, **windows},
            "drift": {"min_rows": 100, "reference": reference},
        }
    )


def make_year_and_more(days, seed=0, *, shift_from=None, gone_from=None):
    """Days whose warmth goes with the season, and whose weather each day's rows share."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), ROWS_A_DAY)
    season = 10 * np.sin(2 * np.pi * day * DAY / YEAR)
    warmth = season + np.repeat(draw.normal(0, 1, days), ROWS_A_DAY) + draw.normal(0, 1, len(day))
    if shift_from is not None:
        warmth = warmth + 6 * (day >= shift_from)
    moment = pa.array((FIRST + day * DAY + np.sort(draw.integers(0, DAY, len(day)))) * 1000).cast(
        pa.timestamp("us", tz="UTC")
    )
    label = draw.integers(0, 2, len(day))
    size = draw.normal(0, 1, len(day))
    served = np.where(label == 1, 0.6, 0.4) + draw.normal(0, 0.05, len(day))
    return pa.table(
        {
            "id": [str(row) for row in range(len(day))],
            "event_time": moment,
            "clock": moment,
            "champion_version": pa.array([1] * len(day), pa.int32()),
            "f_warmth": warmth,
            "f_size": pa.array(size, mask=day >= (days if gone_from is None else gone_from)),
            "p_served": served,
            "p_champion": served,
            "p_prior": np.full(len(day), 0.5),
            "label": label,
            "label_clock": moment,
        }
    )


def tables_of(rows):
    tables = MemoryTables()
    for sequence, table in enumerate((PREDICTIONS, EXAMPLES), 1):
        tables.append(table, rows, app="worker", sequence=sequence)
    return tables


def between(rows, first, end):
    times = rows["event_time"].cast(pa.int64()).to_numpy() // 1000
    return rows.filter(pa.array((times >= FIRST + first * DAY) & (times < FIRST + end * DAY)))


def inspect(tables, rows, settings, *, day, stage="data", kept_out=()):
    """Inspect the week that begins at a day; the champion was trained on the four weeks that end a quarter before."""
    trained = between(rows, day - 119, day - 91)
    reference = Reference(1, "", trained, 0.6, 0.6, len(trained), calibrations(trained, settings))
    inspector = Inspector(
        settings, WindowRows(tables, settings), lambda version: reference, Distances(settings), lambda moment: kept_out
    )
    start, end = FIRST + day * DAY, FIRST + (day + 7) * DAY
    return inspector.inspect(WindowStage(start, end, stage, end if stage == "data" else end + DAY), 1)


def verdict(found, settings):
    return judge(found.evidence(FIRST), settings.drift).verdict


@pytest.fixture(scope="module")
def two_years():
    rows = make_year_and_more(500)
    return tables_of(rows), rows


@pytest.mark.parametrize("stage", ["data", "labels"])
def test_a_season_that_comes_back_is_drift_for_the_champion_and_usual_for_the_season(two_years, stage):
    verdicts = {}
    for reference in ("champion", "season"):
        settings = make_settings(reference)
        found = inspect(*two_years, settings, day=455, stage=stage)
        assert (found.season is None) == (reference == "champion")
        verdicts[reference] = verdict(found, settings)
    assert verdicts == {"champion": "drifted" if stage == "data" else "steady", "season": "steady"}


def test_what_is_new_this_year_is_drift_for_the_season_and_its_reason_says_what_it_is_compared_with():
    rows, settings = make_year_and_more(500, shift_from=400), make_settings()
    found = inspect(tables_of(rows), rows, settings, day=455)
    judgement = judge(found.evidence(FIRST), settings.drift)
    assert judgement.verdict == "drifted"
    assert "Unusual for the season a year ago" in judgement.reasons[0]
    assert "warmth" in judgement.reasons[0]


def test_without_a_year_of_rows_a_window_is_compared_with_the_champions_reference(two_years):
    by_season, by_champion = (
        inspect(*two_years, make_settings(reference), day=210) for reference in ("season", "champion")
    )
    assert replace(by_season, sides=None) == replace(by_champion, sides=None)
    assert by_season.sides.reference.equals(by_champion.sides.reference)
    assert by_season.season is None
    assert by_season.surprise is not None


def test_a_season_of_too_few_days_to_tell_what_is_usual_is_not_taken(two_years):
    """Of the 21 days that it would have, the tables hold the last ten: enough rows, fewer than two windows."""
    found = inspect(*two_years, make_settings(), day=360)
    assert found.season is None


def test_what_was_in_quarantine_a_year_ago_is_no_season(two_years):
    tables, rows = two_years
    settings = make_settings()
    whole = inspect(tables, rows, settings, day=455)
    broken = (FIRST + 91 * DAY, FIRST + 94 * DAY)
    times = rows["event_time"].cast(pa.int64()).to_numpy() // 1000
    never = rows.filter(pa.array((times < broken[0]) | (times >= broken[1])))
    without = inspect(tables, rows, settings, day=455, kept_out=(broken,))
    assert without.season is not None
    assert without.report == inspect(tables_of(never), rows, settings, day=455).report != whole.report


def test_breaks_are_held_against_the_champions_reference_whatever_a_window_is_compared_with():
    rows = make_year_and_more(500, shift_from=455, gone_from=455)
    tables = tables_of(rows)
    found = {name: inspect(tables, rows, make_settings(name), day=455) for name in ("season", "champion")}
    assert found["season"].season is not None
    assert found["season"].breaks == found["champion"].breaks != ()
    assert found["season"].reference == found["champion"].reference


@given(
    start=st.integers(0, 20_000).map(lambda day: day * DAY) | st.integers(0, 400_000).map(lambda hour: hour * HOUR),
    span=st.integers(1, 26 * 7).map(lambda days: days * DAY) | st.integers(1, 23).map(lambda hours: hours * HOUR),
)
def test_a_season_holds_the_window_of_a_year_ago_and_nothing_of_the_window_itself(start, span):
    if span >= DAY:
        start = start // DAY * DAY
    stage = WindowStage(start, start + span, "labels", start + span + HOUR)
    then = season_of(stage)
    assert then.start <= start - YEAR - WEEK and start + span - YEAR + WEEK <= then.end <= start
    assert (then.start % DAY, then.end % DAY) == (0, 0)
    assert then.due <= stage.due
    assert YEAR % WEEK == 0 and abs(YEAR - 365 * DAY) < 2 * DAY


@pytest.mark.parametrize(
    "change",
    [{"windows": {"span": "27w"}}, {"time": None, "id": None, "replay": {"file": "a.csv", "label_delay": "10 rows"}}],
)
def test_a_season_takes_a_time_and_windows_of_half_a_year_at_most(change):
    content = {"name": "x", "id": "id", "time": "t", "fields": {"a": "number"}, "label": "y"}
    content |= {"drift": {"reference": "season"}} | change
    with pytest.raises(ValueError, match=r"drift\.reference is season"):
        Settings.model_validate({name: value for name, value in content.items() if value is not None})


def test_the_monitor_compares_and_reports_with_the_season_that_its_tables_hold(lab: Lab):
    folder = lab.project.folder
    (folder / "headrace.yaml").write_text(PROJECT.replace("drift:\n  {", "drift:\n  {reference: season, "))
    lab.project = load_project(folder, state=lab.project.state)
    lab.fill(range(15), shift=2.0)
    lab.fill(range(A_YEAR_ON, A_YEAR_ON + 2), champion=1, shift=2.0)
    lab.reference(1)
    lab.promote(1, START + A_YEAR_ON * DAY)
    lab.reach(START + (A_YEAR_ON + 1) * DAY)
    store = TableStore(lab.project.tables)
    Monitor(lab.project, Ledger(lab.project.ledger), store, send_alert=lab.sent.append).run_once()
    (row,) = [row for row in store.read(WINDOWS).to_pylist() if row["judged"]]
    assert (row["stage"], row["verdict"]) == ("data", "steady")
    assert (row["season_start"].timestamp() * 1000, row["season_end"].timestamp() * 1000) == (START, START + 15 * DAY)
    assert dict(row["distances"])["speed"] < 0.25, "as the report says, not two deviations as from the champion's"
    assert row["reference_digest"] is not None


def test_a_backtests_tables_and_the_monitors_find_the_same(lab: Lab):
    content = lab.project.settings.model_dump()
    content["drift"]["reference"] = "season"
    settings = Settings.model_validate(content)
    lab.fill(range(15), shift=1.0)
    lab.fill(range(A_YEAR_ON, A_YEAR_ON + 2), champion=1, shift=1.3)
    memory = MemoryTables()
    for sequence, (table, schema) in enumerate(((PREDICTIONS, predictions_schema), (EXAMPLES, examples_schema)), 1):
        rows = lab.store.read(table).select(schema(settings).names)
        memory.append(table, rows, app="worker", sequence=sequence)
    reference = Reference(1, "", lab.store.read(EXAMPLES), 0.6)
    for stage in ("data", "labels"):
        start = START + A_YEAR_ON * DAY
        window = WindowStage(start, start + DAY, stage, start + DAY + (stage == "labels") * 6 * HOUR)
        found = [
            Inspector(
                settings, WindowRows(store, settings), lambda version: reference, Distances(settings), lambda moment: ()
            ).inspect(window, 1)
            for store in (lab.store, memory)
        ]
        assert found[0].season is not None
        assert (found[0].report, found[0].surprise) == (found[1].report, found[1].surprise)
