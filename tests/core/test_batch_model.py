"""A fitted pipeline as the champion: what it predicts, and that rows do not see their neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.batch_model import MISSING, FittedModel, feature_frame, used_features
from core.errors import RegistryError
from core.predictions import is_sane

KINDS = {"size": "number", "open": "bool", "hub": "category", "note": "text"}


def rows(count: int, seed: int = 0):
    draw = np.random.default_rng(seed)
    return [
        {"size": float(draw.normal()), "open": bool(draw.random() < 0.5), "hub": f"h{draw.integers(5)}", "note": "x"}
        for _ in range(count)
    ]


def fitted(task: str, outcomes) -> FittedModel:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    family = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    pipeline = Pipeline(
        [
            ("features", ColumnTransformer([("n", "passthrough", ["size", "open"]), ("c", codes, ["hub"])])),
            ("model", family(max_iter=10, learning_rate=0.5)),
        ]
    )
    known = rows(300)
    columns = {name: [row[name] for row in known] for name in KINDS}
    return FittedModel(pipeline.fit(feature_frame(columns, KINDS), np.array(outcomes(known))), KINDS, task)


@pytest.fixture(scope="module")
def binary() -> FittedModel:
    return fitted("binary", lambda known: [int(row["size"] > 0) for row in known])


def test_text_is_not_used_and_missing_values_have_one_form():
    assert list(used_features(KINDS)) == ["size", "open", "hub"]
    frame = feature_frame({"size": [None], "open": [None], "hub": [None], "note": ["x"]}, KINDS)
    assert math.isnan(frame["size"][0])
    assert math.isnan(frame["open"][0])
    assert frame["hub"][0] == MISSING
    assert "note" not in frame


def test_binary_predicts_the_probability_of_one(binary):
    low, high = binary.predict([{"size": -2.0, "hub": "h1"}, {"size": 2.0, "hub": "h1"}])
    assert 0.0 <= low < 0.2
    assert 0.8 < high <= 1.0


def test_multiclass_predicts_a_share_for_each_class():
    model = fitted("multiclass", lambda known: ["up" if row["size"] > 0 else "down" for row in known])
    (shares,) = model.predict([{"size": 2.0}])
    assert set(shares) == {"up", "down"}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["up"] > 0.8


def test_regression_predicts_a_number():
    model = fitted("regression", lambda known: [row["size"] for row in known])
    (value,) = model.predict([{"size": 1.0}])
    assert isinstance(value, float)
    assert value > 0.1


def test_no_rows_no_predictions(binary):
    assert binary.predict([]) == []


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 300), seed=st.integers(0, 1_000))
def test_a_row_is_predicted_the_same_alone_and_among_others(binary, count, seed):
    many = rows(count, seed)
    together = binary.predict(many)
    assert [binary.predict([row])[0] for row in many[:5]] == together[:5]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "size": st.none() | st.floats(allow_nan=True, allow_infinity=False),
                "open": st.none() | st.booleans(),
                "hub": st.none() | st.text(max_size=5),
            },
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_is_missing_or_unseen_the_prediction_is_finite(binary, odd):
    assert all(is_sane(prediction) for prediction in binary.predict(odd))


def test_a_pipeline_that_fails_is_a_registry_error(binary):
    with pytest.raises(RegistryError, match="model version 3"):
        FittedModel(object(), KINDS, "binary", 3).predict(rows(1))
