"""Several workers in one group: partitions move with their state, and whoever lost one writes nothing any more."""

from __future__ import annotations

import pytest
from stream_lab import digest, easy_stream, make_project
from worker_lab import KillingPhases, Running, fill, rows_of, run, values, wait_for, with_clocks

import streaming.worker as worker_module
from core.errors import BrokerError, FencedError
from core.status import read_status
from core.tables import EXAMPLES
from streaming.memory_broker import MemoryBroker
from streaming.opening import Opener
from streaming.phases import Phases
from streaming.transport import OutRecord, TopicPartition
from streaming.worker import Worker

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _short_polls(monkeypatch):
    monkeypatch.setattr(worker_module, "_POLL_MS", 5)
    monkeypatch.setattr(worker_module, "_POLL_RECORDS", 30)


def committed(broker) -> int:
    places = [TopicPartition(topic, n) for topic in ("small.events", "small.labels") for n in range(PARTITIONS)]
    return sum(broker.committed("headrace-small", places).values())


def test_workers_that_come_and_go_end_where_one_alone_ends(tmp_path):
    topics = {"topics": {"partitions": PARTITIONS}}
    stream = with_clocks(easy_stream("binary", 400), partitions=PARTITIONS)
    alone, shared = make_project(tmp_path / "alone", **topics), make_project(tmp_path / "shared", **topics)
    one, other = fill(MemoryBroker(), stream, PARTITIONS), fill(MemoryBroker(), [], PARTITIONS)
    expected = run(alone, one)

    workers, total = [], len(stream)
    for number, record in enumerate(stream):
        if number % 100 == 0:
            workers.append(Running(shared, other, f"w{number}"))
        if number % 150 == 149:
            workers.pop(0).leave()
        other.append(record)
    wait_for(lambda: committed(other) == total)
    owned = [set(running.worker.partitions) for running in workers]
    assert set.union(*owned) == set(range(PARTITIONS))
    assert sum(map(len, owned)) == PARTITIONS
    assert set(read_status(shared.status, "worker")["partitions"]) <= {"0", "1", "2"}
    states = {n: part.state for running in workers for n, part in running.worker.partitions.items()}
    for running in workers:
        running.leave()

    for number, partition in expected.partitions.items():
        assert digest(states[number]) == digest(partition.state)
    assert values(other) == values(one)
    assert rows_of(shared, EXAMPLES) == rows_of(alone, EXAMPLES)


def test_a_worker_that_was_taken_over_publishes_nothing_more():
    broker = MemoryBroker()
    broker.create_topics({"out": 1, "journal": 1})
    member = broker.membership("g", "out", 6_000)
    first, second = (broker.publisher("p", member, Phases(), exactly_once=True) for _ in range(2))
    first.take_over()
    assert first.commit(OutRecord("journal", b"j", b"1"), [OutRecord("out", b"k", b"1")], {}) == 1
    second.take_over()

    with pytest.raises(FencedError):
        first.commit(OutRecord("journal", b"j", b"2"), [OutRecord("out", b"k", b"2")], {})

    assert second.commit(OutRecord("journal", b"j", b"3"), [OutRecord("out", b"k", b"3")], {}) == 2
    assert [record.value for record in broker.records("out")] == [b"1", b"3"]


@pytest.mark.parametrize("share", [0, 0.02])
def test_a_fenced_worker_takes_the_partition_back_when_nobody_else_has_it(tmp_path, monkeypatch, share):
    monkeypatch.setattr(worker_module, "_REOPEN_SHARE", share)
    project = make_project(tmp_path)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 100)))
    fenced = []

    def until(worker: Worker) -> bool:
        if worker.records > 50 and not fenced:
            fenced.append(broker.fence("headrace-small-0"))
        return len(fenced) == 1 and committed_one(broker) == 200 + clock_count(broker)

    run(project, broker, until=until)
    assert len(values(broker)) == len(set(values(broker))) == 100
    assert len(rows_of(project, EXAMPLES)) == 100


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("phase", ["journal", "produce", "commit"])
def test_after_a_commit_of_unknown_outcome_the_worker_goes_on(tmp_path, monkeypatch, phase, after):
    monkeypatch.setattr(worker_module, "_REOPEN_SHARE", 0.02)
    project = make_project(tmp_path)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 100)))
    phases = KillingPhases(phase, 3, after=after, error=BrokerError)

    run(project, broker, phases=phases, until=lambda worker: committed_one(broker) == 200 + clock_count(broker))

    assert phases.left <= 0
    assert len(values(broker)) == len(set(values(broker))) == 100
    assert len(rows_of(project, EXAMPLES)) == 100


def test_a_worker_that_can_never_commit_ends_and_says_why(tmp_path):
    project = make_project(tmp_path)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 10)))
    with pytest.raises(BrokerError, match="produce"):
        run(project, broker, phases=KillingPhases("produce", 2, error=BrokerError))


def committed_one(broker) -> int:
    places = [TopicPartition(topic, 0) for topic in ("small.events", "small.labels")]
    return sum(broker.committed("headrace-small", places).values())


def clock_count(broker) -> int:
    return sum(record.value is None for topic in ("small.events", "small.labels") for record in broker.records(topic))


@pytest.mark.parametrize("after", [20, 60])
def test_what_is_lost_and_given_back_between_two_looks_is_worked_on(tmp_path, after):
    project = make_project(tmp_path, topics={"partitions": PARTITIONS})
    stream = with_clocks(easy_stream("binary", 100), partitions=PARTITIONS)
    broker = fill(MemoryBroker(), stream, PARTITIONS)
    expired = []

    def until(worker: Worker) -> bool:
        if worker.records > after and not expired:
            expired.append(broker.expire_sessions())
        return len(expired) == 1 and committed(broker) == len(stream)

    worker = run(project, broker, until=until)
    assert set(worker.partitions) == set(range(PARTITIONS))
    assert len(values(broker)) == len(set(values(broker))) == 100
    assert len(rows_of(project, EXAMPLES)) == 100


def test_a_partition_taken_over_while_it_is_opened_is_opened_later(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "_REOPEN_SHARE", 0.01)
    project = make_project(tmp_path)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 30)))
    open_, fenced = Opener.open, []

    def fenced_once(opener, number):
        if not fenced:
            fenced.append(number)
            raise FencedError("somebody else was faster")
        return open_(opener, number)

    monkeypatch.setattr(Opener, "open", fenced_once)
    assert run(project, broker).books.events.predicted == 30
