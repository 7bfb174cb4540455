"""Features that a batch model owes nothing to are left out of it; those that it needs stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from flows_lab import examples, write_project

from core.project import Project
from flows.examples import Examples, as_examples
from flows.fitting import fit
from flows.importance import importance
from flows.search import search
from flows.selection import NOTHING, selectable
from flows.trials import described

USEFUL, NOISE = "n0_x_n1", "n1_x_n2"
PAIRS = "features: {interactions: [[n0, n1], [n1, n2]]}\n"
TREES = "candidates: [{family: gradient_boosting, params: {max_iter: 60, max_features: 1.0}}]"


def write(folder: Path, task: str = "binary", select: str = "generated", rows: int = 1_500) -> tuple[Project, Examples]:
    """A project with two interactions: one says most about the label, the other nothing."""
    batch = f"batch: {{trials: 1, histories: [], select: {select}, {TREES}}}\n"
    project = write_project(folder, task, PAIRS + batch)
    table, draw = examples(project, rows), np.random.default_rng(1)
    labels = {"low": -1.0, "mid": 0.0, "high": 1.0}
    signal = [labels.get(label, label) for label in table["label"].to_pylist()]
    for name, values in ((USEFUL, np.array(signal) + draw.normal(0, 0.6, rows)), (NOISE, draw.normal(size=rows))):
        table = table.set_column(table.column_names.index(f"f_{name}"), f"f_{name}", pa.array(values, pa.float64()))
    return project, as_examples(table, project.settings)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_generated_feature_that_says_nothing_is_left_out_and_one_that_does_stays(tmp_path: Path, task: str):
    project, rows = write(tmp_path, task)
    best = search(project, rows).best
    assert tuple(best.candidate.without) == (NOISE,)
    model = fit(project, best.candidate, rows)
    changed = rows.frame.assign(**{NOISE: 1e9})
    assert model.predict_frame(changed) == model.predict_frame(rows.frame), "the model does not look at it"
    assert model.predict_frame(rows.frame.assign(**{USEFUL: 0.0})) != model.predict_frame(rows.frame)


def test_it_is_left_out_only_if_the_loss_without_it_is_no_higher(tmp_path: Path):
    project, rows = write(tmp_path)
    found = search(project, rows)
    full, fewer = found.trials[0], found.trials[-1]
    assert described(full)["without"] == []
    assert described(fewer)["without"] == [NOISE]
    assert (found.best is fewer) == (fewer.loss <= (1 + NOTHING) * full.loss)


@pytest.mark.parametrize(("select", "may_go"), [("none", set()), ("all", {"n1", "n2", NOISE, "flag", "hub", "n0"})])
def test_which_features_may_go_is_a_setting(tmp_path: Path, select: str, may_go: set[str]):
    project, rows = write(tmp_path, select=select)
    without = set(search(project, rows).best.candidate.without)
    assert without <= may_go
    assert bool(without) == bool(may_go)


def test_a_project_without_generated_features_tries_nothing_more(tmp_path: Path):
    project = write_project(tmp_path, "binary", f"batch: {{trials: 1, histories: [], {TREES}}}\n")
    assert selectable(project.settings) == []
    rows = as_examples(examples(project, 800), project.settings)
    assert [len(trial.candidate.without) for trial in search(project, rows).trials] == [0]


def test_what_is_shuffled_costs_what_the_model_owes_to_it(tmp_path: Path):
    project, rows = write(tmp_path)
    half = np.arange(len(rows)) < len(rows) // 2
    model = fit(project, search(project, rows).trials[0].candidate, rows.take(half))
    found = importance(model, rows.take(~half), [USEFUL, NOISE], seed=3, repeats=4)
    assert [len(rise) for rise in found.rises.values()] == [4, 4]
    assert max(found.rises[NOISE]) < 0.1 * min(found.rises[USEFUL])
    assert importance(model, rows.take(~half), [USEFUL, NOISE], seed=3, repeats=4) == found, "the same seed"
    assert importance(model, rows.take(np.array([], dtype=int)), [USEFUL], seed=3) is None
