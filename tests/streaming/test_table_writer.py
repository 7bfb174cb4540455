from __future__ import annotations

import pytest
from stream_lab import MINUTE, START, TASKS, FakeChampion, as_raw, easy_stream, label, make_machine, make_project

import core.store
from core.errors import StoreError
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES, PREDICTIONS, corrections_schema, examples_schema, predictions_schema
from streaming.join import Predicted
from streaming.outputs import Correction, Example
from streaming.table_writer import TableWriter


@pytest.fixture
def lab(tmp_path):
    def make(task="binary", **changes):
        project = make_project(tmp_path / task, task, **changes)
        store = TableStore(project.tables)
        return project, make_machine(project), store, TableWriter(store, project.settings, 3)

    return make


@pytest.mark.parametrize("task", TASKS)
def test_what_was_predicted_and_learned_is_in_the_tables(lab, task):
    project, machine, store, writer = lab(task, online=["linear", "no_change"])
    answer = {"binary": 0.25, "regression": 2.5, "multiclass": {"low": 0.25, "high": 0.75}}[task]
    machine.swap(FakeChampion(7, lambda row: answer))
    outputs = machine.process(as_raw(easy_stream(task, 40)))
    other = {"binary": 2, "regression": -1.0, "multiclass": "other"}[task]
    first = next(o for o in outputs if isinstance(o, Example))
    other = 1 - first.outcome if task == "binary" else other
    outputs += machine.process([label(999, first.predicted.id, START + 45 * MINUTE, other)])
    writer.add(outputs)
    assert writer.rows == len(outputs)
    writer.flush(machine.state.step)
    assert writer.rows == 0

    settings = project.settings
    for table, schema in (
        (PREDICTIONS, predictions_schema(settings)),
        (EXAMPLES, examples_schema(settings)),
        (CORRECTIONS, corrections_schema(settings)),
    ):
        assert store.read(table).schema.names == schema.names

    predicted = [o for o in outputs if isinstance(o, Predicted)]
    rows = {row["id"]: row for row in store.read(PREDICTIONS).to_pylist()}
    assert len(rows) == len(predicted) == 40
    for one in predicted:
        row = rows[one.id]
        assert int(row["event_time"].timestamp() * 1000) == one.time
        assert (row["partition"], row["offset"], row["champion_version"]) == (0, one.offset, 7)
        assert {name: row[f"f_{name}"] for name in one.features} == one.features
        for name in ("champion", "linear", "no_change"):
            found, expected = row[f"p_{name}"], one.predictions.get(name)
            assert (dict(found) if isinstance(found, list) else found) == expected
        served = row["p_served"]
        assert (dict(served) if isinstance(served, list) else served) == one.served

    examples = {row["id"]: row for row in store.read(EXAMPLES).to_pylist()}
    for one in (o for o in outputs if isinstance(o, Example)):
        row = examples[one.predicted.id]
        assert (row["label"], row["implied"]) == (one.outcome, False)
        assert int(row["label_clock"].timestamp() * 1000) == one.label_clock
        assert row["f_x"] == one.predicted.features["x"]
    (correction,) = store.read(CORRECTIONS).to_pylist()
    assert (correction["id"], correction["label"]) == (first.predicted.id, other)


