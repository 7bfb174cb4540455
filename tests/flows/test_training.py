"""A whole retraining without Prefect: from the tables to the alias, for each task."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flows_lab import BATCH, Toy, examples, later, make_toy

from core.durations import DAY
from core.models import CHAMPION, PREVIOUS
from core.project import load_project
from core.registry import Registry
from core.tables import CORRECTIONS, PREDICTIONS, corrections_schema, predictions_schema
from flows import training
from flows.lease import find
from monitoring.reference import load_reference


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_bootstrap_then_a_second_retraining_against_the_champion(tmp_path: Path, task: str):
    toy = make_toy(tmp_path, task, extra="batch: {trials: 1}\ngates: {max_relative_loss: 1.05}\n")
    assert toy.retrain("r1")["outcome"] == "promoted"
    toy.append(later(toy.project))
    second = toy.retrain("r2", "drift")
    assert second["outcome"] == "promoted", second["reasons"]

    registry = Registry(toy.project)
    assert [registry.alias(name).version for name in (CHAMPION, PREVIOUS)] == [2, 1]
    first, then = toy.bodies("retraining")
    assert first["promoted"]
    assert "bootstrap" in first["reasons"][0]
    assert (then["trigger"], then["table_version"], then["version"]) == ("drift", 1, 2)
    assert {"champion", "challenger", "baseline", "blend_with_champion"} <= set(then["metrics"])
    assert [body["previous"] for body in toy.bodies("promotion")] == [None, 1]
    assert [entry["name"] for entry in toy.bodies("gate")[1]["results"]] == [
        "labels",
        "parity",
        "rows",
        "finite",
        "blend",
        "alone",
        *([] if task == "regression" else ["skill"]),
        "slices",
        "calibration",
        "latency",
        "size",
        "servable",
    ]
    assert [request.status for request in toy.ledger.requests()] == ["promoted", "promoted"]


def test_what_is_kept_of_a_promotion(toy: Toy):
    toy.retrain()
    version = Registry(toy.project).alias(CHAMPION)
    folder = toy.project.state / "references"
    about = json.loads((folder / "1.json").read_text())
    kept = pq.read_table(folder / "1.parquet")
    assert about["rows"] == len(kept) == version.number("rows")
    assert about["data_cut"] == version.number("data_cut")
    assert set(about["validation"]) == {"loss", "served_loss", "skill"}
    assert {"f_n0", "f_hub", "p_served", "label", "event_time"} <= set(kept.column_names)
    assert "p_linear" not in kept.column_names
    assert version.number("effective_at") == toy.ledger.requests()[0].effective_at
    assert toy.ledger.pinned("examples") == [0]
    assert {"code_version", "trigger", "data_from", "digest", "request"} <= set(version.tags)


def test_the_usual_volume_counts_events_whether_labelled_or_not(toy: Toy):
    labelled, settings = toy.table, toy.project.settings
    rest = examples(toy.project, 6_000, seed=3).select(predictions_schema(settings).names)
    columns = labelled.select(rest.column_names)
    toy.store.append(PREDICTIONS, pa.concat_tables([columns, rest]), app="test", sequence=1)
    toy.retrain()
    known = load_reference(toy.project.state / "references", 1)
    assert known.trained_rows <= 2_000
    assert known.volume is not None
    assert known.volume.expects(0, 40 * DAY) == pytest.approx(8_000, rel=0.05)


def test_a_reference_of_before_says_nothing_of_volume(toy: Toy):
    toy.retrain()
    about = toy.project.state / "references" / "1.json"
    assert load_reference(about.parent, 1).volume is None, "there is no table of predictions"
    stamp = json.loads(about.read_text())
    del stamp["volume"]
    about.write_text(json.dumps(stamp))
    assert load_reference(about.parent, 1).volume is None


def test_the_same_seed_finds_the_same_model(tmp_path: Path):
    found = []
    for name in ("one", "two"):
        toy = make_toy(tmp_path / name, extra="batch: {trials: 2}\n")
        toy.retrain()
        model = Registry(toy.project).load(1)
        found.append((toy.bodies("retraining")[0]["metrics"], model.predict([{"n0": 0.3, "hub": "h2"}])))
    assert found[0] == found[1]


def test_a_challenger_that_is_not_better_is_gated_and_the_champion_stays(tmp_path: Path):
    strict = BATCH + "gates: {max_relative_loss: 0.0001}\n"
    toy = make_toy(tmp_path, extra=strict)
    assert toy.retrain("r1")["outcome"] == "promoted"
    toy.append(later(toy.project))
    second = toy.retrain("r2", "drift")
    assert second["outcome"] == "gated"
    assert second["reasons"][0].startswith("blend:")
    assert second["mlflow_run"]
    assert Registry(toy.project).alias(CHAMPION).version == 1
    assert find(toy.ledger, "r2").status == "gated"
    assert not toy.bodies("gate")[1]["passed"]


def test_a_hold_out_that_the_champion_has_seen_is_not_used(toy: Toy):
    toy.retrain("r1")
    second = toy.retrain("r2", "manual")
    assert second["outcome"] == "gated"
    assert second["reasons"] == [
        "rows: 0 untouched rows on which all predicted, 200 are needed (gates.min_holdout_rows)"
    ]


def test_a_champion_that_cannot_be_loaded_blocks_promotion(toy: Toy):
    toy.retrain("r1")
    (model,) = (toy.project.state / "mlflow-artifacts").rglob("model.pkl")
    model.write_bytes(model.read_bytes() + b"x")
    toy.append(later(toy.project))
    second = toy.retrain("r2", "drift")
    assert second["outcome"] == "gated"
    assert "changed after registration" in second["reasons"][0]


def test_an_alias_that_is_gone_blocks_promotion_and_is_no_second_bootstrap(toy: Toy):
    toy.retrain("r1")
    registry = Registry(toy.project)
    registry._client.delete_registered_model_alias(toy.project.settings.name, CHAMPION)
    toy.append(later(toy.project))
    assert "is gone" in toy.retrain("r2", "drift")["reasons"][0]


def test_too_little_data_is_gated_with_the_reason(tmp_path: Path):
    toy = make_toy(tmp_path, rows=100)
    assert toy.retrain()["reasons"] == ["100 labelled examples, 300 are needed (retrain.min_examples)"]
    assert toy.bodies("retraining")[0]["promoted"] is False
    assert toy.ledger.pinned("examples") == []


def test_the_latest_correction_replaces_a_label_once_it_is_known(toy: Toy):
    row = toy.table.slice(10, 1).to_pylist()[0]
    clock = row["label_clock"]
    wrong = [
        {"id": row["id"], "label": label, "label_time": clock, "label_clock": clock.replace(year=clock.year + after)}
        for label, after in ((1 - row["label"], 1), (row["label"], 0))
    ]
    toy.store.append(
        CORRECTIONS, pa.Table.from_pylist(wrong, schema=corrections_schema(toy.project.settings)), app="t", sequence=1
    )
    from flows.examples import DataVersion, read_examples

    def label(until: int):
        found = read_examples(toy.store, DataVersion(0, 0), toy.project.settings, until)
        position = found.table["id"].to_pylist().index(row["id"])
        return found.outcomes[position], int(found.label_clock[position])

    year = 366 * DAY
    assert label(toy.now)[0] == row["label"]
    assert label(toy.now + year)[0] == 1 - row["label"]
    assert label(toy.now + year)[1] > toy.now


def test_rows_with_one_id_are_one_example(toy: Toy):
    from flows.examples import DataVersion, read_examples

    toy.append(toy.table.slice(0, 5))
    found = read_examples(toy.store, DataVersion(1, None), toy.project.settings, toy.now + 40 * DAY)
    assert len(found) == 2_000
    assert bool(np.all(np.diff(found.event_time) >= 0))


def test_data_that_fails_a_check_stops_the_run_before_the_search_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unreachable(*_: object) -> None:
        raise AssertionError("searched on data that failed")

    monkeypatch.setattr(training, "search", unreachable)
    toy = make_toy(tmp_path, extra=BATCH + "validation: {max_duplicates: 1}\n")
    toy.append(with_the_label_in(toy.table, "f_n1"))
    result = toy.retrain()
    assert result["outcome"] == "gated"
    (reason,) = result["reasons"]
    assert reason.startswith("leak: n1 alone predicts the label")
    found = toy.bodies("retraining")[0]["data"]
    assert not found["passed"]
    page = toy.project.state / found["page"]
    assert "n1 alone predicts" in page.read_text()
    assert json.loads(page.with_suffix(".json").read_text())["checks"] == found["checks"]


def with_the_label_in(table: pa.Table, column: str) -> pa.Table:
    """The same rows, labelled a moment later: of each id these stay."""
    clocks = pa.array([clock + timedelta(seconds=1) for clock in table["label_clock"].to_pylist()])
    changed = {column: table["label"].cast(pa.float64()), "label_clock": clocks}
    for name, values in changed.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), values.cast(table.schema.field(name).type))
    return table


def test_what_the_checks_found_is_kept_with_a_promotion(toy: Toy):
    toy.retrain()
    found = toy.bodies("retraining")[0]["data"]
    assert found["passed"] and (toy.project.state / found["page"]).exists()
    assert {check["name"] for check in found["checks"]} >= {"schema", "shift", "leak", "mature", "quarantine"}
    assert found["rows"]["training"] > found["rows"]["hold-out"] > 0


def test_a_column_of_another_type_is_said_before_it_is_read(tmp_path: Path):
    toy = make_toy(tmp_path)
    file = toy.project.folder / "headrace.yaml"
    file.write_text(file.read_text().replace("hub: category", "hub: number"))
    toy.project = load_project(toy.project.folder, state=toy.project.state)
    assert "another type in the columns f_hub" in toy.retrain()["reasons"][0]


def test_the_flow_is_imported_without_pandera():
    subprocess.run(
        [sys.executable, "-c", "import sys, flows.training, monitoring.monitor; assert 'pandera' not in sys.modules"],
        check=True,
    )
