"""Features of a key's past survive a kill at any point, with a champion that is asked about them: to the bit."""

from __future__ import annotations

import pytest
from stream_lab import FakeChampion, easy_stream, make_project
from worker_lab import (
    STATE,
    Killed,
    KillingPhases,
    Source,
    fill,
    outcome_of,
    run,
    take_small_steps,
    watching,
    with_clocks,
)

from core.tables import PREDICTIONS
from streaming.memory_broker import MemoryBroker

PER_KEY = [
    {"name": "n", "key": "c", "kind": "count", "half_life": "10m"},
    {"name": "rate", "key": "c", "kind": "label_mean", "half_life": "10m"},
    {"name": "before", "key": "c", "kind": "last", "of": "x"},
]


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
    return outcome_of(project, broker, worker)


def stream():
    return with_clocks(easy_stream("binary", 70))


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("phase", ["step", "commit", "table flush", "snapshot write"])
def test_a_kill_changes_nothing(tmp_path, whole, phase, nth):
    project, broker = project_in(tmp_path), fill(MemoryBroker(), stream())
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases(phase, nth), watcher=watcher())
    finished = run(project, broker, watcher=watcher())
    assert outcome_of(project, broker, finished) == whole
    assert any(row["f_rate"] for row in whole[2][PREDICTIONS])
