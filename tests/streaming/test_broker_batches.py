"""Batches that cannot be read, through a broker: they are dead letters, and the stream goes on behind them."""

from __future__ import annotations

import uuid

import pytest
from broker_spec import collect
from kafka import KafkaProducer
from kafka.record.default_records import DefaultRecordBatchBuilder
from test_kafka_batches import ENCODERS, GZIP, batch, payload_of

from core.reasons import UNREADABLE_HEADER
from streaming.kafka_batches import MAX_POLLED_BYTES, MAX_UNPACKED_BYTES
from streaming.kafka_client import KafkaBroker
from streaming.transport import RawRecord, TopicPartition

pytestmark = pytest.mark.broker


@pytest.fixture
def place(embedded_broker):
    topic = f"batches-{uuid.uuid4().hex}"
    KafkaBroker(embedded_broker.bootstrap_servers).create_topics({topic: 1})
    return TopicPartition(topic, 0)


@pytest.fixture
def producer(embedded_broker):
    made = KafkaProducer(
        bootstrap_servers=embedded_broker.bootstrap_servers,
        compression_type="gzip",
        max_request_size=2 * MAX_UNPACKED_BYTES,
        enable_idempotence=False,
    )
    yield made
    made.close()


def publish(producer: KafkaProducer, place: TopicPartition, value: bytes) -> None:
    producer.send(place.topic, value, b"k", partition=place.partition).get(timeout=30)


def read(embedded_broker, place: TopicPartition, start: int, count: int) -> list[RawRecord]:
    consumer = KafkaBroker(embedded_broker.bootstrap_servers).consumer("g")
    consumer.assign({place: start})
    try:
        return collect(consumer, count)
    finally:
        consumer.close()


def told(records: list[RawRecord]) -> list[tuple[int, bytes | None, str]]:
    return [(r.offset, r.value, dict(r.headers).get(UNREADABLE_HEADER, b"").decode()) for r in records]


def test_behind_a_bomb_the_stream_goes_on(embedded_broker, place, producer):
    for value in (b"before", b"\0" * (MAX_UNPACKED_BYTES + 1), b"behind"):
        publish(producer, place, value)
    expected = [(0, b"before", ""), (1, None, "oversized_batch"), (2, b"behind", "")]
    assert told(read(embedded_broker, place, 0, 3)) == expected
    assert told(read(embedded_broker, place, 1, 2)) == expected[1:]


def test_behind_nonsense_the_stream_goes_on(embedded_broker, place, producer, monkeypatch):
    whole = ENCODERS[GZIP](payload_of(5))
    with monkeypatch.context() as patch:
        nonsense = batch(whole[: len(whole) // 2], 5, kind=GZIP)
        patch.setattr(DefaultRecordBatchBuilder, "build", lambda _: bytearray(nonsense))
        publish(producer, place, b"replaced")
    publish(producer, place, b"behind")
    found = told(read(embedded_broker, place, 0, 6))
    assert [offset for offset, _, _ in found] == list(range(6))
    assert found[4:] == [(4, None, "unreadable_batch"), (5, b"behind", "")]
    assert told(read(embedded_broker, place, 3, 3)) == found[3:]


def test_one_poll_brings_little_more_than_its_bound_of_large_records(embedded_broker, place, producer):
    size = MAX_POLLED_BYTES // 2
    for _ in range(5):
        publish(producer, place, b"\0" * size)
    consumer = KafkaBroker(embedded_broker.bootstrap_servers).consumer("g")
    consumer.assign({place: 0})
    polls: list[list[int]] = []
    while sum(map(len, polls)) < 5:
        polls.append([record.offset for record in consumer.poll(5_000, 100)])
    consumer.close()
    assert [offset for offsets in polls for offset in offsets] == list(range(5))
    assert max(map(len, polls)) == 3
