from __future__ import annotations

import pyarrow as pa
import pytest

from core.errors import StoreError
from core.store import TableStore


@pytest.fixture
def store(tmp_path):
    return TableStore(tmp_path / "tables")


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
