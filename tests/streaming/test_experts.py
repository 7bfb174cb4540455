from __future__ import annotations

import math
import pickle
import random

import pytest
from stream_lab import TASKS, make_project, outcome_of

from core.errors import ProjectCodeError
from core.metrics import loss
from streaming.experts import build_experts

BUILT_IN = ("linear", "tree", "forest", "prior", "no_change")
LEARNERS = ("linear", "tree", "forest")


def expert_of(folder, task, factory, code=None, **params):
    online = [{"name": "one", "factory": factory, "params": params}]
    (made,) = build_experts(make_project(folder, task, code=code, online=online))
    return made


def stream(task, count, seed=0):
    draw = random.Random(seed)
    for _ in range(count):
        x, z = draw.uniform(-1, 1), draw.uniform(-1, 1)
        yield {"x": x, "z": z, "c": draw.choice("abc")}, outcome_of(task, x, z)


def losses(expert, rows):
    found = []
    for features, outcome in rows:
        prediction = expert.predict(features)
        if prediction is not None:
            found.append(loss(prediction, outcome))
        expert.learn(features, outcome)
    return found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("factory", LEARNERS)
def test_a_learner_beats_the_prior_on_an_easy_stream(tmp_path, task, factory):
    rows = list(stream(task, 1200))
    learned = losses(expert_of(tmp_path / "l", task, factory), rows)
    prior = losses(expert_of(tmp_path / "p", task, "prior"), rows)
    assert len(learned) >= len(rows) - 50, "it predicts nearly from the start"
    late = slice(-400, None)
    assert sum(learned[late]) < 0.85 * sum(prior[late])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("factory", BUILT_IN)
def test_a_pickled_expert_goes_on_equally(tmp_path, task, factory):
    expert = expert_of(tmp_path, task, factory)
    rows = list(stream(task, 200))
    losses(expert, rows[:150])
    again = pickle.loads(pickle.dumps(expert))
    for features, outcome in rows[150:]:
        assert again.predict(features) == expert.predict(features)
        again.learn(features, outcome)
        expert.learn(features, outcome)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("factory", BUILT_IN)
def test_missing_unseen_and_absurd_features_are_harmless(tmp_path, task, factory):
    expert = expert_of(tmp_path, task, factory)
    losses(expert, stream(task, 100))
    odd = [
        {"x": None, "z": None, "c": None},
        {"x": 1e30, "z": -1e30, "c": "never seen"},
        {"x": 0.0, "z": 5e-324, "c": ""},
    ]
    for features in odd * 3:
        prediction = expert.predict(features)
        assert prediction is None or math.isfinite(loss(prediction, outcome_of(task, 0.0, 0.0)))
        expert.learn(features, outcome_of(task, 0.0, 0.0))
    after = losses(expert, stream(task, 300, seed=1))
    assert len(after) > 200, "and it still predicts afterwards"


@pytest.mark.parametrize("task", TASKS)
def test_one_absurd_number_does_not_flatten_a_feature_of_the_linear_model(tmp_path, task):
    clean, hit, prior = (expert_of(tmp_path / name, task, name) for name in ("linear", "linear", "prior"))
    rows = list(stream(task, 1500))
    for expert in (clean, hit):
        losses(expert, rows[:100])
    hit.learn({"x": 1e30, "z": 0.0, "c": "a"}, rows[0][1])
    with_it, without, nothing = (sum(losses(expert, rows[100:])[-400:]) for expert in (hit, clean, prior))
    assert with_it < without + 0.1 * nothing


def test_the_prior_is_the_frequency(tmp_path):
    binary = expert_of(tmp_path / "b", "binary", "prior")
    assert binary.predict({}) == 0.5
    for number in range(100):
        binary.learn({}, int(number % 4 == 0))
    assert binary.predict({}) == pytest.approx(0.25, abs=0.01)
    many = expert_of(tmp_path / "m", "multiclass", "prior")
    assert many.predict({}) is None
    for number in range(99):
        many.learn({}, "abc"[number % 3])
    assert many.predict({}) == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=0.01)
    values = expert_of(tmp_path / "r", "regression", "prior", memory=2)
    for value in (1.0, 100.0, 100.0, 100.0, 100.0, 100.0):
        values.learn({}, value)
    assert values.predict({}) > 90


