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
from flows_lab import BATCH, Toy, examples, in_this_process, later, make_toy

from core.audit import Ledger
from core.durations import DAY
from core.errors import LeaseLostError, RegistryError
from core.model_versions import ModelVersion
from core.models import CHAMPION, PREVIOUS
from core.project import load_project
from core.registry import Registry
from core.tables import CORRECTIONS, PREDICTIONS, corrections_schema, predictions_schema
from flows import training
from flows.execution import execute
from flows.lease import MAX_ATTEMPTS, Lease, find, make, progress, take
from flows.promotion import carry_out, decide
from flows.upkeep import maintain_tables
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
    assert set(about["validation"]) == {"loss", "served_loss"}
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


def test_a_step_that_raises_closes_the_request_as_failed(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(training, "search", broken)
    with pytest.raises(RuntimeError):
        toy.retrain()
    assert find(toy.ledger, "r1").status == "failed"
    assert toy.bodies("retraining")[0]["reasons"] == ["RuntimeError: out of memory"]


def test_only_one_run_gets_the_request(toy: Toy):
    toy.request()
    one = take(toy.ledger, "r1", "run-1")
    other = take(Ledger(toy.project.ledger), "r1", "run-2")
    assert one is not None
    assert other is None
    assert find(toy.ledger, "r1").flow_run == "run-1"


def test_a_run_that_lost_its_lease_does_not_promote(toy: Toy):
    toy.request()
    lease = take(toy.ledger, "r1", None)
    run = training.Retraining(toy.project, lease, toy.store, ask=in_this_process)
    for name, step in run.steps:
        if name == "promote":
            toy.ledger.advance("r1", expect=("running",), status="requested", next_attempt=True)
            assert take(toy.ledger, "r1", None) is not None
            with pytest.raises(LeaseLostError):
                step()
        else:
            step()
    assert Registry(toy.project).alias(CHAMPION) is None
    assert toy.bodies("promotion") == []


def decided(toy: Toy) -> Registry:
    """Run a retraining up to the decision, and no further."""
    toy.request()
    run = training.Retraining(toy.project, take(toy.ledger, "r1", None), toy.store, ask=in_this_process)
    for name, step in run.steps:
        if name != "promote":
            step()
    decide(run.lease, run.version, None, run.records(promoted=True, reasons=[]), [])
    return run.registry


def test_a_decided_promotion_is_carried_out_once_by_whoever_comes(toy: Toy):
    registry = decided(toy)
    assert toy.ledger.history() == []
    assert carry_out(toy.ledger, registry, "r1") == "version 1 is champion"
    assert carry_out(toy.ledger, registry, "r1") is None
    assert registry.alias(CHAMPION).version == 1
    assert [record.kind for record in toy.ledger.history()] == ["gate", "retraining", "promotion"]
    assert toy.bodies("retraining")[0]["metrics"] is not None
    assert find(toy.ledger, "r1").status == "promoted"


def test_a_decided_promotion_does_not_replace_a_champion_set_meanwhile(toy: Toy):
    toy.retrain("r0")
    toy.append(later(toy.project))
    toy.request("r1")
    run = training.Retraining(toy.project, take(toy.ledger, "r1", None), toy.store, ask=in_this_process)
    for name, step in run.steps:
        if name != "promote":
            step()
    decide(run.lease, run.version, None, run.records(promoted=True, reasons=[]), [])
    assert "version 1 became champion meanwhile" in carry_out(toy.ledger, run.registry, "r1")
    assert run.registry.alias(CHAMPION).version == 1
    assert find(toy.ledger, "r1").status == "failed"
    assert [body["promoted"] for body in toy.bodies("retraining")] == [True, False]
    assert "became champion meanwhile" in toy.bodies("alert")[0]["reasons"][1]


def test_a_decided_promotion_of_a_version_that_was_deleted_ends(toy: Toy):
    registry = decided(toy)
    registry._client.delete_model_version(toy.project.settings.name, "1")
    assert "deleted" in carry_out(toy.ledger, registry, "r1")
    assert toy.ledger.open_requests() == []
    assert toy.ledger.pinned("examples") == []


def test_a_promotion_releases_the_data_of_its_request_but_not_of_its_version(toy: Toy):
    class Models:
        def aliases(self) -> dict[str, int]:
            return {"champion": 2}

        def versions(self) -> list[ModelVersion]:
            return [ModelVersion(number, "run", {}) for number in (1, 2, 3)]

        def promote(self, version: int, *, expected: int | None, watched: bool) -> None:
            assert (version, expected) == (3, 2)

    for number, owner in enumerate(["model-1", "gated-7", "model-2", "r1", "model-3"]):
        toy.ledger.pin("examples", number, owner)
    toy.request("r1")
    decide(take(toy.ledger, "r1", None), ModelVersion(3, "run", {"effective_at": "5"}), 2, [], [])
    assert toy.ledger.pinned("examples") == [0, 1, 2, 3, 4]
    assert carry_out(toy.ledger, Models(), "r1") == "version 3 is champion"
    assert toy.ledger.pinned("examples") == [0, 1, 2, 4]


def test_a_stalled_run_can_neither_undo_nor_repeat_a_decided_promotion(toy: Toy):
    registry = decided(toy)
    stalled = take_over(toy)
    carry_out(toy.ledger, registry, "r1")
    for act in (lambda: stalled.close("failed", []), lambda: stalled.release("late"), stalled.check):
        with pytest.raises(LeaseLostError):
            act()
    assert find(toy.ledger, "r1").status == "promoted"


def take_over(toy: Toy) -> Lease:
    return Lease(toy.ledger, find(toy.ledger, "r1"))


def test_a_run_that_lost_its_lease_stops_before_the_next_step(toy: Toy):
    toy.request()
    lease = take(toy.ledger, "r1", None)
    run = training.Retraining(toy.project, lease, toy.store, ask=in_this_process)
    ran = []

    def step(name, do):
        ran.append(name)
        if name == "validate":  # as if it had stood still for long
            toy.ledger.advance("r1", expect=("running",), status="requested", next_attempt=True)
        return do()

    assert execute(run, step)["outcome"] == "superseded"
    assert ran == ["pin", "validate"]
    assert (find(toy.ledger, "r1").status, find(toy.ledger, "r1").attempt) == ("requested", 2)
    assert toy.ledger.history() == []


class Down(Registry):
    """An MLflow that goes away at the given call."""

    at = "alias"

    def _aliases(self):
        if self.at == "alias":
            raise RegistryError("MLflow cannot be reached")
        return super()._aliases()

    def register(self, *arguments):
        if self.at == "register":
            raise RegistryError("MLflow cannot be reached")
        return super().register(*arguments)


@pytest.mark.parametrize("call", ["alias", "register"])
def test_an_mlflow_that_is_down_costs_an_attempt_and_not_the_retraining(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, call: str
):
    monkeypatch.setattr(Down, "at", call)
    with pytest.raises(RegistryError):
        toy.retrain(connect=Down)
    request = find(toy.ledger, "r1")
    assert (request.status, request.attempt) == ("requested", 2)
    assert "MLflow cannot be reached" in request.body["reasons"][0]
    result = execute(training.Retraining(toy.project, take(toy.ledger, "r1", None, attempt=2), toy.store))
    assert result["outcome"] == "promoted"
    assert [body["promoted"] for body in toy.bodies("retraining")] == [False, True]


def test_the_last_attempt_is_an_alert_and_releases_its_pins(toy: Toy):
    toy.request()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with pytest.raises(RegistryError):
            execute(training.Retraining(toy.project, take(toy.ledger, "r1", None, attempt), toy.store, Down))
    assert find(toy.ledger, "r1").status == "failed"
    (alert,) = toy.ledger.history("alert")
    assert alert.body["reasons"][0] == "Retraining r1 failed, the champion stays."
    assert len(alert.body["reasons"]) == 1 + MAX_ATTEMPTS
    assert [waiting.record.key for waiting in toy.ledger.waiting_alerts()] == ["retraining-r1"]
    assert toy.ledger.pinned("examples") == []


def test_a_run_of_an_earlier_attempt_does_not_get_the_request(toy: Toy):
    toy.request()
    toy.ledger.advance("r1", expect=("requested",), status="requested", next_attempt=True)
    assert take(toy.ledger, "r1", "late", attempt=1) is None
    assert take(toy.ledger, "r1", "run-2", attempt=2).request.flow_run == "run-2"


def test_a_vacuum_at_the_moment_of_the_pin_leaves_a_readable_version(toy: Toy):
    """Maintenance starts after the version was read and before it is pinned, or right after the pin."""
    toy.append(later(toy.project))
    for when in ("before", "after"):
        toy.request(when)
        lease = take(toy.ledger, when, None)
        run = training.Retraining(toy.project, lease, toy.store, ask=in_this_process)
        pin, times = toy.ledger.pin, []

        def racing(*arguments, when=when, pin=pin, times=times):
            if when == "after":
                pin(*arguments)
            if not times:
                times.append(1)
                maintain_tables(toy.store, toy.ledger, 0)
            if when == "before":
                pin(*arguments)

        toy.ledger.pin = racing
        run.pin()
        run.validate()
        toy.ledger.pin = pin
        assert toy.ledger.pinned("examples") == [run._pinned.examples]
        lease.close("gated", [])
        toy.ledger.unpin(when)
        toy.append(later(toy.project, seed=9))


def test_a_run_without_a_request_makes_its_own_and_keeps_to_the_schedule(toy: Toy):
    reached = progress(toy.project, toy.store)
    assert reached == toy.now - 1
    lease = make(toy.project, toy.ledger, "schedule", reached, "run-1")
    assert lease.request.status == "running"
    assert "one at a time" in make(toy.project, toy.ledger, "manual", reached, None)
    toy.ledger.record("retraining", lease.key, event_time=reached, body={})
    lease.close("gated", [])
    assert "less than 28d" in make(toy.project, toy.ledger, "schedule", reached + DAY, None)
    assert make(toy.project, toy.ledger, "schedule", reached + 28 * DAY, None).request.trigger == "schedule"


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
