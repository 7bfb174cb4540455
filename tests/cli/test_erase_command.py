"""``headrace erase`` beside a worker: it waits for one that runs, and says what is left for one that does not."""

from __future__ import annotations

import json
import threading

import pytest
from click.testing import CliRunner

from core.audit import Ledger
from core.errors import HeadraceError
from core.project import load_project
from core.status import read_status, write_status
from core.store import TableStore
from core.tables import PREDICTIONS
from headrace import cli
from streaming.memory_broker import MemoryBroker
from streaming.ordering import CLOCK_HEADER
from streaming.transport import OutRecord
from streaming.worker import Worker

START = 1_700_000_000_000
TEXT = "{name: small, id: id, time: at, fields: {x: number}, label: {path: y}, online: [prior]%s}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HEADRACE_PII_KEY", "a key of some length")
    (tmp_path / "headrace.yaml").write_text(TEXT % "")
    return load_project(tmp_path)


def broker_with(count: int) -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topics({"small.events": 1, "small.labels": 1})
    for number in range(count):
        value = json.dumps({"id": f"e{number}", "at": START + number, "x": 1}).encode()
        broker.append(OutRecord("small.events", f"e{number}".encode(), value, START + number, 0))
    for topic in ("small.events", "small.labels"):
        broker.append(OutRecord(topic, b"c", None, START + count, 0, ((CLOCK_HEADER, b"1"),)))
    return broker


def run(project, until=None) -> None:
    broker = broker_with(10)
    Worker(project, broker, None, lockstep=True).run(threading.Event(), until=until or (lambda one: one.records >= 11))


def erase(project, *arguments: str):
    return CliRunner().invoke(cli, ["erase", str(project.folder), *arguments])


def test_a_worker_that_runs_is_waited_for(project):
    stop, broker = threading.Event(), broker_with(10)
    worker = Worker(project, broker, None, lockstep=True)
    thread = threading.Thread(target=worker.run, args=[stop], daemon=True)
    thread.start()
    try:
        while worker.records < 11 or read_status(project.status, "worker") is None:
            stop.wait(0.01)
        asked = erase(project, "--id", "e5", "--who", "ada", "--json", "-")
    finally:
        stop.set()
        thread.join(60)
    assert asked.exit_code == 0, asked.output
    said = json.loads(asked.stdout)
    assert said["waiting"] == {"0": "pending"}
    assert (said["rows"]["predictions"], said["not_yet"], said["by"]) == (1, [], "ada")
    assert any("small.events" in sentence for sentence in said["cannot_reach"])
    (record,) = Ledger(project.ledger).history("erasure")
    assert record.body == said
    told = CliRunner().invoke(cli, ["history", str(project.folder), "--kind", "erasure"]).output
    assert "an id erased, by ada at" in told
    assert "e5" not in TableStore(project.tables).read(PREDICTIONS)["id"].to_pylist()


def test_without_a_worker_it_is_said_what_waits_for_the_next_one(project):
    run(project)
    asked = erase(project, "--id", "e5", "--json", "-")
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)["not_yet"] == [0]
    assert "when a worker next opens it" in asked.stderr


def test_of_an_id_that_nobody_knows_nothing_is_found(project):
    run(project)
    asked = erase(project, "--id", "e99")
    assert asked.exit_code == 3
    assert "nothing found" in asked.output
    assert CliRunner().invoke(cli, ["erase", str(project.folder)]).exit_code == 2


def test_a_worker_that_does_not_come_to_it_makes_it_fail(project):
    run(project)
    write_status(project.status, "worker", {"state": "running", "partitions": {"0": {}}})
    asked = erase(project, "--id", "e5", "--wait", "0.1")
    assert isinstance(asked.exception, HeadraceError)
    assert "has not forgotten it yet in partition 0; run the same again" in str(asked.exception)


def test_an_id_is_hashed_with_the_same_key_or_not_at_all(project, monkeypatch):
    (project.folder / "headrace.yaml").write_text(TEXT % ", privacy: {id: hash}")
    hashed = load_project(project.folder)
    run(hashed)
    monkeypatch.setenv("HEADRACE_PII_KEY", "another key, as long")
    wrong = erase(hashed, "--id", "e5")
    assert "is not the one that the state was made with" in str(wrong.exception)
    monkeypatch.setenv("HEADRACE_PII_KEY", "a key of some length")
    assert erase(hashed, "--id", "e5").exit_code == 0
    assert TableStore(hashed.tables).read(PREDICTIONS).num_rows == 9
