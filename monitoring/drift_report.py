"""Distances between a window and the reference, and the report of them. The only Evidently import."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import HeadraceError, StoreError
from core.loop_settings import DriftSettings
from core.setting_types import Kind, Task
from monitoring.columns import Column
from monitoring.comparison import LABEL, PREDICTION, DriftReport, compare_data, compare_labels
from monitoring.judgement import feature_limit, label_limit

if TYPE_CHECKING:
    import pandas as pd

WORKSPACE = "evidently"
"""Folder beside the reports that the Evidently UI opens."""


@dataclass(frozen=True)
class Run:
    """How a report is found in the workspace: its project, its window's name and stage, and when that was due."""

    project: str
    name: str
    stage: str
    due: datetime


def report_data(
    current: pa.Table,
    reference: pa.Table,
    *,
    kinds: Mapping[str, Kind],
    task: Task,
    drift: DriftSettings,
    sample: int,
    path: Path,
    run: Run | None = None,
) -> DriftReport:
    """Compare a window's features and served predictions with the reference's, and write the report.

    Parameters
    ----------
    path : Path
        Where the report goes, without suffix; the other parameters as in :func:`monitoring.comparison.compare_data`.
    run : Run, optional
        How the workspace beside the reports names it; left out, it is not put there.

    Raises
    ------
    StoreError
        If the files cannot be written.
    HeadraceError
        If Evidently fails.
    """
    compared = compare_data(current, reference, kinds=kinds, task=task, sample=sample)
    return compared.report(_report(compared.columns, drift, path, run, task=None), _html(path))


def report_labels(
    current: pa.Table,
    reference: pa.Table,
    *,
    task: Task,
    drift: DriftSettings,
    sample: int,
    path: Path,
    run: Run | None = None,
) -> DriftReport:
    """Compare a window's labels with the reference's, and report the served predictions' quality.

    Parameters and errors as in :func:`report_data`; columns as in the ``examples`` table.
    """
    compared = compare_labels(current, reference, task=task, sample=sample)
    quality = None if compared.skipped else task
    return compared.report(_report(compared.columns, drift, path, run, task=quality), _html(path))


def _report(
    columns: Mapping[str, Column], drift: DriftSettings, path: Path, run: Run | None, *, task: Task | None
) -> dict[str, float]:
    """Make and save the report; return the distance of each column that has a finite one."""
    if not columns:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            snapshot = _snapshot(columns, drift, task, run)
            content = _finite(json.loads(snapshot.json()))
            if run is not None and not _json(path).is_file():  # a window that is inspected again is there once
                _put_into_workspace(snapshot, run, path.parent / WORKSPACE)
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


def _put_into_workspace(snapshot: Any, run: Run, folder: Path) -> None:
    workspace = _workspace(folder)
    found = workspace.search_project(run.project)
    project = found[0] if found else workspace.create_project(run.project)
    workspace.add_run(project.id, snapshot)


@lru_cache(maxsize=1)
def _workspace(folder: Path) -> Any:
    """Open the workspace once a process: to open it, Evidently reads every report in it."""
    from evidently.ui.workspace import Workspace

    return Workspace.create(str(folder))


def _snapshot(columns: Mapping[str, Column], drift: DriftSettings, task: Task | None, run: Run | None) -> Any:
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
            threshold=feature_limit(drift),
        )
        metrics.insert(0, count)
    metrics.extend(_quality_metrics(task, columns))
    current, reference = (
        Dataset.from_pandas(_frame(columns, side), data_definition=definition) for side in ("current", "reference")
    )
    named = {} if run is None else {"timestamp": run.due, "name": run.name, "tags": [run.stage]}
    return Report(metrics, include_tests=False).run(current, reference, **named)


def _frame(columns: Mapping[str, Column], side: str) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: getattr(column, side) for name, column in columns.items()})


def _method(column: Column) -> str:
    return "wasserstein" if column.is_number else "jensenshannon"


def _threshold(name: str, drift: DriftSettings) -> float:
    special = {PREDICTION: drift.prediction_threshold, LABEL: label_limit(drift)}
    return special.get(name, feature_limit(drift))


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


def _json(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


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
    _replace(_json(path), json.dumps(content, allow_nan=False))
    _replace(_html(path), html)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