def test_no_change_learns_how_outcomes_follow_each_other(tmp_path):
    expert = expert_of(tmp_path / "b", "binary", "no_change")
    for number in range(200):
        expert.learn({}, number % 2)
    assert expert.predict({}) < 0.02, "after a 1 comes a 0"
    values = expert_of(tmp_path / "r", "regression", "no_change")
    assert values.predict({}) is None
    values.learn({}, 3.5)
    assert values.predict({}) == 3.5
    many = expert_of(tmp_path / "m", "multiclass", "no_change")
    for number in range(90):
        many.learn({}, "abc"[number % 3])
    assert max(many.predict({}), key=many.predict({}).get) == "a"
    assert sum(many.predict({}).values()) == pytest.approx(1)


def test_online_only_features_and_texts(tmp_path):
    """Experts of River see what batch models see; the linear one also sees what is for the online experts only."""
    features = {
        "function": "code.py:make",
        "outputs": {"day": "category", "x": "number", "t": "text"},
        "online_only": ["day"],
    }
    code = "def make(fields):\n    return {}\n"
    project = make_project(tmp_path, code=code, features=features, online=["linear", "tree"])
    linear, tree = build_experts(project)
    for number in range(400):
        row = {"day": "ab"[number % 2], "x": 1.0, "t": str(number)}
        for expert in (linear, tree):
            expert.learn(row, number % 2)
    row = {"x": 1.0, "t": "z"}
    assert linear.predict({**row, "day": "b"}) > 0.6
    assert linear.predict({**row, "day": "a"}) < 0.4
    assert tree.predict({**row, "day": "b"}) == tree.predict({**row, "day": "a"})


OWN = """
from river import linear_model, naive_bayes
import numpy as np
class Mine:
    def __init__(self, level=0.3):
        self.level = np.float32(level)
    def predict(self, features):
        return self.level
    def learn(self, features, outcome):
        pass
def river_model(**how):
    return linear_model.LogisticRegression(**how)
def nothing():
    return object()
def fails():
    raise LookupError('no such table')
def clusterer():
    from river import cluster
    return cluster.KMeans()
"""


def test_experts_of_the_project_and_of_river(tmp_path):
    mine = expert_of(tmp_path / "a", "binary", "code.py:Mine", OWN, level=0.75)
    assert mine.predict({"x": 1.0}) == 0.75
    assert type(mine.predict({})) is float, "numpy's numbers cannot be published as JSON"
    assert expert_of(tmp_path / "b", "binary", "code.py:river_model", OWN, intercept_lr=0.1).predict({}) is None
    assert expert_of(tmp_path / "c", "multiclass", "river.naive_bayes.GaussianNB").name == "one"


@pytest.mark.parametrize(
    ("task", "factory", "params", "said"),
    [
        ("binary", "linaer", {}, "known names: forest, linear, no_change, prior, tree"),
        ("binary", "code.py:missing", {}, "no function 'missing'"),
        ("binary", "nope.py:x", {}, r"file\.py:function"),
        ("binary", "river.nope.Model", {}, "river.nope"),
        ("binary", "river.tree.Nope", {}, "Nope"),
        ("binary", "river", {}, "known names"),
        ("binary", "prior", {"memry": 3}, "memry"),
        ("binary", "prior", {"memory": 0}, "does not build"),
        ("binary", "tree", {"max_dept": 3}, "max_dept"),
        ("binary", "linear", {"rate": "fast"}, "fast"),
        ("binary", "code.py:fails", {}, "no such table"),
        ("binary", "code.py:nothing", {}, "predict_proba_one"),
        ("binary", "code.py:clusterer", {}, "predict_proba_one"),
        ("binary", "river.linear_model.LinearRegression", {}, "predict_proba_one"),
    ],
)
def test_what_does_not_build_is_explained(tmp_path, task, factory, params, said):
    with pytest.raises(ProjectCodeError, match=said) as caught:
        expert_of(tmp_path, task, factory, OWN, **params)
    assert "online expert 'one'" in str(caught.value)
    assert "known names" in str(caught.value) or "needs a River model" in str(caught.value)
