"""The backtest serves, decides and promotes what the running loop does."""

from __future__ import annotations

import json

import pytest
from loop_lab import Loop, make_loop_project

from backtest.policies import Policy
from backtest.simulation import Simulation
from backtest.tape import record
from backtest.training import Trainer
from backtest.unlearning import Unlearner
from core.audit import Ledger
from core.store import TableStore
from core.tables import PREDICTIONS
from streaming import learning
from streaming.memory_broker import MemoryBroker
from streaming.replay import read_source

CHANGES = {"a turn": {"turns_at": 900}, "two windows of flipped labels": {"flipped": (900, 1_260)}}


@pytest.fixture(autouse=True)
def late_soon(monkeypatch):
    """Experts are asked again, as they are where labels come later than here."""
    monkeypatch.setattr(learning, "_ASKED_AGAIN_AFTER", 10)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_backtest_of_the_projects_own_policy_equals_the_running_loop(tmp_path, change):
    at_once = {"shadow": False, "watch": False}
    project = make_loop_project(tmp_path / "p", "binary", events=1_800, promotion=at_once, **CHANGES[change])
    Loop(project, MemoryBroker()).replay()
    rows = TableStore(project.tables).read(PREDICTIONS).sort_by("step")
    history = Ledger(project.ledger).history()

    tape = record(project, read_source(project, None))
    outcome = Simulation(tape, Policy("drift", project.settings), Trainer(project), Unlearner(project, tape)).run()

    assert tape.tables.whole(PREDICTIONS)["id"].to_pylist() == rows["id"].to_pylist()
    decided = [(r.body["trigger"], r.event_time) for r in history if r.kind == "decision"]
    assert [(one.trigger, one.decided_at) for one in outcome.retrainings] == decided
    alerts = [(r.key, tuple(r.body["reasons"])) for r in history if r.kind == "alert"]
    assert [(alert.stage.name, alert.reasons) for alert in outcome.alerts] == alerts
    unlearned = [tuple(span) for r in history if r.kind == "unlearn" for span in r.body["spans"]]
    assert unlearned == (list(outcome.quarantined) if change != "a turn" else [])
    assert len(unlearned) == (2 if change != "a turn" else 0)
    assert sum(map(bool, tape.anew)) > 100
    assert outcome.rows.champion == rows["p_champion"].to_pylist()
    assert outcome.rows.published == rows["p_served"].to_pylist()


@pytest.mark.slow
def test_a_backtest_judges_shadows_as_the_running_loop_does(tmp_path):
    rules = {"shadow": True, "block": "1h", "canary": 0.25}
    retrain = {"bootstrap_after": "12h", "every": "18h", "duration": "30m", "min_examples": 100, "growth": None}
    project = make_loop_project(
        tmp_path / "p", "binary", events=1_600, turns_at=800, promotion=rules, retrain=retrain, online=["prior"]
    )
    broker = MemoryBroker()
    Loop(project, broker).replay()
    rows = TableStore(project.tables).read(PREDICTIONS).sort_by("step")
    history = Ledger(project.ledger).history()

    tape = record(project, read_source(project, None))
    outcome = Simulation(tape, Policy("drift", project.settings), Trainer(project), Unlearner(project, tape)).run()

    decided = [(r.body["trigger"], r.event_time) for r in history if r.kind == "decision"]
    assert [(one.trigger, one.decided_at) for one in outcome.retrainings] == decided
    judged = [(r.event_time, r.body["verdict"]) for r in history if r.body.get("verdict")]
    assert [(end.at, end.verdict.as_json()) for end in outcome.ended if end.conclusion != "replaced"] == judged
    assert len(judged) > 0
    assert outcome.rows.champion == rows["p_champion"].to_pylist()
    canary = rows["canary_version"].to_pylist()
    assert [int(version) or None for version in outcome.rows.canary] == canary
    in_shadow = [version for version in rows["challenger_version"].to_pylist() if version is not None]
    assert 0.15 < sum(version is not None for version in canary) / len(in_shadow) < 0.35
    values = [record.value for record in broker.records(project.settings.predictions_topic)]
    published = {one["id"]: one for one in map(json.loads, values)}
    assert [published[one]["prediction"] for one in tape.names(None)] == outcome.rows.published
    assert [published[one].get("canary_version") for one in tape.names(None)] == canary
