"""A recorded fit, done again: in another folder, after maintenance, and what is said where it is not the same."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from flows_lab import DAYS, START, Toy, examples, later, make_toy, write_project
from hypothesis import given
from hypothesis import strategies as st

from core.audit import Ledger
from core.durations import DAY
from core.errors import CannotReproduceError, UsageError
from core.project import Project, load_project
from core.registry import Registry
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES, corrections_schema
from flows.digests import predictions_digest, rows_digest, sample
from flows.examples import DataVersion, as_examples, read_examples
from flows.recipe import Recipe
from flows.reproduction import Recorded, recorded, reproduce
from flows.upkeep import maintain_tables, release_pins


def find(project: Project, run: str, connect=Registry) -> Recorded:
    with closing(Ledger(project.ledger)) as ledger:
        return recorded(project, ledger, run, connect)


def no_registry(_project: Project) -> Registry:
    raise AssertionError("the ledger knows it")


def corrected(toy: Toy) -> None:
    """Put another label in place of ten."""
    rows = toy.table.slice(100, 10)
    other = [1 - label for label in rows["label"].to_pylist()]
    table = rows.select(["id", "label", "label_time", "label_clock"]).set_column(1, "label", pa.array(other))
    toy.store.append(CORRECTIONS, table.cast(corrections_schema(toy.project.settings)), app="test", sequence=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Two fits, with a window in quarantine, corrections, and rows that came later: version 1, and one gated out."""
    extra = "batch: {trials: 1, histories: [0.5]}\ngates: {max_relative_loss: 0.0001}\n"
    toy = make_toy(tmp_path_factory.mktemp("trained") / "project", extra=extra)
    corrected(toy)
    span = [START + 5 * DAY, START + 7 * DAY]
    toy.ledger.record("quarantine", "w1", event_time=toy.now - 1, body={"span": span})
    assert toy.retrain("r1")["outcome"] == "promoted"
    toy.append(later(toy.project))
    assert toy.retrain("r2", "drift")["outcome"] == "gated"
    return toy


