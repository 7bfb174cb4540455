"""The registered model as an ONNX file, kept only if it answers as the model does. The only onnx import.

``pip install 'headrace[onnx]'`` brings onnx and onnxruntime. headrace writes the graph of its gradient boosting itself:
skl2onnx converts none of its pipelines. What is written is then run by onnxruntime on the hold-out and compared; a file
that answers otherwise is not kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.batch_model import FittedModel, used_features
from core.setting_types import Kind
from flows.card.trees import Trees, codes_of, trees_of
from flows.examples import Examples
from flows.intervals import Array

if TYPE_CHECKING:
    import pandas as pd

FILE = "model.onnx"
TOLERANCE = 1e-9
"""How far an answer of the file may be from the model's, relative to 1 or to the answer itself."""

_ML, _OPSET, _ML_OPSET, _IR = "ai.onnx.ml", 17, 5, 10
_LEQ, _MEMBER = 0, 6
_log = logging.getLogger("headrace.retrain")


def export(model: FittedModel, rows: Examples, folder: Path) -> str:
    """Write ``model.onnx`` if it can be written and answers as the model does; return what came of it."""
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        return "not written: pip install 'headrace[onnx]' to have it with each version"
    try:
        trees = trees_of(model.pipeline)
        if isinstance(trees, str):
            return f"not written: {trees}"
        content = graph_of(model, trees)
        off = furthest(model, content, rows.frame)
    except Exception as error:  # noqa: BLE001  a converter meets models of others, and no version is lost for it
        _log.warning("no ONNX file: %s: %s", type(error).__name__, error)
        return f"not written: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return kept(content, off, len(rows), folder)


def kept(content: bytes, off: float, rows: int, folder: Path) -> str:
    """Keep the file if its answers are no further off than is allowed; return what came of it."""
    allowed = f"{TOLERANCE:g} is allowed"
    if not off <= TOLERANCE:
        return f"not kept: it answers otherwise on the hold-out, by up to {off:.2g} ({allowed})"
    (folder / FILE).write_bytes(content)
    return f"{FILE}: on {rows:,} held-out rows it answers as the model does, to {off:.2g} ({allowed})"


def furthest(model: FittedModel, content: bytes, frame: pd.DataFrame) -> float:
    """Return how far the file's answers are from the model's; infinity where one of them is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = used_features(model.kinds)
    found = session.run(None, {name: _fed(frame[name], kind) for name, kind in kinds.items()})[0]
    pipeline = model.pipeline
    wanted = pipeline.predict(frame)[:, None] if model.task == "regression" else pipeline.predict_proba(frame)
    off = np.abs(found - wanted) / np.maximum(np.abs(wanted), 1.0)
    return float(off.max(initial=0.0)) if np.isfinite(off).all() else float("inf")


def _fed(column: Any, kind: Kind) -> Any:
    values = column.to_numpy(dtype=object if kind == "category" else np.float64)
    return values.reshape(-1, 1)


def graph_of(model: FittedModel, trees: Trees) -> bytes:
    """Return the file's content: one input a feature, one row an event, and what the pipeline predicts of it."""
    from onnx import TensorProto, checker, helper

    kinds = used_features(model.kinds)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.STRING if kind == "category" else TensorProto.DOUBLE, [None, 1])
        for name, kind in kinds.items()
    ]
    nodes, columns = _coded(model, trees, kinds)
    nodes.append(helper.make_node("Concat", columns, ["matrix"], axis=1))
    nodes.append(helper.make_node("TreeEnsemble", ["matrix"], ["summed"], domain=_ML, **_attributes(trees)))
    nodes.append(helper.make_node("Add", ["summed", "baseline"], ["raw"]))
    nodes += _answer(model.task)
    constants = [_tensor("baseline", trees.baseline)]
    constants += [_tensor("one", np.ones(1))] if model.task == "binary" else []
    output = helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, [None, None])
    graph = helper.make_graph(nodes, "headrace", inputs, [output], constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_ML, _ML_OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="headrace")
    checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content


def _coded(model: FittedModel, trees: Trees, kinds: Mapping[str, Kind]) -> tuple[list[Any], list[str]]:
    """Return the nodes that turn categories into codes, and the columns of the matrix in the order of the trees'."""
    from onnx import TensorProto, helper

    nodes, columns = [], []
    for name in trees.columns:
        if kinds[name] != "category":
            columns.append(name)
            continue
        values, codes = codes_of(model.pipeline, name, kinds)
        keys = helper.make_tensor("keys", TensorProto.STRING, [len(values)], [value.encode() for value in values])
        node = helper.make_node(
            "LabelEncoder",
            [name],
            [f"{name}|code"],
            domain=_ML,
            keys_tensor=keys,
            values_tensor=_tensor("values", codes),
            default_tensor=_tensor("default", np.array([np.nan])),
        )
        nodes.append(node)
        columns.append(f"{name}|code")
    return nodes, columns


def _answer(task: str) -> list[Any]:
    """Return the nodes from the sum of the trees to what the pipeline predicts."""
    from onnx import helper

    if task == "regression":
        return [helper.make_node("Identity", ["raw"], ["prediction"])]
    if task == "multiclass":
        return [helper.make_node("Softmax", ["raw"], ["prediction"], axis=1)]
    return [
        helper.make_node("Sigmoid", ["raw"], ["chance"]),
        helper.make_node("Sub", ["one", "chance"], ["other"]),
        helper.make_node("Concat", ["other", "chance"], ["prediction"], axis=1),
    ]


def _attributes(trees: Trees) -> dict[str, Any]:
    modes = np.where(trees.by_category, _MEMBER, _LEQ).astype(np.uint8)
    return {
        "n_targets": trees.targets,
        "aggregate_function": 1,
        "post_transform": 0,
        "tree_roots": trees.roots,
        "nodes_featureids": trees.features,
        "nodes_modes": _tensor("modes", modes),
        "nodes_splits": _tensor("splits", np.array(trees.thresholds)),
        "nodes_truenodeids": trees.left,
        "nodes_trueleafs": trees.left_is_leaf,
        "nodes_falsenodeids": trees.right,
        "nodes_falseleafs": trees.right_is_leaf,
        "nodes_missing_value_tracks_true": trees.missing_left,
        "leaf_targetids": trees.leaf_targets,
        "leaf_weights": _tensor("weights", np.array(trees.leaf_values)),
        **({"membership_values": _tensor("members", np.array(trees.members))} if trees.members else {}),
    }


def _tensor(name: str, values: Array | np.ndarray[Any, Any]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ascontiguousarray(values), name)
