from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.blend import Blend
from core.loop_settings import BlendSettings
from core.metrics import loss
from core.mixtures import Mixtures

TASKS = ("binary", "multiclass", "regression")
names = st.sets(st.sampled_from("abcd"), min_size=1)
chances = st.floats(0, 1)
classes = st.dictionaries(st.sampled_from("xyz"), chances, min_size=1)
values = st.floats(-1e12, 1e12)
KINDS = {
    "binary": (chances, st.sampled_from([0, 1])),
    "multiclass": (classes, st.sampled_from("xyzw")),
    "regression": (values, values),
}
extreme = st.builds(
    BlendSettings,
    rates=st.lists(st.sampled_from([0.0, 0.01, 1.0, 10.0]), min_size=1, max_size=3),
    shares=st.lists(st.sampled_from([0.0, 1e-5, 1.0]), min_size=1, max_size=2),
    sharpness=st.lists(st.sampled_from([0.0, 1.0, 10.0]), min_size=1, max_size=2),
)


@st.composite
def streams(draw):
    task = draw(st.sampled_from(TASKS))
    prediction, outcome = KINDS[task]
    row = st.tuples(names.flatmap(lambda n: st.fixed_dictionaries(dict.fromkeys(sorted(n), prediction))), outcome)
    return task, draw(extreme), draw(st.lists(row, min_size=1, max_size=25))


def check_served(task, predictions, served):
    if task == "multiclass":
        assert served.keys() == {name for p in predictions.values() for name in p}
        assert all(0 <= share <= 1 for share in served.values())
        assert sum(served.values()) == pytest.approx(1)
    elif task == "binary":
        assert 0 <= served <= 1
    else:
        low, high = min(predictions.values()), max(predictions.values())
        slack = 1e-9 * max(abs(low), abs(high), 1)
        assert low - slack <= served <= high + slack


@settings(max_examples=150, deadline=None)
@given(streams(), st.integers(1, 400))
def test_whatever_comes_weights_stay_on_the_simplex_and_nothing_becomes_nan(stream, repeats):
    task, how, rows = stream
    blend = Blend(task, how)
    with np.errstate(all="raise", under="ignore"):
        for predictions, outcome in rows:
            check_served(task, predictions, blend.mix(predictions))
            blend.update(predictions, outcome)
            weights = blend.weights
            assert sum(weights.values()) == pytest.approx(1)
            assert all(0 <= weight <= 1 + 1e-9 for weight in weights.values())
        for _ in range(repeats):
            blend.update(*rows[0])
        for predictions, _ in rows:
            check_served(task, predictions, blend.mix(predictions))


def test_an_expert_whose_weight_underflowed_can_still_serve_alone():
    blend = Blend("binary", BlendSettings(rates=[10.0], shares=[0.0], sharpness=[1.0]))
    for _ in range(2000):
        blend.update({"good": 0.999, "bad": 0.001}, 1)
    assert blend.mix({"bad": 0.25}) == pytest.approx(0.25)


