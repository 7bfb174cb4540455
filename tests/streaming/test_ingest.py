"""What was before the stream, ingested: the rows of a worker, whatever they come from, each once, none untold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ingest_lab import (
    HISTORY,
    TABLES,
    frame_of,
    history_rows,
    project_with,
    read_rows,
    run,
    streamed,
    write_csv,
    write_parquet,
    write_sqlite,
)
from stream_lab import START, event, label, make_machine

from core.durations import format_time
from core.errors import AlreadyRunningError, CheckpointError, SettingsError, SourceError
from core.locks import FileLock
from core.project_file import parse_settings
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES, INGESTED, PREDICTIONS
from streaming.erasure import Erasures
from streaming.ingest import ingest
from streaming.table_writer import TableWriter

ROOT = Path(__file__).parents[2]
OWN = {"partition", "offset", "step", "label_step", "p_served", "p_linear", "p_prior", "now_linear", "now_prior"}


@pytest.fixture(scope="module")
def rows():
    return history_rows()


@pytest.fixture(scope="module")
def of_the_stream(tmp_path_factory, rows):
    return streamed(tmp_path_factory.mktemp("stream"), rows, label={"missing": 0})


def content_of(rows):
    """Rows without what is a partition's own, in an order of their own."""
    kept = [{name: value for name, value in row.items() if name not in OWN} for row in rows]
    return sorted(kept, key=lambda row: (row["id"], str(row)))


WRITERS = {
    "csv": ({"file": "past.csv"}, lambda folder, rows: write_csv(folder / "past.csv", rows)),
    "csv.gz": ({"file": "past.csv.gz"}, lambda folder, rows: write_csv(folder / "past.csv.gz", rows)),
    "parquet folder": (
        {"file": "past"},
        lambda folder, rows: [write_parquet(folder / f"past/{n}.parquet", rows[n::3]) for n in range(3)],
    ),
    "pattern": (
        {"file": "past/*.csv"},
        lambda folder, rows: [write_csv(folder / "past" / f"{n}.csv", rows[n::2]) for n in range(2)],
    ),
    "sqlite table": (
        {"url": "sqlite:///past.db", "table": "payments"},
        lambda folder, rows: write_sqlite(folder / "past.db", rows),
    ),
    "sqlite query": (
        {"url_from": "PAST_DB", "query": "SELECT *, ':x' AS more FROM payments WHERE id LIKE 'e%' ORDER BY random()"},
        lambda folder, rows: write_sqlite(folder / "past.db", rows),
    ),
}


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_rows_that_the_stream_would_have_given(tmp_path, rows, of_the_stream, form, monkeypatch):
    monkeypatch.setenv("PAST_DB", f"sqlite:///{tmp_path / 'past.db'}")
    source, write = WRITERS[form]
    (tmp_path / "past").mkdir()
    # which of two rows of one id and time is first is up to the source
    some = [row for row in rows if row["id"] != "e7"] if form != "csv" else rows
    write(tmp_path, some)
    project = project_with(tmp_path, {"past": {**source, "label_time": "known"}}, label={"missing": 0})
    done = run(project)
    for table in TABLES:
        expected = [row for row in of_the_stream[table] if form == "csv" or row["id"] != "e7"]
        found = read_rows(project, table)
        assert content_of(found) == content_of(expected), table
        assert found or (table == CORRECTIONS and form != "csv"), table
        if table in (PREDICTIONS, EXAMPLES):
            assert {(row["partition"], row["p_served"]) for row in found} == {(INGESTED, None)}
    assert {row["implied"] for row in read_rows(project, EXAMPLES)} == {True, False}
    assert done.books.labels.late, "some come after the horizon"
    assert (done.tally.rows, done.tally.refused) == (len(some), 0)


def test_rows_that_are_there_are_not_written_again(tmp_path, rows):
    first, later = [row for row in rows if row["id"] < "e3"], rows
    project = project_with(tmp_path)
    write_csv(tmp_path / "past.csv", [{**row, "y": None} if row["id"] == "e1" else row for row in first])
    run(project)
    before = read_rows(project, EXAMPLES)
    assert "e1" not in {row["id"] for row in before}
    write_csv(tmp_path / "past.csv", later)
    done = run(project)
    assert done.written.already == len({row["id"] for row in first}) + len(before)
    for table in (PREDICTIONS, EXAMPLES):
        found = read_rows(project, table)
        assert len({row["id"] for row in found}) == len(found)
        places = [(row["partition"], row["step" if table == PREDICTIONS else "label_step"]) for row in found]
        assert len(set(places)) == len(places), "erasing an id deletes by these"
    whole = project_with(tmp_path / "whole", {"past": {**HISTORY["past"], "file": str(tmp_path / "past.csv")}})
    run(whole)
    ids = {table: {row["id"] for row in read_rows(whole, table)} for table in (PREDICTIONS, EXAMPLES)}
    assert {table: {row["id"] for row in read_rows(project, table)} for table in (PREDICTIONS, EXAMPLES)} == ids
    assert run(project).written.as_dict() | {"already": 0} == dict.fromkeys(done.written.as_dict(), 0)


