"""A worker follows the aliases: a challenger shadows, is promoted with its weights, and the one before shadows it."""

from __future__ import annotations

import logging

import pytest
from stream_lab import MINUTE, START, easy_stream, make_project
from worker_lab import (
    STATE,
    Aliases,
    Killed,
    KillingPhases,
    changes,
    fill,
    outcome_of,
    rows_of,
    run,
    take_small_steps,
    values,
    watching,
    with_clocks,
)

import streaming.opening as opening_module
from core.tables import PREDICTIONS
from streaming.journal import Follow, Swap
from streaming.memory_broker import MemoryBroker

FIRST, SECOND, PROMOTED = START + 20 * MINUTE, START + 30 * MINUTE, START + 60 * MINUTE
AFTER = {"champion": (2, PROMOTED), "previous": (1, FIRST)}


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    take_small_steps(monkeypatch)


def project_in(folder):
    return make_project(folder, online=["linear", "prior"], state=STATE)


def promoted_midway(project, broker, phases=None):
    """Run a worker that sees a champion and a challenger, then, perhaps killed first, one that sees it promoted."""
    run(project, broker, records=80, watcher=watching(Aliases(champion=(1, FIRST), challenger=(2, SECOND))))
    if phases is not None:
        with pytest.raises(Killed):
            run(project, broker, phases=phases, watcher=watching(Aliases(**AFTER)))
    return run(project, broker, watcher=watching(Aliases(**AFTER)))


def test_the_order_of_a_promotion(tmp_path):
    project = project_in(tmp_path)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 100)))
    finished = promoted_midway(project, broker)
    assert changes(broker) == [
        Swap(1),
        Follow("challenger", 2),
        Swap(2),
        Follow("challenger", None),
        Follow("previous", 1),
    ]
    rows = sorted(rows_of(project, PREDICTIONS), key=lambda row: row["step"])
    roles = [(row["champion_version"], row["challenger_version"], row["previous_version"]) for row in rows]
    assert list(dict.fromkeys(roles)) == [(None, None, None), (1, None, None), (1, 2, None), (2, None, 1)]
    assert roles.count((1, 2, None)) == 30
    assert finished.partitions[0].describe()["shadows"] == {"previous": 1}
    assert finished.books.imbalances() == []


@pytest.mark.parametrize("phase", ["step", "journal", "commit", "table flush", "snapshot rename"])
@pytest.mark.parametrize("nth", [2, 5])
def test_a_kill_in_any_phase_changes_nothing(tmp_path, phase, nth):
    stream = with_clocks(easy_stream("binary", 100))
    found = []
    for phases in (None, KillingPhases(phase, nth)):
        project, broker = project_in(tmp_path / str(len(found))), fill(MemoryBroker(), stream)
        finished = promoted_midway(project, broker, phases)
        found.append(outcome_of(project, broker, finished))
    assert found[0] == found[1]


def test_a_shadow_that_does_not_load_holds_nothing_up(tmp_path, caplog):
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 60)))
    with caplog.at_level(logging.WARNING, "headrace.champion"):
        finished = run(project_in(tmp_path), broker, watcher=watching(Aliases(champion=(1, 0), challenger=(9, 0))))
    assert finished.partitions[0].serving_champion == 1
    assert [one for one in changes(broker) if isinstance(one, Follow)] == []
    assert "version 9 cannot be trusted" in caplog.text


def test_one_that_does_not_load_any_more_ends_and_the_stream_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(opening_module, "PATIENCE_S", 0.2)
    project = project_in(tmp_path)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 60)))
    aliases = Aliases(champion=(1, 0), challenger=(2, 0))
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases("commit", 5), watcher=watching(aliases))
    assert Follow("challenger", 2) in changes(broker)
    before = values(broker)

    class Lost(Aliases):
        def load(self, version):
            return super().load(9 if version == 2 else version)

    finished = run(project, broker, watcher=watching(Lost(champion=(1, 0), challenger=(2, 0))))
    assert values(broker)[: len(before)] == before
    assert len(values(broker)) == 60
    assert changes(broker)[-1] == Follow("challenger", None)
    assert finished.partitions[0].describe()["shadows"] == {}
