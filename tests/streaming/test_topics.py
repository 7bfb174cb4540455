from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_murmur2
from stream_lab import make_project

from core.errors import TopicError
from core.settings import Settings
from streaming.memory_broker import MemoryBroker
from streaming.topics import check_partitions, ensure_topics, foreign_key, murmur2, partition_of


def settings(**topics) -> Settings:
    return Settings.model_validate(
        {
            "name": "shop",
            "id": "id",
            "time": "at",
            "fields": {"amount": "number"},
            "label": "paid",
            "topics": topics,
        }
    )


@given(st.binary(max_size=64))
def test_the_hash_is_kafkas(data):
    assert murmur2(data) == kafka_murmur2(data) & 0xFFFFFFFF


def test_the_hash_is_that_of_kafkas_own_tests():
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    assert {key: murmur2(key) for key in known} == {key: value & 0xFFFFFFFF for key, value in known.items()}


@given(st.binary(max_size=40), st.integers(1, 300))
def test_a_key_always_has_a_partition(key, partitions):
    assert 0 <= partition_of(key, partitions) < partitions


def test_missing_topics_are_created_and_returned():
    broker = MemoryBroker()
    info, partitions = ensure_topics(broker, settings(partitions=3))
    expected = dict.fromkeys(["shop.events", "shop.labels", "shop.predictions", "shop.journal", "shop.dead-letters"], 3)
    assert (dict(info.partitions), partitions) == (expected, 3)
    assert info.cluster_id == broker.cluster_id
    assert dict(broker.describe(list(expected)).partitions) == expected


def test_ensuring_twice_changes_nothing():
    broker = MemoryBroker()
    assert ensure_topics(broker, settings(partitions=2)) == ensure_topics(broker, settings(partitions=5))


def test_events_and_labels_may_share_a_topic():
    kind = {"path": "kind", "event": "e", "label": "l"}
    info, partitions = ensure_topics(MemoryBroker(), settings(events="both", labels="both", kind=kind))
    assert sorted(info.partitions) == ["both", "shop.dead-letters", "shop.journal", "shop.predictions"]
    assert partitions == 1


def test_new_topics_follow_those_that_exist():
    broker = MemoryBroker()
    broker.create_topics({"shop.events": 4})
    info, partitions = ensure_topics(broker, settings(partitions=2))
    assert partitions == 4
    assert info.partitions["shop.labels"] == info.partitions["shop.predictions"] == 4
    assert info.partitions["shop.dead-letters"] == 2


def test_a_missing_topic_that_may_not_be_created_is_named_with_the_fix():
    broker = MemoryBroker()
    broker.create_topics({"shop.events": 1, "shop.predictions": 1, "shop.dead-letters": 1, "shop.journal": 1})
    with pytest.raises(TopicError, match=r"no topic shop\.labels .*topics\.create: true"):
        ensure_topics(broker, settings(create=False))
    assert broker.describe(["shop.labels"]).partitions == {}


@pytest.mark.parametrize("odd", ["shop.events", "shop.labels", "shop.predictions"])
def test_unequal_counts_are_refused_and_explained_before_anything_is_created(odd):
    broker = MemoryBroker()
    counts = {"shop.events": 4, "shop.labels": 4, "shop.predictions": 4} | {odd: 3}
    broker.create_topics(counts)
    with pytest.raises(TopicError, match=rf"equal partition counts.*{odd} has 3.*with 4 partitions"):
        ensure_topics(broker, settings())
    assert broker.describe(["shop.dead-letters"]).partitions == {}


def test_dead_letters_may_have_any_count():
    broker = MemoryBroker()
    broker.create_topics({"shop.dead-letters": 7})
    assert ensure_topics(broker, settings(partitions=2))[1] == 2


def test_a_broker_that_hides_a_new_topic_is_reported():
    class Forgetful(MemoryBroker):
        def create_topics(self, partitions, *, kept=()):
            super().create_topics({topic: n for topic, n in partitions.items() if "labels" not in topic})

    with pytest.raises(TopicError, match=r"shop\.labels"):
        ensure_topics(Forgetful(), settings())


def test_counts_of_topics_that_are_not_there_do_not_matter():
    assert check_partitions(["a", "b"], {"b": 3, "c": 9}) == 3
    assert check_partitions(["a"], {}) == 0


@given(st.text(max_size=30), st.integers(1, 12))
def test_records_written_by_kafkas_partitioner_are_not_foreign(event_id, partitions):
    key = event_id.encode("utf-8", "surrogatepass")
    home = (kafka_murmur2(key) & 0x7FFFFFFF) % partitions
    assert foreign_key(key, event_id, home, partitions) is None
    for other in set(range(partitions)) - {home}:
        assert "partitioner" in str(foreign_key(key, event_id, other, partitions))


@pytest.mark.parametrize("key", [None, b"", b"other", "ü".encode("latin-1")])
def test_a_key_that_is_not_the_id_is_foreign(key):
    explanation = foreign_key(key, "ü", 0, 1)
    assert explanation is not None
    assert "key both topics by the event's id" in explanation


def test_a_long_foreign_key_is_shortened_in_the_explanation():
    assert len(str(foreign_key(b"x" * 10_000, "7", 0, 1))) < 400


def test_topics_for_others_keep_records_no_longer_than_the_project_says(tmp_path):
    broker, said = MemoryBroker(), {}
    broker.create_topics = lambda counts, **more: said.update(more) or MemoryBroker.create_topics(broker, counts)
    ensure_topics(broker, make_project(tmp_path, privacy={"retention": "30d"}).settings)
    assert said["at_most"] == {"small.predictions": 30 * 86_400_000, "small.dead-letters": 30 * 86_400_000}
    assert said["kept"] == ["small.journal"]
