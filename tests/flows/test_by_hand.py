"""Promotion and rollback by hand: who and why is written down, workers follow, and nobody else's move is undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from dispatch_lab import Clock
from fake_prefect import FakePrefect
from flows_lab import BATCH, Toy, later, make_toy

from core.errors import ChampionChangedError, RegistryError, UsageError
from core.models import CHAMPION, PREVIOUS
from core.registry import Registry
from flows.by_hand import finish, promote, roll_back
from flows.dispatch import LOST_AFTER_S, Dispatcher
from flows.lease import MOVE, find, take
from flows.promotion import carry_out, decide
from monitoring.reference import champion_at
from streaming.champion import ChampionWatcher


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, Registry]:
    toy = make_toy(tmp_path_factory.mktemp("hand"), extra=BATCH + "gates: {max_relative_loss: 1.5}\n")
    assert toy.retrain("r1")["outcome"] == "promoted"
    toy.append(later(toy.project))
    assert toy.retrain("r2", "drift")["outcome"] == "promoted"
    registry = Registry(toy.project)
    source = registry._client.get_model_version("toy-binary", "1").source
    registry._client.create_model_version("toy-binary", source, tags={"headrace.effective_at": "5"})
    return toy, registry


@pytest.fixture
def toy(trained: tuple[Toy, Registry], registry: Registry) -> Iterator[Toy]:
    yield trained[0]
    trained[0].ledger.forget(MOVE)


@pytest.fixture
def registry(trained: tuple[Toy, Registry]) -> Registry:
    """Version 2 is champion, version 1 previous."""
    _toy, registry = trained
    for alias, version in ((CHAMPION, 2), (PREVIOUS, 1)):
        registry._client.set_registered_model_alias("toy-binary", alias, str(version))
    return registry


def test_a_rollback_swaps_the_champion_and_the_previous_one_and_says_who_and_why(toy: Toy, registry: Registry):
    done = roll_back(toy.project, toy.ledger, registry, by="anna", why="late on Mondays")
    assert registry.aliases() == {CHAMPION: 1, PREVIOUS: 2}
    record = toy.ledger.history()[-1]
    assert (record.kind, record.body) == ("rollback", {k: v for k, v in done.items() if k != "kind"})
    assert record.body["approved"] == {"by": "anna", "why": "late on Mondays"}
    assert record.body["aliases"] == {"before": {CHAMPION: 2, PREVIOUS: 1}, "after": {CHAMPION: 1, PREVIOUS: 2}}
    assert record.body["evidence"]["retraining"] == "r1/1"
    assert champion_at(toy.ledger.history(), toy.now) == 1
    roll_back(toy.project, toy.ledger, registry, by="anna", why="by mistake")
    assert registry.aliases() == {CHAMPION: 2, PREVIOUS: 1}
    assert champion_at(toy.ledger.history(), toy.now) == 2


def test_a_worker_follows_a_rollback(toy: Toy, registry: Registry):
    watcher = ChampionWatcher(lambda: registry, poll_s=0.05)
    watcher.start()
    assert watcher.wait_for_first_look(60)
    assert watcher.loaded is not None and watcher.loaded.model.version == 2
    roll_back(toy.project, toy.ledger, registry, by="anna", why=None)
    pause = threading.Event()
    for _ in range(600):
        if watcher.loaded.model.version == 1:
            break
        pause.wait(0.1)
    watcher.stop()
    assert watcher.loaded.model.version == 1


def test_any_version_may_be_promoted_by_hand(toy: Toy, registry: Registry):
    promote(toy.project, toy.ledger, registry, 1, by="ben", why=None)
    assert registry.aliases() == {CHAMPION: 1, PREVIOUS: 2}
    record = toy.ledger.history()[-1]
    assert (record.kind, record.body["version"], record.body["approved"]["by"]) == ("promotion", 1, "ben")


def test_what_cannot_be_promoted_by_hand_is_said_and_nothing_moves(
    toy: Toy, registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    before, records = registry.aliases(), len(toy.ledger.history())
    with pytest.raises(UsageError, match="no version 9; there are 1, 2, 3"):
        promote(toy.project, toy.ledger, registry, 9, by="ben", why=None)
    with pytest.raises(UsageError, match="champion already"):
        promote(toy.project, toy.ledger, registry, 2, by="ben", why=None)
    reference = toy.project.state / "references" / "1.json"
    reference.rename(reference.with_suffix(".gone"))
    with pytest.raises(UsageError, match="has no reference"):
        promote(toy.project, toy.ledger, registry, 1, by="ben", why=None)
    reference.with_suffix(".gone").rename(reference)

    def broken(_version: int) -> None:
        raise RegistryError("the files changed")

    monkeypatch.setattr(registry, "load", broken)
    with pytest.raises(RegistryError, match="files changed"):
        roll_back(toy.project, toy.ledger, registry, by="ben", why=None)
    assert (registry.aliases(), len(toy.ledger.history())) == (before, records)
    assert toy.ledger.recall(MOVE) is None


def test_without_a_previous_version_there_is_nothing_to_go_back_to(toy: Toy, registry: Registry):
    registry._client.delete_registered_model_alias("toy-binary", PREVIOUS)
    with pytest.raises(UsageError, match="no previous version to go back to: champion is 2"):
        roll_back(toy.project, toy.ledger, registry, by="anna", why=None)


def test_a_champion_that_changes_meanwhile_is_not_replaced(
    toy: Toy, registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    records = len(toy.ledger.history())

    def meanwhile(_version: int) -> None:
        registry._client.set_registered_model_alias("toy-binary", CHAMPION, "3")

    monkeypatch.setattr(registry, "load", meanwhile)
    with pytest.raises(ChampionChangedError, match="version 3 became champion meanwhile"):
        roll_back(toy.project, toy.ledger, registry, by="anna", why=None)
    assert registry.aliases() == {CHAMPION: 3, PREVIOUS: 1}
    assert (len(toy.ledger.history()), toy.ledger.recall(MOVE)) == (records, None)


def test_a_rollback_does_not_wait_for_a_retraining_which_is_not_promoted_then(toy: Toy, registry: Registry):
    toy.request("r3", "drift")
    lease = take(toy.ledger, "r3", None)
    assert lease is not None
    roll_back(toy.project, toy.ledger, registry, by="anna", why=None)
    decide(lease, registry.versions()[2], 2, [], [])
    assert carry_out(toy.ledger, registry, "r3") == "version 1 became champion meanwhile: 3 is not promoted"
    assert registry.aliases() == {CHAMPION: 1, PREVIOUS: 2}
    assert find(toy.ledger, "r3").status == "failed"


@pytest.mark.parametrize("moved", [False, True])
def test_a_move_that_died_before_its_record_is_finished_by_the_dispatcher(
    toy: Toy, registry: Registry, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch, moved: bool
):
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(type(toy.ledger) if moved else registry, "record" if moved else "promote", dies)
        with pytest.raises(KeyboardInterrupt):
            roll_back(toy.project, toy.ledger, registry, by="anna", why="late")
    assert registry.aliases()[CHAMPION] == (1 if moved else 2)
    records = len(toy.ledger.history())
    wall = Clock()
    wall.now = toy.ledger.recall(MOVE)["at"]
    dispatcher = Dispatcher(toy.project, toy.ledger, prefect.url, clock=wall)
    dispatcher.run_once()
    assert len(toy.ledger.history()) == records, "the command may still be at work"
    wall.now += LOST_AFTER_S + 1
    dispatcher.run_once()
    assert registry.aliases() == {CHAMPION: 1, PREVIOUS: 2}
    assert [record.kind for record in toy.ledger.history()[records:]] == ["rollback"]
    assert finish(toy.ledger, registry) is None
