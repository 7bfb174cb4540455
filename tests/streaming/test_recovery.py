"""A kill at any point of any phase: what follows is as if there had been none."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from stream_lab import MINUTE, START, FakeChampion, digest, easy_stream, make_project
from worker_lab import (
    DEAD,
    JOURNAL,
    STATE,
    Killed,
    KillingPhases,
    Source,
    clocks,
    fill,
    outcome_of,
    rows_of,
    run,
    take_small_steps,
    values,
    watching,
    with_clocks,
)

import streaming.worker as worker_module
from core.errors import CheckpointError
from core.tables import CORRECTIONS, EXAMPLES, PREDICTIONS
from streaming.memory_broker import MemoryBroker
from streaming.phases import Phases
from streaming.transport import OutRecord

PHASES = ["poll", "step", "journal", "produce", "commit", "table flush"]
SNAPSHOT_PHASES = ["snapshot write", "snapshot fsync", "snapshot rename"]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    take_small_steps(monkeypatch)


def project_in(folder, **changes):
    return make_project(folder, online=["linear", "prior", "no_change"], state=STATE, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run: its state's digest, its predictions and its rows."""
    project = project_in(tmp_path_factory.mktemp("whole"))
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 70)))
    worker = run(project, broker)
    return outcome_of(project, broker, worker, (PREDICTIONS, EXAMPLES, CORRECTIONS))


@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("phase", PHASES + SNAPSHOT_PHASES)
def test_a_kill_in_any_phase_changes_nothing(tmp_path, whole, phase, nth, after, transactional):
    project = project_in(tmp_path)
    broker = fill(MemoryBroker(transactional=transactional), with_clocks(easy_stream("binary", 70)))
    phases = KillingPhases(phase, nth, after=after)
    with pytest.raises(Killed):
        run(project, broker, phases=phases)

    finished = run(project, broker)

    state, predictions, tables = whole
    assert digest(finished.partitions[0].state) == state
    published = values(broker)
    if transactional:
        assert published == predictions, "each once, in order, to the bit"
    else:
        assert list(dict.fromkeys(published)) == predictions, "what comes again is equal"
    assert {table: rows_of(project, table) for table in tables} == tables
    assert finished.books.imbalances() == []


def as_it_comes(count: int) -> list[OutRecord]:
    """A stream without words about time, so that order depends on what has been polled."""
    return easy_stream("binary", count)


@pytest.mark.parametrize("nth", [2, 5, 9])
def test_outside_of_lockstep_the_decided_order_is_repeated_and_nothing_is_published_otherwise(tmp_path, nth):
    stream = as_it_comes(120)
    project, broker = project_in(tmp_path, order={"max_wait": "1ms"}), fill(MemoryBroker(), stream)
    watcher = watching(Source(7, 0, FakeChampion(7, lambda row: 0.3)))
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases("commit", nth), watcher=watcher, lockstep=False)
    before = values(broker)

    watcher = watching(Source(7, 0, FakeChampion(7, lambda row: 0.3)))
    finished = run(project, broker, watcher=watcher, lockstep=False)

    published = [json.loads(value) for value in values(broker)]
    assert values(broker)[: len(before)] == before
    assert Counter(one["id"] for one in published) == Counter(f"e{number}" for number in range(120))
    assert finished.books.imbalances() == []
    rows = rows_of(project, PREDICTIONS)
    assert {row["id"]: row["p_served"] for row in rows} == {one["id"]: one["prediction"] for one in published}


def test_the_whole_journal_alone_leads_to_the_same_state(tmp_path):
    """Snapshots only save time: without any, everything follows from the logs."""
    stream = as_it_comes(150)
    project, broker = project_in(tmp_path / "a", order={"max_wait": "1ms"}), fill(MemoryBroker(), stream)
    watcher = watching(Source(3, 0))
    expected = run(project, broker, watcher=watcher, lockstep=False)
    published = values(broker)

    other = project_in(tmp_path / "b", order={"max_wait": "1ms"})
    repeated = run(other, broker, watcher=watching(Source(3, 0)), lockstep=False)

    assert digest(repeated.partitions[0].state) == digest(expected.partitions[0].state)
    assert values(broker) == published, "what was committed is not published again"
    assert rows_of(other, EXAMPLES) == rows_of(project, EXAMPLES)


def test_code_that_gives_other_predictions_than_before_is_noticed(tmp_path):
    code = "def features(fields):\n    return {'x': fields['%s']}\n"
    how = {"features": {"function": "code.py:features", "outputs": {"x": "number"}}}
    project = project_in(tmp_path, code=code % "x", **how)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 100)))
    run(project, broker)
    changed = project_in(tmp_path / "changed", code=code % "z", **how)

    with pytest.raises(CheckpointError, match=r"other predictions than were published.*rebuild-state"):
        run(changed, broker)


