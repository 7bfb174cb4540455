"""Workers on a real Apache Kafka: what only transactions and a consumer group can show."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from click.testing import CliRunner
from kafka import KafkaProducer
from stream_lab import EVENTS, LABELS, easy_stream, make_project
from worker_lab import Killed, KillingPhases, Running, rows_of, wait_for, with_clocks

from cli.dead_letters import dead_letters as dead_letters_command
from core.errors import FencedError
from core.tables import EXAMPLES
from streaming.checkpoint import Checkpoints
from streaming.kafka_batches import MAX_UNPACKED_BYTES
from streaming.kafka_client import KafkaBroker
from streaming.phases import Phases
from streaming.rebuild import rebuild
from streaming.transport import OutRecord, TopicPartition
from streaming.worker import Worker

pytestmark = pytest.mark.kafka


@pytest.fixture
def broker(kafka) -> KafkaBroker:
    return KafkaBroker(kafka.bootstrap_servers)


@pytest.fixture
def name() -> str:
    return f"small-{uuid.uuid4().hex[:8]}"


def project_in(folder, name: str, partitions: int = 1, **changes):
    state = {"session_timeout": "6s", "commit_every": "20ms", "recover_within": "200ms"}
    topics = {
        topic: f"{name}.{topic.replace('_', '-')}"
        for topic in ("events", "labels", "predictions", "dead_letters", "journal")
    }
    return make_project(folder, name=name, topics={**topics, "partitions": partitions}, state=state, **changes)


def publish(broker: KafkaBroker, name: str, records: list[OutRecord], partitions: int) -> dict[TopicPartition, int]:
    """Fill the topics; return where they end."""
    topics = [f"{name}.{kind}" for kind in ("events", "labels")]
    broker.create_topics(dict.fromkeys(topics, partitions), kept=topics)
    producer = broker.producer()
    for record in records:
        producer.send(replace(record, topic=record.topic.replace("small.", f"{name}.")))
    producer.close()
    places = [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
    return {place: len(read(broker, place)) for place in places}


def read(broker: KafkaBroker, place: TopicPartition) -> list[bytes | None]:
    consumer = broker.consumer(f"read-{uuid.uuid4().hex}")
    consumer.assign({place: 0})
    found, quiet_since = [], time.monotonic()
    while time.monotonic() - quiet_since < 1.5:
        for record in consumer.poll(100, 1_000):
            found.append(record.value)
            quiet_since = time.monotonic()
    consumer.close()
    return found


def is_done(worker: Worker, ends: dict[TopicPartition, int]) -> bool:
    at = {place: offset for part in worker.partitions.values() for place, offset in part.course.positions().items()}
    return all(at.get(place, 0) >= end for place, end in ends.items())


def test_outputs_and_offsets_are_committed_together_and_the_fence_holds(broker, name):
    topics = [f"{name}.out", f"{name}.in"]
    broker.create_topics(dict.fromkeys(topics, 1))
    member = broker.membership(f"group-{name}", f"{name}.in", 6_000)
    place, journal = TopicPartition(f"{name}.in", 0), OutRecord(f"{name}.out", b"j", b"journal", None, 0)
    first, second = (broker.publisher(name, member, Phases(), exactly_once=True) for _ in range(2))
    first.take_over()
    assert first.commit(journal, [OutRecord(f"{name}.out", b"k", b"1", 1_000, 0)], {place: 7}) == 1
    second.take_over()

    with pytest.raises(FencedError):
        first.commit(journal, [OutRecord(f"{name}.out", b"k", b"2", 1_000, 0)], {place: 8})

    second.commit(None, [OutRecord(f"{name}.out", b"k", b"3", 1_000, 0)], {place: 9})
    consumer = broker.consumer(f"group-{name}")
    assert consumer.committed([place]) == {place: 9}
    assert read(broker, TopicPartition(f"{name}.out", 0)) == [b"journal", b"1", b"3"]
    for client in (consumer, first, second, member):
        client.close()


@pytest.mark.parametrize("phase", ["journal", "produce", "commit"])
def test_a_kill_inside_a_transaction_leaves_each_prediction_once(tmp_path, broker, name, phase):
    project = project_in(tmp_path, name)
    ends = publish(broker, name, with_clocks(easy_stream("binary", 120)), 1)
    with pytest.raises(Killed):
        Worker(project, broker, None, lockstep=True, phases=KillingPhases(phase, 2, after=True)).run(threading.Event())

    finished = Worker(project, broker, None, lockstep=True)
    finished.run(threading.Event(), until=lambda one: bool(one.partitions) and is_done(one, ends))

    published = read(broker, TopicPartition(f"{name}.predictions", 0))
    assert len(published) == len(set(published)) == 120
    assert len(rows_of(project, EXAMPLES)) == 120
    assert finished.books.imbalances() == []


def test_partitions_move_between_workers_with_what_they_learned(tmp_path, broker, name):
    partitions = 2
    project = project_in(tmp_path, name, partitions)
    stream = with_clocks(easy_stream("binary", 300), partitions=partitions)
    publish(broker, name, stream[: len(stream) // 2], partitions)
    first = Running(project, broker, "first")
    wait_for(lambda: len(first.worker.partitions) == partitions)
    second = Running(project, broker, "second")
    wait_for(lambda: len(second.worker.partitions) == 1 and len(first.worker.partitions) == 1)
    ends = publish(broker, name, stream[len(stream) // 2 :], partitions)
    first.leave()
    wait_for(lambda: is_done(second.worker, ends))
    second.leave()

    ids = [row["id"] for row in rows_of(project, EXAMPLES)]
    assert len(ids) == len(set(ids)) == 300
    assert second.worker.books.imbalances() == []
    values = [value for n in range(partitions) for value in read(broker, TopicPartition(f"{name}.predictions", n))]
    assert len(values) == len(set(values)) == 300


def test_a_commit_that_begins_while_the_broker_is_away_ends_well_when_it_is_back(broker, kafka, name):
    broker.create_topics({f"{name}.out": 1})
    publisher = broker.publisher(name, None, Phases(), exactly_once=True)
    publisher.take_over()
    output = OutRecord(f"{name}.out", b"k", b"1", 1_000, 0)
    publisher.commit(None, [output], {})
    kafka.kill()
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(publisher.commit, None, [replace(output, value=b"2")], {})
        time.sleep(1.0)
        kafka.start()
        committing.result(60)
    publisher.close()
    assert read(broker, TopicPartition(f"{name}.out", 0)) == [b"1", b"2"]


def test_a_broker_that_is_killed_is_waited_for(tmp_path, broker, kafka, name):
    project = project_in(tmp_path, name)
    stream = with_clocks(easy_stream("binary", 200))
    publish(broker, name, stream[:200], 1)
    worker = Running(project, broker, "")
    wait_for(lambda: worker.worker.books.events.received > 50)
    kafka.kill()
    assert not kafka.is_running
    kafka.start()
    ends = publish(broker, name, stream[200:], 1)
    if not worker.thread.is_alive():  # its commit could not be known: the command line starts another
        worker = Running(project, broker, "")
    wait_for(lambda: is_done(worker.worker, ends))
    worker.leave()

    ids = [row["id"] for row in rows_of(project, EXAMPLES)]
    assert len(ids) == len(set(ids)) == 200


def test_dead_letters_replayed_after_a_fix_are_learned_once(tmp_path, broker, kafka, name):
    broken = "def features(fields, time):\n    return {'x': fields['x'] / (fields['x'] > 0)}\n"
    outputs = {"function": "code.py:features", "outputs": {"x": "number"}}
    project = project_in(tmp_path, name, code=broken, features=outputs)
    stream = easy_stream("binary", 60)
    ends = publish(broker, name, [record for record in stream if record.topic == EVENTS], 1)
    first = Worker(project, broker, None)
    first.run(threading.Event(), until=lambda one: bool(one.partitions) and is_done(one, ends))
    letters = first.books.events.dead_lettered
    assert 10 < letters < 50

    (tmp_path / "fixed.py").write_text(broken.replace(" / (fields['x'] > 0)", ""))
    project = project_in(tmp_path, name, features={**outputs, "function": "fixed.py:features"})
    rebuild(project, 0, Checkpoints(project), lambda done, total: None)
    for expected in (letters, 0):
        command = ["replay", str(tmp_path), "--bootstrap", kafka.bootstrap_servers]
        said = CliRunner().invoke(dead_letters_command, command)
        assert said.output.splitlines()[-1] == f"{expected} of {letters} dead letters replayed"
    ends = publish(broker, name, [record for record in stream if record.topic == LABELS], 1)
    second = Worker(project, broker, None)
    second.run(threading.Event(), until=lambda one: bool(one.partitions) and is_done(one, ends))

    ids = [row["id"] for row in rows_of(project, EXAMPLES)]
    assert len(ids) == len(set(ids)) == 60
    assert second.books.imbalances() == []


def test_a_bomb_is_one_dead_letter_and_the_partition_goes_on(tmp_path, broker, kafka, name):
    project = project_in(tmp_path, name)
    stream = easy_stream("binary", 40)
    publish(broker, name, stream[:40], 1)
    bomb = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, compression_type="gzip", max_request_size=1 << 28)
    payload = b"\0" * (MAX_UNPACKED_BYTES + 1)
    bomb.send(f"{name}.events", payload, b"k", partition=0, timestamp_ms=stream[40].timestamp).get(timeout=60)
    bomb.close()
    ends = publish(broker, name, stream[40:], 1)
    worker = Worker(project, broker, None)
    worker.run(threading.Event(), until=lambda one: bool(one.partitions) and is_done(one, ends))

    assert worker.books.events.dead_lettered == 1
    assert (worker.books.events.predicted, worker.books.labels.joined) == (40, 40)
