from __future__ import annotations

import json
import os
import threading
import time

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import core.store
from core.errors import StoreError, VersionGoneError
from core.store import TableStore

DAY_S = 86_400


@pytest.fixture
def store(tmp_path):
    made = TableStore(tmp_path / "tables")
    made.folder = tmp_path / "tables"
    return made


def rows(*values: int) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.int64()), "name": [f"n{value}" for value in values]})


def content(store, **how):
    return sorted(store.read("t", columns=["x"], **how)["x"].to_pylist())


def test_an_append_is_done_once(store):
    assert store.append("t", rows(1), app="a", sequence=5) == 0
    assert store.append("t", rows(1), app="a", sequence=5) == 0
    assert store.append("t", rows(9), app="a", sequence=4) == 0
    assert store.append("t", rows(2), app="b", sequence=1) == 1
    assert store.append("t", rows(3), app="a", sequence=6) == 2
    assert content(store) == [1, 2, 3]
    assert [store.last_sequence("t", app) for app in ("a", "b", "c")] == [6, 1, None]


def test_another_store_knows_what_was_appended(store, tmp_path):
    store.append("t", rows(1), app="a", sequence=5)
    again = TableStore(tmp_path / "tables")
    again.append("t", rows(1), app="a", sequence=5)
    assert content(again) == [1]


def test_an_empty_append_makes_the_table(store):
    assert (store.exists("t"), store.version("t"), store.last_sequence("t", "a")) == (False, None, None)
    store.append("t", rows(), app="a", sequence=0)
    assert (store.exists("t"), store.version("t"), content(store)) == (True, 0, [])


def test_a_pinned_version_stays_readable_and_others_go(store):
    for number in range(6):
        store.append("t", rows(number), app="a", sequence=number + 1)
    done = store.maintain("t", keep_versions=lambda: [2], retention_hours=0)
    assert done.files_removed == 6
    assert done.files_vacuumed > 0
    assert content(store) == [0, 1, 2, 3, 4, 5]
    assert content(store, version=2) == [0, 1, 2]
    with pytest.raises(StoreError):
        store.read("t", version=4)
    store.append("t", rows(7), app="a", sequence=7)
    store.append("t", rows(5), app="a", sequence=6)  # maintenance does not forget who wrote what
    assert content(store) == [0, 1, 2, 3, 4, 5, 7]


def log(store, table="t"):
    """Return the paths of a table's log, oldest version first."""
    return sorted((store.folder / table / "_delta_log").glob("0*"))


def age(paths, days):
    for path in paths:
        os.utime(path, (time.time() - days * DAY_S,) * 2)


def checkpoint_often(store):
    DeltaTable(store.folder / "t").alter.set_table_properties({"delta.checkpointInterval": "5"})


def fill(store, numbers):
    for number in numbers:
        store.append("t", rows(number), app="a", sequence=number + 1)


@pytest.mark.parametrize("made_by", ["headrace", "an earlier headrace"])
def test_a_pinned_version_outlives_deltas_own_retention_of_the_log(store, made_by):
    if made_by != "headrace":
        write_deltalake(store.folder / "t", rows(-1), mode="append")
    fill(store, range(3))
    expected, version = content(store), store.version("t")
    checkpoint_often(store)
    age(log(store), days=40)
    fill(store, range(3, 20))
    assert any(path.name.endswith(".checkpoint.parquet") for path in log(store))
    assert content(store, version=version) == expected


def test_the_first_maintenance_of_a_table_of_an_earlier_headrace_loses_no_pin(store):
    for number in range(3):
        write_deltalake(store.folder / "t", rows(number), mode="append")
    checkpoint_often(store)
    for path in log(store):
        path.write_text(as_of(path.read_text(), days=40))
        age([path], days=40)
    assert store.maintain("t", keep_versions=lambda: [1], retention_hours=0).versions_gone == ()
    assert content(store, version=1) == [0, 1]


