"""What is written about an id, erased: references and the versions that were trained on it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flows.erasure as erasure_module
from core.audit import Ledger
from core.project import load_project
from core.store import TableStore
from core.tables import EXAMPLES, TIMESTAMP
from flows.erasure import erase_written, trained_on

MINUTE = 60_000


def rows(numbers: list[int]) -> pa.Table:
    times = pa.array([n * MINUTE * 1000 for n in numbers], TIMESTAMP)
    return pa.table(
        {
            "id": [f"e{n}" for n in numbers],
            "event_time": times,
            "label_clock": times,
            "partition": pa.array([0] * len(numbers), pa.int32()),
            "step": pa.array(numbers, pa.int64()),
            "f_x": [None if n % 2 else float(n % 3) for n in numbers],
            "f_c": [f"c{n % 2}" for n in numbers],
            "p_served": [0.5] * len(numbers),
            "label": pa.array([1] * len(numbers), pa.int64()),
        }
    )


def stamped(folder: Path, version: int, sample: pa.Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(sample, folder / f"{version}.parquet")
    digest = hashlib.sha256((folder / f"{version}.parquet").read_bytes()).hexdigest()
    about = {"version": version, "digest": digest, "rows": len(sample), "kept": True}
    (folder / f"{version}.json").write_text(json.dumps(about))


def is_whole(folder: Path, version: int) -> bool:
    about = json.loads((folder / f"{version}.json").read_text())
    content = (folder / f"{version}.parquet").read_bytes()
    same = about["digest"] == hashlib.sha256(content).hexdigest()
    return same and about["rows"] == pq.read_table(folder / f"{version}.parquet").num_rows and about["kept"]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "headrace.yaml").write_text(
        "{name: a, id: id, time: at, fields: {x: number, c: category}, label: {path: y}}"
    )
    loaded = load_project(tmp_path, state=tmp_path / "state")
    TableStore(loaded.tables).append(EXAMPLES, rows(list(range(20))), app="p", sequence=20)
    sample = ["event_time", "f_x", "f_c", "p_served", "label"]
    stamped(loaded.state / "references", 1, rows(list(range(5))).select(sample))
    stamped(loaded.state / "references", 2, rows(list(range(20))).select(sample))
    return loaded


@pytest.mark.parametrize("number", [7, 8])
def test_the_row_goes_from_references_and_they_are_whole(project, number):
    logged, ledger = [], Ledger(project.ledger)
    done = erase_written(project, TableStore(project.tables), ledger, f"e{number}", lambda *said: logged.append(said))
    folder = project.state / "references"
    assert done.references == [2]
    assert logged == [(2, folder / "2.parquet"), (2, folder / "2.json")]
    assert is_whole(folder, 1)
    assert is_whole(folder, 2)
    left = pq.read_table(folder / "2.parquet")
    assert left["event_time"].to_pylist() == rows([n for n in range(20) if n != number])["event_time"].to_pylist()
    assert done.rows == {"predictions": 0, "examples": 1, "corrections": 0, "events": 0}


@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_stop_while_a_reference_is_rewritten_is_made_good_by_the_next_try(project, monkeypatch, stop_at):
    calls = []
    stamp = erasure_module._stamp

    def stopping(*arguments) -> None:
        calls.append(arguments)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        stamp(*arguments)

    monkeypatch.setattr(erasure_module, "_stamp", stopping)
    store, ledger = TableStore(project.tables), Ledger(project.ledger)
    with pytest.raises(KeyboardInterrupt):
        erase_written(project, store, ledger, "e7", lambda *said: None)
    monkeypatch.setattr(erasure_module, "_stamp", stamp)
    done = erase_written(project, store, ledger, "e7", lambda *said: None)
    assert done.rows["examples"] == 1
    assert is_whole(project.state / "references", 2)
    assert pq.read_table(project.state / "references" / "2.parquet").num_rows == 19


def test_versions_that_may_have_been_trained_on_it_are_named():
    ledger = Ledger(Path(":memory:"))
    for version, recipe in {
        1: {"until": 6 * MINUTE, "left_out": []},
        2: {"until": 7 * MINUTE, "left_out": []},
        3: {"until": 9 * MINUTE, "left_out": [[7 * MINUTE, 8 * MINUTE]]},
        4: None,
    }.items():
        ledger.record("retraining", str(version), event_time=0, body={"version": version, "recipe": recipe})
    ledger.record("retraining", "gated", event_time=0, body={"version": None, "recipe": {"until": 9 * MINUTE}})
    assert trained_on(ledger, rows([7])) == [2]
    assert trained_on(ledger, rows([])) == []
