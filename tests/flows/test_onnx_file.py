"""The ONNX file of a version: it answers as the model does, or is not there, and the reason is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flows_lab import examples, write_project

from core.batch_model import FittedModel
from core.project import Project
from flows.candidates import Candidate, defaults
from flows.card import onnx_file
from flows.card.trees import Trees, trees_of
from flows.examples import Examples, as_examples
from flows.fitting import fit

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'headrace[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'headrace[onnx]'")


def fitted(folder: Path, task: str, family: str = "gradient_boosting", **changes: Any) -> tuple[FittedModel, Examples]:
    project = write_project(folder, task, f"batch: {{trials: 1, candidates: [{family}]}}\n")
    chosen = defaults(project)[0]
    fewer = {"max_iter": 30} if family == "gradient_boosting" else {"n_estimators": 5} if family == "forest" else {}
    candidate = Candidate(family, 0, {**chosen.params, **fewer}, **changes)
    return fit(project, candidate, as_examples(examples(project), project.settings)), held_out(project)


def held_out(project: Project) -> Examples:
    """Rows with what training has not seen: a new category, and others that are missing."""
    rows = as_examples(examples(project, 1_500, seed=5), project.settings)
    rows.frame.loc[::7, "hub"] = "never seen"
    rows.frame.loc[::11, ["n0", "n2"]] = np.nan
    return rows


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_it_answers_as_the_model_does(tmp_path: Path, task: str):
    model, rows = fitted(tmp_path, task)
    said = onnx_file.export(model, rows, tmp_path)
    assert said.startswith("model.onnx: on 1,500 held-out rows it answers as the model does"), said
    made = onnx.load(tmp_path / onnx_file.FILE)
    assert [entry.name for entry in made.graph.input] == ["n0", "n1", "n2", "flag", "hub"]
    assert "TreeEnsemble" in {node.op_type for node in made.graph.node}


def test_one_of_a_model_that_does_without_features_does_too(tmp_path: Path):
    model, rows = fitted(tmp_path, "binary", without=("n1", "hub"))
    assert onnx_file.export(model, rows, tmp_path).startswith("model.onnx")


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path: Path):
    model, rows = fitted(tmp_path, "binary")

    class Moved:
        """The same model, but for its last step: what it answers does not follow from its trees."""

        classes_ = model.pipeline.classes_

        def predict_proba(self, frame: Any) -> Any:
            return model.pipeline.predict_proba(frame)[:, ::-1]

    trees = trees_of(model.pipeline)
    assert isinstance(trees, Trees)
    content = onnx_file.graph_of(model, trees)
    assert onnx_file.furthest(model, content, rows.frame) <= onnx_file.TOLERANCE
    assert onnx_file.furthest(FittedModel(Moved(), model.kinds, "binary"), content, rows.frame) > 0.1
    assert onnx_file.kept(content, 0.1, 1_500, tmp_path).startswith("not kept: it answers otherwise")
    assert onnx_file.kept(content, float("nan"), 1_500, tmp_path).startswith("not kept")
    assert not (tmp_path / onnx_file.FILE).exists()


@pytest.mark.parametrize("family", ["linear", "forest"])
def test_of_another_model_the_reason_is_said(tmp_path: Path, family: str):
    model, rows = fitted(tmp_path, "binary", family)
    said = onnx_file.export(model, rows, tmp_path)
    assert said.startswith("not written: headrace writes the graph of gradient_boosting only")
    assert not (tmp_path / onnx_file.FILE).exists()
