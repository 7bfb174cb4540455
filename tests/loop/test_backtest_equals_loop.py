"""The backtest serves, decides and promotes what the running loop does."""

from __future__ import annotations

import pytest
from loop_lab import Loop, make_loop_project

from backtest.policies import Policy
from backtest.simulation import Simulation
from backtest.tape import record
from backtest.training import Trainer
from core.audit import Ledger
from core.store import TableStore
from core.tables import PREDICTIONS
from streaming.memory_broker import MemoryBroker
from streaming.replay import read_source


@pytest.mark.slow
def test_a_backtest_of_the_projects_own_policy_equals_the_running_loop(tmp_path):
    project = make_loop_project(tmp_path / "p", "binary", events=1_800, turns_at=900)
    Loop(project, MemoryBroker()).replay()
    rows = TableStore(project.tables).read(PREDICTIONS).sort_by("step")
    history = Ledger(project.ledger).history()

    tape = record(project, read_source(project, None))
    outcome = Simulation(tape, Policy("drift", project.settings), Trainer(project)).run()

    assert tape.tables.whole(PREDICTIONS)["id"].to_pylist() == rows["id"].to_pylist()
    decided = [(r.body["trigger"], r.event_time) for r in history if r.kind == "decision"]
    assert [(one.trigger, one.decided_at) for one in outcome.retrainings] == decided
    alerts = [(r.key, tuple(r.body["reasons"])) for r in history if r.kind == "alert"]
    assert [(alert.stage.name, alert.reasons) for alert in outcome.alerts] == alerts
    assert [int(version) or None for version in outcome.served.versions] == rows["champion_version"].to_pylist()
    assert outcome.served.champion == rows["p_champion"].to_pylist()
    assert outcome.served.served == rows["p_served"].to_pylist()
