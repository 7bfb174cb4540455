from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.blend import Blend
from core.loop_settings import BlendSettings
from core.metrics import loss
from core.recalibration import Recalibration

chances = st.floats(0, 1)
shares = st.dictionaries(st.sampled_from("xyz"), st.floats(0.01, 1), min_size=1)


def losses_of(blend, rows, delay=0):
    """Serve every row, and tell its label `delay` rows later; return the losses of served and of each expert."""
    found = []
    for step, (predictions, outcome) in enumerate(rows):
        served = blend.mix(predictions, step)
        found.append({"served": loss(served, outcome)} | {name: loss(p, outcome) for name, p in predictions.items()})
        if step >= delay:
            blend.update(*rows[step - delay], step - delay)
    return {name: float(np.mean([row[name] for row in found[len(found) // 2 :]])) for name in found[0]}


@given(st.dictionaries(st.sampled_from("abc"), chances, min_size=1))
def test_before_any_label_a_second_opinion_is_the_first(predictions):
    assert Recalibration().opinions(predictions) == pytest.approx(predictions, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(shares, shares, st.sampled_from("xyzw")), min_size=1, max_size=30))
def test_opinions_are_chances_of_the_classes_that_experts_name_in_whatever_order(rows):
    one, other = Recalibration(), Recalibration()
    for a, b, outcome in rows:
        found = one.opinions({"a": a, "b": b})
        for opinion in found.values():
            assert opinion.keys() == a.keys() | b.keys()
            assert sum(opinion.values()) == pytest.approx(1)
            assert min(opinion.values()) >= 0
        assert other.opinions({"b": dict(reversed(b.items())), "a": dict(reversed(a.items()))}) == found
        one.learn({"a": a, "b": b}, outcome)
        other.learn({"b": b, "a": a}, outcome)


@pytest.mark.parametrize("delay", [0, 300])
def test_an_expert_that_is_right_and_timid_is_served_as_sure_as_it_is_right(delay):
    draw = np.random.default_rng(1)
    rows = []
    for _ in range(6_000):
        side, outcome = int(draw.uniform() < 0.5), int(draw.uniform() < 0.5)
        outcome = side if draw.uniform() < 0.95 else 1 - side
        rows.append(({"timid": 0.55 if side else 0.45, "prior": 0.5}, outcome))
    losses = losses_of(Blend("binary", BlendSettings(), ["prior"]), rows, delay)
    best = -0.95 * np.log(0.95) - 0.05 * np.log(0.05)
    assert losses["served"] < best * 1.1
    assert losses["served"] < losses["timid"] / 2


def test_an_expert_that_takes_one_class_for_another_is_understood():
    """All that the expert says is wrong, and tells the class all the same."""
    draw = np.random.default_rng(2)
    following = {"x": "y", "y": "z", "z": "x"}
    rows = []
    for _ in range(3_000):
        said = str(draw.choice(list("xyz")))
        chances = {name: 0.9 if name == said else 0.05 for name in "xyz"}
        rows.append(({"mistaken": chances, "even": dict.fromkeys("xyz", 1 / 3)}, following[said]))
    losses = losses_of(Blend("multiclass", BlendSettings()), rows)
    assert losses["served"] < 0.1 < losses["even"] < losses["mistaken"]


def test_what_an_opinion_was_is_found_again_whatever_was_learned_since():
    second, said = Recalibration(), {"a": 0.9}
    for step in range(1_000):
        second.learn(said, 1, mixed_at=step)
    then = second.opinions(said)["a"]
    for step in range(1_000, 3_000):
        second.learn(said, 0, mixed_at=step)
    assert second.opinions(said)["a"] < 0.3
    assert second.opinions(said, made_at=1_000)["a"] == pytest.approx(then, abs=0.05)


def test_another_under_a_name_is_judged_by_what_came_for_itself():
    second, said = Recalibration(), {"champion": 0.9, "linear": 0.9}
    for step in range(100):
        second.learn(said, 0, mixed_at=step)
    second.renew("champion", mixed_at=99)
    for made_at in (None, 50, 150):
        opinions = second.opinions(said, made_at)
        assert opinions["champion"] == pytest.approx(0.9)
        assert opinions["linear"] < 0.5
    second.learn(said, 1, mixed_at=100)
    assert second.opinions(said, made_at=50)["champion"] > 0.9


def test_it_forgets_slowly():
    second, said = Recalibration(), {"a": 0.9}
    for _ in range(20_000):
        second.learn(said, 0)
    for _ in range(3_000):
        second.learn(said, 1)
    assert 0.6 < second.opinions(said)["a"] < 0.9
