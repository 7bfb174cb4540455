"""Data that something is planted in stops the flow before anything is fitted: the reason, the page, no promotion."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flows_lab import BATCH, DAYS, START, Toy, make_toy

from core.durations import DAY
from core.models import CHAMPION
from core.project import load_project
from core.registry import Registry
from flows import training

ROWS = 4_000
Planted = dict[str, list[Any]]


def times(table: pa.Table) -> Any:
    return np.array([int(time.timestamp() * 1000) for time in table["event_time"].to_pylist()])


def latest(table: pa.Table, days: float) -> Any:
    return times(table) >= START + (DAYS - days) * DAY


def honest(table: pa.Table) -> Planted:
    return {"f_n1": (60.0 + 8.0 * np.random.default_rng(1).normal(size=len(table))).tolist()}


def unit(table: pa.Table) -> Planted:
    fahrenheit = np.array(honest(table)["f_n1"])
    return {"f_n1": np.where(latest(table, 5), (fahrenheit - 32.0) / 1.8, fahrenheit).tolist()}


def still(table: pa.Table) -> Planted:
    return {"f_n2": np.where(latest(table, 8), 0.25, np.array(table["f_n2"].to_pylist())).tolist()}


def leak(table: pa.Table) -> Planted:
    noise = np.random.default_rng(1).normal(scale=0.1, size=len(table))
    return {"f_n2": (np.array(table["label"].to_pylist()) + noise).tolist()}


def absence(table: pa.Table) -> Planted:
    gone = np.random.default_rng(1).random(len(table)) < 0.2
    known = zip(table["f_n2"].to_pylist(), table["label"].to_pylist(), gone, strict=True)
    return {"f_n2": [None if label == 1 and lost else value for value, label, lost in known]}


def one_class(table: pa.Table) -> Planted:
    return {"label": [1] * len(table)}


def gone(table: pa.Table) -> Planted:
    return {"f_n2": np.where(latest(table, 8), None, np.array(table["f_n2"].to_pylist())).tolist()}


def impossible(table: pa.Table) -> Planted:
    return {"f_n2": [1e31, *table["f_n2"].to_pylist()[1:]]}


def plant(toy: Toy, columns: Planted) -> None:
    """Replace columns: the same ids, labelled a moment later, stay."""
    clocks = [clock + timedelta(seconds=1) for clock in toy.table["label_clock"].to_pylist()]
    table = toy.table
    for name, values in {**columns, "label_clock": clocks}.items():
        place, field = table.column_names.index(name), table.schema.field(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    toy.append(table)


@pytest.fixture
def never_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise AssertionError("fitted on data that should have been refused")

    monkeypatch.setattr(training, "search", unreachable)
    monkeypatch.setattr(training, "fit", unreachable)


def refused(toy: Toy) -> str:
    """Retrain, see that it was refused with a page and nothing promoted; return the reasons."""
    result = toy.retrain()
    assert result["outcome"] == "gated"
    assert toy.bodies("promotion") == []
    assert Registry(toy.project).alias(CHAMPION) is None
    (body,) = toy.bodies("retraining")
    assert not body["promoted"] and body["reasons"] == result["reasons"]
    page = toy.project.state / body["data"]["page"]
    text = page.read_text()
    assert "nothing is fitted or promoted" in text and "What to do is in the last column" in text
    checks = json.loads(page.with_suffix(".json").read_text())["checks"]
    failed = [check["sentence"] for check in checks if not check["passed"]]
    assert failed and all(any(said in reason for reason in result["reasons"]) for said in failed)
    return " ".join(result["reasons"])


@pytest.mark.parametrize(
    ("planted", "reason", "advice"),
    [
        (unit, "shift: n1 jumped at", "mend its source and the rows since, or allow it with validation.allow"),
        (still, "constant: n2 has one value in all", "does its source stand still? Mend it, or allow it"),
        (gone, "missing: n2 is missing in 100.0%", "mend its source, leave it out of the features, or allow it"),
        (leak, "leak: n2 alone predicts the label", "Leave it out of the features, or allow it"),
        (absence, "absence: where n2 is missing", "Leave it out of the features, or allow it"),
        (one_class, "every label is 1", "is it what label in the project file should read"),
        (impossible, "schema: 1 of", "correct the rows or the project file"),
    ],
)
@pytest.mark.usefixtures("never_fitted")
def test_what_is_planted_stops_the_flow_with_its_reason_and_what_to_do(
    tmp_path: Path, planted: Callable[[pa.Table], Planted], reason: str, advice: str
):
    toy = make_toy(tmp_path, rows=ROWS, extra=BATCH + "validation: {max_duplicates: 1}\n")
    plant(toy, {**honest(toy.table), **planted(toy.table)})
    said = refused(toy)
    assert reason in said and advice in said


@pytest.mark.usefixtures("never_fitted")
def test_ids_that_came_again_stop_the_flow(tmp_path: Path):
    toy = make_toy(tmp_path, rows=ROWS)
    whole = toy.table
    toy.append(whole.slice(0, ROWS // 4))
    toy.table = whole
    said = refused(toy)
    assert "duplicates: 1,000 of 5,000 labelled rows" in said and "does id name each event once?" in said


@pytest.mark.usefixtures("never_fitted")
def test_a_field_that_got_another_type_stops_the_flow(tmp_path: Path):
    toy = make_toy(tmp_path, rows=ROWS)
    file = toy.project.folder / "headrace.yaml"
    file.write_text(file.read_text().replace("hub: category", "hub: number"))
    toy.project = load_project(toy.project.folder, state=toy.project.state)
    said = refused(toy)
    assert "another type in the columns f_hub: give a field of a new type a new name" in said


def test_a_feature_that_never_varied_and_a_world_that_changed_are_promoted_with_a_warning(tmp_path: Path):
    toy = make_toy(tmp_path, rows=ROWS, extra=BATCH + "validation: {max_duplicates: 1}\n")
    moved = np.where(latest(toy.table, 5), 24.0, 0.0) + np.array(honest(toy.table)["f_n1"])
    plant(toy, {"f_n1": moved.tolist(), "f_n2": [1.0] * ROWS})
    assert toy.retrain()["outcome"] == "promoted"
    checks = toy.bodies("retraining")[0]["data"]["checks"]
    (warning,) = [check for check in checks if check["verdict"] == "warning"]
    assert warning["name"] == "constant" and "n2 has one value" in warning["sentence"]
