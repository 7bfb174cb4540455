"""What an auditor meets: history, its proof, and the commands that move the champion or fit it again."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

import headrace
from core.audit import Ledger
from core.project import load_project

PROJECT = "name: tiny\nid: id\ntime: t\nfields: {x: number}\nlabel: {path: y}\n"
WINDOW = {"start": "2013-02-22T00:00:00Z", "end": "2013-03-01T00:00:00Z", "stage": "data"}
RECIPE = {
    "project": "tiny",
    "examples": 31,
    "corrections": 2,
    "until": 1,
    "left_out": [[0, 1]],
    "held_out_from": None,
    "candidate": {"family": "linear", "trial": 0, "params": {"strength": 0.1}, "start": None},
    "settings": {"batch": {"seed": 7, "threads": 2}},
    "rows": 61_204,
    "rows_digest": "a1b2c3d4e5f6" + "0" * 52,
    "predictions_digest": "f" * 64,
    "made_with": {
        "headrace": "0.1.0+abc",
        "project": {"headrace.yaml": "9" * 64},
        "libraries": {"numpy": "2.1"},
        "machine": {},
    },
}
GATES = [
    {"name": "rows", "passed": True, "value": 300.0, "limit": 200.0, "reason": "300 untouched rows, 200 are needed"}
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with one promotion on drift, and a rollback by a person."""
    (tmp_path / "headrace.yaml").write_text(PROJECT)
    with closing(Ledger(load_project(tmp_path).ledger)) as ledger:
        reasons = ["0.41 of the features drifted."]
        ledger.record(
            "alert", "w7/data", event_time=1, body={"window": WINDOW, "reasons": reasons, "report": "w7.html"}
        )
        ledger.record("alert", "other", event_time=1, body={"reasons": ["late labels"]})
        decision = {"window": WINDOW, "trigger": "drift", "reasons": ["twice in three windows"]}
        ledger.record("decision", "drift-1", event_time=2, body=decision)
        gate = {"request": "drift-1", "passed": True, "version": 3, "results": GATES, "reasons": []}
        ledger.record("gate", "drift-1/1", event_time=2, body=gate)
        fit = {"request": "drift-1", "attempt": 1, "trigger": "drift", "version": 3, "rows": 61_204, "promoted": True}
        fit |= {"mlflow_run": "run3", "reasons": [], "recipe": RECIPE}
        ledger.record("retraining", "drift-1/1", event_time=2, body=fit)
        move = {"version": 3, "previous": 2, "request": "drift-1", "trigger": "drift", "effective_at": 3}
        move |= {"approved": {"by": "gates", "why": None}, "evidence": {"alerts": ["w7/data"], "decision": "drift-1"}}
        move |= {"aliases": {"before": {"champion": 2}, "after": {"champion": 3, "previous": 2}}}
        ledger.record("promotion", "3", event_time=3, body=move)
        back = {"version": 2, "previous": 3, "request": "drift-0", "trigger": "manual", "effective_at": 4}
        back |= {"approved": {"by": "anna@host", "why": "late on Mondays"}, "evidence": {}}
        ledger.record("rollback", "2-by-hand", event_time=4, body=back)
    return tmp_path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without a model: an MLflow store takes seconds to make, so it is made once."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "headrace.yaml").write_text(PROJECT)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["headrace", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        headrace.main()
    return int(ended.value.code or 0)


def test_who_promoted_what_on_which_evidence_is_one_line_each(folder: Path, monkeypatch, capsys):
    assert run(monkeypatch, "history", folder, "--promotions") == 0
    promotion, rollback = [line[18:] for line in capsys.readouterr().out.splitlines()]
    assert promotion == (
        "champion 3 (was 2): alert w7/data -> drift decision -> 61,204 rows (a1b2c3d4e5f6) -> 1 of 1 gates passed -> "
        "promoted by gates"
    )
    assert rollback == "champion 2 (was 3): rolled back by anna@host: late on Mondays"


def test_everything_about_a_version_is_one_report(folder: Path, monkeypatch, capsys):
    assert run(monkeypatch, "history", folder, "--version", 3) == 0
    said = capsys.readouterr().out
    for part in ("0.41 of the features drifted", "twice in three windows", "rows        passed: 300 untouched rows",
                 RECIPE["rows_digest"], "examples at version 31, corrections at version 2, 1 windows in quarantine",
                 "linear, strength 0.1; seed 7, 2 threads", "headrace 0.1.0+abc", "headrace.yaml 999999999999",
                 "numpy 2.1", "champion 2 -> 3, previous none -> 2", "late on Mondays"):  # fmt: skip
        assert part in said
    assert "late labels" not in said
    assert max(len(line) for line in said.splitlines()) <= 120
    assert run(monkeypatch, "history", folder, "--version", 3, "--json", "-") == 0
    kinds = [entry["kind"] for entry in json.loads(capsys.readouterr().out)]
    assert kinds == ["alert", "decision", "gate", "retraining", "promotion", "rollback"]


def test_a_version_that_nobody_knows_has_no_history(folder: Path, monkeypatch, capsys):
    assert run(monkeypatch, "history", folder, "--version", 9) == 2
    assert "nothing about version 9" in capsys.readouterr().err


def test_a_person_who_moved_the_champion_is_in_the_plain_history_too(folder: Path, monkeypatch, capsys):
    assert run(monkeypatch, "history", folder, "--kind", "rollback") == 0
    assert "champion 2 (was 3) by anna@host: late on Mondays" in capsys.readouterr().out


def test_a_ledger_that_was_changed_is_told_from_one_that_was_not(folder: Path, monkeypatch, capsys):
    assert run(monkeypatch, "history", folder, "--verify") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "7 records, each as it was written"
    head = said[1].removeprefix("head ")
    assert run(monkeypatch, "history", folder, "--verify", "--head", head[:16]) == 0
    assert run(monkeypatch, "history", folder, "--verify", "--head", "0" * 64) == 1
    with closing(sqlite3.connect(load_project(folder).ledger)) as connection:
        connection.execute("DROP TRIGGER records_do_not_change")
        connection.execute("UPDATE records SET body = replace(body, 'gates', 'anna') WHERE kind = 'promotion'")
        connection.commit()
    capsys.readouterr()
    assert run(monkeypatch, "history", folder, "--verify", "--json", "-") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["whole"], found["records"]) == (False, 7)
    assert found["problems"][0].startswith("record 6, promotion 3")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["history", "{folder}", "--head", "abc"], 2, "at least 12 characters"),
        (["reproduce", "{folder}", "7"], 2, "has no version 7; none is registered yet"),
        (["reproduce", "{folder}", "run9"], 2, "neither in the ledger nor in MLflow"),
        (["promote", "{folder}", "3"], 2, "has no version 3; none is registered yet"),
        (["rollback", "{folder}"], 2, "no previous version to go back to"),
        (["rollback", "{folder}", "--json", "{folder}/none/x"], 2, "cannot be written"),
        (["reproduce", "{folder}", "3", "--json", "{folder}/none/x"], 2, "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(bare: Path, monkeypatch, capsys, arguments, code, said):
    assert run(monkeypatch, *[argument.format(folder=bare) for argument in arguments]) == code
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