def test_an_event_that_a_worker_has_predicted_is_left_to_it(tmp_path, rows):
    project = project_with(tmp_path)
    machine, store = make_machine(project), TableStore(project.tables)
    writer = TableWriter(store, project.settings, 0)
    writer.add(machine.process([event(0, "e5", START), event(1, "e6", START + 1), label(0, "e6", START + 2, 1)]))
    writer.flush(machine.state.step)
    write_csv(tmp_path / "past.csv", rows)
    assert run(project).written.of_workers
    for table, ids in ((PREDICTIONS, {"e5", "e6"}), (EXAMPLES, {"e6"})):
        found = [row for row in read_rows(project, table) if row["id"] in ("e5", "e6")]
        assert {(row["id"], row["partition"]) for row in found} == {(name, 0) for name in ids}
        assert len(found) == len(ids)
    assert store.last_sequence(PREDICTIONS, "partition-0") == machine.state.step, "the worker goes on as it was"


def test_what_cannot_be_used_is_counted_and_told(tmp_path):
    at, far = format_time(START), format_time(round(time.time() * 1000) + 10 * 86_400_000)
    lines = [
        "id,at,x,z,c,y,known",
        f"good,{at},1,2,a,1,{at}",
        f"number,{at},a lot,2,a,1,{at}",
        f"time,soon,1,2,a,1,{at}",
        f"ahead,{far},1,2,a,1,{far}",
        f"cells,{at},1",
        f",{at},1,2,a,1,{at}",
        f"outcome,{at},1,2,a,maybe,{at}",
        f"known,{at},1,2,a,1,",
        f"infinite,{at},inf,2,a,1,{at}",
        f"boom,{at},13,2,a,1,{at}",
    ]
    text = "\n".join(lines).encode() + b"\n\n" + f"bytes,{at},1,2,".encode() + b"\xff" + f",1,{at}\n".encode()
    (tmp_path / "past.csv").write_bytes(text)
    code = "def features(fields):\n    return {'x2': 1 / (fields['x'] - 13)}\n"
    project = project_with(tmp_path, features={"function": "code.py:features", "outputs": {"x2": "number"}})
    (tmp_path / "code.py").write_text(code)
    done = run(project)
    assert done.tally.events_refused == {
        "wrong_type": 2, "bad_time": 1, "time_ahead": 1, "malformed": 2, "bad_id": 1, "feature_error": 1,
    }  # fmt: skip
    assert done.tally.labels_refused == {"bad_label": 1, "bad_time": 1}
    assert {row["id"] for row in read_rows(project, PREDICTIONS)} == {"good", "outcome", "known"}
    assert [row["id"] for row in read_rows(project, EXAMPLES)] == ["good"]
    assert not done.books.imbalances()
    told = {sample["place"]: sample for sample in json.loads(done.report.read_text())["samples"]}
    assert "$.x" in told["past.csv, row 2"]["detail"]
    assert told["past.csv, row 5"]["detail"] == "has 3 cells where the header has 7"
    assert told["past.csv, row 10"]["reason"] == "feature_error"
    assert told["past.csv, row 11"]["reason"] == "malformed"


def test_times_that_are_numbers_are_told_by_the_column(tmp_path):
    rows = [f"e{n},{START // 1000 + n},1,2,a,1" for n in range(5)]
    (tmp_path / "past.csv").write_text("\n".join(["id,at,x,z,c,y", *rows, "bad,20200132x,1,2,a,1"]))
    done = run(project_with(tmp_path, {"past": {"file": "past.csv", "label_delay": "10m"}}, time_unit="s"))
    assert (done.first, done.books.events.joined) == (START, 5)
    assert done.tally.events_refused == {"bad_time": 1}
    (tmp_path / "past.csv").write_text(
        "id,at,x,z,c,y\n" + "".join(f"{n},2020-01-0{n + 1},1,2,a,1\n" for n in range(3)) + "bad,20200132,1,2,a,1\n"
    )
    assert run(project_with(tmp_path, {"past": {"file": "past.csv"}})).tally.events_refused == {"bad_time": 1}


