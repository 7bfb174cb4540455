import threading

import pytest
from broker_spec import BrokerSpec, collect

from core.errors import BrokerError
from streaming.memory_broker import MemoryBroker
from streaming.transport import OutRecord, TopicPartition


class TestMemoryBroker(BrokerSpec):
    @pytest.fixture
    def broker(self):
        return MemoryBroker()

    def test_records_lists_every_partition(self, broker, topic, publish):
        publish(OutRecord(topic, b"b", b"1", 1, 1), OutRecord(topic, b"a", b"2", 2, 0))
        assert [(r.partition, r.value) for r in broker.records(topic)] == [(0, b"2"), (1, b"1")]
        assert broker.records("not-there") == []

    def test_a_closed_producer_refuses(self, broker, topic):
        producer = broker.producer()
        producer.close()
        with pytest.raises(BrokerError, match="closed"):
            producer.send(OutRecord(topic, b"k", b"v"))

    def test_a_waiting_poll_wakes_when_something_is_sent(self, broker, topic):
        consumer = broker.consumer("g")
        consumer.assign({TopicPartition(topic, 0): 0})
        sender = threading.Timer(0.05, lambda: broker.producer().send(OutRecord(topic, b"k", b"v", 1, 0)))
        sender.start()
        try:
            assert [r.value for r in consumer.poll(20_000, 10)] == [b"v"]
        finally:
            sender.join()

    def test_many_threads_lose_and_double_nothing(self, broker, topic):
        def send(worker: int) -> None:
            producer = broker.producer()
            for number in range(200):
                producer.send(OutRecord(topic, b"k", b"%d-%d" % (worker, number), 1, 0))

        threads = [threading.Thread(target=send, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        consumer = broker.consumer("g")
        consumer.assign({TopicPartition(topic, 0): 0})
        records = collect(consumer, 800, max_records=13)
        for thread in threads:
            thread.join()
        assert [r.offset for r in records] == list(range(800))
        assert len({r.value for r in records}) == 800

    def test_each_broker_is_a_cluster_of_its_own(self):
        assert MemoryBroker().describe([]).cluster_id != MemoryBroker().describe([]).cluster_id
