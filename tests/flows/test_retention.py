"""What is past its time goes, from every version and whoever pins it; what is not stays."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from core.audit import Ledger
from core.errors import VersionGoneError
from core.project import load_project
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES, PREDICTIONS, TIMESTAMP
from flows.maintenance import maintenance
from flows.retention import let_go

DAY = 86_400_000
NOW = 1_700_000_000_000
TEXT = "{name: a, id: id, time: at, fields: {x: number}, label: {path: y}, privacy: {retention: 30d}}"


def rows(*ages: int) -> pa.Table:
    times = pa.array([(NOW - age * DAY) * 1000 for age in ages], TIMESTAMP)
    return pa.table(
        {
            "id": [f"e{age}" for age in ages],
            "event_time": times,
            "label_clock": times,
            "partition": pa.array([0] * len(ages), pa.int32()),
            "step": pa.array(ages, pa.int64()),
        }
    )


@pytest.fixture
def project(tmp_path):
    (tmp_path / "headrace.yaml").write_text(TEXT)
    loaded = load_project(tmp_path, state=tmp_path / "state")
    store = TableStore(loaded.tables)
    for table in (PREDICTIONS, EXAMPLES, CORRECTIONS):
        store.append(table, rows(90, 60, 31), app="p", sequence=1)
        store.append(table, rows(29, 10), app="p", sequence=2)
        store.append(table, rows(5), app="p", sequence=3)
    loaded.reports.mkdir(parents=True)
    for name in ("2023-09-01T00-00-00Z_data", "2023-11-10T00-00-00Z_data"):
        for end in ("_page.html", ".html", ".json"):
            (loaded.reports / f"{name}{end}").write_text("e60")
    (loaded.reports / "index.html").write_text("the index")
    references = loaded.state / "references"
    references.mkdir()
    for version, age in ((1, 90), (2, 80), (3, 5)):
        (references / f"{version}.json").write_text(json.dumps({"data_cut": NOW - age * DAY}))
        (references / f"{version}.parquet").write_bytes(b"rows")
    return loaded


def test_rows_reports_and_references_past_their_time_go(project):
    store, ledger = TableStore(project.tables), Ledger(project.ledger)
    ledger.record("promotion", "2", event_time=0, body={"version": 2, "previous": None})
    done = let_go(project, store, ledger, NOW)
    for table in (PREDICTIONS, EXAMPLES, CORRECTIONS):
        assert sorted(store.read(table)["id"].to_pylist()) == ["e10", "e29", "e5"]
        assert store.last_sequence(table, "p") == 3
    assert [removal.rows for removal in done.removed] == [3, 3, 3, 0]
    left = {path.name for path in project.reports.glob("*") if "e60" in path.read_text()}
    assert left == {f"2023-11-10T00-00-00Z_data{end}" for end in ("_page.html", ".html", ".json")}
    assert "was removed" in (project.reports / "2023-09-01T00-00-00Z_data_page.html").read_text()
    assert (project.reports / "index.html").read_text() == "the index"
    assert done.references == [1], "2 serves, 3 is of younger data"
    again = let_go(project, store, ledger, NOW)
    assert (again.reports, again.references, sum(r.rows + r.files for r in again.removed)) == (0, [], 0)


def test_a_pin_does_not_keep_them_and_is_released(project):
    store, ledger = TableStore(project.tables), Ledger(project.ledger)
    ledger.pin(EXAMPLES, 1, "model-1")
    ledger.pin(CORRECTIONS, 1, "model-1")
    let_go(project, store, ledger, NOW)
    latest = store.version(EXAMPLES)
    ledger.pin(EXAMPLES, latest, "model-2")
    assert let_go(project, store, ledger, NOW).released == []
    assert ledger.pins() == [(EXAMPLES, latest, "model-2")]
    with pytest.raises(VersionGoneError, match=r"privacy\.retention"):
        store.read(EXAMPLES, version=1)
    assert store.read(EXAMPLES, version=latest).num_rows == 3
    assert not store.is_whole(EXAMPLES, 99)


def test_without_the_setting_everything_stays(project):
    settings = replace(
        project, settings=project.settings.model_copy(update={"privacy": type(project.settings.privacy)()})
    )
    assert let_go(settings, TableStore(project.tables), Ledger(project.ledger), NOW) is None
    assert TableStore(project.tables).read(EXAMPLES).num_rows == 6


def test_maintenance_counts_age_by_the_wall_clock(project, monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOW / 1000)
    monkeypatch.setattr("flows.maintenance.end_with_starter", lambda: None)
    maintenance.fn(str(project.folder), str(project.state))
    assert TableStore(project.tables).read(PREDICTIONS).num_rows == 3