def test_rows_that_come_again_after_a_crash_are_written_once(lab):
    project, machine, store, writer = lab(online=["prior"], label={"missing": 0, "horizon": "10m"})
    records = as_raw(easy_stream("binary", 60, delay=30))
    for start in range(0, len(records), 20):
        writer.add(machine.process(records[start : start + 20]))
        writer.flush(machine.state.step)
    expected = store.read(EXAMPLES).num_rows, store.read(PREDICTIONS).num_rows
    assert expected[0] > 0
    for cut in (1, 10, len(records)):  # a crash after any flush: everything up to here comes again
        again, repeated = make_machine(project), TableWriter(store, project.settings, 3)
        repeated.add(again.process(records[:cut]))
        repeated.flush(again.state.step)
        assert (store.read(EXAMPLES).num_rows, store.read(PREDICTIONS).num_rows) == expected
    ids = store.read(PREDICTIONS)["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 60


def test_a_repetition_that_reaches_further_adds_only_what_is_new(lab):
    project, machine, store, writer = lab(online=["prior"])
    records = as_raw(easy_stream("binary", 60))
    writer.add(machine.process(records[:50]))
    writer.flush(machine.state.step)
    again, repeated = make_machine(project), TableWriter(store, project.settings, 3)
    repeated.add(again.process(records))
    repeated.flush(again.state.step)
    ids = store.read(PREDICTIONS)["id"].to_pylist()
    assert sorted(ids) == sorted({f"e{n}" for n in range(60)})


def test_a_failure_keeps_the_rows_for_the_next_time(lab, monkeypatch):
    _, machine, store, writer = lab(online=["prior"])
    records = as_raw(easy_stream("binary", 40))
    writer.add(machine.process(records[:40]))
    append, fails = TableStore.append, [EXAMPLES]

    def once(self, table, *args, **how):
        if fails and table == fails[0]:
            fails.pop()
            raise StoreError("disk full")
        return append(self, table, *args, **how)

    monkeypatch.setattr(TableStore, "append", once)
    with pytest.raises(StoreError, match="disk full"):
        writer.flush(machine.state.step)
    assert writer.rows > 0
    writer.add(machine.process(records[40:]))
    writer.flush(machine.state.step)
    books = machine.state.books.events
    for table, count in ((PREDICTIONS, books.predicted), (EXAMPLES, books.joined)):
        ids = store.read(table)["id"].to_pylist()
        assert len(ids) == len(set(ids)) == count


def test_all_tables_exist_from_the_first_flush_on(lab):
    _, machine, store, writer = lab()
    writer.flush(machine.state.step)
    assert [store.read(table).num_rows for table in (PREDICTIONS, EXAMPLES, CORRECTIONS)] == [0, 0, 0]
    version = store.version(PREDICTIONS)
    writer.flush(machine.state.step)
    assert store.version(PREDICTIONS) == version, "nothing new, nothing written"


def test_partitions_do_not_drop_each_others_rows(lab):
    project, _, store, _ = lab(online=["prior"])
    for partition in (0, 1):
        machine, writer = make_machine(project), TableWriter(store, project.settings, partition)
        writer.add(machine.process(as_raw(easy_stream("binary", 10))))
        writer.flush(machine.state.step)
    assert store.read(PREDICTIONS).num_rows == 20


def test_corrections_and_dead_letters_go_where_they_belong(lab):
    _, machine, _, writer = lab()
    writer.add(machine.process([label(0, "a", START, 1), label(1, "a", START, 0), label(2, "a", START, 7)]))
    assert [len(rows) for rows in (writer._predictions, writer._examples, writer._corrections)] == [0, 0, 1]
    assert isinstance(writer._corrections[0], Correction)


def test_of_two_writers_of_one_partition_the_slower_adds_only_what_the_other_had_not(lab, monkeypatch):
    """A worker that was taken for dead flushes in the middle of its successor's flush."""
    project, machine, store, writer = lab(online=["prior"])
    records = as_raw(easy_stream("binary", 60))
    ahead, successor = make_machine(project), TableWriter(store, project.settings, 3)
    writer.add(machine.process(records[:40]))
    successor.add(ahead.process(records))
    original, late = core.store.write_deltalake, [writer]

    def write(*args, **how):
        if late:
            late.pop().flush(machine.state.step)
        original(*args, **how)

    monkeypatch.setattr(core.store, "write_deltalake", write)
    successor.flush(ahead.state.step)
    for table, count in (
        (PREDICTIONS, ahead.state.books.events.predicted),
        (EXAMPLES, ahead.state.books.events.joined),
    ):
        ids = store.read(table)["id"].to_pylist()
        assert len(ids) == len(set(ids)) == count
