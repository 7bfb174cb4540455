"""From rows of the examples table to blocks: which count, and that nothing depends on how the rows lie."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from core.durations import DAY, HOUR
from core.metrics import loss
from core.paired import judge_shadow, paired_blocks
from core.sequential import FEWEST_BLOCKS
from core.settings import Settings
from core.tables import TIMESTAMP

START = 1_700_006_400_000  # midnight
DAYS = 30


def settings_of(task: str = "binary", **label: object) -> Settings:
    return Settings.model_validate(
        {
            "name": "small",
            "task": task,
            "id": "id",
            "time": "at",
            "fields": {"x": "number"},
            "label": {"path": "y", "horizon": 2 * DAY, **label},
        }
    )


def rows_of(
    days: int = DAYS, *, role: str = "challenger", better: float = 0.05, alone: float | None = None, seed: int = 1
) -> pa.Table:
    """Rows of some days, 50 a day with labels 3 h later, on which the shadow is a little surer of the truth.

    By itself too, unless `alone` says how much surer it is than the champion.
    """
    draw = np.random.default_rng(seed)
    count = 50 * days
    times = START + np.sort(draw.integers(0, days * DAY, count))
    labels = draw.integers(0, 2, count)
    served = np.clip(0.5 + (labels - 0.5) * draw.uniform(-0.4, 0.8, count), 0.01, 0.99)
    blended, own = (
        np.clip(served + (labels - 0.5) * 2 * surer, 0.01, 0.99)
        for surer in (better, better if alone is None else alone)
    )
    return pa.table(
        {
            "event_time": pa.array(times * 1000).cast(TIMESTAMP),
            "label_clock": pa.array((times + 3 * HOUR) * 1000).cast(TIMESTAMP),
            "label": labels,
            "p_served": served,
            "p_champion": served,
            f"{role}_version": pa.array([7] * count, pa.int32()),
            f"p_{role}": own,
            f"p_with_{role}": blended,
        }
    )


def test_blocks_hold_every_loss_of_their_days() -> None:
    rows = rows_of()
    blocks = list(paired_blocks(rows, 7, settings_of(), START + (DAYS + 3) * DAY).values())
    assert len(blocks) == DAYS
    assert sum(block.rows for block in blocks) == len(rows)
    served = [loss(p, y) for p, y in zip(rows["p_served"].to_pylist(), rows["label"].to_pylist(), strict=True)]
    assert sum(block.champion for block in blocks) == pytest.approx(sum(served))


def test_the_order_of_rows_does_not_matter() -> None:
    rows, until = rows_of(), START + (DAYS + 3) * DAY
    mixed = rows.take(pa.array(np.random.default_rng(3).permutation(len(rows))))
    found, expected = (paired_blocks(each, 7, settings_of(), until) for each in (mixed, rows))
    assert list(found.items()) == list(expected.items())


def test_nothing_is_said_before_the_first_block_has_ended_and_its_labels_are_due() -> None:
    rows, settings = rows_of(1), settings_of()
    for until in (START + HOUR, START + DAY - 1, START + DAY + 2 * HOUR):
        assert paired_blocks(rows, 7, settings, until) == {}
        assert judge_shadow(rows, 7, settings, until).conclusion == "undecided"
    assert len(paired_blocks(rows, 7, settings, START + DAY + 3 * HOUR)) == 1


def test_where_a_missing_label_means_something_the_horizon_is_waited_for() -> None:
    rows, settings = rows_of(1), settings_of(missing=False)
    assert paired_blocks(rows, 7, settings, START + 3 * DAY - 1) == {}
    assert len(paired_blocks(rows, 7, settings, START + 3 * DAY)) == 1


def test_other_versions_failed_blends_and_quarantined_windows_are_left_out() -> None:
    rows, until = rows_of(4), START + 8 * DAY
    assert paired_blocks(rows, 8, settings_of(), until) == {}
    windows = [(START + DAY, START + 2 * DAY)]
    assert len(paired_blocks(rows, 7, settings_of(), until, without=windows)) == 3
    place = rows.column_names.index("p_with_challenger")
    values = [None, *rows["p_with_challenger"].to_pylist()[1:]]
    fewer = rows.set_column(place, "p_with_challenger", pa.array(values))
    assert sum(block.rows for block in paired_blocks(fewer, 7, settings_of(), until).values()) == len(rows) - 1


@pytest.mark.parametrize("role", ["challenger", "previous"])
def test_a_better_shadow_is_superior_whatever_its_role(role: str) -> None:
    until, settings = START + (DAYS + 3) * DAY, settings_of()
    assert judge_shadow(rows_of(role=role), 7, settings, until, role=role).conclusion == "superior"
    assert judge_shadow(rows_of(role=role, better=-0.05), 7, settings, until, role=role).conclusion == "inferior"


def test_a_champion_worse_than_the_former_one_is_found_where_the_blend_hides_it() -> None:
    until, settings = START + (DAYS + 3) * DAY, settings_of()
    hidden = {"role": "previous", "better": 0.0}
    verdict = judge_shadow(rows_of(**hidden, alone=0.1), 7, settings, until, role="previous")
    assert (verdict.conclusion, verdict.alone) == ("superior", True)
    assert verdict.gain > 0.1
    for alone in (0.0, -0.1):
        verdict = judge_shadow(rows_of(**hidden, alone=alone), 7, settings, until, role="previous")
        assert verdict.conclusion != "superior"
        assert not verdict.alone


def test_by_itself_the_former_champion_may_be_better_by_the_margin() -> None:
    until, rows = START + (DAYS + 3) * DAY, rows_of(role="previous", better=0.0, alone=0.1)
    gain = judge_shadow(rows, 7, settings_of(), until, role="previous").gain
    for margin, conclusion in ((0.6 * gain, "superior"), (1.2 * gain, "futile")):
        gates = {"max_alone_loss": 1 / (1 - margin)}
        settings = settings_of().model_copy(update={"gates": settings_of().gates.model_copy(update=gates)})
        assert judge_shadow(rows, 7, settings, until, role="previous").conclusion == conclusion


def test_where_the_blend_with_the_new_champion_was_surely_better_before_it_stays() -> None:
    until, settings = START + (DAYS + 3) * DAY, settings_of()
    rows = rows_of(role="previous", better=-0.1, alone=0.02)
    verdict = judge_shadow(rows, 7, settings, until, role="previous")
    assert (verdict.conclusion, verdict.alone) == ("inferior", False)


def test_that_the_blend_hides_the_difference_is_believed_once_there_was_time_to_see_it() -> None:
    settings, given = settings_of(), {"role": "previous", "better": 0.0, "alone": 0.0}
    for days, conclusion in ((FEWEST_BLOCKS - 1, "undecided"), (FEWEST_BLOCKS, "futile")):
        rows, until = rows_of(days, **given), START + (days + 3) * DAY
        assert judge_shadow(rows, 7, settings, until, role="previous").conclusion == conclusion


def test_a_challenger_is_not_judged_by_itself() -> None:
    until = START + (DAYS + 3) * DAY
    assert judge_shadow(rows_of(better=0.0, alone=0.1), 7, settings_of(), until).conclusion != "superior"