def binary_rows(seed, count, honest):
    """Two experts, of which `honest(n)` knows the chance; the other says its opposite."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        chance = float(draw.uniform(0.05, 0.95))
        outcome = int(draw.uniform() < chance)
        predictions = {"a": chance, "b": 1 - chance} if honest(number) == "a" else {"a": 1 - chance, "b": chance}
        yield predictions, outcome


def served_losses(blend, rows):
    losses = []
    for predictions, outcome in rows:
        losses.append({"served": loss(blend.mix(predictions), outcome)})
        losses[-1] |= {name: loss(value, outcome) for name, value in predictions.items()}
        blend.update(predictions, outcome)
    return losses


def mean(losses, name):
    return float(np.mean([row[name] for row in losses]))


def test_binary_the_blend_is_close_to_the_best_expert():
    losses = served_losses(Blend("binary", BlendSettings()), binary_rows(1, 3000, lambda n: "a"))
    assert mean(losses, "served") < mean(losses, "a") + 0.02
    assert mean(losses, "b") > mean(losses, "a") + 0.5


def test_binary_experts_that_each_see_a_part_are_better_together():
    draw = np.random.default_rng(5)
    rows = []
    for _ in range(4000):
        left, right = draw.normal(size=2)
        outcome = int(draw.uniform() < 1 / (1 + math.exp(-(2 * left + 2 * right))))
        rows.append(({name: 1 / (1 + math.exp(-1.5 * part)) for name, part in (("l", left), ("r", right))}, outcome))
    losses = served_losses(Blend("binary", BlendSettings()), rows)
    assert mean(losses[1000:], "served") < min(mean(losses[1000:], "l"), mean(losses[1000:], "r")) - 0.01


def test_it_follows_when_another_expert_becomes_the_best():
    blend = Blend("binary", BlendSettings())
    losses = served_losses(blend, binary_rows(2, 6000, lambda n: "a" if n < 3000 else "b"))
    assert blend.weights["b"] > 0.8
    assert mean(losses[5000:], "served") < mean(losses[5000:], "b") + 0.03


def test_multiclass_close_to_the_best_and_room_for_a_class_never_named():
    draw = np.random.default_rng(3)
    blend, rows = Blend("multiclass", BlendSettings()), []
    for _ in range(2000):
        share = draw.dirichlet([1, 1, 1])
        outcome = str(draw.choice(list("xyz"), p=share))
        rows.append(({"good": dict(zip("xyz", share.tolist(), strict=True)), "bad": {"x": 1.0}}, outcome))
    losses = served_losses(blend, rows)
    assert mean(losses, "served") < mean(losses, "good") + 0.03
    blend.update({"good": {"x": 0.5, "y": 0.5}, "bad": {"x": 1.0}}, "new")
    assert blend.weights["good"] > 0.8


def regression_rows(scale=1.0, shift=0.0, count=2000):
    draw = np.random.default_rng(4)
    rows = []
    for _ in range(count):
        truth = draw.normal()
        predictions = {"good": truth + draw.normal(scale=0.1), "biased": truth + 2, "flat": 0.0}
        rows.append(({name: float(v * scale + shift) for name, v in predictions.items()}, float(truth * scale + shift)))
    return rows


def test_regression_close_to_the_best():
    losses = served_losses(Blend("regression", BlendSettings()), regression_rows())
    assert mean(losses[500:], "served") < mean(losses[500:], "good") * 1.5
    assert mean(losses, "biased") > 1.5


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_regression_does_not_care_about_the_unit(scale):
    served = {}
    for factor in (1.0, scale):
        blend = Blend("regression", BlendSettings())
        served[factor] = [row["served"] / factor for row in served_losses(blend, regression_rows(factor, count=300))]
    assert served[scale] == pytest.approx(served[1.0], rel=1e-9)


def test_regression_learns_after_a_start_without_any_error():
    blend = Blend("regression", BlendSettings())
    for _ in range(100):
        blend.update({"good": 0.0, "bad": 0.0}, 0.0)
    for _ in range(1500):
        blend.update({"good": 1e6, "bad": 2e6}, 1e6)
    # losses are divided by the running error; were it stuck at zero, the two below would differ
    assert blend._mixtures._scale.value > 1.0
    assert blend.weights["good"] > 0.9


def test_one_absurd_outcome_does_not_end_it():
    rows = regression_rows()
    rows[700] = (rows[700][0], 1e12)
    losses = served_losses(Blend("regression", BlendSettings()), rows)
    assert mean(losses[1200:], "served") < mean(losses[1200:], "good") * 2


def test_a_sleeping_expert_keeps_its_weight():
    mixtures = Mixtures("binary", BlendSettings())
    for _ in range(50):
        mixtures.update({"a": 0.7, "b": 0.4, "c": 0.5}, 1)
    before = copy.deepcopy(mixtures._now)
    for _ in range(50):
        mixtures.update({"a": 0.7, "b": 0.4}, 1)
    # the average over the members moves with the beliefs; each mixture's own and what is believed of it alone must not
    assert mixtures._now.weights[:, 2] == pytest.approx(before.weights[:, 2])
    assert mixtures._now.beliefs[:, -1] == pytest.approx(before.beliefs[:, -1])


def test_a_newcomer_gets_a_part_of_every_mixture_and_the_others_keep_their_proportions():
    mixtures = Mixtures("binary", BlendSettings(rates=[0.05]))
    for _ in range(200):
        mixtures.update({"a": 0.9, "b": 0.4}, 1)
    before = mixtures._now.weights[:3]
    mixtures.mix({"a": 0.9, "b": 0.4, "new": 0.5})
    after = mixtures._now.weights[:3]
    assert after[:, 2] == pytest.approx(1 / 3)
    assert after[:, 0] / after[:, 1] == pytest.approx(before[:, 0] / before[:, 1])
    assert 1 / 3 < mixtures.weights["new"] < 1 / 2


def test_one_expert_alone_is_served_as_it_is():
    how = BlendSettings(sharpness=[1.0])
    assert Blend("binary", how).mix({"a": 0.3}) == pytest.approx(0.3)
    assert Blend("regression", how).mix({"a": -7.5}) == pytest.approx(-7.5)
    assert Blend("multiclass", how).mix({"a": {"x": 0.25, "y": 0.75}}) == pytest.approx({"x": 0.25, "y": 0.75})


def late(blend, rows, delay):
    """Serve every row, and tell its label `delay` rows later; return the losses."""
    losses = []
    for step, (predictions, outcome) in enumerate(rows):
        losses.append({"served": loss(blend.mix(predictions, step), outcome)})
        losses[-1] |= {name: loss(value, outcome) for name, value in predictions.items()}
        if step >= delay:
            blend.update(*rows[step - delay], step - delay)
    return losses


@pytest.mark.parametrize("delay", [0, 100, 1000])
@pytest.mark.parametrize("task", TASKS)
def test_it_is_about_as_good_as_the_best_expert_however_late_labels_are(task, delay):
    """Luck comes in streaks: with late labels whoever chases it is always behind."""
    draw = np.random.default_rng(8)
    rows = []
    for number in range(8_000):
        streak = "ab"[number // 300 % 2]
        chances = {"a": 0.7, "b": 0.7, "steady": 0.75} | {streak: 0.85, "ab"[streak == "a"]: 0.4}
        truth = int(draw.uniform() < 0.5)
        hits = {name: chance if truth else 1 - chance for name, chance in chances.items()}
        if task == "regression":
            rows.append(({name: truth + 10 * (1 - hits[name] if truth else hits[name]) for name in hits}, float(truth)))
        elif task == "multiclass":
            rows.append(({name: {"0": 1 - hit, "1": hit} for name, hit in hits.items()}, str(truth)))
        else:
            rows.append((hits, truth))
    losses = late(Blend(task, BlendSettings()), rows, delay)[1_000 + delay :]
    assert mean(losses, "served") <= min(mean(losses, name) for name in ("a", "b", "steady")) * 1.06


def turn(task, sure, hedged, turns_at):
    """Return rows of an expert that is sure, and right until a row, and of three that are neither."""
    shown = {
        "binary": lambda chance: chance,
        "multiclass": lambda chance: {"0": 1 - chance, "1": chance},
        "regression": lambda chance: 10 * (1 - chance),
    }[task]
    outcome = {"binary": 1, "multiclass": "1", "regression": 0.0}[task]
    others = dict.fromkeys(("hedged", "too", "as well"), hedged)
    chances = [{"sure": sure if row < turns_at else 1 - sure, **others} for row in range(turns_at + 600)]
    return [({name: shown(chance) for name, chance in row.items()}, outcome) for row in chances]


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_it_is_less_sure_of_the_best_expert_the_later_labels_are(task):
    losses = {delay: late(Blend(task, BlendSettings()), turn(task, 0.99, 0.6, 3_000), delay) for delay in (0, 500)}
    unseen = losses[500][3_000:3_500]
    assert mean(unseen, "served") < 0.85 * mean(unseen, "sure")
    for before in (rows[2_000:3_000] for rows in losses.values()):
        assert mean(before, "served") < mean(before, "hedged") / 3
    assert mean(losses[0][2_000:3_000], "served") < mean(losses[500][2_000:3_000], "served")


def test_a_bad_expert_of_values_has_no_part_because_labels_are_late():
    losses = late(Blend("regression", BlendSettings()), turn("regression", 0.99, -100.0, 3_000), 500)
    assert mean(losses[2_000:3_000], "served") < 0.01 * mean(losses[2_000:3_000], "hedged")


def test_what_it_remembers_is_bounded():
    blend, rows = Blend("binary", BlendSettings()), list(binary_rows(9, 3_000, lambda n: "a"))
    late(blend, rows, 1_000)
    assert len(pickle.dumps(blend)) < 1_000_000


def test_order_of_the_experts_does_not_matter():
    one, other = Blend("binary", BlendSettings()), Blend("binary", BlendSettings())
    one.mix({"a": 0.5, "b": 0.5})
    other.mix({"a": 0.5, "b": 0.5})
    for predictions, outcome in binary_rows(6, 50, lambda n: "a"):
        one.update(predictions, outcome)
        other.update(dict(reversed(predictions.items())), outcome)
    assert one.weights == pytest.approx(other.weights)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda blend: pickle.loads(pickle.dumps(blend))])
def test_a_copy_goes_on_equally(copied):
    blend = Blend("binary", BlendSettings())
    rows = list(binary_rows(7, 60, lambda n: "a"))
    for row in rows[:30]:
        blend.update(*row)
    other = copied(blend)
    for row in rows[30:]:
        blend.update(*row)
        other.update(*row)
    assert blend.mix(rows[0][0]) == other.mix(rows[0][0])


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(0, 1)), max_size=60))
def test_another_that_comes_under_a_name_is_heard_whatever_that_was_worth(labels):
    blend = Blend("binary", BlendSettings())
    blend.mix({"champion": 0.5, "online": 0.5})
    for champion, online, outcome in labels:
        blend.update({"champion": champion, "online": online}, outcome)
    before = blend.weights
    blend.renew("champion")
    blend.renew("nobody")
    weights = blend.weights
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["champion"] >= before["champion"] - 1e-12
    assert weights["champion"] >= 0.1, "a half in every mixture, and a part of its own beside them"
