from __future__ import annotations

import threading

import pytest
from stream_lab import FakeChampion

from core.errors import RegistryError
from streaming.champion import ChampionWatcher


class Source:
    """A registry whose alias and mood are set by the test; `looked` counts its answers."""

    def __init__(self) -> None:
        self.alias: tuple[int, int] | None = None
        self.shadows: dict[str, tuple[int, int]] = {}
        self.error: Exception | None = None
        self.loads: list[int] = []
        self.changed = threading.Condition()
        self.looks = 0

    def followed(self):
        with self.changed:
            self.looks += 1
            self.changed.notify_all()
            if self.error:
                raise self.error
            return {**self.shadows, **({} if self.alias is None else {"champion": self.alias})}

    def load(self, version):
        self.loads.append(version)
        if version < 0:
            raise RegistryError("digest differs")
        return FakeChampion(version)

    def wait_for_looks(self, more: int = 3) -> None:
        """Wait until whatever is set now has been seen and dealt with."""
        with self.changed:
            wanted = self.looks + more
            assert self.changed.wait_for(lambda: self.looks >= wanted, 20)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def watcher(source, monkeypatch):
    made = ChampionWatcher(lambda: source, poll_s=0.001)
    yield made
    made.stop()
    assert not made._thread.is_alive()


def test_it_follows_the_alias_back_and_forth(source, watcher):
    watcher.start()
    assert watcher.wait_for_first_look(20)
    assert watcher.loaded is None
    for version, effective in ((1, 10), (2, 20), (1, 30)):
        source.alias = (version, effective)
        source.wait_for_looks()
        assert (watcher.loaded.model.version, watcher.loaded.effective_at) == (version, effective)
    assert source.loads == [1, 2], "each is loaded once"


def test_what_cannot_be_loaded_changes_nothing(source, watcher):
    watcher.start()
    source.alias = (1, 0)
    source.wait_for_looks()
    source.alias = (-2, 0)
    source.wait_for_looks()
    assert watcher.loaded.model.version == 1
    assert watcher.problem == "digest differs"
    source.alias = (3, 0)
    source.wait_for_looks()
    assert (watcher.loaded.model.version, watcher.problem) == (3, None)


@pytest.mark.parametrize("error", [RegistryError("MLflow is away"), KeyError("surprise"), MemoryError()])
def test_it_survives_any_error_of_the_registry(source, watcher, error):
    source.error = error
    watcher.start()
    source.wait_for_looks(2)
    assert watcher.problem
    source.error, source.alias = None, (1, 0)
    source.wait_for_looks()
    assert (watcher.loaded.model.version, watcher.problem) == (1, None)


def test_it_connects_again_until_it_can():
    attempts, source = [], Source()
    source.alias = (5, 0)

    def connect():
        attempts.append(1)
        if len(attempts) < 3:
            raise RegistryError("no MLflow")
        return source

    watcher = ChampionWatcher(connect, poll_s=0.001)
    watcher.start()
    assert watcher.wait_for_first_look(20)
    watcher.stop()
    assert len(attempts) == 3
    assert watcher.loaded.model.version == 5


def test_it_can_be_stopped_before_it_started(source):
    ChampionWatcher(lambda: source).stop()


def test_shadows_are_handed_over_with_the_champion_of_the_same_look(source, watcher):
    source.alias, source.shadows = (1, 10), {"challenger": (2, 20), "previous": (3, 5)}
    watcher.start()
    assert watcher.wait_for_first_look(20)
    champion, shadows = watcher.line_up
    assert (champion.model.version, champion.effective_at) == (1, 10)
    assert {role: (one.model.version, one.effective_at) for role, one in shadows.items()} == source.shadows
    with source.changed:
        source.alias, source.shadows = (2, 30), {"previous": (1, 10)}
    source.wait_for_looks()
    champion, shadows = watcher.line_up
    assert (champion.model.version, {role: one.model.version for role, one in shadows.items()}) == (2, {"previous": 1})
    assert source.loads == [1, 2, 3], "each once"


def test_a_shadow_that_does_not_load_keeps_neither_champion_nor_other_versions(source, watcher):
    source.alias, source.shadows = (1, 10), {"challenger": (-1, 20)}
    watcher.start()
    assert watcher.wait_for_first_look(20)
    assert watcher.version(-1) is None
    assert watcher.version(4) is None
    source.wait_for_looks()
    champion, shadows = watcher.line_up
    assert (champion.model.version, shadows) == (1, {})
    assert "digest differs" in watcher.problem
    assert watcher.version(4).version == 4
