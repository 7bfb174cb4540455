"""The sequential test: laws that hold for any losses, and what it says of plain cases."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.promotion_settings import PromotionSettings
from core.sequential import FEWEST_BLOCKS, Block, Verdict, judge

RULES = PromotionSettings()
OPEN = PromotionSettings(worth=0.0, max_labels=10**9)
_loss = st.floats(0.0, 1e6, allow_subnormal=False)
_blocks = st.lists(st.builds(Block, st.integers(1, 5_000), _loss, _loss), max_size=40)


def days(gain: float, spread: float, count: int, seed: int = 1, rows: int = 900) -> list[Block]:
    """Days on which the challenger saves `gain` of the loss in the mean, give or take `spread`."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        number = int(rows * draw.uniform(0.7, 1.2))
        loss = 0.47 * number * draw.uniform(0.8, 1.2)
        made.append(Block(number, loss, loss * (1.0 - gain - spread * draw.standard_normal())))
    return made


@settings(deadline=None)
@given(_blocks)
def test_changing_sides_turns_the_verdict_round(blocks: list[Block]) -> None:
    one, other = judge(blocks, OPEN), judge([block.swapped for block in blocks], OPEN)
    opposite = {"superior": "inferior", "inferior": "superior"}
    assert other.conclusion == opposite.get(one.conclusion, one.conclusion)
    assert (other.blocks, other.rows) == (one.blocks, one.rows)
    assert other.evidence["better"] == one.evidence["worse"]
    assert other.evidence["worse"] == one.evidence["better"]


@settings(deadline=None)
@given(_blocks, _blocks)
def test_what_comes_later_never_changes_a_verdict(blocks: list[Block], later: list[Block]) -> None:
    verdict = judge(blocks, RULES)
    if verdict.is_final:
        assert judge([*blocks, *later], RULES) == verdict
        assert judge(blocks[: verdict.blocks], RULES) == verdict
        assert verdict.blocks == len(blocks) or not judge(blocks[: verdict.blocks - 1], RULES).is_final


@settings(deadline=None)
@given(_blocks, st.sampled_from([2.0**-20, 0.25, 2.0**20]))
def test_the_unit_of_the_loss_does_not_matter(blocks: list[Block], unit: float) -> None:
    other = [Block(block.rows, block.champion * unit, block.challenger * unit) for block in blocks]
    assert judge(other, RULES) == judge(blocks, RULES) or math.isnan(judge(blocks, RULES).gain)


@settings(deadline=None)
@given(_blocks)
def test_bounds_hold_what_was_concluded(blocks: list[Block]) -> None:
    verdict = judge(blocks, RULES)
    low = -math.inf if verdict.low is None else verdict.low
    high = math.inf if verdict.high is None else verdict.high
    assert low <= high
    assert verdict.conclusion != "superior" or low >= -1e-9
    assert verdict.conclusion != "inferior" or high <= 1e-9
    assert verdict.conclusion != "futile" or high <= RULES.worth + 1e-9


@given(_blocks)
def test_a_hold_out_alone_decides_nothing(before: list[Block]) -> None:
    verdict = judge([], RULES, before)
    assert (verdict.conclusion, verdict.blocks, verdict.rows) == ("undecided", 0, 0)


@pytest.mark.parametrize(
    ("gain", "spread", "conclusion"),
    [(0.02, 0.01, "superior"), (-0.02, 0.01, "inferior"), (0.0, 0.0, "futile"), (0.004, 0.05, "spent")],
)
def test_what_it_concludes(gain: float, spread: float, conclusion: str) -> None:
    verdict = judge(days(gain, spread, 80), RULES)
    assert verdict.conclusion == conclusion
    if conclusion == "superior":
        assert verdict.rows < 30_000
        assert verdict.low is not None and verdict.high is not None
        assert 0.0 <= verdict.low < verdict.gain < verdict.high < 0.1


def test_where_anything_is_worth_it_a_worse_one_is_inferior() -> None:
    assert judge(days(-0.02, 0.01, 80), OPEN).conclusion == "inferior"


def test_a_hold_out_tells_the_scale_so_that_a_verdict_comes_sooner() -> None:
    before, after = days(0.02, 0.01, 7, seed=2), days(0.02, 0.01, 80)
    assert judge(after, RULES, before).blocks < judge(after, RULES).blocks


def test_one_absurd_day_does_not_blind_it() -> None:
    blocks = days(0.02, 0.01, 80)
    blocks[5] = Block(900, 40_000.0, 39_000.0)
    assert judge(blocks, RULES).conclusion == "superior"


def test_rare_days_that_cost_more_than_all_others_save_are_no_gain() -> None:
    blocks = days(0.02, 0.005, 80)
    for number in range(8, 80, 8):
        blocks[number] = replace(blocks[number], challenger=3.0 * blocks[number].champion)
    assert judge(blocks, OPEN).conclusion != "superior"


def test_where_neither_is_better_few_are_promoted() -> None:
    streams = 400
    draw = np.random.default_rng(7)
    promoted = 0
    for seed in range(streams):
        lots = draw.random(60) < 0.5
        blocks = [b.swapped if lot else b for b, lot in zip(days(0.01, 0.01, 60, seed), lots, strict=True)]
        promoted += judge(blocks, OPEN).conclusion == "superior"
    assert 0 < promoted <= RULES.alpha * streams


@pytest.mark.parametrize(("allowed", "blocks"), [(1_750, 18), (450, FEWEST_BLOCKS)])
def test_the_labels_allowed_are_counted_in_whole_blocks_and_not_too_few(allowed: int, blocks: int) -> None:
    even = [Block(100, 50.0, 50.0 + (-1.0) ** number) for number in range(20)]
    verdict = judge(even, PromotionSettings(max_labels=allowed))
    assert (verdict.conclusion, verdict.rows, verdict.blocks) == ("spent", 100 * blocks, blocks)


@pytest.mark.parametrize("sums", [(math.nan, 1.0), (1.0, math.inf), (-1.0, 1.0)])
def test_losses_that_are_none_are_refused(sums: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        Block(10, *sums)
    with pytest.raises(ValueError, match="needs a row"):
        Block(0, 1.0, 1.0)


def test_it_can_be_written_down() -> None:
    assert judge([], RULES).as_json()["gain"] is None
    verdict = judge(days(0.02, 0.01, 80), RULES)
    assert isinstance(verdict, Verdict)
    assert verdict.as_json()["conclusion"] == "superior"
