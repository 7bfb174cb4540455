"""What every broker of headrace does, said once; inherited by the memory run and by the real run."""

from __future__ import annotations

import time
import uuid

import pytest

from core.errors import TopicError
from streaming.topics import partition_of
from streaming.transport import Broker, Consumer, OutRecord, RawRecord, TopicPartition

PATIENCE_S = 20.0


def collect(consumer: Consumer, count: int, max_records: int = 500) -> list[RawRecord]:
    """Poll until `count` records have come; fewer only when patience is over."""
    found: list[RawRecord] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < deadline:
        found.extend(consumer.poll(200, max_records))
    return found


def event(topic: str, number: int, partition: int | None = 0) -> OutRecord:
    return OutRecord(topic, b"key-%d" % number, b"value-%d" % number, 1_000 + number, partition)


class BrokerSpec:
    """Subclasses give the fixture `broker`."""

    @pytest.fixture
    def topic(self, broker: Broker) -> str:
        """A fresh topic with two partitions."""
        name = f"topic-{uuid.uuid4().hex}"
        broker.create_topics({name: 2})
        return name

    @pytest.fixture
    def connect(self, broker: Broker):
        """Connect consumers that are closed at the end; a fresh group unless one is given."""
        consumers = []

        def connect(positions=None, group: str | None = None) -> Consumer:
            consumer = broker.consumer(group or f"group-{uuid.uuid4().hex}")
            consumers.append(consumer)
            if positions is not None:
                consumer.assign(positions)
            return consumer

        yield connect
        for consumer in consumers:
            consumer.close()

    @pytest.fixture
    def publish(self, broker: Broker):
        producer = broker.producer()

        def publish(*records: OutRecord) -> None:
            for record in records:
                producer.send(record)
            producer.flush()

        yield publish
        producer.close()

    def test_a_record_comes_back_as_it_was_sent(self, topic, connect, publish):
        headers = (("reason", b"\x00\xff"), ("reason", b"twice"), ("empty", b""))
        publish(OutRecord(topic, b"\x00k\xff", b"v" * 3, 1_357_034_400_123, 1, headers))
        (record,) = collect(connect({TopicPartition(topic, 1): 0}), 1)
        assert record == RawRecord(topic, 1, 0, 1_357_034_400_123, b"\x00k\xff", b"vvv", headers)

    def test_null_and_empty_are_not_the_same(self, topic, connect, publish):
        publish(
            OutRecord(topic, b"k", None, 1, 0),
            OutRecord(topic, b"k", b"", 2, 0),
            OutRecord(topic, None, b"v", 3, 0),
            OutRecord(topic, b"", b"v", 4, 0),
        )
        records = collect(connect({TopicPartition(topic, 0): 0}), 4)
        assert [(r.key, r.value) for r in records] == [(b"k", None), (b"k", b""), (None, b"v"), (b"", b"v")]

    def test_without_a_time_stamp_a_record_gets_the_time_of_sending(self, topic, connect, publish):
        before = time.time_ns() // 1_000_000
        publish(OutRecord(topic, b"k", b"v", None, 0))
        (record,) = collect(connect({TopicPartition(topic, 0): 0}), 1)
        assert before <= record.timestamp <= time.time_ns() // 1_000_000

    def test_time_stamps_are_kept_even_where_they_go_back(self, topic, connect, publish):
        times = [5_000, 1_000, 4_102_444_800_000, 0]
        publish(*(OutRecord(topic, b"k", b"v", at, 0) for at in times))
        assert [r.timestamp for r in collect(connect({TopicPartition(topic, 0): 0}), 4)] == times

    def test_a_partition_is_read_in_order_with_offsets_from_zero_without_gaps(self, topic, connect, publish):
        publish(*(event(topic, number) for number in range(300)))
        publish(*(event(topic, number) for number in range(300, 400)))
        records = collect(connect({TopicPartition(topic, 0): 0}), 400, max_records=37)
        assert [(r.offset, r.value) for r in records] == [(n, b"value-%d" % n) for n in range(400)]

    def test_a_poll_returns_at_most_as_many_as_asked_for(self, topic, connect, publish):
        publish(*(event(topic, number, number % 2) for number in range(40)))
        consumer = connect({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        sizes, total = [], 0
        while total < 40 and len(sizes) < 100:
            sizes.append(len(consumer.poll(1_000, 7)))
            total += sizes[-1]
        assert total == 40
        assert max(sizes) <= 7

    def test_every_assigned_partition_gets_its_turn(self, topic, connect, publish):
        publish(*(event(topic, number, number % 2) for number in range(100)))
        consumer = connect({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        records = collect(consumer, 100, max_records=10)
        for partition in (0, 1):
            assert [r.offset for r in records if r.partition == partition] == list(range(50))

    def test_nothing_new_is_an_empty_poll(self, topic, connect):
        assert not connect({TopicPartition(topic, 0): 0}).poll(50, 10)

    def test_nothing_assigned_is_an_empty_poll(self, connect):
        assert not connect().poll(50, 10)

    def test_what_is_published_later_is_read_on(self, topic, connect, publish):
        consumer = connect({TopicPartition(topic, 0): 0})
        assert not consumer.poll(50, 10)
        publish(event(topic, 1))
        assert [r.offset for r in collect(consumer, 1)] == [0]

    def test_reading_starts_at_the_assigned_offset(self, topic, connect, publish):
        publish(*(event(topic, number) for number in range(10)))
        assert [r.offset for r in collect(connect({TopicPartition(topic, 0): 7}), 3)] == [7, 8, 9]

    def test_assigning_again_seeks_and_replaces(self, topic, connect, publish):
        publish(*(event(topic, number, number % 2) for number in range(10)))
        consumer = connect({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0})
        assert len(collect(consumer, 10)) == 10
        consumer.assign({TopicPartition(topic, 1): 3})
        assert [(r.partition, r.offset) for r in collect(consumer, 2)] == [(1, 3), (1, 4)]
        consumer.assign({})
        publish(event(topic, 11, 1))
        assert not consumer.poll(50, 10)

    def test_paused_partitions_wait_and_lose_nothing(self, topic, connect, publish):
        publish(*(event(topic, number, number % 2) for number in range(200)))
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        consumer = connect({first: 0, second: 0})
        seen = collect(consumer, 6, max_records=3)
        consumer.pause([first])
        while batch := consumer.poll(300, 9):
            assert {r.partition for r in batch} == {1}
            seen += batch
        consumer.pause([second])
        seen += collect(consumer, 200 - len(seen), max_records=9)
        for partition in (0, 1):
            assert [r.offset for r in seen if r.partition == partition] == list(range(100))

    def test_switching_pauses_at_every_poll_loses_nothing(self, topic, connect, publish):
        publish(*(event(topic, number, number % 2) for number in range(200)))
        places = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
        consumer = connect(dict.fromkeys(places, 0))
        seen: list[RawRecord] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(seen) < 200 and time.monotonic() < deadline:
            places.reverse()
            consumer.pause(places[:1])
            seen += consumer.poll(150, 7)
        for partition in (0, 1):
            assert [r.offset for r in seen if r.partition == partition] == list(range(100))

    def test_what_was_fetched_of_a_paused_partition_does_not_outlive_its_assignment(self, topic, connect, publish):
        publish(*(event(topic, number, number % 2) for number in range(40)))
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        consumer = connect({first: 0})
        assert len(collect(consumer, 5, max_records=5)) == 5
        consumer.pause([first])
        assert not consumer.poll(50, 5)
        consumer.assign({second: 0})
        assert [r.partition for r in collect(consumer, 20)] == [1] * 20
        consumer.assign({first: 2, second: 20})
        assert [(r.partition, r.offset) for r in collect(consumer, 18)] == [(0, n) for n in range(2, 20)]

    def test_pausing_names_exactly_the_paused_ones(self, topic, connect, publish):
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        consumer = connect({first: 0, second: 0})
        consumer.pause([first, second])
        publish(event(topic, 1, 0), event(topic, 2, 1))
        assert not consumer.poll(300, 10)
        consumer.pause([])
        assert {r.partition for r in collect(consumer, 2)} == {0, 1}

    def test_a_new_assignment_is_not_paused(self, topic, connect, publish):
        place = TopicPartition(topic, 0)
        consumer = connect({place: 0})
        consumer.pause([place])
        consumer.assign({place: 0})
        publish(event(topic, 1))
        assert len(collect(consumer, 1)) == 1

    def test_only_assigned_partitions_can_be_paused(self, topic, connect):
        with pytest.raises(ValueError, match="not assigned"):
            connect({TopicPartition(topic, 0): 0}).pause([TopicPartition(topic, 1)])

    def test_committed_offsets_outlive_the_consumer_and_belong_to_the_group(self, topic, connect):
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        group = f"group-{uuid.uuid4().hex}"
        consumer = connect(group=group)
        assert consumer.committed([first, second]) == {}
        consumer.commit({first: 3})
        consumer.commit({first: 5})
        consumer.close()
        assert connect(group=group).committed([first, second]) == {first: 5}
        assert connect().committed([first]) == {}

    def test_reading_commits_nothing(self, topic, connect, publish):
        publish(event(topic, 1))
        place, group = TopicPartition(topic, 0), f"group-{uuid.uuid4().hex}"
        consumer = connect({place: 0}, group)
        collect(consumer, 1)
        consumer.assign({place: 1})
        consumer.poll(100, 1)
        consumer.close()
        assert connect(group=group).committed([place]) == {}

    def test_committing_does_not_move_the_reader(self, topic, connect, publish):
        place = TopicPartition(topic, 0)
        publish(*(event(topic, number) for number in range(4)))
        consumer = connect({place: 0})
        consumer.commit({place: 4})
        assert [r.offset for r in collect(consumer, 4)] == [0, 1, 2, 3]

    def test_two_consumers_read_independently(self, topic, connect, publish):
        place, group = TopicPartition(topic, 0), f"group-{uuid.uuid4().hex}"
        publish(*(event(topic, number) for number in range(5)))
        one, other = connect({place: 0}, group), connect({place: 0}, group)
        assert [r.offset for r in collect(one, 5)] == [r.offset for r in collect(other, 5)] == list(range(5))

    def test_beginning_is_the_first_offset_kept(self, topic, connect, publish):
        places = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
        consumer = connect()
        assert consumer.beginning(places) == dict.fromkeys(places, 0)
        publish(event(topic, 1))
        assert consumer.beginning(places) == dict.fromkeys(places, 0)

    def test_a_partition_that_is_not_there_has_no_beginning(self, topic, connect):
        consumer = connect()
        with pytest.raises(TopicError, match="no partition 2"):
            consumer.beginning([TopicPartition(topic, 2)])
        with pytest.raises(TopicError, match="no partition 0"):
            consumer.beginning([TopicPartition("not-there", 0)])

    def test_without_a_partition_the_key_decides(self, topic, connect, publish):
        keys = [b"key-%d" % number for number in range(50)]
        publish(*(OutRecord(topic, key, b"v", 1) for key in keys))
        records = collect(connect({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}), 50)
        assert {r.key: r.partition for r in records} == {key: partition_of(key, 2) for key in keys}

    def test_a_large_batch_arrives_whole(self, topic, connect, publish):
        values = [bytes([number % 251]) * 20_000 for number in range(600)]  # 12 MB
        publish(*(OutRecord(topic, b"k", value, 1, 0) for value in values))
        records = collect(connect({TopicPartition(topic, 0): 0}), 600)
        assert [r.value for r in records] == values

    def test_a_record_of_two_megabytes_arrives_whole(self, topic, connect, publish):
        value = bytes(range(256)) * 8_192
        publish(OutRecord(topic, b"k", value, 1, 0), event(topic, 1))
        records = collect(connect({TopicPartition(topic, 0): 0}), 2)
        assert [r.value for r in records] == [value, b"value-1"]

    def test_sending_to_a_missing_topic_is_refused_and_creates_nothing(self, broker):
        producer = broker.producer()
        try:
            with pytest.raises(TopicError, match="not-there"):
                producer.send(OutRecord("not-there", b"k", b"v"))
        finally:
            producer.close()
        assert broker.describe(["not-there"]).partitions == {}

    def test_describe_leaves_missing_topics_out(self, broker, topic):
        info = broker.describe([topic, "not-there"])
        assert info.partitions == {topic: 2}
        assert info.cluster_id

    def test_describe_without_topics_tells_who_it_is(self, broker, topic):
        assert broker.describe([]).cluster_id == broker.describe([topic]).cluster_id

    def test_creating_twice_changes_nothing(self, broker, topic, connect, publish):
        publish(event(topic, 1))
        other = f"{topic}-other"
        broker.create_topics({topic: 5, other: 3})
        broker.create_topics({})
        assert broker.describe([topic, other]).partitions == {topic: 2, other: 3}
        assert len(collect(connect({TopicPartition(topic, 0): 0}), 1)) == 1
