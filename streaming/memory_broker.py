"""A broker inside one process: what Kafka does, without a network and without a vendor.

For the loop in one process (tests, backtests): the same protocols and the same partitioner as the
real one, and it passes the same specification.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from threading import Condition

from core.errors import BrokerError, TopicError
from streaming.topics import partition_of
from streaming.transport import ClusterInfo, OutRecord, RawRecord, TopicPartition


class MemoryBroker:
    """Topics as lists; gone with the object.

    Examples
    --------
    >>> broker = MemoryBroker()
    >>> broker.create_topics({"events": 1})
    >>> broker.producer().send(OutRecord("events", key=b"7", value=b"{}", timestamp=0))
    >>> [record.key for record in broker.records("events")]
    [b'7']
    """

    def __init__(self) -> None:
        self.cluster_id = uuid.uuid4().hex
        self.changed = Condition()
        self._topics: dict[str, list[list[RawRecord]]] = {}
        self._committed: dict[tuple[str, TopicPartition], int] = {}

    def describe(self, topics: Sequence[str]) -> ClusterInfo:
        """See :meth:`streaming.transport.Broker.describe`."""
        with self.changed:
            return ClusterInfo(self.cluster_id, {t: len(self._topics[t]) for t in topics if t in self._topics})

    def create_topics(self, partitions: Mapping[str, int]) -> None:
        """See :meth:`streaming.transport.Broker.create_topics`."""
        with self.changed:
            for topic, count in partitions.items():
                self._topics.setdefault(topic, [[] for _ in range(count)])

    def consumer(self, group: str) -> MemoryConsumer:
        """See :meth:`streaming.transport.Broker.consumer`."""
        return MemoryConsumer(self, group)

    def producer(self) -> MemoryProducer:
        """See :meth:`streaming.transport.Broker.producer`."""
        return MemoryProducer(self)

    def records(self, topic: str) -> list[RawRecord]:
        """Return everything in `topic`, partition by partition in offset order."""
        with self.changed:
            return [record for log in self._topics.get(topic, []) for record in log]

    def append(self, record: OutRecord) -> None:
        """Write one record to the end of its partition.

        Raises
        ------
        TopicError
            If there is no such topic or partition.
        """
        with self.changed:
            logs = self._topics.get(record.topic, [])
            if record.partition is not None:
                number = record.partition
            elif record.key is not None and logs:
                number = partition_of(record.key, len(logs))
            else:
                number = sum(map(len, logs)) % max(1, len(logs))
            log = self.log(TopicPartition(record.topic, number))
            now = time.time_ns() // 1_000_000
            timestamp = now if record.timestamp is None else record.timestamp
            log.append(RawRecord(record.topic, number, len(log), timestamp, record.key, record.value, record.headers))
            self.changed.notify_all()

    def log(self, place: TopicPartition) -> list[RawRecord]:
        """Return the records of one partition; hold `changed` while using them."""
        logs = self._topics.get(place.topic, [])
        if not 0 <= place.partition < len(logs):
            raise TopicError(f"no partition {place.partition} of topic {place.topic!r}; create the topic first")
        return logs[place.partition]

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Keep the offsets of `group`."""
        with self.changed:
            self._committed.update({(group, place): offset for place, offset in positions.items()})

    def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offsets of `group` that were committed."""
        with self.changed:
            return {p: self._committed[group, p] for p in partitions if (group, p) in self._committed}


class MemoryConsumer:
    """See :class:`streaming.transport.Consumer`."""

    def __init__(self, broker: MemoryBroker, group: str) -> None:
        self._broker = broker
        self._group = group
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read from these positions on."""
        self._positions, self._paused = dict(positions), frozenset()

    def poll(self, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return what is there, or what comes within the time-out."""
        found: list[RawRecord] = []
        with self._broker.changed:
            self._broker.changed.wait_for(lambda: self._take(found, max_records), timeout_ms / 1000)
        return found

    def _take(self, found: list[RawRecord], max_records: int) -> bool:
        for place in [place for place in self._positions if place not in self._paused]:
            start = self._positions.pop(place)
            taken = self._broker.log(place)[start : start + max_records - len(found)]
            self._positions[place] = start + len(taken)  # at the end now: the others come first next time
            found.extend(taken)
        return bool(found)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Hold back exactly these partitions."""
        wanted = frozenset(partitions)
        if foreign := wanted - self._positions.keys():
            raise ValueError(f"cannot pause {sorted(foreign)}: not assigned")
        self._paused = wanted

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the group's committed offsets."""
        return self._broker.committed(self._group, partitions)

    def beginning(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return zero for each partition: nothing is ever dropped here."""
        with self._broker.changed:
            return {place: 0 for place in partitions if self._broker.log(place) is not None}

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit under the group."""
        self._broker.commit(self._group, positions)

    def close(self) -> None:
        """Forget the assignment."""
        self.assign({})


class MemoryProducer:
    """See :class:`streaming.transport.Producer`; each record is safe at once."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._closed = False

    def send(self, record: OutRecord) -> None:
        """Append the record."""
        if self._closed:
            raise BrokerError("the producer is closed; connect a new one")
        self._broker.append(record)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return at once."""

    def close(self) -> None:
        """Refuse what comes after."""
        self._closed = True
