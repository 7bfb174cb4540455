"""New features of old events: as if the project had had them from the beginning."""

from __future__ import annotations

from pathlib import Path

import pytest
from stream_lab import digest, easy_stream, make_project
from worker_lab import fill, rows_of, run, with_clocks

from core.errors import CheckpointError
from core.features import load_features
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS
from streaming.backfill import backfill
from streaming.checkpoint import Checkpoints
from streaming.memory_broker import MemoryBroker
from streaming.rebuild import rebuild

PER_KEY = [
    {"name": "n", "key": "c", "kind": "count", "half_life": "1h"},
    {"name": "rate", "key": "c", "kind": "label_mean"},
    {"name": "usual", "key": "c", "kind": "mean", "of": "x"},
]
NEW = {"per_key": PER_KEY, "calendar": ["hour", "weekend"], "interactions": [["x", "z"]]}
STREAM = with_clocks(easy_stream("binary", 200))


def worked(folder: Path, **changes):
    project, broker = make_project(folder, **changes), fill(MemoryBroker(), STREAM)
    run(project, broker)
    return project, broker


def filled(project, broker):
    return backfill(project, broker.consumer("g"), load_features(project), None, {0: []})


def test_rows_and_rebuilt_state_are_as_if_the_features_had_been_there_from_the_beginning(tmp_path):
    before, broker = worked(tmp_path / "a")
    version = TableStore(before.tables).version(EXAMPLES)
    after = make_project(tmp_path / "a", features=NEW)
    with pytest.raises(CheckpointError, match="rebuild-state"):
        Checkpoints(after).load(0)

    done = filled(after, broker)
    assert (done.rows, done.gone, done.refused) == (200, 0, 0)
    always, _ = worked(tmp_path / "b", features=NEW)
    for table in (PREDICTIONS, EXAMPLES):
        expected = [{n: v for n, v in row.items() if n[:2] in ("f_", "k_")} for row in rows_of(always, table)]
        assert [{n: row[n] for n in expected[0]} for row in rows_of(after, table)] == expected
    assert rows_of(after, PREDICTIONS)[5]["p_served"] != rows_of(always, PREDICTIONS)[5]["p_served"]
    old = TableStore(after.tables).read(EXAMPLES, version=version)
    assert "f_rate" not in old.column_names, "what a model was fitted on stays readable"

    rebuild(after, 0, Checkpoints(after), lambda done, total: None)
    states = [Checkpoints(project).load(0).state for project in (after, always)]
    assert digest(states[0].keyed) == digest(states[1].keyed)
    assert digest([one.__dict__ for one in states[0].experts]) == digest([one.__dict__ for one in states[1].experts])
    assert filled(after, broker).rows == 200, "again it gives the same"


def test_rows_whose_raw_event_is_gone_or_refused_stay_as_they_are(tmp_path):
    before, broker = worked(tmp_path)
    features = {row["id"]: row["f_x"] for row in rows_of(before, PREDICTIONS)}
    fields = {"x": {"type": "number", "minimum": -0.5}, "z": "number", "c": {"type": "category", "max_categories": 4}}
    after = make_project(tmp_path, fields=fields, features=NEW)
    refused = {name for name, value in features.items() if value < -0.5}
    done = filled(after, broker)
    assert (done.rows, done.refused) == (200 - len(refused), len(refused))
    for row in rows_of(after, PREDICTIONS):
        assert row["f_x"] == features[row["id"]]
        assert (row["f_n"] is None) == (row["id"] in refused)
