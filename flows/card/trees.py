"""The trees of a fitted gradient boosting as plain lists. Pure.

They are read from scikit-learn's own arrays, which are not its public interface: what is made of them is compared with
the model before it is kept (:mod:`flows.card.onnx_file`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.batch_model import feature_frame, used_features
from core.setting_types import Kind
from flows.intervals import Array

_BITS = 32


@dataclass(eq=False)
class Trees:
    """All trees, their inner nodes and leaves numbered through.

    Attributes
    ----------
    columns : list of str
        The features in the order in which the nodes number them.
    targets : int
        How many sums there are: one, or one a class.
    baseline : array of target
        What the sums begin with.
    roots : list of int
        The first node of each tree.
    features, thresholds, by_category, missing_left : list of node
        A row goes left where its feature is at most the threshold, or among the node's members.
    left, right, left_is_leaf, right_is_leaf : list of node
        Numbers of nodes, or of leaves.
    members : list of float
        The codes that go left, of each node by category, NaN after each.
    leaf_targets, leaf_values : list of leaf
    """

    columns: list[str]
    targets: int
    baseline: Array
    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    by_category: list[bool] = field(default_factory=list)
    missing_left: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    left_is_leaf: list[int] = field(default_factory=list)
    right_is_leaf: list[int] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    leaf_targets: list[int] = field(default_factory=list)
    leaf_values: list[float] = field(default_factory=list)


def trees_of(pipeline: Any) -> Trees | str:
    """Return the trees of headrace's gradient boosting; of another model, why there are none."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline

    known = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
    if not (isinstance(pipeline, Pipeline) and isinstance(pipeline.steps[-1][1], known)):
        last = pipeline.steps[-1][1] if isinstance(pipeline, Pipeline) else pipeline
        return f"headrace writes the graph of gradient_boosting only, not of {type(last).__name__}"
    model = pipeline.steps[-1][1]
    baseline = np.ravel(np.asarray(model._baseline_prediction, dtype=float))
    trees = Trees(_columns(pipeline), len(baseline), baseline)
    for iteration in model._predictors:
        for target, tree in enumerate(iteration):
            _add(trees, tree, target)
    return trees


def codes_of(pipeline: Any, name: str, kinds: Mapping[str, Kind]) -> tuple[list[str], Array]:
    """Return the values of a category that the pipeline knows, and the code by which its trees split each.

    What it does not know is missing to it.
    """
    names = [one for one, kind in used_features(kinds).items() if kind == "category"]
    prepared, model = pipeline.steps[0][1], pipeline.steps[-1][1]
    fitted = [one for one in names if one in _used(prepared)]
    values = [str(value) for value in prepared.named_transformers_["categories"].categories_[fitted.index(name)]]
    columns = {one: values if one == name else [None] * len(values) for one in used_features(kinds)}
    matrix = prepared.transform(feature_frame(columns, kinds))
    if model._preprocessor is not None:
        matrix = model._preprocessor.transform(matrix)
    return values, np.asarray(matrix, dtype=float)[:, _columns(pipeline).index(name)]


def _used(prepared: Any) -> list[str]:
    """Return the features in the order in which the first step of the pipeline hands them on."""
    return [str(name) for _, step, names in prepared.transformers_ for name in names if not _dropped(step)]


def _dropped(step: Any) -> bool:
    return isinstance(step, str) and step == "drop"


def _columns(pipeline: Any) -> list[str]:
    """Return the features in the order of the trees: categories come first there."""
    used, model = _used(pipeline.steps[0][1]), pipeline.steps[-1][1]
    if model._preprocessor is None:
        return used
    chosen = np.asarray(model.is_categorical_, dtype=bool)
    return [name for name, first in zip(used, chosen, strict=True) if first] + [
        name for name, first in zip(used, chosen, strict=True) if not first
    ]


def _add(trees: Trees, tree: Any, target: int) -> None:
    nodes = tree.nodes
    is_leaf = nodes["is_leaf"].astype(bool)
    places = np.where(
        is_leaf, len(trees.leaf_values) + np.cumsum(is_leaf) - 1, len(trees.features) + np.cumsum(~is_leaf) - 1
    )
    trees.leaf_values += nodes["value"][is_leaf].tolist()
    trees.leaf_targets += [target] * int(is_leaf.sum())
    if is_leaf[0]:  # a tree of one leaf still needs a node: both of its ways lead there
        _lone(trees, int(places[0]))
        return
    trees.roots.append(int(places[0]))
    for node in nodes[~is_leaf]:
        split = bool(node["is_categorical"])
        trees.features.append(int(node["feature_idx"]))
        trees.by_category.append(split)
        trees.thresholds.append(0.0 if split else float(node["num_threshold"]))
        trees.missing_left.append(int(node["missing_go_to_left"]))
        for side in ("left", "right"):
            child = int(node[side])
            getattr(trees, side).append(int(places[child]))
            getattr(trees, f"{side}_is_leaf").append(int(is_leaf[child]))
        if split:
            trees.members += [*_codes(tree.raw_left_cat_bitsets[int(node["bitset_idx"])]), math.nan]


def _lone(trees: Trees, leaf: int) -> None:
    trees.roots.append(len(trees.features))
    trees.features.append(0)
    trees.by_category.append(False)
    trees.thresholds.append(0.0)
    trees.missing_left.append(1)
    for side in ("left", "right"):
        getattr(trees, side).append(leaf)
        getattr(trees, f"{side}_is_leaf").append(1)


def _codes(bits: Any) -> list[float]:
    """Return the codes that are in a bit set.

    Examples
    --------
    >>> _codes([5, 1])
    [0.0, 2.0, 32.0]
    """
    return [float(_BITS * word + bit) for word, one in enumerate(bits) for bit in range(_BITS) if int(one) >> bit & 1]
