import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from core.metrics import METRICS, loss, score

pairs = st.lists(st.tuples(st.floats(0.001, 0.999), st.integers(0, 1)), min_size=2, max_size=30)


@given(pairs)
def test_binary_metrics_are_the_usual_ones(rows):
    chances, outcomes = map(list, zip(*rows, strict=True))
    found = score("binary", chances, outcomes)
    assert found["log_loss"] == pytest.approx(sk.log_loss(outcomes, chances, labels=[0, 1]))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(outcomes, [int(chance > 0.5) for chance in chances]))
    if len(set(outcomes)) < 2:
        assert found["roc_auc"] is None
    else:
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(outcomes, chances))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=30))
def test_multiclass_metrics_are_the_usual_ones(rows):
    chosen, outcomes = map(list, zip(*rows, strict=True))
    predictions = [{name: 0.8 if name == one else 0.1 for name in "abc"} for one in chosen]
    found = score("multiclass", predictions, outcomes)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(outcomes, chosen))
    assert found["log_loss"] == pytest.approx(
        sk.log_loss(outcomes, [list(p.values()) for p in predictions], labels=list("abc"))
    )
    if len(set(chosen) | set(outcomes)) > 1:
        assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(outcomes, chosen))
    else:
        assert found["kappa"] is None


def test_regression_metrics():
    assert score("regression", [1.0, 5.0], [1.0, 2.0]) == {"mae": 1.5, "rmse": pytest.approx(math.sqrt(4.5))}


@pytest.mark.parametrize("task", METRICS)
def test_without_rows_nothing_is_defined(task):
    assert score(task, [], []) == dict.fromkeys(METRICS[task])


def test_a_loss_is_never_infinite():
    assert loss(0.0, 1) == loss(1.0, 0) == loss({"a": 1.0}, "never seen") == pytest.approx(-math.log(1e-6))
    assert loss(1.0, 1) == 0.0
