"""What gates and shadow let pass waits for a person, where the project wants that: who and why is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_prefect import FakePrefect
from flows_lab import BATCH, write_project
from shadow_lab import DAYS, FIRST, Lab

from core.audit import RetrainRequest
from core.durations import DAY
from core.errors import UsageError
from core.line_up import line_up
from core.model_versions import ModelVersion
from flows.approval import answer, question, show
from flows.lease import find, take
from flows.moves import finish
from flows.prefect_api import PrefectApi
from flows.promotion import carry_out, decide

APPROVE = "promotion: {shadow: true, approval: true}\n"


@pytest.fixture
def waiting(tmp_path: Path) -> Lab:
    """A challenger that is superior, and waits."""
    project = write_project(tmp_path, "binary", BATCH)
    text = (tmp_path / "headrace.yaml").read_text().replace("promotion: {shadow: false}\n", APPROVE)
    (tmp_path / "headrace.yaml").write_text(text)
    from core.project import load_project

    lab = Lab(load_project(tmp_path, state=project.state), "challenger", 0.6, 0.7)
    lab.look_every_day()
    return lab


def test_a_superior_challenger_waits_in_shadow_and_an_alert_says_so_once(waiting: Lab):
    assert waiting.models.moves == []
    assert question(waiting.ledger).version == 2
    (alert,) = waiting.ledger.waiting_alerts()
    assert "Version 2 waits for approval to replace champion 1. The blend with challenger 2 lost" in str(
        alert.record.body
    )
    assert line_up(waiting.ledger.history()).versions == {"champion": 1, "challenger": 2}


def test_once_approved_it_is_promoted_and_who_and_why_is_kept(waiting: Lab):
    answer(waiting.project, waiting.ledger, None, by="anna", why="the winter is in it", passed=True)
    assert finish(waiting.ledger, waiting.models) == "version 2 is champion"
    promotion = waiting.ledger.history("promotion")[-1].body
    assert (promotion["approved"]["by"], promotion["approved"]["why"]) == ("anna", "the winter is in it")
    assert promotion["approved"]["after"] == "shadow"
    assert promotion["verdict"]["conclusion"] == "superior"
    (said,) = waiting.ledger.history("approval")
    assert (said.body["version"], said.body["passed"], said.body["by"]) == (2, True, "anna")
    assert question(waiting.ledger) is None
    with pytest.raises(UsageError, match="nothing of 'toy-binary' waits"):
        answer(waiting.project, waiting.ledger, 2, by="anna", why=None, passed=True)


def test_once_rejected_it_is_withdrawn(waiting: Lab):
    answer(waiting.project, waiting.ledger, 2, by="anna", why="not before the fair", passed=False)
    finish(waiting.ledger, waiting.models)
    (end,) = waiting.ledger.history("withdrawal")
    assert end.body["reasons"] == ["Version 2 is rejected by anna: not before the fair."]
    assert waiting.models.moves == [("withdraw", 2)]
    waiting.look_at(FIRST + (DAYS + 3) * DAY)
    assert line_up(waiting.ledger.history()).versions == {"champion": 1}


def test_another_version_than_the_one_that_waits_is_refused(waiting: Lab):
    with pytest.raises(UsageError, match="version 2 does"):
        answer(waiting.project, waiting.ledger, 3, by="anna", why=None, passed=True)
    assert question(waiting.ledger).version == 2


def test_the_question_is_dropped_with_its_challenger(waiting: Lab):
    moment = FIRST + (DAYS + 2) * DAY
    waiting.ledger.record("withdrawal", "2-x", event_time=moment, body={"version": 2, "effective_at": moment})
    waiting.look_at(moment + DAY)
    assert question(waiting.ledger) is None


def test_prefect_shows_one_run_while_the_question_waits_also_after_that_was_lost(waiting: Lab, prefect: FakePrefect):
    prefect.deployments["approve/toy-binary"] = {"id": "d2", "parameters": {"project": "p"}}
    api = PrefectApi(prefect.url)
    show(waiting.project, waiting.ledger, api)
    show(waiting.project, waiting.ledger, api)
    assert [run["parameters"]["version"] for run in prefect.runs.values()] == [2]
    prefect.end("CRASHED")
    show(waiting.project, waiting.ledger, api)
    assert len(prefect.runs) == 2
    answer(waiting.project, waiting.ledger, 2, by="anna", why=None, passed=True)
    show(waiting.project, waiting.ledger, api)
    show(waiting.project, waiting.ledger, api)
    assert prefect.cancelled == ["run-2"]
    assert len(prefect.runs) == 2


def test_without_shadows_a_version_that_passed_its_gates_waits_as_well(waiting: Lab):
    ledger, models = waiting.ledger, waiting.models
    ledger.request_retrain(RetrainRequest("r9", "manual", FIRST, FIRST))
    made = ModelVersion(3, "run", {"effective_at": str(FIRST)})
    decide(take(ledger, "r9", None), made, 1, [], [], becomes="approval", watched=True)
    assert carry_out(ledger, models, "r9") == "version 3 waits for approval"
    assert find(ledger, "r9").status == "waiting"
    assert models.moves == []
    assert question(ledger).text == "Version 3 waits for approval to replace champion 1. It passed every gate."
    answer(waiting.project, ledger, 3, by="anna", why=None, passed=True)
    assert finish(ledger, models) == "version 3 is champion"
    assert ledger.history("promotion")[-1].body["watched"] is True
