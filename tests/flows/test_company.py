from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flows_lab import examples, write_project
from hypothesis import given
from hypothesis import strategies as st

from core.metrics import score
from core.predictions import Prediction
from core.tables import prediction_column
from flows.company import Company, mixture_losses
from flows.examples import as_examples
from flows.search import search

TASKS = ("binary", "multiclass", "regression")
chances = st.floats(0.001, 0.999)


@given(st.lists(st.tuples(chances, chances, st.integers(0, 1)), min_size=1, max_size=20))
def test_the_ends_of_the_mixtures_are_the_two_alone(rows: list[tuple[float, float, int]]):
    own, online, truth = (list(column) for column in zip(*rows, strict=True))
    losses = mixture_losses("binary", own, online, truth)
    assert losses[0] == pytest.approx(score("binary", online, truth)["log_loss"])
    assert losses[-1] == pytest.approx(score("binary", own, truth)["log_loss"])


@given(st.lists(st.tuples(chances, chances, st.integers(0, 1)), min_size=1, max_size=20))
def test_two_classes_by_name_are_a_binary_label(rows: list[tuple[float, float, int]]):
    own, online, truth = (list(column) for column in zip(*rows, strict=True))

    def named(values: list[float]) -> list[Prediction]:
        return [{"no": 1.0 - value, "yes": value} for value in values]

    by_name = mixture_losses("multiclass", named(own), named(online), ["yes" if one else "no" for one in truth])
    assert by_name == pytest.approx(mixture_losses("binary", own, online, truth))


def test_a_class_that_only_one_of_them_knows_can_be_mixed():
    losses = mixture_losses("multiclass", [{"a": 0.5, "b": 0.5}], [{"a": 1.0}], ["b"])
    assert losses[0] == pytest.approx(-np.log(1e-4), rel=1e-3)
    assert losses[-1] == pytest.approx(np.log(2.0), rel=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_what_the_online_experts_say_already_adds_nothing(tmp_path: Path, task: str):
    """An echo of them is better by itself, and worth less than a poorer model that knows something else."""
    project = write_project(tmp_path, task)
    rows = as_examples(often_mistaken(examples(project, rows=1_200), "p_linear"), project.settings)
    company = Company(project.settings, rows)

    def mixed(predictions: list[Prediction]) -> float:
        found, own = company.loss(predictions), score(task, predictions, rows.outcomes)
        assert found is not None
        return (found - 0.1 * own["mae" if task == "regression" else "log_loss"]) / 0.9

    nothing = mixed([trivial_like(task, rows.outcomes)] * len(rows))
    echo = [value for value in rows.predictions("linear") if value is not None]
    assert mixed(echo) == pytest.approx(nothing, rel=0.15)
    assert mixed(knowing(task, rows.outcomes)) < 0.9 * nothing


def often_mistaken(table: pa.Table, column: str) -> pa.Table:
    """Let an expert, which is always right though timid, say in 40 % of the rows what it says of another."""
    said, draw = table[column].to_pylist(), np.random.default_rng(4)
    said = [said[draw.integers(len(said))] if draw.random() < 0.4 else own for own in said]
    at = table.column_names.index(column)
    return table.set_column(at, table.schema.field(at), pa.array(said, table.schema.field(at).type))


def trivial_like(task: str, outcomes: list[Any]) -> Prediction:
    if task == "regression":
        return float(np.median(outcomes))
    if task == "binary":
        return 0.5
    return dict.fromkeys(("low", "mid", "high"), 1 / 3)


def knowing(task: str, outcomes: list[Any]) -> list[Prediction]:
    """Predictions that are right on every other row, and say nothing on the others."""
    flat = trivial_like(task, outcomes)
    if task == "regression":
        right: list[Prediction] = [float(one) for one in outcomes]
    elif task == "binary":
        right = [0.9 if one else 0.1 for one in outcomes]
    else:
        right = [{name: 0.9 if name == one else 0.05 for name in ("low", "mid", "high")} for one in outcomes]
    return [value if row % 2 else flat for row, value in enumerate(right)]


@pytest.mark.parametrize("task", TASKS)
def test_without_online_predictions_the_own_loss_counts(tmp_path: Path, task: str):
    project = write_project(tmp_path, task)
    table = examples(project, rows=400)
    for expert in project.settings.online:
        at = table.column_names.index(prediction_column(expert.name))
        table = table.set_column(at, table.schema.field(at), pa.nulls(len(table), table.schema.field(at).type))
    rows = as_examples(table, project.settings)
    predictions = knowing(task, rows.outcomes)
    own = score(project.settings.task, predictions, rows.outcomes)
    assert Company(project.settings, rows).loss(predictions) == own["mae" if task == "regression" else "log_loss"]


MODELS = """
from sklearn.base import BaseEstimator, ClassifierMixin

class _Fixed(ClassifierMixin, BaseEstimator):
    def fit(self, rows, outcomes):
        self.classes_ = __import__("numpy").array([0, 1])
        return self

class Echo(_Fixed):
    def predict_proba(self, rows):
        chance = (0.5 + 0.13 * (1.5 * rows["n0"] - 0.9)).clip(0.1, 0.9)
        return __import__("numpy").column_stack([1 - chance, chance])

class Other(_Fixed):
    def predict_proba(self, rows):
        number = rows["hub"].astype(str).str.extract(r"(\\d+)")[0].astype(float).fillna(6)
        chance = (0.5 + 0.13 * (1.2 * rows["n0"] - 0.3 * number + 0.8 + 1.0 * rows["n2"])).clip(0.1, 0.9)
        return __import__("numpy").column_stack([1 - chance, chance])

def echo(task, kinds, draw):
    return Echo()

def other(task, kinds, draw):
    return Other()
"""


def test_the_search_takes_what_adds_most_to_the_blend_not_what_is_best_alone(tmp_path: Path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "models.py").write_text(MODELS, encoding="utf-8")
    project = write_project(folder, "binary", 'batch: {trials: 1, candidates: ["models.py:echo", "models.py:other"]}\n')
    table = examples(project, rows=4_000)
    chance = np.clip(0.5 + 0.13 * (1.5 * table["f_n0"].to_numpy() - 0.9), 0.1, 0.9)
    at = table.column_names.index(prediction_column("linear"))
    table = table.set_column(at, table.schema.field(at), pa.array(chance))
    found = search(project, as_examples(table, project.settings))
    alone = {trial.candidate.family: trial.loss for trial in found.trials if trial.candidate.start is None}
    assert alone["models.py:echo"] < alone["models.py:other"], "the echo is the better model"
    assert found.best.candidate.family == "models.py:other"
