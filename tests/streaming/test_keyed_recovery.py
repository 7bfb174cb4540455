"""Features of a key's past survive a kill at any point, with a champion that is asked about them: to the bit."""

from __future__ import annotations

import pytest
from stream_lab import FakeChampion, digest, easy_stream, make_project
from worker_lab import (
    Killed,
    KillingPhases,
    Source,
    fill,
    rows_of,
    run,
    take_small_steps,
    values,
    watching,
    with_clocks,
)

from core.tables import EXAMPLES, PREDICTIONS
from streaming.memory_broker import MemoryBroker

PER_KEY = [
    {"name": "n", "key": "c", "kind": "count", "half_life": "10m"},
    {"name": "rate", "key": "c", "kind": "label_mean", "half_life": "10m"},
    {"name": "before", "key": "c", "kind": "last", "of": "x"},
]
STATE = {"commit_every": "1ms", "recover_within": "2ms"}


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    take_small_steps(monkeypatch)


def project_in(folder):
    features = {"per_key": PER_KEY, "max_keys": 4}
    return make_project(folder, online=["linear", "prior"], state=STATE, features=features, label={"horizon": "20m"})


def watcher():
    return watching(Source(7, 0, FakeChampion(7, lambda row: 0.1 + 0.8 * (row["rate"] or 0.0) / (1.0 + row["n"]))))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    project, broker = project_in(tmp_path_factory.mktemp("whole")), fill(MemoryBroker(), stream())
    worker = run(project, broker, watcher=watcher())
    return digest(worker.partitions[0].state), values(broker), [rows_of(project, t) for t in (PREDICTIONS, EXAMPLES)]


def stream():
    return with_clocks(easy_stream("binary", 70))


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("phase", ["step", "commit", "table flush", "snapshot write"])
def test_a_kill_changes_nothing(tmp_path, whole, phase, nth):
    project, broker = project_in(tmp_path), fill(MemoryBroker(), stream())
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases(phase, nth), watcher=watcher())
    finished = run(project, broker, watcher=watcher())
    state, predictions, rows = whole
    assert digest(finished.partitions[0].state) == state
    assert values(broker) == predictions
    assert [rows_of(project, table) for table in (PREDICTIONS, EXAMPLES)] == rows
    assert any(row["f_rate"] for row in rows[0])