def test_a_version_is_the_same_to_the_bit_in_another_folder_after_maintenance(trained: Toy, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(trained.project.folder, folder)
    copy = load_project(folder, state=folder / "state")
    with closing(Ledger(copy.ledger)) as ledger:
        store = TableStore(copy.tables)
        store.append(EXAMPLES, examples(copy, 300, seed=9, start=START + (DAYS + 20) * DAY), app="test", sequence=99)
        release_pins(ledger, 1)
        maintain_tables(store, ledger, 0)
    found = find(copy, "1", no_registry)
    done = reproduce(copy, TableStore(copy.tables), found.recipe)
    assert done.equal
    assert done.rows == done.rows_then
    # somebody may be at work on headrace while its tests run
    assert [line for line in done.differences if not line.startswith("headrace:")] == []
    assert found.recipe.left_out == [(START + 5 * DAY, START + 7 * DAY)]


def test_a_challenger_that_was_gated_out_is_the_same_too(trained: Toy):
    run = trained.bodies("retraining")[1]["mlflow_run"]
    found = find(trained.project, run, no_registry)
    assert found.version is None
    assert found.recipe.held_out_from is not None
    assert reproduce(trained.project, trained.store, found.recipe).equal


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_each_task_and_family_is_the_same_to_the_bit(tmp_path: Path, task: str):
    toy = make_toy(tmp_path, task, extra="batch: {trials: 1, candidates: [forest]}\n")
    toy.retrain()
    assert reproduce(toy.project, toy.store, find(toy.project, "1").recipe).equal


def test_what_is_written_down_with_a_fit(trained: Toy):
    recipe = find(trained.project, "1").recipe
    version = Registry(trained.project).versions()[0]
    assert version.tags["rows_digest"] == recipe.rows_digest
    assert version.tags["ledger_head"] in trained.ledger.verify().hashes
    assert set(recipe.made_with["project"]) == {"headrace.yaml"}
    assert {"python", "numpy", "scikit-learn"} <= set(recipe.made_with["libraries"])
    (promotion,) = trained.bodies("promotion")
    assert promotion["aliases"] == {"before": {}, "after": {"champion": 1}}
    assert promotion["approved"] == {"by": "gates", "why": None}
    assert promotion["rows_digest"] == recipe.rows_digest
    assert Recipe.from_json(json.loads(json.dumps(recipe.as_json()))) == recipe


def test_another_state_folder_finds_the_recipe_in_mlflow(trained: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.project.tracking_uri)
    elsewhere = load_project(trained.project.folder, state=tmp_path / "other")
    run = trained.bodies("retraining")[0]["mlflow_run"]
    assert find(elsewhere, "1").recipe == find(elsewhere, run).recipe == find(trained.project, "1", no_registry).recipe


def test_a_changed_project_file_is_said_and_the_settings_of_then_are_used(trained: Toy, tmp_path: Path):
    folder = tmp_path / "project"
    shutil.copytree(trained.project.folder, folder)
    text = (folder / "headrace.yaml").read_text().replace("trials: 1", "trials: 3, seed: 7, candidates: [forest]")
    (folder / "headrace.yaml").write_text(text.replace("horizon: 2d", "horizon: 1d"))
    changed = load_project(folder, state=folder / "state")
    done = reproduce(changed, TableStore(changed.tables), find(changed, "1").recipe)
    assert done.equal
    said = "\n".join(done.differences)
    assert "project.headrace.yaml" in said
    assert "settings.batch.seed: was 20130101, is 7" in said


def test_other_rows_are_not_equal(trained: Toy):
    recipe = find(trained.project, "1").recipe
    fewer = replace(recipe, until=recipe.until - 5 * DAY)
    done = reproduce(trained.project, trained.store, fewer)
    assert (done.equal, done.same_rows, done.same_predictions) == (False, False, False)
    assert done.rows < done.rows_then


def test_another_seed_or_library_is_not_equal_and_is_named(tmp_path: Path):
    toy = make_toy(tmp_path, extra="batch: {trials: 1, candidates: [forest]}\n")
    toy.retrain()
    recipe = find(toy.project, "1").recipe
    batch = {**recipe.settings["batch"], "seed": 5}
    made = {**recipe.made_with, "libraries": {**recipe.made_with["libraries"], "scikit-learn": "0.1"}}
    done = reproduce(
        toy.project, toy.store, replace(recipe, settings={**recipe.settings, "batch": batch}, made_with=made)
    )
    assert (done.same_rows, done.same_predictions) == (True, False)
    assert any(line.startswith("libraries.scikit-learn: was 0.1") for line in done.differences)


def test_rows_that_are_gone_are_said(tmp_path: Path):
    toy = make_toy(tmp_path)
    toy.retrain()
    toy.append(later(toy.project))
    toy.ledger.unpin("model-1")
    maintain_tables(toy.store, toy.ledger, 0)
    with pytest.raises(CannotReproduceError, match=r"not there any more.*retrain\.reproducible"):
        reproduce(toy.project, toy.store, find(toy.project, "1").recipe)


def test_a_run_that_nobody_knows_is_said(trained: Toy):
    with pytest.raises(UsageError, match="no version 7; there are 1"):
        find(trained.project, "7")
    with pytest.raises(UsageError, match="neither in the ledger nor in MLflow"):
        find(trained.project, "0" * 32)
    with pytest.raises(UsageError, match="neither in the ledger nor in MLflow"):
        find(trained.project, "../x")


def test_a_run_of_another_project_is_said(trained: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.project.tracking_uri)
    other = write_project(tmp_path, "regression")
    run = trained.bodies("retraining")[0]["mlflow_run"]
    with pytest.raises(UsageError, match="is of project 'toy-binary'"):
        find(other, run)


def test_a_fit_that_was_never_made_is_said(trained: Toy):
    body = {"request": "old", "version": 9, "mlflow_run": "old", "recipe": None}
    trained.ledger.record("retraining", "old/1", event_time=0, body=body)
    with pytest.raises(CannotReproduceError, match="nothing was written down"):
        find(trained.project, "old")


def test_the_digest_of_rows_does_not_depend_on_how_they_lie_in_the_files(trained: Toy):
    rows = as_examples(trained.table, trained.project.settings)
    pieces = pa.concat_tables([trained.table.slice(0, 7), trained.table.slice(7)])
    assert rows_digest(as_examples(pieces, trained.project.settings)) == rows_digest(rows)
    shuffled = trained.table.take(pa.array(np.random.default_rng(1).permutation(len(rows))))
    trained.store.append("shuffled", shuffled, app="test", sequence=1)

    class Shuffled:
        def read(self, _table: str, **kwargs):
            return trained.store.read("shuffled", where=kwargs["where"])

    read = read_examples(Shuffled(), DataVersion(0, None), trained.project.settings, trained.now)
    assert rows_digest(read) == rows_digest(rows)


@given(st.data())
def test_one_changed_value_is_another_digest(trained: Toy, data: st.DataObject):
    table = trained.table.slice(0, 20)
    name = data.draw(st.sampled_from(["id", "event_time", "label_clock", "f_n0", "f_n1", "f_flag", "f_hub", "label"]))
    values = table[name].to_pylist()
    first, second = data.draw(st.tuples(st.integers(0, 19), st.integers(0, 19)))
    values[first], values[second] = values[second], values[first]
    changed = table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))
    settings = trained.project.settings
    same = values == table[name].to_pylist()
    assert (rows_digest(as_examples(changed, settings)) == rows_digest(as_examples(table, settings))) == same


@given(st.lists(st.floats(0, 1), min_size=1), st.data())
def test_one_changed_prediction_is_another_digest(predictions: list[float], data: st.DataObject):
    place = data.draw(st.integers(0, len(predictions) - 1))
    other = [*predictions[:place], float(np.nextafter(predictions[place], 2.0)), *predictions[place + 1 :]]
    assert predictions_digest(other) != predictions_digest(predictions)
    assert predictions_digest(list(predictions)) == predictions_digest(predictions)


@given(st.integers(1, 9_000), st.integers(1, 3_000))
def test_a_sample_is_spread_over_all_rows(rows: int, at_most: int):
    found = sample(rows, at_most)
    assert found[0] == 0
    assert len(found) == min(rows, at_most)
    assert at_most == 1 or found[-1] == rows - 1
