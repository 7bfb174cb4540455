"""How sure differences, slices and calibration are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.durations import DAY
from core.project_file import parse_settings
from flows.energy import Meter
from flows.intervals import blocks_of, clip_of, difference
from flows.reliability import Reliability
from flows.slices import slice_losses, slices_of

SETTINGS = parse_settings(
    """
name: a
id: id
time: at
fields: {x: number, hub: category, night: bool}
label: {path: y}
gates: {min_slice_rows: 50, slices: {far: {minimum: {x: 0.5}, values: {hub: [a]}}, dark: {values: {night: [true]}}}}
"""
)


def rows_of(days: int, a_day: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses of two equally good models: what differs is a day's luck, and a row's."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), a_day)
    old = draw.gamma(2.0, 0.25, len(day))
    new = np.maximum(old + draw.normal(0, 0.05, days)[day] + draw.normal(0, 0.1, len(day)), 0.0)
    return new, old, day


def test_bounds_by_days_are_right_as_often_as_they_say():
    missed = 0
    for seed in range(400):
        new, old, day = rows_of(7, 60, seed)
        found = difference(new, old, day, 0.95)
        missed += found.low > 0.01  # the true difference is nearly none
    assert missed <= 34, "about 20 of 400, four deviations more at most"


def test_bounds_by_rows_would_be_wrong_far_more_often():
    missed = 0
    for seed in range(400):
        new, old, _ = rows_of(7, 60, seed)
        missed += difference(new, old, np.arange(len(new)), 0.95).low > 0.01
    assert missed > 80


def test_an_absurd_row_moves_the_difference_but_not_the_bounds():
    new, old, day = rows_of(7, 60, 1)
    calm = difference(new, old, day, 0.95, clip_of(new, old))
    new[5] = 1e9
    wild = difference(new, old, day, 0.95, clip_of(new, old))
    assert wild.relative > 1e4
    assert wild.low == pytest.approx(calm.low, abs=0.02)


def test_beside_a_model_that_never_says_much_one_that_is_sure_and_wrong_is_seen_to_be_worse():
    draw, day = np.random.default_rng(2), np.arange(2_800) // 200
    happened = draw.random(2_800) < 0.3
    timid = np.where(happened, -np.log(0.3), -np.log(0.7))
    bold = np.where(happened == (draw.random(2_800) < 0.8), -np.log(0.99), -np.log(0.01))
    found = difference(bold, timid, day, 0.95, clip_of(bold, timid))
    assert found.relative > 0.5
    assert 0.3 < found.low < found.relative < found.high


def test_where_nothing_can_be_told_nothing_is_said():
    nothing = np.zeros(0)
    assert difference(nothing, nothing, nothing.astype(int), 0.95).relative is None
    one_day = difference(np.ones(9), np.ones(9), np.zeros(9, dtype=int), 0.95)
    assert (one_day.relative, one_day.low, one_day.high) == (0.0, None, None)
    assert difference(np.ones(9), np.zeros(9), np.arange(9), 0.95).relative is None


@given(st.lists(st.integers(0, 40 * DAY), max_size=60))
def test_blocks_are_whole_days_or_equal_parts(times: list[int]):
    found = blocks_of(np.array(times, dtype=np.int64), DAY)
    days = [time // DAY for time in times]
    assert len(found) == len(times)
    if len(set(days)) >= 5:
        block_of = dict(zip(days, found.tolist(), strict=True))
        assert [block_of[day] for day in days] == found.tolist()
        assert len(set(block_of.values())) == len(block_of)
    elif times:
        sizes = np.bincount(found)
        assert len(sizes) == min(10, len(times))
        assert sizes.max() - sizes.min() <= 1
        assert all(np.diff(found[np.argsort(times, kind="stable")]) >= 0)


def frame(rows: int = 700) -> pd.DataFrame:
    draw = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "x": draw.random(rows),
            "hub": draw.choice(np.array(["a", "b", "rare"], dtype=object), rows, p=[0.5, 0.48, 0.02]),
            "night": draw.choice([0.0, 1.0, np.nan], rows),
        }
    )


def test_slices_are_values_of_categories_and_bools_and_the_projects_own():
    table = frame()
    found = dict(slices_of(table, SETTINGS))
    assert list(found) == ["hub=a", "hub=b", "hub=rare", "night=false", "night=true", "far", "dark"]
    assert (found["far"] == ((table["x"] >= 0.5) & (table["hub"] == "a")).to_numpy()).all()
    assert (found["dark"] == found["night=true"]).all()


def test_a_slice_that_is_much_worse_is_surely_so_and_a_rare_one_is_not_judged():
    table, day = frame(), np.repeat(np.arange(7), 100)
    old = np.random.default_rng(4).gamma(2.0, 0.25, 700)
    new = np.where(table["hub"] == "b", 1.6 * old, old)
    found = {one.name: one for one in slice_losses(table, new, old, day, SETTINGS)}
    assert "hub=rare" not in found
    assert found["hub=b"].over.relative == pytest.approx(0.6)
    assert found["hub=b"].over.low > 0.4
    assert found["hub=a"].over.high == pytest.approx(0.0)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_what_is_calibrated_has_next_to_no_error_and_what_is_not_has(task: str):
    draw, count = np.random.default_rng(5), 20_000
    chance = draw.uniform(0.5, 1.0, count)
    happened = draw.random(count) < chance
    day = np.arange(count) // 2_000
    if task == "binary":
        fine, off, truth = chance.tolist(), np.minimum(chance + 0.2, 1.0).tolist(), happened.astype(int).tolist()
    elif task == "multiclass":
        fine = [{"a": p, "b": 1 - p} for p in chance.tolist()]
        off = [{"a": 0.999, "b": 0.001} for _ in fine]
        truth = np.where(happened, "a", "b").tolist()
    else:
        truth = draw.normal(size=count).tolist()
        fine, off = [0.0] * count, [0.3] * count
    good, bad = (Reliability.of(task, made, truth, day) for made in (fine, off))
    assert good.error < 0.02
    assert bad.error > 0.1
    assert bad.bias > 0.1
    rise = bad.rise_over(good, 0.95)
    assert 0.1 < rise.low < rise.value < rise.high


def test_one_that_says_the_same_of_every_row_is_one_bin():
    found = Reliability.of("binary", [0.5] * 100, [1] * 50 + [0] * 50, np.arange(100))
    assert found.error == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("slices", "said"),
    [
        ("{s: {values: {gone: [a]}}}", "the batch model uses no feature 'gone'"),
        ("{s: {values: {x: [a]}}}", "'x' is a number; write minimum or maximum"),
        ("{s: {minimum: {hub: 1}}}", "'hub' is a category; write values"),
        ("{s: {}}", "a slice needs a condition"),
    ],
)
def test_a_slice_that_cannot_be_is_refused_with_the_fix(slices: str, said: str):
    text = "{name: a, id: id, time: at, fields: {x: number, hub: category}, label: {path: y}, gates: {slices: %s}}"
    with pytest.raises(Exception, match=said):
        parse_settings(text % slices)


def test_a_meter_that_cannot_tell_the_energy_says_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "codecarbon", None)
    with Meter() as meter:
        pass
    assert meter.seconds >= 0.0
    assert meter.energy_kwh is None
