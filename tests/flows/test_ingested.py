"""A champion from what was ingested alone, and what judges it afterwards."""

from __future__ import annotations

import json
import random
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from flows_lab import START, empty_registry

import headrace
from core.audit import Ledger, RetrainRequest
from core.durations import DAY, HOUR, MINUTE, format_time
from core.errors import UsageError
from core.project import Project, load_project
from core.registry import Registry
from core.status import write_status
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, examples_schema, prediction_cell
from flows.execution import execute
from flows.lease import progress, take
from flows.training import Retraining
from monitoring.monitor import Monitor
from streaming.ingest import ingest

ROWS = 2_000
YAML = """
name: past-{task}
task: {task}
id: id
time: at
fields: {{a: number, b: number, hub: category}}
label: {{path: y, horizon: 2d, {label}}}
online: [linear, prior]
retrain: {{min_examples: 300}}
promotion: {{shadow: false}}
batch: {{trials: 1, candidates: [linear]}}
windows: {{span: 1d}}
drift: {{min_rows: 20}}
history: {{file: past.csv, label_time: known}}
"""
LABEL = {"binary": "positive: 1, negative: 0", "multiclass": "classes: [low, mid, high]", "regression": "missing: null"}


def past_project(folder: Path, task: str) -> Project:
    draw, lines = random.Random(3), []
    for number in range(ROWS):
        at, a, b = START + number * 30 * MINUTE, draw.gauss(0, 1), draw.gauss(0, 1)
        signal = a - b + draw.gauss(0, 0.4)
        outcome = {
            "binary": int(signal > 0),
            "multiclass": "low" if signal < -1 else "high" if signal > 1 else "mid",
            "regression": round(signal, 4),
        }[task]
        known = format_time(at + draw.randrange(HOUR, 5 * HOUR))
        lines.append(f"e{number},{format_time(at)},{a:.5f},{b:.5f},h{draw.randrange(5)},{outcome},{known}")
    draw.shuffle(lines)
    folder.mkdir()
    (folder / "past.csv").write_text("\n".join(["id,at,a,b,hub,y,known", *lines]) + "\n")
    (folder / "headrace.yaml").write_text(YAML.format(task=task, label=LABEL[task]))
    return load_project(folder, state=folder / "state")


def bootstrap(project: Project) -> dict:
    assert ingest(project, "history", lambda *_: None, threading.Event())
    (project.state / "mlflow.sqlite").write_bytes(empty_registry())
    store, ledger = TableStore(project.tables), Ledger(project.ledger)
    now = progress(project, store)
    assert ledger.request_retrain(RetrainRequest("r1", "manual", now, now))
    lease = take(ledger, "r1", None)
    assert lease is not None
    return execute(Retraining(project, lease, store))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_champion_is_trained_on_ingested_rows_and_judged_on_the_stream_that_follows(tmp_path, task):
    project = past_project(tmp_path / "p", task)
    assert bootstrap(project)["outcome"] == "promoted"
    champion = Registry(project).alias("champion")
    assert champion is not None
    reference = json.loads((project.state / "references" / f"{champion.version}.json").read_text())
    assert reference["validation"]["loss"] > 0
    assert reference["validation"]["served_loss"] is None, "what is served with online experts is another blend"

    store, first = TableStore(project.tables), START + 42 * DAY
    live = _served(project, first)
    store.append(EXAMPLES, live, app="partition-0", sequence=1)
    store.append(PREDICTIONS, live.select(store.read(PREDICTIONS).column_names), app="partition-0", sequence=1)
    now = first + 9 * DAY
    part = {"phase": "running", "clock": now, "flushed_through": now, "first_event": first, "step": 9}
    write_status(project.status, "worker", {"state": "running", "partitions": {"0": part}})
    Monitor(project, Ledger(project.ledger), store, send_alert=lambda alert: None).run_once()
    windows = store.read("windows").to_pylist()
    assert min(row["window_start"].timestamp() for row in windows) * 1000 == first // DAY * DAY, "not all of the past"
    judged = [row for row in windows if row["judged"]]
    assert {row["stage"] for row in judged} == {"data", "labels"}
    for row in judged:
        assert row["prediction_distance"] is None, "nothing was served to compare with"
        assert "never served" in dict(row["skipped"])["served prediction"]
        assert not any("served prediction" in reason for reason in row["reasons"])
        assert (row["label_distance"] is not None) == (row["stage"] == "labels")


def _served(project: Project, first: int) -> pa.Table:
    """Nine days of a stream in which the online experts predict, and labels come after an hour."""
    past = TableStore(project.tables).read(EXAMPLES).sort_by("event_time").slice(0, 9 * 48).to_pylist()
    shift = first - START
    for step, row in enumerate(past):
        for name in ("event_time", "clock", "label_time", "label_clock"):
            row[name] += timedelta(milliseconds=shift)
        shares = {"low": 0.3, "mid": 0.4, "high": 0.3}
        said = {"binary": 0.3 + step % 9 / 20, "multiclass": shares, "regression": step % 9 / 5}[project.settings.task]
        row |= {"id": f"live{step}", "partition": 0, "step": step + 1, "label_step": step + 1, "offset": step}
        row |= {name: prediction_cell(said) for name in ("p_served", "p_linear", "p_prior", "p_champion")}
        row["champion_version"] = 1
    schema = examples_schema(project.settings)
    return pa.Table.from_pylist(past, schema=schema)


def test_a_worker_without_records_does_not_hide_what_was_ingested(tmp_path):
    project = past_project(tmp_path / "p", "binary")
    store = TableStore(project.tables)
    with pytest.raises(UsageError, match="headrace ingest"):
        progress(project, store)
    assert ingest(project, "history", lambda *_: None, threading.Event())
    part = {"phase": "running", "clock": 0, "flushed_through": 0, "first_event": None, "step": 0}
    write_status(project.status, "worker", {"state": "running", "partitions": {"0": part}})
    assert progress(project, store) > START + (ROWS - 1) * 30 * MINUTE


def test_the_command_says_what_it_did_and_what_it_could_not_use(tmp_path, monkeypatch, capsys):
    project = past_project(tmp_path / "p", "binary")
    with (project.folder / "past.csv").open("a") as file:
        file.write("bad,soon,1,1,h1,1,soon\n")
    monkeypatch.setenv("HEADRACE_STATE", str(project.state))
    monkeypatch.setattr(sys, "argv", ["headrace", "ingest", str(project.folder), "--json", "-"])
    with pytest.raises(SystemExit) as ended:
        headrace.main()
    assert not ended.value.code
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["rows"], found["written"]["examples"], found["events_refused"]) == (ROWS + 1, ROWS, {"bad_time": 1})
    assert "refused   1: 1 bad_time" in said.err
    assert f"past.csv, row {ROWS + 1}: bad_time: at: soon is not a time" in said.err
    assert f"read {ROWS + 1:,} rows" in said.err

    monkeypatch.setattr(sys, "argv", [*sys.argv, "--source", "other"])
    with pytest.raises(SystemExit) as ended:
        headrace.main()
    assert ended.value.code == 2
    assert "--source other: there is none; history has history" in capsys.readouterr().err