def test_a_column_of_times_may_be_a_field_too(tmp_path):
    rows = [f"e{n},{START // 1000 + n},1,2,a,1" for n in range(5)]
    (tmp_path / "past.csv").write_text("\n".join(["id,at,x,z,c,y", *rows]))
    fields = {"x": "number", "z": "number", "c": "category", "at": "number"}
    source = {"past": {"file": "past.csv", "label_time": "at"}}
    done = run(project_with(tmp_path, source, time_unit="s", fields=fields))
    assert (done.books.events.joined, done.tally.events_refused) == (5, {})


def test_personal_values_are_hashed_or_dropped_before_anything_is_written(tmp_path, rows, monkeypatch):
    monkeypatch.setenv("HEADRACE_PII_KEY", "k" * 32)
    fields = {"x": "number", "z": {"type": "number", "pii": "drop"}, "c": {"type": "category", "pii": "hash"}}
    marks = {"fields": fields, "privacy": {"id": "hash"}, "features": None}
    rows = [{**row, "id": f"secret-{row['id']}", "c": f"secret-{row['c']}"} for row in rows[:50]]
    rows[3] = {**rows[3], "at": "secret"}
    rows[4] = {**rows[4], "x": "0.5 secret"}
    write_csv(tmp_path / "past.csv", rows)
    project, halted = project_with(tmp_path, **marks), threading.Event()
    halted.set()
    assert ingest(project, "past", lambda *_: None, halted) is None
    assert run(project).tally.events_refused == {"bad_time": 1, "wrong_type": 1}
    found = read_rows(project, EXAMPLES)
    assert found
    assert all(len(row["id"]) == 32 and "f_z" not in row for row in found)
    for path in project.state.rglob("*"):
        if path.is_file() and path.name != "past.json":
            assert b"secret-" not in path.read_bytes(), path
    assert "secret-" not in (project.state / "ingest" / "past.json").read_text()


def test_a_mark_that_comes_after_an_ingestion_in_clear_is_refused(tmp_path, rows):
    write_csv(tmp_path / "past.csv", rows[:20])
    run(project_with(tmp_path, features=None))
    marked = {"x": "number", "z": "number", "c": {"type": "category", "pii": "drop"}}
    with pytest.raises(CheckpointError, match="were in clear so far"):
        run(project_with(tmp_path, fields=marked, features=None))


def test_an_erased_id_does_not_come_back_and_old_rows_stay_away(tmp_path, rows):
    write_csv(tmp_path / "past.csv", rows)
    project = project_with(tmp_path)
    asked = Erasures(project)
    asked.ask(asked.name("e11"))
    done = run(project)
    assert done.written.erased >= 1
    assert not [row for row in read_rows(project, PREDICTIONS) if row["id"] == "e11"]
    kept = project_with(tmp_path / "kept", {"past": {"file": "../past.csv"}}, privacy={"retention": "30d"})
    with pytest.raises(SourceError, match="all are past privacy"):
        run(kept)


def test_a_stop_is_gone_on_from_whichever_step_it_was_in(tmp_path, rows, monkeypatch):
    monkeypatch.setattr("streaming.ingest._BATCH", 40)
    write_csv(tmp_path / "past.csv", rows)
    project = project_with(tmp_path, state={"flush_rows": 60, "kept_events": 5})
    whole = project_with(tmp_path / "whole", {"past": {**HISTORY["past"], "file": "../past.csv"}})
    expected = run(whole)
    stops, done = 0, None
    while done is None:
        stop, told = threading.Event(), []

        def tell(what, count, total, moment, stop=stop, told=told, after=2 + stops):
            told.append(what)
            if len(told) == after:
                stop.set()

        done = ingest(project, "past", tell, stop)
        stops += done is None
    assert stops > 8, "in both steps"
    assert done.resumed
    assert (done.tally, done.books, done.written) == (expected.tally, expected.books, expected.written)
    for table in TABLES:
        found, whole_rows = (sorted(map(str, read_rows(one, table))) for one in (project, whole))
        assert found == whole_rows
    assert not list((project.state / "ingest").glob("*.sqlite*"))


