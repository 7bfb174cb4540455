"""Shadows are judged from the tables, and what follows is done once, whoever dies in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flows_lab import write_project
from shadow_lab import DAYS, FIRST, Lab

from core.audit import RetrainRequest
from core.durations import DAY, HOUR
from core.errors import RegistryError
from core.line_up import line_up
from core.project import Project
from core.quarantine import quarantined
from flows.lease import MOVE
from flows.moves import decided
from flows.shadowing import verdict_at


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return write_project(tmp_path, "binary")


@pytest.fixture
def better(project: Project) -> Iterator[Lab]:
    lab = Lab(project, "challenger", 0.6, 0.7)
    yield lab
    lab.ledger.close()


def test_a_better_challenger_is_promoted_from_the_moment_it_was_seen(better: Lab):
    better.look_every_day()
    (end,) = better.ends()
    assert (end.kind, end.body["version"], end.body["previous"]) == ("promotion", 2, 1)
    assert better.models.moves == [("promote", 2, 1, end.body["effective_at"], True)]
    assert end.event_time == end.body["effective_at"] == end.body["serves_from"]
    assert end.body["approved"]["by"] == "shadow"
    assert "challenger 2 lost" in end.body["approved"]["why"]
    assert end.body["evidence"] == {"gate": "r/1", "challenge": "2"}
    assert line_up(better.ledger.history()).versions == {"champion": 2, "previous": 1}


def test_who_looks_only_at_the_end_finds_the_same_verdict(better: Lab):
    moment = FIRST + DAYS * DAY + DAY
    records, shadow = better.ledger.history(), line_up(better.ledger.history()).challenger
    late = verdict_at(better.store, better.project.settings, records, shadow, moment)
    better.look_every_day()
    (end,) = better.ends()
    assert end.body["verdict"] == late.as_json()
    assert late.blocks < DAYS


@pytest.mark.parametrize(("with_shadow", "conclusion"), [(0.6, "futile"), (0.5, "inferior")])
def test_a_challenger_that_is_no_better_is_withdrawn_with_a_reason(
    project: Project, with_shadow: float, conclusion: str
):
    lab = Lab(project, "challenger", 0.6, with_shadow)
    lab.look_every_day()
    (end,) = lab.ends()
    assert (end.kind, end.body["verdict"]["conclusion"]) == ("withdrawal", conclusion)
    assert end.body["reasons"][0].startswith("The blend with challenger 2 lost")
    assert lab.models.moves == [("withdraw", 2)]
    assert line_up(lab.ledger.history()).versions == {"champion": 1}


def test_a_regression_brings_the_former_champion_back_with_an_alert_and_the_worse_is_not_tried_again(project: Project):
    lab = Lab(project, "previous", 0.6, 0.7)
    lab.look_every_day()
    (end,) = lab.ends()
    assert (end.kind, end.body["version"], end.body["previous"], end.body["watched"]) == ("rollback", 1, 2, False)
    assert [alert.record.body["reasons"][0] for alert in lab.ledger.waiting_alerts()] == [
        "Champion 2 is rolled back: version 1 serves again."
    ]
    assert lab.models.moves == [("promote", 1, 2, end.body["effective_at"], False)]
    assert line_up(lab.ledger.history()).versions == {"champion": 1}


def test_a_champion_that_is_no_regression_is_trusted(project: Project):
    lab = Lab(project, "previous", 0.7, 0.6)
    lab.look_every_day()
    (end,) = lab.ends()
    assert (end.kind, end.body["version"]) == ("trust", 2)
    assert lab.models.moves == [("trust", 2)]
    assert line_up(lab.ledger.history()).versions == {"champion": 2}


def test_killed_between_the_decision_and_the_alias_or_behind_it_the_next_one_does_it_once(better: Lab):
    better.models.down = True
    with pytest.raises(RegistryError):
        better.look_every_day()
    better.models.down, better.models.dies = False, True
    with pytest.raises(KeyboardInterrupt):
        better.look_every_day()
    assert decided(better.ledger).key == "2"
    assert better.ends() == []
    better.shadowing = better.anew()
    better.look_every_day()
    assert [record.kind for record in better.ends()] == ["promotion"]
    assert better.ledger.recall(MOVE) is None
    assert better.models.named == {"champion": 2, "previous": 1}


def test_where_another_became_champion_meanwhile_the_shadow_ends_and_nothing_moves(better: Lab):
    better.models.named = {"champion": 3, "challenger": 2}
    better.look_every_day()
    (end,) = [record for record in better.ledger.history() if record.kind == "withdrawal"]
    assert end.body["reasons"] == ["version 3 became champion meanwhile: 2 is not"]
    assert better.models.moves == [("withdraw", 2)]


def test_a_version_that_was_deleted_is_not_promoted(better: Lab):
    better.models.known = [1]
    better.look_every_day()
    (end,) = better.ends()
    assert end.kind == "withdrawal"
    assert "was deleted in MLflow" in end.body["reasons"][0]


def test_windows_in_quarantine_do_not_count(better: Lab):
    span = [FIRST, FIRST + DAYS * DAY]
    better.ledger.record("quarantine", "w", event_time=FIRST + DAY, body={"span": span})
    assert quarantined(better.ledger.history(), FIRST + DAY) == [tuple(span)]
    better.look_every_day()
    assert better.ends() == []


@pytest.mark.parametrize(("champion", "counts"), [(0.3, True), (0.6, False)])
def test_where_labels_contradict_the_new_champion_only_the_watch_counts_them_all_the_same(project, champion, counts):
    lab = Lab(project, "previous", 0.6, 0.7, champion)
    lab.ledger.record("quarantine", "w", event_time=FIRST, body={"span": [FIRST, FIRST + DAYS * DAY]})
    lab.look_every_day()
    assert [end.kind for end in lab.ends()] == (["rollback"] if counts else [])


def test_a_retraining_waits_until_the_shadows_are_judged_so_that_it_meets_the_right_champion(better: Lab):
    request = RetrainRequest("drift-1", "drift", FIRST + 2 * DAY, FIRST + 2 * DAY + HOUR)
    better.look_at(FIRST + DAY)
    assert not better.shadowing.has_judged(request)
    better.look_at(FIRST + 2 * DAY)
    assert better.shadowing.has_judged(request)


def test_a_moment_within_a_block_gives_what_its_beginning_gave(better: Lab):
    records, shadow = better.ledger.history(), line_up(better.ledger.history()).challenger
    settings = better.project.settings
    found = [verdict_at(better.store, settings, records, shadow, FIRST + 9 * DAY + more) for more in (0, 1, 23 * HOUR)]
    assert found[0] == found[1] == found[2]
    assert found[0].blocks == 8
