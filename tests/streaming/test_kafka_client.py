from __future__ import annotations

import inspect
import logging
import socket
import threading
import time
import uuid

import kafka.errors
import pytest
from client_spec import KafkaClientSpec

from core.errors import BrokerError, TopicError, UsageError
from streaming.embedded import EmbeddedBroker
from streaming.kafka_access import broker_error, is_transient
from streaming.kafka_client import KafkaBroker
from streaming.kafka_log import RateLimitedHandler, limit_kafka_log
from streaming.transport import OutRecord, TopicPartition

KAFKA_ERRORS = [
    kind for _, kind in inspect.getmembers(kafka.errors, inspect.isclass) if issubclass(kind, kafka.errors.KafkaError)
]


@pytest.mark.broker
class TestEmbeddedBroker(KafkaClientSpec):
    @pytest.fixture
    def broker(self, embedded_broker):
        return KafkaBroker(embedded_broker.bootstrap_servers)


@pytest.mark.parametrize("kind", KAFKA_ERRORS, ids=lambda kind: kind.__name__)
def test_every_kafka_error_becomes_ours_with_address_and_advice(kind):
    error = kind({}) if kind is kafka.errors.LogTruncationError else kind("what the library says")
    ours = broker_error(error, "kafka.example:9092", "committing offsets")
    assert isinstance(ours, BrokerError)
    said, _, advice = str(ours).rpartition("; ")
    assert said.startswith("committing offsets: the Kafka broker at kafka.example:9092 says")
    assert kind.__name__ in said
    assert len(advice) > 20


def test_there_are_kafka_errors_to_map():
    assert len(KAFKA_ERRORS) > 100


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError(), OSError(113, "no route")])
def test_the_systems_errors_are_transient_and_say_to_check_the_broker(error):
    assert is_transient(error)
    assert "check that it runs" in str(broker_error(error, "h:1", "reading"))


@pytest.mark.parametrize(
    ("kind", "ours", "transient"),
    [
        (kafka.errors.UnknownTopicOrPartitionError, TopicError, True),
        (kafka.errors.InvalidTopicError, TopicError, False),
        (kafka.errors.OffsetOutOfRangeError, BrokerError, False),
        (kafka.errors.CorruptRecordError, BrokerError, False),
        (kafka.errors.KafkaConnectionError, BrokerError, True),
        (kafka.errors.NotLeaderForPartitionError, BrokerError, True),
        (kafka.errors.TopicAuthorizationFailedError, BrokerError, False),
    ],
)
def test_what_passes_is_told_from_what_stays(kind, ours, transient):
    assert type(broker_error(kind(), "h:1", "reading")) is ours
    assert is_transient(kind()) is transient


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", ":9092", "h:0", "h:70000", "h:9092,", "h:x"])
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(UsageError, match="HOST:PORT"):
        KafkaBroker(address)


def test_no_broker_is_said_with_address_and_fix():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        broker = KafkaBroker(address, connect_timeout_s=0.3)
        for attempt in (lambda: broker.describe([]), broker.producer, lambda: broker.consumer("g")):
            with pytest.raises(BrokerError, match=f"no Kafka broker answers at {address}; .*--bootstrap"):
                attempt()


def test_a_listener_that_is_no_broker_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(BrokerError, match=f"no Kafka broker answers at {address}; .*protocol"):
            KafkaBroker(address, connect_timeout_s=1.0).describe([])


