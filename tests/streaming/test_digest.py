from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_lab import TASKS, as_raw, easy_stream, make_machine, make_project

from streaming.digest import canonical_digest, digest_of

ROOT = Path(__file__).parents[2]
MODELS = ["linear", "tree", "forest", "no_change"]
RECORDS = {task: as_raw(easy_stream(task, 120)) for task in TASKS}


def again(value):
    return pickle.loads(pickle.dumps(value, protocol=5))


def fed(folder, task, model, records):
    machine = make_machine(make_project(folder, task, online=[model, "prior"]))
    machine.process(records)
    return machine.state


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", MODELS)
def test_equal_records_give_equal_digests_and_one_less_another(tmp_path, task, model):
    records = RECORDS[task]
    one, other = fed(tmp_path / "a", task, model, records), fed(tmp_path / "b", task, model, records)
    less = fed(tmp_path / "c", task, model, records[:-1])
    digest = canonical_digest(one)
    assert canonical_digest(other) == digest
    assert canonical_digest(again(one)) == digest
    assert canonical_digest(less) != digest
    one.experts[0].predict({"x": 0.1, "z": 0.2, "c": "a"})
    assert canonical_digest(one) == digest, "a prediction leaves no trace"


def test_another_process_finds_the_same(tmp_path):
    state = fed(tmp_path, "multiclass", "forest", RECORDS["multiclass"])
    (tmp_path / "state.pickle").write_bytes(pickle.dumps(state))
    script = (
        "import pathlib, pickle, sys; sys.path.insert(0, 'tests/streaming')\n"
        "from test_digest import RECORDS, fed; from streaming.digest import canonical_digest\n"
        "print(canonical_digest(pickle.loads(pathlib.Path(sys.argv[1], 'state.pickle').read_bytes())))\n"
        "print(canonical_digest(fed(pathlib.Path(sys.argv[1]), 'multiclass', 'forest', RECORDS['multiclass'])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [canonical_digest(state)] * 2


def test_one_changed_bit_deep_inside_is_another_state(tmp_path):
    state = fed(tmp_path, "binary", "forest", RECORDS["binary"])
    digest = canonical_digest(state)
    state.blend._mixtures._now.weights[3, 1] = np.nextafter(state.blend._mixtures._now.weights[3, 1], 1.0)
    assert canonical_digest(state) != digest
    state = fed(tmp_path, "binary", "linear", RECORDS["binary"])
    digest = canonical_digest(state)
    moments = state.experts[0]._model._encoder._moments["x"]
    moments[1] = float(np.nextafter(moments[1], 9.0))
    assert canonical_digest(state) != digest


@dataclass(frozen=True)
class Point:
    x: float
    tags: frozenset[str] = frozenset()


class Slotted:
    __slots__ = ("one", "two")

    def __init__(self, one, two=None):
        self.one = one
        if two is not None:
            self.two = two


KEYS = st.one_of(st.integers(), st.text(max_size=4), st.booleans(), st.floats(allow_nan=False))
VALUES = st.recursive(
    st.one_of(KEYS, st.none(), st.binary(max_size=4), st.sets(KEYS, max_size=4), st.frozensets(KEYS, max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(VALUES)
def test_a_pickled_copy_has_the_same_digest(value):
    assert digest_of(again(value)) == digest_of(value)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_different_values_have_different_digests(one, other):
    if repr(one) != repr(other) and pickle.dumps(one) != pickle.dumps(other) and one != other:
        assert digest_of(one) != digest_of(other)


@pytest.mark.parametrize(
    "values",
    [
        (1, 1.0, True, "1", b"1", None),
        (0.0, -0.0, float("nan"), float("inf")),
        ([1, 2], (1, 2), {1: 2}, {1, 2}, frozenset({1, 2}), deque([1, 2]), [2, 1], [[1], 2], [1, [2]]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, OrderedDict(a=1, b=2), defaultdict(int, a=1, b=2)),
        (np.zeros(2), np.zeros((2, 1)), np.zeros(2, np.float32), np.array([0.0, 1.0]), np.array([0, None], object)),
        (np.float64(1), np.float32(1), np.int64(1), 1.0),
        (random.Random(1), random.Random(2), np.random.default_rng(1), np.random.default_rng(2)),
        (Point(1.0), Point(2.0), Point(1.0, frozenset({"a"})), Slotted(1.0), Slotted(1.0, 2.0), Slotted(2.0)),
        (len, max, print, Point, Slotted, np.log, np.exp),
    ],
    ids=str,
)
def test_what_is_not_the_same_differs_and_what_is_does_not(values):
    digests = [digest_of(value) for value in values]
    assert len(set(digests)) == len(values)
    assert [digest_of(again(value)) for value in values] == digests


def test_a_shared_object_is_not_two_equal_ones_and_a_circle_ends():
    shared, equal = [1.0], [1.0]
    assert digest_of([shared, shared]) != digest_of([shared, equal])
    circle: list[object] = [1]
    circle.append(circle)
    assert digest_of(circle) == digest_of(again(circle)) != digest_of([1, [1]])


def test_a_nesting_that_no_recursion_could_follow():
    deep: list[object] = []
    for _ in range(50_000):
        deep = [deep]
    assert digest_of(deep) != digest_of(deep[0])


def test_what_cannot_be_pickled_is_a_type_error(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(TypeError):
        digest_of({"open": file})
