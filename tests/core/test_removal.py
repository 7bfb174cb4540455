"""Rows that have to go: from the latest version, from every earlier one, and from the log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import VersionGoneError
from core.removal import remove_id, remove_older
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES, TIMESTAMP

DAY = 86_400_000


def rows(ids: list[str], first: int, day: int) -> pa.Table:
    count = len(ids)
    times = pa.array([(day * DAY + n) * 1000 for n in range(count)], TIMESTAMP)
    return pa.table(
        {
            "id": ids,
            "event_time": times,
            "label_clock": times,
            "partition": pa.array([n % 2 for n in range(count)], pa.int32()),
            "step": pa.array(range(first, first + count), pa.int64()),
            "f_c": [f"value of {name}" for name in ids],
            "p_served": pa.array([[("a", 0.5)]] * count, pa.map_(pa.string(), pa.float64())),
        }
    )


def made(folder: Path, table: str = EXAMPLES) -> TableStore:
    store = TableStore(folder)
    store.append(table, rows(["e1", "person's", "e3"], 1, 10), app="p", sequence=3)
    store.append(table, rows(["e4", "e5", "e6"], 4, 20), app="p", sequence=6)
    store.append(table, rows(["e7", "e8", "e9"], 7, 30), app="p", sequence=9)
    return store


def everything(folder: Path) -> bytes:
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            packed = path.suffix == ".parquet"
            found.append(repr(pq.ParquetFile(path).read().to_pydict()).encode() if packed else path.read_bytes())
    return b"".join(found)


@pytest.mark.parametrize("table", [EXAMPLES, CORRECTIONS])
def test_an_id_is_gone_from_every_version_and_from_the_log(tmp_path, table):
    store = made(tmp_path, table)
    store.maintain(table, keep_versions=lambda: [0, 1, 2])  # compaction has copied the row
    assert b"person's" in everything(tmp_path)
    removal = remove_id(store, table, "person's")
    assert removal.rows == 1
    assert removal.files >= 2
    assert b"person" not in everything(tmp_path)
    assert sorted(store.read(table)["id"].to_pylist()) == ["e1", "e3", "e4", "e5", "e6", "e7", "e8", "e9"]
    assert store.read(table).schema.field("p_served").type == pa.map_(pa.string(), pa.float64())


def test_what_was_written_stays_known_to_the_writer(tmp_path):
    store = made(tmp_path)
    remove_id(store, EXAMPLES, "person's")
    store.maintain(EXAMPLES, keep_versions=list, retention_hours=0)
    assert store.last_sequence(EXAMPLES, "p") == 9
    store.append(EXAMPLES, rows(["person's"], 2, 10), app="p", sequence=9)
    assert "person's" not in store.read(EXAMPLES)["id"].to_pylist()
    store.append(EXAMPLES, rows(["e10"], 10, 40), app="p", sequence=10)
    assert "e10" in store.read(EXAMPLES)["id"].to_pylist()


def test_a_version_with_it_is_gone_and_says_why_and_others_stay(tmp_path):
    store = made(tmp_path)
    remove_id(store, EXAMPLES, "e8")
    assert len(store.read(EXAMPLES, version=1)) == 6
    with pytest.raises(VersionGoneError, match="headrace erase"):
        store.read(EXAMPLES, version=2)


def test_an_id_that_is_not_there_changes_nothing(tmp_path):
    store = made(tmp_path)
    before = store.version(EXAMPLES)
    removal = remove_id(store, EXAMPLES, "e99")
    assert (removal.rows, removal.files, store.version(EXAMPLES)) == (0, 0, before)
    assert remove_id(store, "predictions", "e1").rows == 0


def test_rows_past_their_time_are_gone_from_every_version(tmp_path):
    store = made(tmp_path)
    store.maintain(EXAMPLES, keep_versions=lambda: [0, 1, 2])
    removal = remove_older(store, EXAMPLES, 20 * DAY + 1)
    assert removal.rows == 4
    left = store.read(EXAMPLES)
    assert sorted(left["id"].to_pylist()) == ["e5", "e6", "e7", "e8", "e9"]
    assert min(left["event_time"].to_pylist()) == datetime.fromtimestamp((20 * DAY + 1) / 1000, UTC)
    for name in ("value of e1", "person", "value of e4"):
        assert name.encode() not in everything(tmp_path)
    assert remove_older(store, EXAMPLES, 20 * DAY + 1) == type(removal)(EXAMPLES, 0, 0)


def test_an_older_table_gets_a_log_without_values(tmp_path):
    """One that an earlier headrace made: from its next write on."""
    from deltalake import write_deltalake

    write_deltalake(str(tmp_path / EXAMPLES), rows(["e1"], 1, 10))
    store = TableStore(tmp_path)
    store.append(EXAMPLES, rows(["later"], 2, 20), app="p", sequence=2)
    logs = sorted((tmp_path / EXAMPLES / "_delta_log").glob("*.json"))
    assert b"value of e1" in logs[0].read_bytes()
    assert not any(b"value of later" in log.read_bytes() for log in logs)
