from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.loop_settings import DriftSettings
from monitoring.columns import take_sample
from monitoring.comparison import compare_data, compare_labels
from monitoring.distances import distances
from monitoring.drift_report import WORKSPACE, Run, report_data, report_labels

KINDS = {"speed": "number", "colour": "category", "wet": "bool", "note": "text"}
DRIFT = DriftSettings(feature_threshold=0.25, prediction_threshold=0.2, label_threshold=0.2, quality_drop=0.1)


def make(rows: int, *, shift: float = 0.0, task: str = "binary", seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    chance = random.beta(2, 2 + 3 * shift, rows)
    hit = random.uniform(size=rows) < chance
    served = pa.array(chance)
    label = pa.array(hit.astype("int64"))
    if task == "multiclass":
        shares = [[("a", p / 2), ("b", p / 2 + 0.01), ("c", 1 - p)] for p in chance.tolist()]
        served = pa.array(shares, pa.map_(pa.string(), pa.float64()))
        label = pa.array(random.choice(["a", "b", "c"], rows, p=[0.3 + shift / 5, 0.3, 0.4 - shift / 5]))
    if task == "regression":
        label = pa.array(chance + shift)
    return pa.table(
        {
            "id": [f"{seed}-{row}" for row in range(rows)],
            "f_speed": random.normal(50 + 10 * shift, 10, rows),
            "f_colour": random.choice(["red", "blue"], rows, p=[0.5 + shift / 3, 0.5 - shift / 3]),
            "f_wet": random.uniform(size=rows) < 0.2 + shift / 3,
            "f_note": ["text"] * rows,
            "p_served": served,
            "label": label,
        }
    )


def data(current: pa.Table, reference: pa.Table, path: Path, **more):
    options = {"kinds": KINDS, "task": "binary", "drift": DRIFT, "sample": 1_000, "path": path, **more}
    return report_data(current, reference, **options)


def test_a_stationary_window_is_near_and_a_shifted_one_is_far(tmp_path):
    same = data(make(3_000, seed=1), make(3_000), tmp_path / "same")
    moved = data(make(3_000, shift=1.0, seed=1), make(3_000), tmp_path / "moved")
    assert set(same.features) == {"speed", "colour", "wet"}
    assert max(*same.features.values(), same.prediction) < 0.12
    assert min(*moved.features.values(), moved.prediction) > 0.2
    assert 0.85 < moved.features["speed"] < 1.15
    assert same.skipped == {}
    content = json.loads((tmp_path / "moved.json").read_text())
    values = [m["value"] for m in content["metrics"] if m["config"].get("column") == "speed"]
    assert values == [moved.features["speed"]]
    assert moved.html.read_text().count("drawDashboard") == 1
    assert moved.html.stat().st_size < 1_500_000
    assert len(list(tmp_path.glob("evidently-*.js"))) == 1
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(("task", "metric"), [("binary", "LogLoss"), ("multiclass", "Accuracy"), ("regression", "MAE")])
def test_labels_and_quality_are_reported_for_each_task(tmp_path, task, metric):
    common = {"task": task, "drift": DRIFT, "sample": 1_000}
    same = report_labels(make(1_500, seed=1, task=task), make(1_500, task=task), path=tmp_path / "a", **common)
    shift = 1.4
    moved = report_labels(
        make(1_500, seed=1, task=task, shift=shift), make(1_500, task=task), path=tmp_path / "b", **common
    )
    assert same.label < 0.1 < moved.label
    kinds = [m["config"]["type"] for m in json.loads((tmp_path / "a.json").read_text())["metrics"]]
    assert any(kind.endswith(f":{metric}") for kind in kinds)


def test_multiclass_predictions_are_compared_by_their_most_likely_class(tmp_path):
    report = data(make(500, task="multiclass"), make(500, task="multiclass"), tmp_path / "a", task="multiclass")
    assert report.prediction == 0.0


def _hostile_numbers(rows: int) -> dict[str, pa.Array]:
    random = np.random.default_rng(7)
    half = rows // 2
    return {
        "null": pa.nulls(rows, pa.float64()),
        "constant": pa.array([5.0] * rows),
        "infinite": pa.array([float("inf"), float("nan")] * half),
        "huge": pa.array([1e300, -1e308] * half),
        "tiny": pa.array(random.normal(0, 1e-7, rows)),
        "subnormal": pa.array([5e-324] * (rows - 1) + [0.0]),
        "one": pa.array([None] * (rows - 1) + [3.0], pa.float64()),
        "halved": pa.array([None, 1.0] * half, pa.float64()),
        "normal": pa.array(random.normal(0, 1, rows)),
    }


def _hostile_categories(rows: int) -> dict[str, pa.Array]:
    half = rows // 2
    return {
        "null": pa.nulls(rows, pa.string()),
        "empty": pa.array([""] * rows),
        "unique": pa.array([f"u{row}" for row in range(rows)]),
        "markup": pa.array(["</script><script>alert(1)</script>", "\u0000☃"] * half),
        "long": pa.array(["x" * 10_000, "nan"] * half),
    }


@pytest.mark.parametrize(("kind", "columns"), [("number", _hostile_numbers(40)), ("category", _hostile_categories(40))])
def test_every_pairing_of_hostile_columns_gets_a_finite_distance(tmp_path, kind, columns):
    served = pa.array(np.linspace(0, 1, 40))
    pairs = {f"{a}_{b}": (columns[a], columns[b]) for a, b in product(columns, columns)}
    current = pa.table({"p_served": served} | {f"f_{name}": pair[0] for name, pair in pairs.items()})
    reference = pa.table({"p_served": served} | {f"f_{name}": pair[1] for name, pair in pairs.items()})
    report = data(current, reference, tmp_path / "hostile", kinds=dict.fromkeys(pairs, kind))
    assert set(report.features) == set(pairs)
    assert all(np.isfinite(distance) for distance in report.features.values())
    assert all(report.features[f"{name}_{name}"] == pytest.approx(0, abs=1e-9) for name in columns)
    assert all(report.features[f"null_{name}"] > 0.25 for name in columns if name not in ("null", "infinite", "one"))
    assert "<script>alert" not in report.html.read_text()


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tiny_windows_and_infinite_thresholds_do_not_crash(tmp_path, rows):
    endless = DriftSettings(
        feature_threshold=float("inf"), prediction_threshold=float("inf"), feature_share=float("inf")
    )
    report = data(make(rows), make(50), tmp_path / "a", drift=endless)
    labels = report_labels(make(rows), make(50), task="binary", drift=endless, sample=10, path=tmp_path / "b")
    assert (report.prediction is None) == (rows == 0)
    assert (labels.label is None) == (rows == 0)
    assert (report.html is None) == (rows == 0)


def test_a_column_that_the_reference_does_not_have_is_skipped_and_named(tmp_path):
    report = data(make(50), make(50).drop_columns(["f_speed"]), tmp_path / "a")
    assert report.skipped == {"speed": "is not in the reference"}
    assert "speed" not in report.features


def test_unseen_categories_are_far(tmp_path):
    strange = make(300).set_column(2, "f_colour", pa.array(["green"] * 300))
    assert data(strange, make(300), tmp_path / "a").features["colour"] == pytest.approx(0.8326, abs=1e-3)


def test_a_number_that_goes_missing_is_far(tmp_path):
    half = pa.array([None, 50.0] * 150, pa.float64())
    silent = make(300).set_column(1, "f_speed", half)
    full = make(300).set_column(1, "f_speed", pa.array([50.0] * 300))
    assert data(silent, full, tmp_path / "a").features["speed"] > 0.4


def test_a_small_scale_is_compared_like_a_large_one(tmp_path):
    def scaled(table: pa.Table) -> pa.Table:
        return table.set_column(1, "f_speed", pa.array(table["f_speed"].to_numpy() * 1e-8))

    current, reference = make(500, shift=0.5, seed=1), make(500)
    small = data(scaled(current), scaled(reference), tmp_path / "a").features["speed"]
    assert small == pytest.approx(data(current, reference, tmp_path / "b").features["speed"], rel=1e-3)


def test_the_sample_is_the_same_rows_whatever_their_order():
    table = make(500)
    shuffled = table.take(np.random.default_rng(0).permutation(500))
    assert set(take_sample(table, 50)["id"].to_pylist()) == set(take_sample(shuffled, 50)["id"].to_pylist())
    assert take_sample(table.drop_columns(["id"]), 50).num_rows == 50
    assert take_sample(table, 500) is table


def test_importing_monitoring_is_cheap_and_telemetry_is_off():
    names = "'evidently', 'pandas', 'prefect', 'mlflow', 'kafka', 'river'"
    code = f"import sys, monitoring.monitor; print([name for name in ({names}) if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
    assert os.environ.get("DO_NOT_TRACK")


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_distances_without_a_report_are_those_of_the_report(tmp_path, task, shift):
    current, reference = make(1_500, shift=shift, seed=1, task=task), make(2_000, task=task)
    holes = pa.array([None if row % 7 == 0 else value for row, value in enumerate(current["f_speed"].to_pylist())])
    current = current.set_column(current.column_names.index("f_speed"), "f_speed", holes)
    common = {"task": task, "sample": 1_000}
    reported = data(current, reference, tmp_path / "data", task=task)
    compared = compare_data(current, reference, kinds=KINDS, **common)
    ours = compared.report(distances(compared.columns), reported.html)
    assert ours.features == pytest.approx(reported.features, rel=1e-9)
    assert ours.prediction == pytest.approx(reported.prediction, rel=1e-9)
    assert (ours.skipped, ours.html) == (reported.skipped, reported.html)

    labels = report_labels(current, reference, path=tmp_path / "labels", drift=DRIFT, **common)
    found = compare_labels(current, reference, **common)
    assert distances(found.columns)["true label"] == pytest.approx(labels.label, rel=1e-9)


def test_the_workspace_has_each_window_once(tmp_path):
    from evidently.ui.workspace import Workspace

    due = datetime(2013, 1, 8, tzinfo=UTC)
    for _ in range(2):
        for stage, report in (("data", data), ("labels", labels)):
            report(make(600, seed=1), make(600), tmp_path / f"w1_{stage}", run=Run("shop", f"w1_{stage}", stage, due))
    workspace = Workspace(str(tmp_path / WORKSPACE))
    (project,) = workspace.search_project("shop")
    runs = [workspace.get_run(project.id, number) for number in workspace.list_runs(project.id)]
    assert sorted((run.name, run.timestamp) for run in runs) == [("w1_data", due), ("w1_labels", due)]


def labels(current: pa.Table, reference: pa.Table, path: Path, **more):
    return report_labels(current, reference, task="binary", drift=DRIFT, sample=1_000, path=path, **more)
