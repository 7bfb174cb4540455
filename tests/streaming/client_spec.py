"""What streaming.kafka_client does beyond the common specification, said once for every broker it talks to."""

from __future__ import annotations

import threading
import time

import pytest
from broker_spec import BrokerSpec, collect

from core.errors import BrokerError, TopicError
from streaming.transport import OutRecord, TopicPartition


class KafkaClientSpec(BrokerSpec):
    """Subclasses give the fixture `broker`, a `KafkaBroker`."""

    def test_a_wrong_topic_name_is_a_topic_error(self, broker):
        with pytest.raises(TopicError):
            broker.producer().send(OutRecord("no such/topic", b"k", b"v"))

    def test_a_record_that_cannot_be_sent_is_refused_and_the_next_one_is_sent(self, broker, topic, connect):
        producer = broker.producer()
        try:
            with pytest.raises(BrokerError, match=r"max\.message\.bytes"):
                producer.send(OutRecord(topic, b"k", b"v" * (17 << 20), 1, 0))
            with pytest.raises(BrokerError, match="sending"):
                producer.send(OutRecord(topic, b"k", b"v", 1, 9))
            producer.send(OutRecord(topic, b"k", b"v", 1, 0))
            producer.flush()
        finally:
            producer.close()
        assert [r.value for r in collect(connect({TopicPartition(topic, 0): 0}), 1)] == [b"v"]

    def test_closing_sends_what_is_queued(self, broker, topic, connect):
        producer = broker.producer()
        producer.send(OutRecord(topic, b"k", b"v", 1, 0))
        producer.close()
        assert len(collect(connect({TopicPartition(topic, 0): 0}), 1)) == 1

    def test_clients_leave_no_threads_behind(self, broker, topic):
        before = set(threading.enumerate())
        producer, consumer = broker.producer(), broker.consumer("g")
        producer.send(OutRecord(topic, b"k", b"v", 1, 0))
        consumer.assign({TopicPartition(topic, 0): 0})
        consumer.poll(100, 1)
        producer.close()
        consumer.close()
        broker.describe([])
        deadline = time.monotonic() + 10
        while set(threading.enumerate()) - before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert set(threading.enumerate()) - before == set()
