"""A worker with a canary: a kill changes nobody's model, and the share is the journal's, not the project file's."""

from __future__ import annotations

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

from core.tables import PREDICTIONS
from streaming.journal import Follow, Swap
from streaming.memory_broker import MemoryBroker

FIRST, SECOND = START + 20 * MINUTE, START + 30 * MINUTE
ALIASES = {"champion": (1, FIRST), "challenger": (2, SECOND)}


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    take_small_steps(monkeypatch)


def project_in(folder, canary=0.4, **changes):
    promotion = {"shadow": canary > 0, "canary": canary}
    return make_project(folder, online=["linear", "prior"], promotion=promotion, **{"state": STATE, **changes})


def stream():
    return fill(MemoryBroker(), with_clocks(easy_stream("binary", 100)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        take_small_steps(patch)
        project, broker = project_in(tmp_path_factory.mktemp("whole")), stream()
        return outcome_of(project, broker, run(project, broker, watcher=watching(Aliases(**ALIASES))))


def test_some_of_the_events_behind_the_challenge_are_served_by_it_and_it_is_told(tmp_path):
    project, broker = project_in(tmp_path), stream()
    worker = run(project, broker, watcher=watching(Aliases(**ALIASES)))
    assert changes(broker) == [Swap(1), Follow("challenger", 2, 0.4)]
    rows = rows_of(project, PREDICTIONS)
    served = [row for row in rows if row["canary_version"] is not None]
    assert 10 < len(served) < 50
    assert {row["canary_version"] for row in served} == {2}
    assert all(row["challenger_version"] == 2 for row in served)
    told = worker.partitions[0].describe()
    assert told["canary"] == {"share": 0.4, "version": 2, "served": len(served)}
    assert told["books"]["events"]["canary"] == len(served)
    assert worker.books.imbalances() == []


@pytest.mark.parametrize("phase", ["step", "journal", "commit", "table flush", "snapshot rename"])
@pytest.mark.parametrize("nth", [2, 5])
def test_a_kill_in_any_phase_changes_nothing(tmp_path, whole, phase, nth):
    project, broker = project_in(tmp_path), stream()
    run(project, broker, records=80, watcher=watching(Aliases(**ALIASES)))
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases(phase, nth), watcher=watching(Aliases(**ALIASES)))
    finished = run(project, broker, watcher=watching(Aliases(**ALIASES)))
    assert outcome_of(project, broker, finished) == whole


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_another_share_holds_from_the_next_record_on_and_not_for_what_is_repeated(tmp_path, share):
    lasting = {"commit_every": "1ms", "recover_within": "1h", "snapshot_every": "1h"}
    project, broker, aliases = (
        project_in(tmp_path, state=lasting),
        stream(),
        Aliases(champion=(1, 0), challenger=(2, 0)),
    )
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases("commit", 5), watcher=watching(aliases))
    before = values(broker)
    assert changes(broker) == [Swap(1), Follow("challenger", 2, 0.4)]
    assert any(b"canary_version" in value for value in before)

    finished = run(project_in(tmp_path, share, state=lasting), broker, watcher=watching(aliases))
    assert values(broker)[: len(before)] == before
    assert len(values(broker)) == 100
    assert changes(broker)[2:] == [Follow("challenger", 2, share)]
    canary = finished.partitions[0].describe()["canary"]
    assert canary is None if share == 0.0 else canary["share"] == share


def test_a_withdrawal_ends_it(tmp_path):
    project, broker = project_in(tmp_path), stream()
    run(project, broker, records=160, watcher=watching(Aliases(**ALIASES)))
    finished = run(project, broker, watcher=watching(Aliases(champion=(1, FIRST))))
    assert changes(broker)[-1] == Follow("challenger", None)
    rows = sorted(rows_of(project, PREDICTIONS), key=lambda row: row["step"])
    ended = max(at for at, row in enumerate(rows) if row["challenger_version"] is not None)
    assert any(row["canary_version"] for row in rows[: ended + 1])
    assert len(rows[ended + 1 :]) > 0 and not any(row["canary_version"] for row in rows[ended + 1 :])
    assert finished.partitions[0].describe()["canary"] is None


def test_one_that_does_not_load_serves_nobody(tmp_path):
    project, broker = project_in(tmp_path), stream()
    run(project, broker, watcher=watching(Aliases(champion=(1, FIRST), challenger=(9, SECOND))))
    assert {row["canary_version"] for row in rows_of(project, PREDICTIONS)} == {None}
    assert len(values(broker)) == 100
