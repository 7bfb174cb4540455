"""The flows' own decisions, their processes, and a project's own candidate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_prefect import FakePrefect
from flows_lab import BATCH, Toy, examples, make_toy, write_project

from core.audit import CHALLENGER_BLEND, CHAMPION_BLEND
from core.errors import ProjectCodeError, StoreError, UsageError
from core.locks import FileLock
from core.registry import Registry
from core.status import write_status
from flows.candidates import build, defaults
from flows.check_drift import check_drift
from flows.evaluation import evaluate
from flows.examples import as_examples
from flows.fitting import fit
from flows.lease import progress, take
from flows.maintenance import maintenance
from flows.retrain import retrain
from flows.search import search

OWN = '''
from sklearn.base import BaseEstimator, ClassifierMixin
import numpy as np

class Half(ClassifierMixin, BaseEstimator):
    """Knows one number."""
    def fit(self, frame, outcomes):
        self.classes_ = np.unique(outcomes)
        return self
    def predict_proba(self, frame):
        chance = 1 / (1 + np.exp(-2 * frame["n0"].to_numpy()))
        return np.column_stack([1 - chance, chance])

def half(task, kinds, draw):
    return Half()

def nothing(task, kinds, draw):
    return 3
'''


def arguments(toy: Toy) -> dict[str, str]:
    return {"project": str(toy.project.folder), "state": str(toy.project.state)}


def test_a_retraining_of_a_request_that_another_run_has_does_nothing(toy: Toy):
    toy.request("r1")
    toy.ledger.advance("r1", expect=("requested",), status="running")
    result = retrain.fn(**arguments(toy), request_id="r1")
    assert result["outcome"] == "skipped"
    assert toy.ledger.history() == []


def test_a_request_that_is_not_known_is_said(toy: Toy):
    with pytest.raises(UsageError, match="not in the ledger"):
        retrain.fn(**arguments(toy), request_id="r9")


def test_the_schedule_waits_in_event_time(toy: Toy):
    toy.ledger.record("retraining", "r0/1", event_time=toy.now - 1, body={})
    result = retrain.fn(**arguments(toy), trigger="schedule")
    assert "retrain.every" in result["reasons"][0]
    assert toy.ledger.requests() == []


def test_a_project_without_data_is_said(tmp_path: Path):
    project = write_project(tmp_path, "binary")
    with pytest.raises(UsageError, match="start the worker first"):
        retrain.fn(project=str(project.folder), state=str(project.state))


def test_the_drift_check_leaves_windows_to_a_running_monitor(toy: Toy):
    write_status(toy.project.status, "monitor", {"state": "running"})
    assert "nothing to do" in check_drift.fn(**arguments(toy))


def test_the_drift_check_leaves_requests_to_a_monitor_whose_process_it_cannot_see_and_that_is_in_one_window_for_long(
    toy: Toy, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PREFECT_API_URL", prefect.url)
    write_status(toy.project.status, "monitor", {"state": "running"})
    file = toy.project.status / "monitor.json"
    status = {**json.loads(file.read_text()), "host": "another-container", "updated_at": time.time() - 300}
    file.write_text(json.dumps(status))
    toy.request("r1")
    monitor = FileLock(toy.project.status / "monitor.lock")
    assert monitor.acquire("monitor")
    assert "nothing to do" in check_drift.fn(**arguments(toy))
    assert (prefect.runs, json.loads(file.read_text())) == ({}, status)
    monitor.release()
    assert "are reported" in check_drift.fn(**arguments(toy))
    assert list(prefect.runs) == ["r1/1"]


def test_the_drift_check_ends_a_run_that_is_too_old_though_it_looks_only_once(
    toy: Toy, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PREFECT_API_URL", prefect.url)
    toy.request("r1")
    check_drift.fn(**arguments(toy))
    take(toy.ledger, "r1", "run-1")
    prefect.end("RUNNING")
    check_drift.fn(**arguments(toy))
    assert toy.ledger.requests()[0].attempt == 1
    toy.ledger._connection.execute("UPDATE requests SET changed_at = changed_at - 1801")
    check_drift.fn(**arguments(toy))
    assert toy.ledger.requests()[0].attempt == 2


def test_a_partition_without_a_record_does_not_keep_a_retraining_from_its_examples(toy: Toy):
    full = {"phase": "running", "clock": toy.now, "flushed_through": toy.now, "step": 9}
    empty = {"phase": "running", "clock": 0, "flushed_through": 0, "step": 0, "positions": {"events": 0}}
    write_status(toy.project.status, "worker", {"state": "running", "partitions": {"0": empty, "1": full}})
    assert progress(toy.project, toy.store) == toy.now


def test_maintenance_keeps_pinned_versions_readable(toy: Toy):
    toy.ledger.pin("examples", 0, "model-1")
    toy.append(examples(toy.project, 50, seed=3))
    (entry,) = maintenance.fn(**arguments(toy), retention_hours=0)
    assert (entry["table"], entry["files_removed"]) == ("examples", 2)
    assert len(toy.store.read("examples", version=0)) == 2_000
    assert len(toy.store.read("examples")) == 2_050


def test_a_table_that_cannot_be_maintained_keeps_none_from_it_and_fails_the_flow(toy: Toy, caplog):
    predictions = toy.project.tables / "predictions"
    toy.store.append("predictions", toy.table, app="test", sequence=1)
    (log,) = (predictions / "_delta_log").glob("*.json")
    log.write_text("{not json")
    toy.append(examples(toy.project, 50, seed=3))
    with pytest.raises(StoreError, match="table 'predictions'"):
        maintenance.fn(**arguments(toy), retention_hours=0)
    assert len(list((toy.project.tables / "examples").glob("*.parquet"))) == 1
    assert "table 'predictions'" in caplog.text


def test_a_pin_on_a_version_that_is_gone_is_reported(toy: Toy, caplog):
    toy.ledger.pin("examples", 77, "model-1")
    toy.append(examples(toy.project, 50, seed=3))
    (entry,) = maintenance.fn(**arguments(toy), retention_hours=0)
    assert (entry["versions_gone"], entry["files_vacuumed"]) == ((77,), 2)
    assert "77" in caplog.text


def test_a_projects_own_candidate_is_served_where_its_file_is_not_imported(tmp_path: Path):
    toy = make_toy(tmp_path, extra="batch: {trials: 1, candidates: ['models.py:half']}\n")
    (toy.project.folder / "models.py").write_text(OWN)
    assert toy.retrain()["outcome"] == "promoted"
    code = (
        "import sys; from core.project import load_project; from core.registry import Registry\n"
        "model = Registry(load_project(sys.argv[1], state=sys.argv[2])).load(1)\n"
        "print(model.predict([{'n0': 0.0}]))"
    )
    command = [sys.executable, "-c", code, *arguments(toy).values()]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[0.5]"
    assert Registry(toy.project).load(1).predict([{"n0": 0.0}]) == [0.5]


@pytest.mark.parametrize("name", ["models.py:nothing", "models.py:missing", "nowhere.py:half"])
def test_a_wrong_candidate_is_said(tmp_path: Path, name: str):
    project = write_project(tmp_path, "binary", f"batch: {{candidates: ['{name}']}}\n")
    (project.folder / "models.py").write_text(OWN)
    with pytest.raises(ProjectCodeError, match=name.partition(":")[2]):
        build(project, defaults(project)[0])


def test_a_candidate_that_fails_does_not_stop_the_others(tmp_path: Path):
    project = write_project(tmp_path, "binary", "batch: {trials: 1, candidates: ['models.py:nothing', linear]}\n")
    (project.folder / "models.py").write_text(OWN)
    found = search(project, as_examples(examples(project, 600), project.settings))
    assert found.best.candidate.family == "linear"
    assert "without fit" in found.trials[0].reason


@pytest.mark.parametrize("turns", [False, True])
def test_after_a_turn_the_past_is_left_out_and_else_it_is_kept(tmp_path: Path, turns: bool):
    project = write_project(tmp_path, "binary", BATCH)
    table = examples(project, 3_000)
    if turns:
        labels = [1 - label if row < 1_300 else label for row, label in enumerate(table["label"].to_pylist())]
        table = table.set_column(table.column_names.index("label"), table.schema.field("label"), [labels])
    rows = as_examples(table, project.settings)
    best = search(project, rows).best.candidate
    if turns:
        assert best.start is not None and best.start >= rows.event_time[1_200]
        assert fit(project, best, rows).predict([{"n0": 3.0}])[0] > 0.9
    else:
        assert best.start is None


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_family_predicts_a_row_the_same_alone_and_among_others(tmp_path: Path, task: str):
    project = write_project(tmp_path, task, "batch: {trials: 1, candidates: [gradient_boosting, linear, forest]}\n")
    rows = as_examples(examples(project, 500), project.settings)
    for candidate in defaults(project):
        model = fit(project, candidate, rows)
        together = model.predict_frame(rows.frame)
        alone = [model.predict_frame(rows.frame.iloc[[row]])[0] for row in range(5)]
        assert alone == together[:5], candidate.family


def test_the_blend_of_the_same_model_twice_is_the_same(toy: Toy):
    rows = as_examples(toy.table.slice(0, 800), toy.project.settings)
    model = fit(toy.project, defaults(toy.project)[0], rows)
    held = as_examples(toy.table.slice(800), toy.project.settings)
    found = evaluate(toy.project.settings, held, rows.outcomes, model, model)
    assert found.rows == 1_200
    assert found.loss(CHALLENGER_BLEND) == found.loss(CHAMPION_BLEND)
    assert found.loss(CHALLENGER_BLEND) < found.loss("baseline")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel call is Linux's")
def test_a_tied_process_ends_with_its_parent(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from core.processes import start_tied\n"
        "log = Path(sys.argv[1])\n"
        "sleep = [sys.executable, '-c', 'print(1, flush=True); import time; time.sleep(600)']\n"
        "child = start_tied(sleep, log=log, cwd=log.parent)\n"
        "while not log.read_text():\n    time.sleep(0.01)\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        if _gone(child):
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
