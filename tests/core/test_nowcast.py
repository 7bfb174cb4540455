"""What losses are by now: in the long run those that were served, and sooner than they."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.blend import Blend
from core.loop_settings import BlendSettings
from core.metrics import loss
from core.nowcast import Nowcast

ALL = (slice(None),)
some = st.lists(st.floats(0, 10), min_size=3, max_size=3)


@settings(deadline=None)
@given(some, some)
def test_an_advantage_that_stays_is_taken_away(then, advantage):
    nowcast, seen = Nowcast(1), np.array(then)
    for _ in range(50):
        found = nowcast.of(seen, seen - np.array(advantage), ALL, (3,), 8_000)
        assert found == pytest.approx(seen, abs=1e-9)


@settings(deadline=None)
@given(st.lists(some, min_size=1, max_size=30))
def test_what_is_said_again_alike_changes_nothing(rows):
    nowcast = Nowcast(1)
    for row in rows:
        assert nowcast.of(np.array(row), np.array(row), ALL, (3,), 8_000).tolist() == row


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=200, max_size=200))
def test_in_the_long_run_it_adds_up_to_what_was_served(pairs):
    nowcast, found, served = Nowcast(1), [], []
    for then, now in pairs * 10:
        found.append(float(nowcast.of(np.array([then]), np.array([now]), ALL, (1,), 8_000)[0]))
        served.append(then)
    assert np.mean(found[200:]) == pytest.approx(np.mean(served[200:]), abs=0.1)


def test_who_comes_later_begins_anew_and_who_sleeps_keeps_what_it_has():
    nowcast = Nowcast(2)
    nowcast.of(np.array([[2.0]]), np.array([[1.0]]), (slice(None), [0]), (1, 1), 800)
    grown = nowcast.of(np.array([[3.0]]), np.array([[3.0]]), (slice(None), [1]), (1, 2), 800)
    assert grown.tolist() == [[3.0]]
    woken = nowcast.of(np.array([[2.0]]), np.array([[1.0]]), (slice(None), [0]), (1, 2), 800)
    assert woken.tolist() == [[2.0]]


def late(blend, rows, delay, with_anew):
    """Losses of rows (what was said, what is said when the label comes, the outcome), labels `delay` rows late."""
    losses = []
    for step, (said, _, outcome) in enumerate(rows):
        losses.append(loss(blend.mix(said, step), outcome))
        if step >= delay:
            earlier, anew, came = rows[step - delay]
            blend.update(earlier, came, step - delay, anew=anew if with_anew else None)
    return losses


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_after_a_change_whoever_learned_it_is_trusted_sooner(task):
    """The learner knows the new concept 300 labels after it came, the other never does."""
    delay, change = 300, 1_500

    def said(sure, outcome):
        chance = 0.9 if bool(outcome) == sure else 0.1
        return chance if task == "binary" else {"0": 1.0 - chance, "1": chance}

    draw = np.random.default_rng(5)
    rows = []
    for step in range(2_500):
        outcome = int(draw.random() < 0.5)
        learner = {"learner": said(step < change or step >= change + delay, outcome)}
        other = {"other": said(step < change, outcome)}
        by_now = {"learner": said(step + delay < change + delay or step >= change, outcome)}
        rows.append(({**learner, **other}, by_now, str(outcome) if task == "multiclass" else outcome))
    losses = {how: late(Blend(task, BlendSettings()), rows, delay, how) for how in (False, True)}
    begun = slice(change + delay, change + 2 * delay)
    assert sum(losses[True][begun]) < 0.9 * sum(losses[False][begun])