def test_a_champion_that_is_needed_to_repeat_is_waited_for(tmp_path):
    stream = with_clocks(easy_stream("binary", 100))
    project, broker = project_in(tmp_path), fill(MemoryBroker(), stream)
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases("snapshot write", 2), watcher=watching(Source(4, START + 5 * MINUTE)))
    published = values(broker)

    waits = run(project, broker, until=lambda one: one.partitions and not one.partitions[0].work())
    assert not waits.partitions[0].is_live
    assert values(broker) == published

    finished = run(project, broker, watcher=watching(Source(4, START + 5 * MINUTE)))
    assert finished.books.events.predicted == 100
    assert len(values(broker)) == 100


def test_a_bad_record_is_published_once_whatever_is_killed(tmp_path):
    bad = OutRecord("small.events", b"k", b"{", START + 5)
    stream = sorted([bad, *easy_stream("binary", 50)], key=lambda record: record.timestamp)
    project, broker = project_in(tmp_path), fill(MemoryBroker(), with_clocks(stream))
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases("table flush", 1))
    run(project, broker)
    assert len(broker.records(DEAD)) == 1


def test_the_journal_has_one_entry_a_commit_and_one_a_take_over(tmp_path):
    project, broker = project_in(tmp_path), fill(MemoryBroker(), with_clocks(easy_stream("binary", 60)))
    phases = Phases()
    run(project, broker, phases=phases)
    run(project, broker, until=lambda one: len(one.partitions) == 1)
    entries = broker.records(JOURNAL)
    assert sum(b"takeover" in (entry.value or b"") for entry in entries) == 2
    assert len(entries) > 4
    assert phases.current == []


def test_more_rows_than_may_wait_are_repeated_and_written(tmp_path, whole):
    state = {"commit_every": "1ms", "flush_rows": 10}
    project = make_project(tmp_path, online=["linear", "prior", "no_change"], state=state)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 70)))
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases("snapshot write", 1))
    digest_of_all, published, tables = whole
    finished = run(project, broker)
    assert digest(finished.partitions[0].state) == digest_of_all
    assert values(broker) == published
    assert {table: rows_of(project, table) for table in tables} == tables


@pytest.mark.parametrize("phase", ["commit", "table flush"])
def test_after_a_move_to_a_new_broker_a_crash_before_the_first_snapshot_is_recovered(tmp_path, phase):
    project = make_project(tmp_path, state={"commit_every": "1ms"})
    stream = easy_stream("binary", 120)
    first = run(project, fill(MemoryBroker(), with_clocks(stream[:100])))
    moved = fill(MemoryBroker(), with_clocks(stream[100:]))
    with pytest.raises(Killed):
        run(project, moved, phases=KillingPhases(phase, 6, after=True))
    finished = run(project, moved)
    assert finished.books.imbalances() == []
    rows = [row["id"] for row in rows_of(project, EXAMPLES)]
    assert len(rows) == len(set(rows)) == finished.books.events.joined == 120
    assert finished.partitions[0].state.step > first.partitions[0].state.step


def test_steps_of_examples_alone_are_not_given_away_again_on_a_new_broker(tmp_path):
    stream = easy_stream("binary", 60)
    project, broker = project_in(tmp_path), fill(MemoryBroker(), [])
    events, labels = ([r for r in stream if r.topic.endswith(kind)] for kind in ("events", "labels"))
    for record in [*events[:40], *clocks(START + 41 * MINUTE)]:
        broker.append(record)
    run(project, broker)
    for record in [*labels[:40], *clocks(START + 45 * MINUTE)]:
        broker.append(record)
    with pytest.raises(Killed):  # its rows are in the table, its snapshot is not there
        run(project, broker, phases=KillingPhases("snapshot write", 1))
    written = len(rows_of(project, EXAMPLES))
    assert written > 0

    later = [replace(r, timestamp=r.timestamp + 10 * MINUTE) for r in stream[80:]]
    run(project, fill(MemoryBroker(), with_clocks(later)))
    assert len(rows_of(project, EXAMPLES)) == written + 20


def test_a_journal_that_begins_later_than_a_lost_state_says_how_to_start_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "_TRIM_ENTRIES", 2)
    project, broker = project_in(tmp_path), fill(MemoryBroker(), with_clocks(easy_stream("binary", 100)))
    run(project, broker)
    lost = project_in(tmp_path / "lost")
    with pytest.raises(CheckpointError, match="start anew: move the state folder away and delete that topic"):
        run(lost, broker)
