"""What a project file may say of families and their spaces, and what it is told where that makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from core.project_file import parse_settings
from core.search_settings import SpaceSettings
from core.settings import Settings

HEAD = "name: shop\nid: id\ntime: at\nfields: {x: number}\nlabel: paid\n"


def candidates(text: str) -> Settings:
    return parse_settings(f"{HEAD}batch:\n  candidates:\n  - linear\n  - {text}\n")


def test_a_name_alone_and_a_space_of_ones_own():
    own = "{family: forest, space: {max_depth: [4, null], max_features: {low: 0, high: 1}}, params: {n_estimators: 30}}"
    with pytest.raises(SettingsError, match=r"max_features.low: input should be greater than 0"):
        candidates(own)
    linear, forest = candidates(own.replace("low: 0", "low: 0.1")).batch.candidates
    assert (linear.family, linear.space, linear.params) == ("linear", {}, {})
    assert forest.space["max_depth"].choices == [4, None]
    assert (forest.space["max_features"].low, forest.space["max_features"].high) == (0.1, 1.0)
    assert forest.params == {"n_estimators": 30}


def test_settings_read_back_are_the_same():
    settings = candidates(
        "{family: gradient_boosting, space: {max_iter: {low: 5, high: 9}, max_leaf_nodes: [4, null]}}"
    )
    assert Settings.model_validate(settings.model_dump()) == settings
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_whole_numbers_are_whole_only_where_the_parameter_is():
    found = candidates(
        "{family: gradient_boosting, space: {max_iter: {low: 5, high: 9}, l2_regularization: {low: 0, high: 9}}}"
    ).batch.candidates[1]
    assert found.space["max_iter"].whole
    assert not found.space["l2_regularization"].whole


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("boosting", ["'boosting' is not known", "gradient_boosting, linear, forest or file.py:function"]),
        ("linear", ["'linear' is there twice", "one entry"]),
        ("3", ["3 is no family", "write a family's name"]),
        ("{space: {max_depth: [3]}}", ["family: is missing"]),
        ("{family: forest, space: {depth: [3]}}", ["space.depth", "did you mean 'max_depth'"]),
        ("{family: forest, space: {colour: [3]}}", ["space.colour", "known here: n_estimators, max_depth"]),
        ("{family: forest, params: {colour: 3}}", ["params.colour", "known here: n_estimators, max_depth"]),
        ("{family: forest, space: {max_depth: 3}}", ["max_depth is one value", "params"]),
        ("{family: forest, space: {max_depth: []}}", ["max_depth.choices", "give at least 1"]),
        ("{family: forest, space: {max_depth: {low: 3}}}", ["max_depth", "needs both ends", "{low: 1, high: 100}"]),
        ("{family: forest, space: {max_depth: {low: 3, hihg: 4}}}", ["max_depth.hihg", "did you mean 'high'"]),
        ("{family: forest, space: {max_depth: {low: 9, high: 4}}}", ["max_depth", "low 9 is above high 4", "swap"]),
        ("{family: forest, space: {max_depth: {low: 3, high: 4, choices: [3]}}}", ["max_depth", "keep one"]),
        ("{family: forest, space: {max_depth: {low: 3, high: .inf}}}", ["max_depth", "must be finite"]),
        ("{family: forest, space: {max_depth: {low: 3.5, high: 9}}}", ["space.max_depth.low", "valid integer"]),
        (
            "{family: forest, space: {max_depth: {low: 3.0, high: 9}}}",
            ["space.max_depth.low", "valid integer", "got 3.0"],
        ),
        ("{family: forest, space: {max_depth: [3, 0]}}", ["space.max_depth[1]", "greater than or equal to 1", "got 0"]),
        ("{family: forest, params: {max_features: half}}", ["params.max_features", "'sqrt' or 'log2'", "got 'half'"]),
        ("{family: forest, params: {max_depth: 3}, space: {max_depth: [3]}}", ["max_depth is in space and in params"]),
        (
            "{family: gradient_boosting, space: {learning_rate: {low: 0, high: 1, log: true}}}",
            ["learning_rate", "low above 0"],
        ),
        ("{family: gradient_boosting, params: {learning_rate: 1e-3}}", ["params.learning_rate", "write 0.001"]),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_with_key_and_fix(entry: str, said: list[str]):
    with pytest.raises(SettingsError) as refused:
        candidates(entry)
    text = str(refused.value)
    assert "batch.candidates" in text
    assert all(part in text for part in said), text
    assert text.splitlines()[0].split(":")[1] in {"7", "9"}


numbers = st.floats(-1e6, 1e6) | st.integers(-1_000_000, 1_000_000)


@given(numbers, numbers, st.none() | numbers | st.sampled_from(["sqrt", True]))
def test_the_nearest_value_is_in_the_space_and_is_the_value_itself_where_that_is(one, other, value):
    space = SpaceSettings(low=min(one, other), high=max(one, other))
    nearest = space.nearest(value)
    assert space.low <= nearest <= space.high
    if not isinstance(value, str | bool | None) and space.low <= value <= space.high and not space.whole:
        assert nearest == value


def test_the_middle_of_ratios_is_their_mean():
    assert SpaceSettings(low=1, high=100, log=True).nearest(None) == 10
    assert SpaceSettings(choices=["a", "b"]).nearest(None) == "a"
    assert SpaceSettings(choices=[1, 2]).nearest(True) == 1
