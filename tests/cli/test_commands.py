"""What a person meets on the command line: exit codes, one line of explanation, JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import headrace
from cli.demo import _prepare_state
from cli.options import DEMO_MARKER, keep_from_demo
from core.audit import Ledger
from core.errors import UsageError
from core.project import load_project
from core.status import write_status
from streaming.books import Books, EventBook

PROJECT = "name: tiny\nid: id\ntime: t\nfields: {x: number}\nlabel: {path: y}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "headrace.yaml").write_text(PROJECT)
    return tmp_path


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["headrace", *arguments])
    with pytest.raises(SystemExit) as ended:
        headrace.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["worker", "{folder}/none"], "no such file"),
        (["demo", "{folder}"], "names no recorded stream"),
        (["status", "{folder}", "--json", "{folder}/headrace.yaml"], "is a project file, and would be lost"),
        (["backtest", "{folder}", "--html", "-"], "--html -: cannot be written to standard output; name a file"),
        (["demo", "{folder}", "--speed", "0"], "event seconds per second"),
        (["status", "{folder}", "--json", "{folder}/none/x.json"], "cannot be written"),
        (["history", "{folder}", "--json", "{folder}"], "cannot be written"),
        (["demo", "{folder}", "--json", "{folder}/none/x.json"], "cannot be written"),
        (["backtest", "{folder}", "--html", "{folder}/none/x.html"], "x.html: cannot be written"),
        (["retrain", "{folder}"], "no "),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line_with_exit_code_2(folder, monkeypatch, capsys, arguments, said):
    code = run(monkeypatch, *[argument.format(folder=folder) for argument in arguments])

    error = capsys.readouterr().err.strip()
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("command", ["demo", "replay", "backtest", "check-features"])
@pytest.mark.parametrize("days", ["nan", "inf", "0", "-1"])
def test_days_are_a_number_above_0(folder, monkeypatch, capsys, command, days):
    assert run(monkeypatch, command, str(folder), "--days", days) == 2
    assert "Invalid value for '--days'" in capsys.readouterr().err


def test_replay_without_a_broker_says_what_to_start(folder, monkeypatch, capsys):
    assert run(monkeypatch, "replay", str(folder)) == 4
    assert "headrace worker" in capsys.readouterr().err


def test_a_worker_that_still_looks_for_its_broker_ends_when_it_is_told_to(folder):
    command = [sys.executable, "headrace.py", "worker", str(folder), "--bootstrap", "127.0.0.1:1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("no Kafka broker answers" in line for line in process.stderr)
        process.terminate()
        assert process.wait(60) == 0


def test_a_feature_function_that_does_not_import_is_said_before_anything_starts(folder, monkeypatch, capsys):
    (folder / "headrace.yaml").write_text(PROJECT + "features: {function: 'f.py:f', outputs: {x: number}}\n")
    (folder / "f.py").write_text("def f(:\n")
    assert run(monkeypatch, "worker", str(folder)) == 2
    assert "does not import" in capsys.readouterr().err


def test_history_is_a_list_of_records_in_the_order_they_were_written(folder, monkeypatch, capsys):
    ledger = Ledger(load_project(folder).ledger)
    ledger.record("alert", "w1", event_time=0, body={"reasons": ["share 0.5"]})
    ledger.record("decision", "d1", event_time=1_500, body={"trigger": "drift", "reasons": ["twice"]})
    ledger.close()

    assert run(monkeypatch, "history", str(folder), "--json", "-") == 0

    found = json.loads(capsys.readouterr().out)
    assert [(entry["kind"], entry["event_time"]) for entry in found] == [
        ("alert", "1970-01-01T00:00:00Z"),
        ("decision", "1970-01-01T00:00:01.500Z"),
    ]


def test_status_of_a_project_that_never_ran(folder, monkeypatch, capsys):
    assert run(monkeypatch, "status", str(folder), "--json", "-") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["worker"]["alive"] is False
    assert content["champion"] == {"version": None, "card": None}
    assert run(monkeypatch, "status", str(folder), "--check", "worker") == 1


def test_status_tells_of_a_canary_in_all_partitions(folder, monkeypatch, capsys):
    def part(**canary):
        books = Books(EventBook(predicted=9, canary=canary.get("served", 0))).as_dict()
        return {"books": books, "loss": {}, "weights": {}, "clock": 0, "scored": 0, "canary": canary or None}

    two = {"0": part(share=0.1, version=3, served=1_200), "1": part(share=0.1, version=3, served=34), "2": part()}
    write_status(load_project(folder).status, "worker", {"state": "running", "partitions": two})
    assert run(monkeypatch, "status", str(folder), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["canary"] == {"share": 0.1, "version": 3, "served": 1_234}
    assert run(monkeypatch, "status", str(folder)) == 0
    said = capsys.readouterr().out
    assert "canary   version 3 serves 10.0% of the events while it shadows: 1,234 so far" in said
    assert "9 predicted, 1,200 canary" in said

    two["0"]["canary"] = {"share": 0.1, "version": 4, "served": 5}
    write_status(load_project(folder).status, "worker", {"state": "running", "partitions": two})
    assert run(monkeypatch, "status", str(folder), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["canary"]["served"] == 5, "partitions follow one after the other"
    write_status(load_project(folder).status, "worker", {"state": "running", "partitions": {"2": part()}})
    assert run(monkeypatch, "status", str(folder), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["canary"] is None


def test_a_demo_never_starts_over_in_a_state_that_somebody_worked_on(folder, monkeypatch):
    project = load_project(folder)
    assert _prepare_state(project, {"days": 1.0}, fresh=False) is False
    (project.state / "kept").write_text("work")
    assert _prepare_state(project, {"days": 1.0}, fresh=False) is True
    assert (project.state / "kept").exists()

    monkeypatch.delenv("HEADRACE_DEMO", raising=False)
    keep_from_demo(project.state)

    assert not (project.state / DEMO_MARKER).exists()
    with pytest.raises(UsageError, match="HEADRACE_STATE"):
        _prepare_state(project, {"days": 2.0}, fresh=True)
    assert (project.state / "kept").read_text() == "work"