def test_a_pin_that_is_gone_is_reported_and_holds_up_nothing(store):
    fill(store, range(3))
    checkpoint_often(store)
    fill(store, range(3, 15))
    pinned, checkpoints = 12, [path for path in log(store) if "checkpoint" in path.name]
    for path in log(store):
        if path.name < checkpoints[0].name:
            path.unlink()
    done = store.maintain("t", keep_versions=lambda: [999, pinned, 1], retention_hours=0)
    assert done.versions_gone == (1, 999)
    assert done.files_vacuumed > 0
    assert len(content(store, version=pinned)) == 12
    with pytest.raises(VersionGoneError, match="version 1 of table 't' is gone"):
        store.read("t", version=1)
    with pytest.raises(VersionGoneError, match="has no version 999"):
        store.read("t", version=999)
    with pytest.raises(VersionGoneError, match="version 13 of table 't' is gone"):
        store.read("t", version=13)  # its log is there, its files are not


def test_nothing_is_removed_while_it_cannot_be_told_whether_a_pin_is_readable(store):
    fill(store, range(3))
    checkpoint_often(store)
    fill(store, range(3, 15))
    log(store)[2].write_text("{not json")
    files = sorted((store.folder / "t").glob("*.parquet"))
    with pytest.raises(StoreError):
        store.maintain("t", keep_versions=lambda: [2], retention_hours=0)
    assert set(files) <= set((store.folder / "t").glob("*.parquet"))


def test_the_log_is_shortened_to_what_pins_and_retention_need(store):
    fill(store, range(40))
    for path in log(store):
        path.write_text(as_of(path.read_text(), 40 - int(path.stem)))
    for version in (10, 30):
        DeltaTable(store.folder / "t", version=version).create_checkpoint()
    for path in log(store):
        age([path], days=40 - int(path.name[:20]))
    store.maintain("t", keep_versions=lambda: [20], retention_hours=0)
    assert int(log(store)[0].name[:20]) == 10
    assert len(content(store, version=20)) == 21
    store.maintain("t", keep_versions=list, retention_hours=5 * 24)
    assert int(log(store)[0].name[:20]) == 30
    assert (
        DeltaTable(store.folder / "t").metadata().configuration["delta.logRetentionDuration"] == "interval 36500 days"
    )
    fill(store, range(40))  # all of these were written before
    assert content(store) == list(range(40))