@pytest.mark.broker
def test_connecting_waits_for_a_broker_that_starts_late(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found: list[object] = []
    asking = threading.Thread(target=lambda: found.append(KafkaBroker(f"127.0.0.1:{port}").describe([]).cluster_id))
    asking.start()
    with EmbeddedBroker(tmp_path, port) as late:
        asking.join()
        assert found == [late.cluster_id]


@pytest.fixture
def lonely_broker(tmp_path):
    """An embedded broker of the test's own, with one topic, and impatient clients."""
    library = logging.getLogger("kafka")
    for handler in [known for known in library.handlers if isinstance(known, RateLimitedHandler)]:
        library.removeHandler(handler)  # a fresh one: nothing is held back because of an earlier test
    with EmbeddedBroker(tmp_path) as process:
        broker = KafkaBroker(process.bootstrap_servers, connect_timeout_s=1.0, delivery_timeout_s=2.0)
        broker.create_topics({"events": 1})
        yield process, broker


def poll_until(consumer, deadline: float) -> None:
    while time.monotonic() < deadline:
        consumer.poll(100, 10)


@pytest.mark.broker
def test_a_broker_that_goes_away_while_producing_is_an_error_and_stays_one(lonely_broker, caplog):
    process, broker = lonely_broker
    producer = broker.producer()
    producer.send(OutRecord("events", b"k", b"safe", 1))
    producer.flush()
    process.stop()
    producer.send(OutRecord("events", b"k", b"lost", 2))
    with pytest.raises(BrokerError, match=process.bootstrap_servers):
        producer.flush(1.0)
    with pytest.raises(BrokerError, match="not delivered"):
        producer.flush(60.0)
    with pytest.raises(BrokerError, match="not delivered"):
        producer.send(OutRecord("events", b"k", b"more", 3))
    producer.close()
    assert "1 record(s) are lost" in caplog.text


@pytest.mark.broker
def test_a_reader_survives_a_broker_that_goes_away_and_refuses_its_successor(lonely_broker, caplog):
    process, broker = lonely_broker
    place = TopicPartition("events", 0)
    consumer = broker.consumer("g")
    consumer.assign({place: 0})
    assert not consumer.poll(50, 10)
    port = int(process.bootstrap_servers.rpartition(":")[2])
    former = process.cluster_id
    process.stop()
    for _ in range(3):
        assert not consumer.poll(300, 10)
    with pytest.raises(BrokerError, match="committing"):
        consumer.commit({place: 1})
    # pytest listens to kafka's own logger too, which does not propagate
    assert 0 < len([r for r in caplog.records if r.name.startswith("streaming")]) < 6
    with EmbeddedBroker(process.state, port) as successor:
        assert broker.describe([]).cluster_id == successor.cluster_id != former
        deadline = time.monotonic() + 20
        with pytest.raises(BrokerError, match=f"another Kafka broker answers .*{successor.cluster_id}"):
            poll_until(consumer, deadline)
        with pytest.raises(BrokerError, match="another Kafka broker"):
            consumer.commit({place: 1})
        consumer.close()


@pytest.mark.broker
def test_closing_is_quick_and_quiet_when_the_broker_is_gone(lonely_broker):
    process, broker = lonely_broker
    producer, consumer = broker.producer(), broker.consumer(f"g-{uuid.uuid4()}")
    process.stop()
    producer.close()
    consumer.close()


def test_repeated_connection_trouble_is_logged_once_a_period(caplog):
    now = [0.0]
    library = logging.Logger("kafka.net.manager")
    library.addHandler(RateLimitedHandler(period_s=30, clock=lambda: now[0]))
    for _ in range(100):
        library.error("Connection failed: %s", "refused")
        library.info("never shown")
    assert len(caplog.records) == 1
    now[0] = 31.0
    library.error("Connection failed: %s", "refused")
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    assert "99 similar lines held back" in caplog.text


def test_other_warnings_of_the_library_pass_beside_connection_trouble(caplog):
    handler = RateLimitedHandler()
    net, fetcher = logging.Logger("kafka.net.manager"), logging.Logger("kafka.consumer.fetcher")
    for logger in (net, fetcher):
        logger.addHandler(handler)
    net.error("Connection failed")
    fetcher.error("Not authorized to read from topic %s.", "t")
    assert [r.levelname for r in caplog.records] == ["WARNING", "ERROR"]
    assert "Not authorized to read from topic t." in caplog.text


def test_a_slow_step_of_the_library_is_no_connection_trouble(caplog):
    loop = logging.Logger("kafka.net.selector")
    loop.addHandler(RateLimitedHandler())
    loop.error("IO loop crashed")
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "connection" not in caplog.text
    limit_kafka_log()
    assert not logging.getLogger("kafka.net.selector").isEnabledFor(logging.WARNING)
