"""Distances between a window and the reference, and the report of them. The only Evidently import.

Distances, not tests: with thousands of rows a test's verdict is "drifted" for any difference.
Numbers get the Wasserstein distance in standard deviations of the reference, categories the
Jensen-Shannon distance (0 to 0.83). Missing values count: a category of their own, and for numbers
the Jensen-Shannon distance of "is missing", so that a column that goes silent is seen.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import HeadraceError, StoreError
from core.settings import DriftSettings, Kind, Task
from core.tables import feature_column, prediction_column
from monitoring.columns import Column, label_column, missing_flag, prepare, served_column, take_sample

if TYPE_CHECKING:
    import pandas as pd

PREDICTION = "served prediction"
LABEL = "true label"


@dataclass(frozen=True)
class DriftReport:
    """What a report found.

    Attributes
    ----------
    features : dict of str to float
        Each compared feature's distance.
    prediction, label : float or None
        Distance of the served predictions, of the labels; None where not compared.
    skipped : dict of str to str
        Columns that could not be compared, and why.
    html : Path or None
        The report; its JSON has the same name with another suffix. None if nothing was compared.
    """

    features: dict[str, float] = field(default_factory=dict)
    prediction: float | None = None
    label: float | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    html: Path | None = None


def report_data(
    current: pa.Table,
    reference: pa.Table,
    *,
    kinds: Mapping[str, Kind],
    task: Task,
    drift: DriftSettings,
    sample: int,
    path: Path,
) -> DriftReport:
    """Compare a window's features and served predictions with the reference's.

    Parameters
    ----------
    current, reference : pyarrow.Table
        Columns as in the ``predictions`` table; a column that is not there is skipped.
    kinds : mapping
        Each feature's type; text is not compared.
    sample : int
        Rows of each that are compared at most, chosen by a hash of the id.
    path : Path
        Where the report goes, without suffix.

    Raises
    ------
    StoreError
        If the files cannot be written.
    HeadraceError
        If Evidently fails.
    """
    current, reference = take_sample(current, sample), take_sample(reference, sample)
    pairs = {
        name: prepare(current, reference, feature_column(name), "number" if kind == "number" else "category")
        for name, kind in kinds.items()
        if kind != "text"
    }
    pairs[PREDICTION] = served_column(current, reference, prediction_column("served"), task)
    columns, skipped = _comparable(pairs)
    flags = {name: flag for name in kinds if (flag := missing_flag(name, pairs.get(name))) is not None}
    columns |= {flag.name: flag for flag in flags.values()}
    found = _run(columns, drift, path, task=None)
    features = {
        name: max(found.get(name, 0.0), found.get(flags[name].name, 0.0) if name in flags else 0.0)
        for name in kinds
        if name in found or (name in flags and flags[name].name in found)
    }
    skipped = {name: why for name, why in skipped.items() if name not in features}
    return DriftReport(features, found.get(PREDICTION), None, skipped, _html(path) if columns else None)


def report_labels(
    current: pa.Table, reference: pa.Table, *, task: Task, drift: DriftSettings, sample: int, path: Path
) -> DriftReport:
    """Compare a window's labels with the reference's, and report the served predictions' quality.

    Parameters and errors as in :func:`report_data`; columns as in the ``examples`` table.
    """
    current, reference = (take_sample(_labelled(side), sample) for side in (current, reference))
    pairs = {
        LABEL: label_column(current, reference, task),
        PREDICTION: served_column(current, reference, prediction_column("served"), task),
    }
    columns, skipped = _comparable(pairs)
    quality = task if len(columns) == len(pairs) else None
    found = _run(columns, drift, path, task=quality)
    return DriftReport({}, None, found.get(LABEL), skipped, _html(path) if columns else None)


def _labelled(table: pa.Table) -> pa.Table:
    """Return the rows that have both a label and a served prediction."""
    for column in ("label", prediction_column("served")):
        if column in table.column_names:
            table = table.filter(pc.is_valid(table[column]))
    return table


def _comparable(pairs: Mapping[str, Column | str]) -> tuple[dict[str, Column], dict[str, str]]:
    columns = {name: pair for name, pair in pairs.items() if isinstance(pair, Column) and pair.has_values}
    skipped = {name: pair for name, pair in pairs.items() if isinstance(pair, str)}
    empty = {name: "has no value on one side" for name in pairs if name not in columns and name not in skipped}
    return columns, skipped | empty


def _run(columns: Mapping[str, Column], drift: DriftSettings, path: Path, *, task: Task | None) -> dict[str, float]:
    """Make and save the report; return the distance of each column that has a finite one."""
    if not columns:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            snapshot = _snapshot(columns, drift, task)
            content = _finite(json.loads(snapshot.json()))
            _save(path, _slim(snapshot.get_html_str(as_iframe=False), path.parent), content)
    except OSError as error:
        raise StoreError(f"drift report {path}: cannot be written: {error}") from error
    except Exception as error:
        raise HeadraceError(
            f"drift report {path.name}: cannot be made: {type(error).__name__}: {error}; "
            "the window's rows are in the tables, please report this with them"
        ) from error
    values = {
        metric["config"]["column"]: metric["value"]
        for metric in content["metrics"]
        if metric["config"]["type"].endswith(":ValueDrift")
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def _snapshot(columns: Mapping[str, Column], drift: DriftSettings, task: Task | None) -> Any:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import DriftedColumnsCount, ValueDrift

    numbers = [name for name, column in columns.items() if column.is_number]
    categories = [name for name in columns if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories, **_quality_definition(task))
    metrics: list[Any] = [
        ValueDrift(column=name, method=_method(column), threshold=_threshold(name, drift))
        for name, column in columns.items()
    ]
    if features := [name for name in columns if name not in (PREDICTION, LABEL)]:
        count = DriftedColumnsCount(
            columns=features,
            drift_share=min(drift.feature_share, 1.0),
            num_method="wasserstein",
            cat_method="jensenshannon",
            threshold=drift.feature_threshold,
        )
        metrics.insert(0, count)
    metrics.extend(_quality_metrics(task, columns))
    current, reference = (
        Dataset.from_pandas(_frame(columns, side), data_definition=definition) for side in ("current", "reference")
    )
    return Report(metrics, include_tests=False).run(current, reference)


def _frame(columns: Mapping[str, Column], side: str) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: getattr(column, side) for name, column in columns.items()})


def _method(column: Column) -> str:
    return "wasserstein" if column.is_number else "jensenshannon"


def _threshold(name: str, drift: DriftSettings) -> float:
    special = {PREDICTION: drift.prediction_threshold, LABEL: drift.label_threshold}
    return special.get(name, drift.feature_threshold)


def _quality_definition(task: Task | None) -> dict[str, Any]:
    from evidently import BinaryClassification, MulticlassClassification, Regression

    if task == "binary":
        kind = BinaryClassification(target=LABEL, prediction_probas=PREDICTION, pos_label="1")
        return {"classification": [kind]}
    if task == "multiclass":
        return {"classification": [MulticlassClassification(target=LABEL, prediction_labels=PREDICTION)]}
    if task == "regression":
        return {"regression": [Regression(target=LABEL, prediction=PREDICTION)]}
    return {}


def _quality_metrics(task: Task | None, columns: Mapping[str, Column]) -> list[Any]:
    """Return Evidently's quality metrics that are defined for these rows."""
    from evidently.metrics import MAE, RMSE, Accuracy, LogLoss, MeanError, RocAuc

    if task is None:
        return []
    if task == "regression":
        return [MAE(), RMSE(), MeanError()]
    sides = [set(columns[LABEL].current), set(columns[LABEL].reference)]
    if task == "multiclass":  # Evidently takes two classes for a binary target and fails
        return [Accuracy()] if min(len(side) for side in sides) > 2 else []
    return [Accuracy(), RocAuc(), LogLoss()] if all(len(side) == 2 for side in sides) else []


def _finite(value: Any) -> Any:
    """Replace what JSON cannot hold by null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _html(path: Path) -> Path:
    return path.with_name(f"{path.name}.html")


def _slim(html: str, folder: Path) -> str:
    """Keep Evidently's 4 MB of JavaScript once a folder instead of once a report."""
    import evidently

    script = (Path(evidently.__path__[0]) / "nbextension" / "static" / "index.js").read_text(encoding="utf-8")
    name = f"evidently-{evidently.__version__}.js"
    if f"<script>{script}</script>" not in html:
        return html
    if not (folder / name).is_file():
        _replace(folder / name, script)
    return html.replace(f"<script>{script}</script>", f'<script src="{name}"></script>')


def _save(path: Path, html: str, content: dict[str, Any]) -> None:
    _replace(path.with_name(f"{path.name}.json"), json.dumps(content, allow_nan=False))
    _replace(_html(path), html)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
