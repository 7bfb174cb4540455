from __future__ import annotations

import pickle
import random

import pytest
from stream_lab import digest

from core.project_file import parse_settings
from streaming.learners import BUILT_IN

PROJECT = "{{name: a, task: {}, id: id, time: at, fields: {{x: number, z: number}}, label: {{path: y{}}}}}"
LABELS = {"binary": ", positive: 1, negative: 0", "regression": "", "multiclass": ""}
GROWS = {"grace_period": 20, "tau": 0.5, "delta": 0.1}


def build(factory: str, task: str, **params):
    return BUILT_IN[factory](parse_settings(PROJECT.format(task, LABELS[task])), {**GROWS, **params})


def examples(task: str, count: int, seed: int = 0):
    """Outcomes that alternate along x and z: there is always one more split to be made."""
    draw = random.Random(seed)
    for _ in range(count):
        features = {"x": draw.uniform(0, 8), "z": draw.uniform(0, 8)}
        cell = (int(features["x"]) + int(features["z"])) % 2
        yield features, float(cell) if task == "regression" else str(cell) if task == "multiclass" else cell


def leaves(model) -> list[int]:
    trees = list(model._model) if hasattr(model._model, "n_models") else [model._model]
    return [len(tree._find_leaves()) for tree in trees]


@pytest.mark.parametrize(("factory", "task"), [("tree", "binary"), ("tree", "regression"), ("forest", "multiclass")])
def test_a_tree_stops_to_split_and_goes_on_to_learn(factory, task):
    bounded, free = build(factory, task, max_leaves=8), build(factory, task, max_leaves=10**6)
    for features, outcome in examples(task, 4_000):
        bounded.learn(features, outcome)
        free.learn(features, outcome)
    few = sum(leaves(free)) / 2
    assert sum(leaves(bounded)) < few
    before = bounded.predict({"x": 1.5, "z": 1.5})
    for features, outcome in examples(task, 2_000, seed=1):
        bounded.learn(features, outcome)
    assert sum(leaves(bounded)) < few
    assert bounded.predict({"x": 1.5, "z": 1.5}) != before


def test_a_tree_grows_again_when_it_has_been_cut_back():
    model = build("tree", "binary", max_leaves=8)
    for features, outcome in examples("binary", 4_000):
        model.learn(features, outcome)
    grown = leaves(model)[0]
    assert grown >= 8
    model._model._root = model._model._new_leaf()
    for features, outcome in examples("binary", 2_000, seed=1):
        model.learn(features, outcome)
    assert leaves(model)[0] > 1


@pytest.mark.parametrize("factory", ["tree", "forest"])
def test_a_restored_tree_goes_on_as_the_one_that_was_never_kept(factory):
    model = build(factory, "binary", max_leaves=8)
    for number, (features, outcome) in enumerate(examples("binary", 1_750)):
        if number == 700:
            restored = pickle.loads(pickle.dumps(model))
        if number >= 700:
            restored.learn(features, outcome)
        model.learn(features, outcome)
    assert digest(restored) == digest(model)