@pytest.mark.slow
def test_killed_again_and_again_no_row_is_lost_or_there_twice(tmp_path):
    rows = history_rows(6_000)
    for number in range(3):
        write_csv(tmp_path / f"past-{number}.csv", rows[number::3])
    history = {"past": {"file": "../past-*.csv", "label_time": "known"}}
    project = project_with(tmp_path / "killed", history, state={"flush_rows": 500, "kept_events": 5})
    whole = project_with(tmp_path / "whole", history)
    run(whole)
    code = (
        "import sys, threading, streaming.ingest as engine\n"
        "from core.project import load_project\n"
        "engine._BATCH = 300\n"
        "def tell(what, done, total, moment):\n    print(what, flush=True)\n"
        "engine.ingest(load_project(sys.argv[1], state=sys.argv[2]), 'past', tell, threading.Event())\n"
        "print('end', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(project.folder), str(project.state)]
    killed_in, heard = [], [3, 11, 19, 24, 33, 38]
    for lines in [*heard, None]:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        said = []
        for line in process.stdout:
            said.append(line.strip())
            if len(said) == lines and said[-1] != "end":
                os.kill(process.pid, signal.SIGKILL)
                killed_in.append(said[-1])
        process.wait()
    assert said[-1] == "end"
    assert set(killed_in) == {"read", "written"}
    for table in TABLES:
        found, expected = (sorted(map(str, read_rows(one, table))) for one in (project, whole))
        assert found == expected, table


def test_a_source_that_changed_after_a_stop_is_read_anew(tmp_path, rows, monkeypatch):
    monkeypatch.setattr("streaming.ingest._BATCH", 50)
    write_csv(tmp_path / "past.csv", rows)
    project = project_with(tmp_path, state={"flush_rows": 50})
    stop = threading.Event()
    ingest(project, "past", lambda what, *_: stop.set() if what == "written" else None, stop)
    write_csv(tmp_path / "past.csv", [*rows, {**rows[0], "id": "one more"}])
    assert not run(project).resumed
    found = [row["id"] for row in read_rows(project, PREDICTIONS)]
    assert len(found) == len(set(found))
    assert "one more" in found


def test_what_is_wrong_with_a_source_is_said(tmp_path, rows, monkeypatch):
    write_csv(tmp_path / "past.csv", rows)
    broken = {
        "nothing": ({"file": "nothing.csv"}, "there is no such file"),
        "column": ({"file": "past.csv", "label_time": "when"}, "has no column 'when'"),
        "database": ({"url": "sqlite:///no.db", "table": "t"}, "no such database"),
        "table": ({"url": "sqlite:///past.db", "table": "t"}, "no such table: t"),
        "variable": ({"url_from": "NOT_SET", "table": "t"}, "NOT_SET, .* is not set"),
        "address": ({"url": "nonsense", "table": "t"}, "is no SQLAlchemy URL"),
        "driver": ({"url": "nosuch://host/db", "table": "t"}, "is not installed"),
        "cut": ({"file": "cut.csv.gz"}, "cut off"),
        "parquet": ({"file": "bad.parquet"}, "cannot be read"),
    }
    write_sqlite(tmp_path / "past.db", rows)
    write_csv(tmp_path / "whole.csv.gz", rows)
    (tmp_path / "cut.csv.gz").write_bytes((tmp_path / "whole.csv.gz").read_bytes()[:-200])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    project = project_with(tmp_path, {name: source for name, (source, _) in broken.items()})
    for name, (_, said) in broken.items():
        with pytest.raises(SourceError, match=said):
            run(project, name)
    with pytest.raises(SettingsError, match="no password"):
        project_with(tmp_path, {"past": {"url": "postgresql://me:secret@db/x", "table": "t"}})
    with pytest.raises(SettingsError, match="history needs a time"):
        parse_settings("{name: a, fields: {x: number}, label: y, replay: {file: a.csv}, history: {file: b.csv}}")


def test_one_ingestion_at_a_time(tmp_path, rows):
    write_csv(tmp_path / "past.csv", rows)
    project = project_with(tmp_path)
    lock = FileLock(project.status / "ingest.lock")
    assert lock.acquire("ingest")
    with pytest.raises(AlreadyRunningError):
        run(project)
    lock.release()
    assert run(project).written.predictions == len(frame_of(rows)) - 1


def test_structures_in_parquet_are_found_by_their_path(tmp_path, rows):
    nested = [{**row, "inner": {"x": row["x"], "c": row["c"]}} for row in rows]
    for row in nested:
        del row["x"], row["c"]
    write_parquet(tmp_path / "past.parquet", nested)
    fields = {"x": {"type": "number", "path": "inner.x"}, "z": "number", "c": {"type": "category", "path": "inner.c"}}
    project = project_with(tmp_path, {"past": {"file": "past.parquet", "label_time": "known"}}, fields=fields)
    assert run(project).tally.refused == 0
    expected = {row["id"]: row["x"] for row in rows}
    found = read_rows(project, PREDICTIONS)
    assert {row["id"]: row["f_x2"] for row in found} == {
        key: None if x is None else 2 * x for key, x in expected.items()
    }
