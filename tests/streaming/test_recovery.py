"""A kill at any point of any phase: what follows is as if there had been none."""

from __future__ import annotations

import pytest
from stream_lab import digest, easy_stream, make_project
from worker_lab import (
    Killed,
    KillingPhases,
    fill,
    rows_of,
    run,
    values,
    with_clocks,
)

import streaming.decisions as decisions_module
import streaming.partition as partition_module
import streaming.worker as worker_module
from core.tables import CORRECTIONS, EXAMPLES, PREDICTIONS
from streaming.memory_broker import MemoryBroker

PHASES = ["poll", "step", "journal", "produce", "commit", "table flush"]
SNAPSHOT_PHASES = ["snapshot write", "snapshot fsync", "snapshot rename"]
STATE = {"commit_every": "1ms", "recover_within": "2ms"}


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(worker_module, "_POLL_MS", 5)
    monkeypatch.setattr(worker_module, "_POLL_RECORDS", 40)
    monkeypatch.setattr(decisions_module, "BATCH", 16)
    monkeypatch.setattr(partition_module, "_SNAPSHOT_SHARE", 0)


def project_in(folder, **changes):
    return make_project(folder, online=["linear", "prior", "no_change"], state=STATE, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run: its state's digest, its predictions and its rows."""
    project = project_in(tmp_path_factory.mktemp("whole"))
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 150)))
    worker = run(project, broker)
    tables = {table: rows_of(project, table) for table in (PREDICTIONS, EXAMPLES, CORRECTIONS)}
    return digest(worker.partitions[0].state), values(broker), tables


@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("phase", PHASES + SNAPSHOT_PHASES)
def test_a_kill_in_any_phase_changes_nothing(tmp_path, whole, phase, nth, after, transactional):
    project = project_in(tmp_path)
    broker = fill(MemoryBroker(transactional=transactional), with_clocks(easy_stream("binary", 150)))
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
