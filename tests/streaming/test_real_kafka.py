"""The specification again, on a real Apache Kafka, and what only that one does."""

from __future__ import annotations

import time

import pytest
from broker_spec import collect
from client_spec import KafkaClientSpec

from core.errors import BrokerError
from streaming.kafka_client import KafkaBroker
from streaming.transport import OutRecord, TopicPartition


@pytest.mark.kafka
class TestRealKafka(KafkaClientSpec):
    @pytest.fixture
    def broker(self, kafka):
        return KafkaBroker(kafka.bootstrap_servers)

    def test_time_stamps_are_kept_even_where_they_go_back(self, topic, connect, publish):
        times = [5_000, 1_000, time.time_ns() // 1_000_000, 0]
        publish(*(OutRecord(topic, b"k", b"v", at, 0) for at in times))
        assert [r.timestamp for r in collect(connect({TopicPartition(topic, 0): 0}), 4)] == times

    def test_a_time_stamp_more_than_an_hour_ahead_is_refused(self, topic, broker):
        producer = broker.producer()
        producer.send(OutRecord(topic, b"k", b"v", 4_102_444_800_000, 0))
        with pytest.raises(BrokerError, match="InvalidTimestampError"):
            producer.flush()
        producer.close()
