"""The whole loop in one process: from the first event to a promoted, swapped-in champion and back to drift."""

from __future__ import annotations

import pytest
from loop_lab import Loop, make_loop_project

from cli.summary import imbalances, quality_of, summary_of
from core.audit import Ledger
from core.metrics import METRICS
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS
from streaming.kafka_client import KafkaBroker
from streaming.memory_broker import MemoryBroker


@pytest.mark.slow
def test_drift_leads_to_a_retraining_that_is_promoted_and_swapped_in(tmp_path):
    project = make_loop_project(tmp_path / "p", "binary", events=1_800, turns_at=900, promotion={"shadow": False})

    books = Loop(project, MemoryBroker()).replay()

    assert books.imbalances() == []
    assert books.events.joined == 1_800
    history = Ledger(project.ledger).history()
    triggers = [record.body["trigger"] for record in history if record.kind == "retraining"]
    assert triggers[0] == "bootstrap"
    assert "drift" in triggers
    promoted = [record.body["version"] for record in history if record.kind == "promotion"]
    assert len(promoted) >= 2
    rows = TableStore(project.tables).read(PREDICTIONS, columns=["id", "champion_version", "clock"])
    assert len(set(rows["id"].to_pylist())) == rows.num_rows == 1_800
    served_by = rows.sort_by("clock")["champion_version"].to_pylist()
    served = [version for version in dict.fromkeys(served_by) if version is not None]
    assert len(served) >= 2
    assert served == promoted[: len(served)]
    drift = next(record for record in history if record.kind == "decision" and record.body["trigger"] == "drift")
    alerts = [record for record in history if record.kind == "alert"]
    assert any((alert.event_time or 0) <= (drift.event_time or 0) for alert in alerts)


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_each_task_goes_through_a_real_broker_retraining_and_swap(tmp_path, task, embedded_broker):
    unmoved = {"every": None, "on_drift": False, "growth": None}
    retrain = {"bootstrap_after": "12h", "duration": "30m", "min_examples": 100, **unmoved}
    project = make_loop_project(tmp_path / "p", task, events=900, retrain=retrain)

    books = Loop(project, KafkaBroker(embedded_broker.bootstrap_servers)).replay()

    assert books.imbalances() == []
    assert books.events.predicted == 900
    content = summary_of(project, 1.0)
    assert imbalances(content) == []
    assert content["champion"]["version"] == 1
    assert [retrain["promoted"] for retrain in content["retrains"]] == [True]
    assert content["windows"]["closed"] >= 4
    quality = content["quality"]
    assert set(quality) == {"rows", "monthly", *METRICS[task]}
    main = quality[METRICS[task][0]]
    assert set(main) == {"served", "champion", "linear", "tree", "no_change", "prior"}
    assert main["served"] < main["prior"] * 0.8
    assert main["champion"] < main["prior"] * 0.8


@pytest.mark.slow
def test_with_thresholds_at_infinity_nothing_drifts(tmp_path):
    limits = ("feature_threshold", "prediction_threshold", "label_threshold", "quality_drop")
    drift = {"min_rows": 50, "persistence": 1, "of_windows": 1, **dict.fromkeys(limits, float("inf"))}
    project = make_loop_project(tmp_path / "p", "binary", events=1_200, turns_at=700, drift=drift)

    Loop(project, MemoryBroker()).replay()

    history = Ledger(project.ledger).history()
    assert [record.body["trigger"] for record in history if record.kind == "retraining"] == ["bootstrap"]
    assert [record for record in history if record.kind == "alert"] == []


@pytest.mark.slow
def test_two_replays_give_the_same_examples_to_the_bit(tmp_path):
    found = []
    for run in ("one", "two"):
        project = make_loop_project(tmp_path / run, "binary", events=900)
        Loop(project, MemoryBroker()).replay()
        rows = TableStore(project.tables).read(EXAMPLES).sort_by("id")
        found.append(rows.to_pylist())
        assert quality_of(project)["rows"] > 0
    assert found[0] == found[1]


@pytest.mark.slow
def test_in_lockstep_a_champion_serves_from_its_event_time_on_however_late_it_is_seen(tmp_path):
    project = make_loop_project(tmp_path / "p", "binary", events=600)

    Loop(project, MemoryBroker(), champion_poll_s=1.5).replay()

    effective_at = next(r.body["effective_at"] for r in Ledger(project.ledger).history("promotion"))
    rows = TableStore(project.tables).read(PREDICTIONS, columns=["champion_version", "clock"]).to_pylist()
    for row in rows:
        assert (row["champion_version"] is not None) == (row["clock"].timestamp() * 1000 >= effective_at)