def as_of(entry, days):
    """Return a commit as if its file had been written `days` ago."""
    actions = [json.loads(line) for line in entry.splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["modificationTime"] = int((time.time() - days * DAY_S) * 1000)
    return "\n".join(json.dumps(action) for action in actions)


@pytest.fixture(params=["before it is opened", "while it is written"])
def meanwhile(request, monkeypatch):
    """Have something happen between an append's look at the table and its commit."""
    original, waiting = core.store.write_deltalake, []

    def happen():
        thread = threading.Thread(target=waiting.pop())
        thread.start()
        thread.join()

    def lazily(table):
        happen()
        yield from table.to_batches()

    def write(target, table, **how):
        if waiting and request.param == "before it is opened":
            happen()
        elif waiting:
            table = pa.RecordBatchReader.from_batches(table.schema, lazily(table))
        original(target, table, **how)

    monkeypatch.setattr(core.store, "write_deltalake", write)
    return waiting.append


@pytest.mark.parametrize("is_new", [True, False])
def test_of_two_writers_of_one_app_one_writes(store, meanwhile, is_new):
    if not is_new:
        store.append("t", rows(0), app="a", sequence=1)
    other = TableStore(store.folder)
    meanwhile(lambda: other.append("t", rows(1, 2), app="a", sequence=5))
    version = store.append("t", rows(1, 2), app="a", sequence=5)
    assert content(store) == ([1, 2] if is_new else [0, 1, 2])
    assert version == store.version("t")


@pytest.mark.parametrize("is_new", [True, False])
def test_a_writer_that_reaches_further_adds_only_what_the_other_had_not(store, meanwhile, is_new):
    if not is_new:
        store.append("t", rows(0), app="a", sequence=0)
    other = TableStore(store.folder)
    meanwhile(lambda: other.append("t", rows(1, 2), app="a", sequence=2))
    store.append("t", lambda last: rows(*range((last or 0) + 1, 5)), app="a", sequence=4)
    assert content(store) == ([1, 2, 3, 4] if is_new else [0, 1, 2, 3, 4])
    assert store.last_sequence("t", "a") == 4


@pytest.mark.parametrize("is_new", [True, False])
def test_two_apps_that_write_at_once_both_do(store, meanwhile, is_new):
    if not is_new:
        store.append("t", rows(0), app="a", sequence=1)
    other = TableStore(store.folder)
    meanwhile(lambda: other.append("t", rows(1), app="b", sequence=1))
    store.append("t", rows(2), app="a", sequence=2)
    assert content(store) == ([1, 2] if is_new else [0, 1, 2])
    assert [store.last_sequence("t", app) for app in "ab"] == [2, 1]


def test_a_table_that_is_widened_meanwhile_takes_the_rows(store, meanwhile):
    store.append("t", rows(0), app="a", sequence=1)
    meanwhile(lambda: store.widen("t", pa.schema([("more", pa.int64())])))
    store.append("t", rows(1), app="a", sequence=2)
    assert [row["more"] for row in store.read("t").to_pylist()] == [None, None]


def test_many_writers_make_a_table_and_each_row_is_there_once(store):
    start = threading.Barrier(6)

    def write(app):
        own = TableStore(store.folder)
        start.wait()
        for number in range(5):
            own.append("t", rows(100 * (app // 2) + number), app=f"app-{app // 2}", sequence=number + 1)

    threads = [threading.Thread(target=write, args=(app,)) for app in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(store) == [100 * app + number for app in range(3) for number in range(5)]


def test_one_that_is_always_too_late_says_so(store, monkeypatch):
    store.append("t", rows(0), app="a", sequence=1)
    original, other = core.store.write_deltalake, TableStore(store.folder)
    sequences = iter(range(2, 1_000))

    def write(target, table, **how):
        monkeypatch.setattr(core.store, "write_deltalake", original)
        sequence = next(sequences)
        other.append("t", rows(sequence), app="a", sequence=sequence)
        monkeypatch.setattr(core.store, "write_deltalake", write)
        original(target, table, **how)

    monkeypatch.setattr(core.store, "write_deltalake", write)
    with pytest.raises(StoreError, match="table 't': others wrote to it"):
        store.append("t", rows(0), app="a", sequence=500)


def test_reading_a_part(store):
    store.append("t", rows(1, 2, 3), app="a", sequence=1)
    assert content(store, where=[("x", ">=", 2), ("name", "!=", "n3")]) == [2]


def test_what_goes_wrong_is_a_store_error(store):
    for attempt in (
        lambda: store.read("nope"),
        lambda: store.maintain("nope", keep_versions=list),
        lambda: store.append("u", pa.table({"y": [1], "Y": [2]}), app="a", sequence=1),
    ):
        with pytest.raises(StoreError):
            attempt()
    store.append("t", rows(1), app="a", sequence=1)
    for attempt in (
        lambda: store.append("t", pa.table({"other": ["z"]}), app="a", sequence=2),
        lambda: store.append("t", pa.table({"x": ["text"], "name": ["z"]}), app="a", sequence=2),
        lambda: store.read("t", version=7),
        lambda: store.read("t", columns=["nope"]),
        lambda: store.read("t", where=[("nope", "==", 1)]),
    ):
        with pytest.raises(StoreError, match="table 't'"):
            attempt()
    assert content(store) == [1]


def test_a_wider_table_takes_rows_of_before_and_of_after(store):
    schema = pa.schema([("x", pa.int64()), ("shares", pa.map_(pa.string(), pa.float64()))])
    store.append("t", rows(1), app="a", sequence=1)
    store.widen("t", schema)
    store.widen("t", schema)
    store.append("t", rows(2), app="a", sequence=2)
    store.append("t", pa.table({"x": [3], "shares": [[("k", 0.5)]]}, schema=schema), app="a", sequence=3)
    found = sorted(store.read("t").to_pylist(), key=lambda row: row["x"])
    assert [row["shares"] for row in found] == [None, None, [("k", 0.5)]]
    assert [row["name"] for row in found] == ["n1", "n2", None]
    with pytest.raises(StoreError, match="column 'x' holds int64, and would now be string"):
        store.widen("t", pa.schema([("x", pa.string())]))


def test_a_damaged_log_is_a_store_error(store, tmp_path):
    store.append("t", rows(1), app="a", sequence=1)
    next((tmp_path / "tables" / "t" / "_delta_log").glob("*.json")).write_text("{not json")
    with pytest.raises(StoreError):
        store.append("t", rows(2), app="a", sequence=2)
