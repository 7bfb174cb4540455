from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ProjectCodeError
from core.features import OTHER, FeatureError, FeatureFunction, Vocabulary, load_features
from core.project import load_project
from core.project_file import parse_settings
from core.settings import Settings

KINDS = {"n": "number", "c": "category", "b": "bool", "t": "text"}
GOOD = {"n": 1, "c": "x", "b": True, "t": "y"}


def test_what_the_function_returns_becomes_the_declared_types():
    made = FeatureFunction(lambda fields: {"n": np.float32(2), "c": 7, "b": np.bool_(False), "t": None}, KINDS)({}, 0)
    assert made == {"n": 2.0, "c": "7", "b": False, "t": None}
    assert [type(value) for value in made.values()] == [float, str, bool, type(None)]


def test_features_come_in_the_declared_order():
    assert list(FeatureFunction(lambda fields: dict(reversed(GOOD.items())), KINDS)({}, 0)) == list(KINDS)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        [],
        {},
        {**GOOD, "more": 1},
        {"n": 1, "c": "x", "b": True},
        {**GOOD, "n": float("nan")},
        {**GOOD, "n": float("-inf")},
        {**GOOD, "n": 1e300},
        {**GOOD, "n": 10**400},
        {**GOOD, "n": "1"},
        {**GOOD, "n": [1]},
        {**GOOD, "b": 2},
        {**GOOD, "b": "yes"},
        {**GOOD, "b": np.array([1, 0])},
    ],
)
def test_a_wrong_result_is_a_feature_error(returned):
    with pytest.raises(FeatureError):
        FeatureFunction(lambda fields: returned, KINDS)({}, 0)


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError(), RecursionError(), AttributeError("y")])
def test_whatever_the_function_raises_is_a_feature_error(error):
    def broken(fields):
        raise error

    with pytest.raises(FeatureError, match=type(error).__name__):
        FeatureFunction(broken, KINDS)({}, 0)


def test_the_function_cannot_change_the_events_fields():
    def greedy(fields):
        fields.clear()
        return {"n": 1.0}

    fields = {"x": 1.0}
    FeatureFunction(greedy, {"n": "number"})(fields, 0)
    assert fields == {"x": 1.0}


def project_with(tmp_path, code: str, settings: str = ""):
    (tmp_path / "features.py").write_text(code)
    (tmp_path / "headrace.yaml").write_text(
        f"{{name: {tmp_path.name.replace('_', '-')}, id: id, time: at, fields: {{x: number}}, label: y, "
        f"features: {{function: features.py:make, outputs: {{z: number}}}}{settings}}}"
    )
    return load_project(tmp_path, state=tmp_path / "state")


def test_a_function_may_take_the_time(tmp_path):
    made = load_features(project_with(tmp_path, "def make(fields, time):\n    return {'z': time + fields['x']}\n"))
    assert made({"x": 1.0}, 41) == {"z": 42.0}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("", "no function 'make'"),
        ("make = 3", "no function 'make'"),
        ("def make(: pass", "does not import"),
        ("import nowhere_to_be_found", "does not import"),
        ("def make(a, b, c): pass", "must take"),
        ("def make(): pass", "must take"),
    ],
)
def test_code_that_cannot_be_used_is_explained(tmp_path, code, problem):
    with pytest.raises(ProjectCodeError, match=problem):
        load_features(project_with(tmp_path, code))


def test_a_file_that_is_not_there_is_explained(tmp_path):
    project = project_with(tmp_path, "")
    for reference in ("nope.py:make", "features.py", "features"):
        with pytest.raises(ProjectCodeError, match=r"file\.py:function"):
            project.load_function(reference)


@given(st.lists(st.none() | st.text(max_size=2), max_size=60), st.integers(1, 5))
def test_a_vocabulary_never_grows_beyond_its_bound(values, bound):
    vocabulary = Vocabulary({"c": bound})
    given_out = [vocabulary.bound({"c": value})["c"] for value in values]
    first = list(dict.fromkeys(value for value in values if value is not None))[:bound]
    assert given_out == [value if value is None or value in first else OTHER for value in values]
    assert vocabulary.overflowed == given_out.count(OTHER) - sum(v == OTHER and v in first for v in values)


@given(st.lists(st.none() | st.text(max_size=2), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_categories_that_the_function_makes_are_bounded_apart_from_fields(values, bound, other_bound):
    both = Vocabulary({"c": bound}, {"c": other_bound})
    fields, features = Vocabulary({"c": bound}), Vocabulary({"c": other_bound})
    for value in values:
        assert both.bound({"c": value}) == fields.bound({"c": value})
        made = both.bound_features({"c": value and f"{value}!", "text": f"{value}"})
        assert made == {**features.bound({"c": value and f"{value}!"}), "text": f"{value}"}
    assert both.overflowed == fields.overflowed + features.overflowed


@pytest.mark.parametrize("value", ["x" * 257, "\ud800", "a\udfff"])
def test_a_category_that_no_field_could_have_is_a_feature_error(value):
    with pytest.raises(FeatureError, match=r"feature c: a str (is longer|has half)"):
        FeatureFunction(lambda fields: {**GOOD, "c": value}, KINDS)({}, 0)


def test_text_may_be_long_but_must_be_text():
    long = {**GOOD, "t": "x" * 5_000}
    assert FeatureFunction(lambda fields: long, KINDS)({}, 0)["t"] == long["t"]
    with pytest.raises(FeatureError, match="half a surrogate"):
        FeatureFunction(lambda fields: {**GOOD, "t": "\ud800"}, KINDS)({}, 0)


def settings_with(label: str, task: str = "multiclass") -> Settings:
    return parse_settings(f"{{name: a, task: {task}, id: id, time: at, fields: {{x: number}}, label: {label}}}")


def test_classes_are_learned_up_to_the_bound():
    vocabulary = Vocabulary.of(settings_with("{path: y, max_classes: 2, missing: none}"))
    assert [vocabulary.admits(name) for name in ("a", "b", "a", "none", "c")] == [True, False, True, True, False]


@pytest.mark.parametrize(
    ("label", "task"),
    [("{path: y, max_classes: 2, classes: [a, b, c]}", "multiclass"), ("{path: y, max_classes: 2}", "regression")],
)
def test_known_classes_and_numbers_are_not_counted(label, task):
    vocabulary = Vocabulary.of(settings_with(label, task))
    assert all(vocabulary.admits(outcome) for outcome in ("a", "b", "c", 1.5, 2.5))
