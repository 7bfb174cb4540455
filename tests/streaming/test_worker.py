"""The streaming service end to end in one process: topics in, topics, tables and snapshots out."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace

import pytest
from stream_lab import EVENTS, LABELS, MINUTE, START, TASKS, digest, easy_stream, make_project
from worker_lab import DEAD, PREDICTED, Source, clocks, fill, rows_of, run, values, watching, with_clocks

import streaming.decisions as decisions_module
import streaming.partition as partition_module
import streaming.worker as worker_module
from core.errors import BrokerError, CheckpointError, StoreError
from core.progress import stream_of
from core.status import read_status
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES, PREDICTIONS
from streaming.checkpoint import Checkpoints
from streaming.memory_broker import MemoryBroker
from streaming.ordering import is_clock
from streaming.topics import partition_of
from streaming.transport import OutRecord
from streaming.worker import Worker


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(worker_module, "_RETRY_S", 0)
    monkeypatch.setattr(worker_module, "_POLL_MS", 5)
    monkeypatch.setattr(decisions_module, "BATCH", 16)
    monkeypatch.setattr(worker_module, "_POLL_RECORDS", 40)


@pytest.mark.parametrize("task", TASKS)
def test_events_and_labels_become_predictions_examples_and_balanced_books(tmp_path, task):
    project = make_project(tmp_path, task)
    broker = fill(MemoryBroker(), with_clocks(easy_stream(task, 150)))
    worker = run(project, broker)
    books = worker.books
    assert books.imbalances() == []
    assert (books.events.predicted, books.labels.joined) == (150, 150)
    published = [json.loads(value) for value in values(broker)]
    assert [one["id"] for one in published] == [f"e{n}" for n in range(150)]
    assert published[-1]["experts"].keys() == {"linear", "prior"}
    assert len(rows_of(project, PREDICTIONS)) == len(rows_of(project, EXAMPLES)) == 150
    assert rows_of(project, CORRECTIONS) == []
    status = read_status(project.status, "worker")
    assert (status["state"], status["partitions"]["0"]["books"]) == ("stopped", books.as_dict())
    assert status["partitions"]["0"]["flushed_through"] == START + 152 * MINUTE + 1
    means = status["partitions"]["0"]["loss"]
    assert means["linear"] < means["prior"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("stops", [[40], [1, 7, 60, 61]])
def test_a_clean_stop_and_restart_go_on_to_the_same_state(tmp_path, task, stops):
    stream = with_clocks(easy_stream(task, 90))
    whole, parts = (make_project(tmp_path / name, task, online=["linear", "prior", "no_change"]) for name in ("a", "b"))
    one, other = fill(MemoryBroker(), stream), fill(MemoryBroker(), stream)
    expected = run(whole, one)
    for records in stops:
        stopped = run(parts, other, records=records)
        assert stopped.records < len(stream), "it was stopped on the way"
    finished = run(parts, other)
    assert digest(finished.partitions[0].state) == digest(expected.partitions[0].state)
    assert values(other) == values(one), "every prediction once, to the bit"
    for table in (PREDICTIONS, EXAMPLES, CORRECTIONS):
        assert rows_of(parts, table) == rows_of(whole, table)


BAD = [
    OutRecord(EVENTS, b"k", b"{", START + 5),
    OutRecord(EVENTS, None, None, START + 6),
    OutRecord(
        EVENTS, b"e3", json.dumps({"id": "e3", "at": START, "x": 9, "z": 9, "c": "z"}).encode(), START + 60 * MINUTE
    ),
    OutRecord(LABELS, b"e3", b'{"id": "e3", "y": 7}', START + 60 * MINUTE),
    OutRecord(LABELS, b"nobody", b'{"id": "nobody", "y": 1}', START + 10 * MINUTE),
    OutRecord(EVENTS, b"k", b"{}", 10**18),
    OutRecord(LABELS, b"k", b"\xff" * 50, -1),
]


def test_bad_records_are_dead_letters_with_their_place_and_the_stream_goes_on(tmp_path):
    stream = sorted([*easy_stream("binary", 100), *BAD[:5]], key=lambda r: r.timestamp)
    stream[20:20] = BAD[5:]
    broker = fill(MemoryBroker(), with_clocks_after(stream))
    books = run(make_project(tmp_path), broker).books
    assert books.imbalances() == []
    assert (books.events.predicted, books.events.duplicates) == (100, 1)
    assert books.reasons == {"malformed": 1, "empty": 1, "bad_label": 1, "bad_time": 2}
    letters = broker.records(DEAD)
    assert len(letters) == 5
    logs = {topic: broker.records(topic) for topic in (EVENTS, LABELS)}
    for letter in letters:
        headers = {name: value.decode() for name, value in letter.headers}
        source = logs[headers["headrace-topic"]][int(headers["headrace-offset"])]
        assert (letter.value or None, letter.key) == (source.value, source.key)
        assert headers["headrace-timestamp"] == str(source.timestamp)


def with_clocks_after(stream):
    return [*stream, *clocks(START + 1000 * MINUTE)]


def test_two_partitions_are_two_learners_with_one_book(tmp_path):
    project = make_project(tmp_path, topics={"partitions": 2})
    stream = with_clocks(easy_stream("binary", 200), partitions=2)
    broker = fill(MemoryBroker(), stream, 2)
    worker = run(project, broker)
    assert worker.books.imbalances() == []
    parts = [part.state.books.events.predicted for part in worker.partitions.values()]
    assert sum(parts) == 200
    assert min(parts) > 50
    for record in broker.records(PREDICTED):
        assert record.partition == partition_of(record.key, 2)
    rows = rows_of(project, EXAMPLES)
    assert len(rows) == len({row["id"] for row in rows}) == 200
    assert Counter(row["partition"] for row in rows) == Counter(dict(enumerate(parts)))
    again = run(project, broker, until=lambda worker: len(worker.partitions) == 2)
    assert digest([p.state for p in again.partitions.values()]) == digest([p.state for p in worker.partitions.values()])


def test_in_lockstep_a_champion_serves_exactly_from_its_time_on(tmp_path):
    project = make_project(tmp_path)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 100)))
    watcher = watching(Source(4, START + 50 * MINUTE))
    worker = run(project, broker, watcher=watcher)
    watcher.stop()
    published = [json.loads(value) for value in values(broker)]
    assert [one["champion_version"] for one in published] == [None] * 50 + [4] * 50
    assert [one["experts"].get("champion") for one in published] == [None] * 50 + [0.625] * 50
    assert read_status(project.status, "worker")["champion"] == 4
    assert worker.books.imbalances() == []


def test_a_restart_in_lockstep_goes_on_with_the_champion_that_served(tmp_path):
    stream = with_clocks(easy_stream("binary", 100))
    published = {}
    for name, stops in (("whole", []), ("parts", [120, 30])):
        project, broker = make_project(tmp_path / name), fill(MemoryBroker(), stream)
        for records in [*stops, None]:
            watcher = watching(Source(4, START + 50 * MINUTE))
            run(project, broker, records=records, watcher=watcher)
            watcher.stop()
        published[name] = values(broker)
    assert published["parts"] == published["whole"]


def test_outside_of_lockstep_a_champion_serves_as_soon_as_it_is_there(tmp_path):
    project, broker = make_project(tmp_path), MemoryBroker()
    fill(broker, easy_stream("binary", 40))
    watcher = watching(Source(4, START + 10**9))
    run(project, broker, watcher=watcher, lockstep=False)
    watcher.stop()
    published = [json.loads(value) for value in values(broker)]
    assert {one["champion_version"] for one in published} == {4}
    assert len(published) == 40


def test_a_full_disk_is_waited_out(tmp_path, monkeypatch):
    project = make_project(tmp_path, state={"flush_rows": 20})
    append, failures = TableStore.append, []

    def full(self, *args, **how):
        if len(failures) < 5:
            failures.append(1)
            raise StoreError("no space left")
        return append(self, *args, **how)

    monkeypatch.setattr(TableStore, "append", full)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 150)))
    worker = run(project, broker)
    assert len(failures) == 5
    assert worker.books.imbalances() == []
    ids = [row["id"] for row in rows_of(project, PREDICTIONS)]
    assert len(ids) == len(set(ids)) == 150


def test_a_status_that_cannot_be_written_stops_nobody(tmp_path, caplog):
    project = make_project(tmp_path)
    project.state.mkdir()
    project.status.write_text("a file where the folder should be")
    worker = run(project, fill(MemoryBroker(), with_clocks(easy_stream("binary", 50))))
    assert worker.books.events.joined == 50
    assert [record.levelname for record in caplog.records if "status cannot be written" in record.message] == [
        "WARNING"
    ]


def test_one_topic_for_both_kinds(tmp_path):
    kind = {"path": "kind"}
    project = make_project(tmp_path, topics={"events": "all", "labels": "all", "kind": kind})
    broker = MemoryBroker()
    broker.create_topics({"all": 1})
    for record in easy_stream("binary", 60):
        content = json.loads(record.value) | {"kind": "event" if record.topic == EVENTS else "label"}
        broker.append(OutRecord("all", record.key, json.dumps(content).encode(), record.timestamp))
    worker = run(project, broker, until=lambda one: one.records >= 120)
    assert (worker.books.events.joined, worker.books.events.unknown_fields, worker.books.imbalances()) == (60, 0, [])


def test_on_another_broker_learning_goes_on_and_offsets_begin_again(tmp_path):
    project = make_project(tmp_path)
    run(project, fill(MemoryBroker(), with_clocks(easy_stream("binary", 50))))
    later = easy_stream("binary", 80)[100:]  # ids of 50 and above
    worker = run(project, fill(MemoryBroker(), [*later, *clocks(later[-1].timestamp + 1)]))
    state = worker.partitions[0].state
    assert state.positions == {topic: sum(r.topic == topic for r in later) + 1 for topic in (EVENTS, LABELS)}
    assert state.books.events.predicted > 70
    assert len(rows_of(project, PREDICTIONS)) == state.books.events.predicted
    assert state.books.imbalances() == []


def test_records_that_are_gone_are_not_skipped_in_silence(tmp_path, monkeypatch):
    project, broker = make_project(tmp_path), fill(MemoryBroker(), with_clocks(easy_stream("binary", 50)))
    run(project, broker, records=20)
    consumer = type(broker.consumer("g"))
    monkeypatch.setattr(consumer, "beginning", lambda self, places: {p: 45 if p.topic == EVENTS else 0 for p in places})
    with pytest.raises(BrokerError, match="retention"):
        run(project, broker)


def test_a_state_that_cannot_be_trusted_stops_the_start(tmp_path):
    project, broker = make_project(tmp_path), fill(MemoryBroker(), with_clocks(easy_stream("binary", 20)))
    run(project, broker)
    for path in project.checkpoints.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        run(project, broker)


def test_the_snapshot_and_the_committed_offsets_agree(tmp_path):
    project, broker = make_project(tmp_path), fill(MemoryBroker(), with_clocks(easy_stream("binary", 50)))
    worker = run(project, broker)
    places = worker.partitions[0].course.positions()
    assert broker.committed("headrace-small", places) == places
    assert Checkpoints(project).load(0).state.positions == {place.topic: at for place, at in places.items()}
    ends = {topic: len(broker.records(topic)) for topic in (EVENTS, LABELS)}
    assert {place.topic: at for place, at in places.items()} == ends
    assert all(is_clock(broker.records(topic)[-1]) for topic in ends)


def test_events_are_predicted_while_the_labels_topic_is_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "_POLL_MS", 100)
    project = make_project(tmp_path)
    events = [record for record in easy_stream("binary", 20) if record.topic == EVENTS]
    deadline = time.monotonic() + 20.0

    worker = run(
        project,
        fill(MemoryBroker(), events),
        lockstep=False,
        until=lambda one: one.books.events.predicted == 20 or time.monotonic() > deadline,
    )

    assert worker.books.events.predicted == 20


def test_a_record_from_the_future_does_not_let_what_is_pending_expire(tmp_path):
    project = make_project(tmp_path)
    now = round(time.time() * 1000)
    events = [record(f"e{number}", now - 1_000 + number) for number in range(10)]
    events.append(record("ahead", now, stamp=now + 400 * 24 * 60 * MINUTE))

    worker = run(project, fill(MemoryBroker(), events), lockstep=False)

    assert worker.books.events.expired == 0
    assert worker.books.events.pending == 11
    assert worker.partitions[0].state.clock <= round(time.time() * 1000)


def record(event_id: str, at: int, *, stamp: int | None = None) -> OutRecord:
    value = json.dumps({"id": event_id, "at": at, "x": 0.5, "z": -1.0, "c": "a"}).encode()
    return OutRecord(EVENTS, event_id.encode(), value, at if stamp is None else stamp)


def test_a_partition_to_which_nothing_comes_any_more_does_not_hold_up_the_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(partition_module, "_CAUGHT_UP_AFTER_S", 0.2)
    project = make_project(tmp_path, topics={"partitions": 2}, state={"flush_every": "1s"})
    stream = [replace(record, partition=0) for record in easy_stream("binary", 20)]
    broker = fill(MemoryBroker(), [*stream[:10], replace(stream[0], key=b"other", partition=1)], 2)
    progress = []

    def until(worker: Worker) -> bool:
        if len(broker.records(EVENTS)) < 11 and all(part.is_caught_up for part in worker.partitions.values()):
            for record in stream[10:]:
                broker.append(record)
        progress.append(stream_of(read_status(project.status, "worker")))
        return bool(progress[-1]) and progress[-1].progress == stream[-1].timestamp

    run(project, broker, lockstep=False, until=until)
    assert progress[-1].first_event == START


def test_a_journal_that_may_not_be_trimmed_stops_nobody(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(worker_module, "_TRIM_ENTRIES", 1)
    monkeypatch.setattr(partition_module, "_SNAPSHOT_SHARE", 0)
    refused = []

    def refuse(*_):
        refused.append(1)
        raise BrokerError("not allowed to delete records")

    project = make_project(tmp_path, state={"commit_every": "1ms", "recover_within": "1ms"})
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 200)))
    broker.trim = refuse
    worker = run(project, broker)
    assert refused
    assert worker.books.events.joined == 200
    assert not [record for record in caplog.records if "opened anew" in record.message]
