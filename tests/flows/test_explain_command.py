"""``headrace explain``: an event that is there, one that is not, one that was erased; and what its numbers are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from flows_lab import BATCH, Toy, examples, make_toy

import headrace
from core.batch_model import MISSING
from core.project import Project, load_project
from core.registry import Registry
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, predictions_schema
from flows.contributions import occlusion, typical_row
from flows.examples import as_frame
from flows.explanation import contributions_of, find_event
from flows.shapley import is_installed, shapley

ID = "1700000000000-7"
needs_shap = pytest.mark.skipif(not is_installed(), reason="shap is not installed: pip install 'headrace[explain]'")


def with_steps(table: pa.Table) -> pa.Table:
    steps = pa.array(np.arange(len(table)), pa.int64())
    for name in ("step", "label_step"):
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), table.schema.field(name), steps)
    parts = pa.array(np.zeros(len(table), dtype=np.int32))
    return table.set_column(table.column_names.index("partition"), table.schema.field("partition"), parts)


def predicted(project: Project, table: pa.Table, version: int) -> pa.Table:
    """Return the rows as the worker would have written them when that version predicted them."""
    model = Registry(project).load(version)
    answers = model.predict_frame(as_frame(table, project.settings))
    columns = {name: table[name] for name in predictions_schema(project.settings).names}
    columns["champion_version"] = pa.array([version] * len(table), pa.int32())
    columns["p_champion"] = columns["p_served"] = pa.array(answers, pa.float64())
    return pa.table(columns, schema=predictions_schema(project.settings))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    made = make_toy(tmp_path_factory.mktemp("project"), extra=BATCH)
    made.table = with_steps(made.table)
    made.store.rewrite(EXAMPLES, lambda _: made.table)
    assert made.retrain("r1")["outcome"] == "promoted"
    rows = predicted(made.project, made.table.slice(0, 50), 1)
    made.store.append(PREDICTIONS, rows, app="test", sequence=1)
    return made


def run(monkeypatch: pytest.MonkeyPatch, toy: Toy, *arguments: object) -> int:
    monkeypatch.setenv("HEADRACE_STATE", str(toy.project.state))
    monkeypatch.setattr(sys, "argv", ["headrace", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        headrace.main()
    return int(ended.value.code or 0)


def test_an_event_is_explained_by_the_version_that_predicted_it(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "why.json"
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", ID, "--json", file) == 0
    said, found = capsys.readouterr().err, json.loads(file.read_text())
    row = toy.table.slice(7, 1).to_pylist()[0]
    assert (found["id"], found["version"], found["champion"], found["label"]) == (ID, 1, 1, row["label"])
    assert found["as_then"] is True
    assert found["prediction"] == found["predicted"]
    values = {one["feature"]: one["value"] for one in found["features"]}
    assert values == {name: row[f"f_{name}"] for name in ("n0", "n1", "n2", "flag", "hub")}
    largest = [abs(one["contribution"]) for one in found["features"]]
    assert largest == sorted(largest, reverse=True)
    total = found["base"] + sum(one["contribution"] for one in found["features"]) + found["rest"]
    assert total == pytest.approx(found["prediction"])
    assert found["method"] == ("shap" if is_installed() else "occlusion")
    assert "(the same)" in said
    assert ("they add up" if is_installed() else "pip install 'headrace[explain]'") in said


def test_an_ingested_example_is_explained_by_the_version_that_one_names(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    late = "1700000000000-900"
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", late) == 2
    assert "say with --version which one to ask" in capsys.readouterr().err
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", late, "--version", 1, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["champion"], found["as_then"]) == (1, None, None)


def test_an_unknown_id_is_said_to_be_unknown(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", "nobody") == 2
    assert "no event of that id is in the tables" in capsys.readouterr().err


def test_an_erased_id_is_said_to_be_erased(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gone = "1700000000000-8"
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", gone) == 0
    run(monkeypatch, toy, "erase", toy.project.folder, "--id", gone, "--wait", 0, "--who", "ada")
    capsys.readouterr()
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", gone) == 2
    said = capsys.readouterr().err
    assert "was erased at" in said
    assert "by ada" in said
    run(monkeypatch, toy, "erase", toy.project.folder, "--id", gone, "--wait", 0, "--who", "bob")
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", gone) == 2
    assert "by ada" in capsys.readouterr().err, "who found nothing any more did not erase it"
    run(monkeypatch, toy, "erase", toy.project.folder, "--id", "never-there", "--wait", 0)
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", "never-there") == 2
    assert "was erased" not in capsys.readouterr().err.splitlines()[-1]
    assert run(monkeypatch, toy, "erase", toy.project.folder, "--id", "") == 2


def test_an_unknown_version_is_told_with_those_that_there_are(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, toy, "explain", toy.project.folder, "--id", ID, "--version", 9) == 2
    assert "has no version 9; there are 1" in capsys.readouterr().err


def test_of_several_rows_the_latest_is_taken_and_its_label_too(tmp_path: Path):
    project = load_project(make_toy(tmp_path / "project").project.folder, state=tmp_path / "project" / "state")
    store = TableStore(project.tables)
    table = examples(project, 20, start=1_800_000_000_000)
    again = table.set_column(0, "id", pa.array([ID] * 20))
    store.append(EXAMPLES, again, app="test", sequence=9)
    found = find_event(store, ID)
    assert found is not None
    assert found.rows == 21
    assert found.event_time == max(int(at.timestamp() * 1000) for at in again["event_time"].to_pylist())
    assert found.label in (0, 1)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_planted_feature_did_most_and_noise_nearly_nothing(tmp_path: Path, task: str):
    toy = make_toy(tmp_path / "project", task)
    from flows.candidates import defaults
    from flows.examples import as_examples
    from flows.fitting import fit

    rows = as_examples(toy.table, toy.project.settings)
    model = fit(toy.project, defaults(toy.project)[0], rows)
    at = int(np.argmin(rows.frame["n0"]))
    found = contributions_of(model, rows.frame.iloc[[at]].reset_index(drop=True), rows.frame, toy.project.settings)
    did = {one.feature: one.contribution for one in found.features}
    assert abs(did["n0"]) > 5 * abs(did["n2"])
    assert found.of == {"binary": "1", "multiclass": "low", "regression": None}[task]


def test_what_is_missing_is_compared_with_what_is_typical():
    reference = pd.DataFrame({"n": [1.0, 2.0, 9.0], "hub": pd.Series(["a", MISSING, "a"], dtype=object)})
    typical = typical_row(reference, {"n": "number", "hub": "category"})
    row = pd.DataFrame({"n": [np.nan], "hub": pd.Series([MISSING], dtype=object)})

    def ask(frame: pd.DataFrame) -> Any:
        return frame["n"].isna().to_numpy() + 10.0 * (frame["hub"] == MISSING).to_numpy()

    prediction, base, moved = occlusion(ask, row, typical)
    assert (prediction, base, moved.tolist()) == (11.0, 0.0, [1.0, 10.0])


@needs_shap
def test_shapley_values_add_up_and_share_what_features_do_together():
    background = pd.DataFrame({"a": [0.0] * 30, "b": [0.0] * 30, "c": np.linspace(0, 1, 30)})
    row = pd.DataFrame({"a": [2.0], "b": [3.0], "c": [0.5]})
    prediction, base, moved = shapley(lambda frame: (frame["a"] * frame["b"]).to_numpy(), row, background, 1)
    assert (prediction, base) == (6.0, 0.0)
    assert moved.tolist() == pytest.approx([3.0, 3.0, 0.0])
