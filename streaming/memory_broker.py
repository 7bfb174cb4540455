"""A broker inside one process: what Kafka does, without a network and without a vendor.

For the loop in one process (tests, backtests): the same protocols and the same partitioner as the
real one, and it passes the same specification.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from threading import Condition

from core.errors import BrokerError, FencedError, TopicError
from streaming.memory_group import MemoryGroup, MemoryMembership
from streaming.phases import Phase, Phases
from streaming.topics import partition_of
from streaming.transport import ClusterInfo, Membership, OutRecord, RawRecord, TopicPartition

_BEFORE_COMMIT: tuple[Phase, ...] = ("journal", "produce")


class MemoryBroker:
    """Topics as lists; gone with the object.

    Parameters
    ----------
    transactional : bool
        Whether publishers write all at once; else one after the other, as on a broker without transactions.

    Examples
    --------
    >>> broker = MemoryBroker()
    >>> broker.create_topics({"events": 1})
    >>> broker.producer().send(OutRecord("events", key=b"7", value=b"{}", timestamp=0))
    >>> [record.key for record in broker.records("events")]
    [b'7']
    """

    def __init__(self, *, transactional: bool = True) -> None:
        self.transactional = transactional
        self.cluster_id = uuid.uuid4().hex
        self.changed = Condition()
        self._topics: dict[str, list[list[RawRecord]]] = {}
        self._committed: dict[tuple[str, TopicPartition], int] = {}
        self._groups: dict[tuple[str, str], MemoryGroup] = {}
        self._epochs: dict[str, int] = {}
        self._beginnings: dict[TopicPartition, int] = {}

    def describe(self, topics: Sequence[str]) -> ClusterInfo:
        """See :meth:`streaming.transport.Broker.describe`."""
        with self.changed:
            return ClusterInfo(self.cluster_id, {t: len(self._topics[t]) for t in topics if t in self._topics})

    def create_topics(
        self, partitions: Mapping[str, int], *, kept: Iterable[str] = (), at_most: Mapping[str, int] | None = None
    ) -> None:
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

    def membership(self, group: str, topic: str, session_timeout_ms: int) -> MemoryMembership:
        """See :meth:`streaming.transport.Broker.membership`."""
        with self.changed:
            return self._groups.setdefault((group, topic), MemoryGroup(group, len(self._topics.get(topic, [])))).join()

    def publisher(
        self, name: str, membership: Membership | None, phases: Phases, *, exactly_once: bool
    ) -> MemoryPublisher:
        """See :meth:`streaming.transport.Broker.publisher`."""
        assert isinstance(membership, MemoryMembership | None)
        return MemoryPublisher(self, name, membership, phases, exactly_once=exactly_once)

    def expire_sessions(self) -> None:
        """Let every member of every group lose what it has, and join again."""
        for group in self._groups.values():
            group.expire()

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        """Drop nothing, but begin there."""
        with self.changed:
            self._beginnings.update(positions)

    def begin(self, place: TopicPartition) -> int:
        """Return the first offset of a partition that is kept."""
        return self._beginnings.get(place, 0) if self.log(place) is not None else 0

    def fence(self, name: str) -> int:
        """Shut out whoever published under `name`; return the new epoch."""
        with self.changed:
            self._epochs[name] = self._epochs.get(name, 0) + 1
            return self._epochs[name]

    def is_fenced(self, name: str, epoch: int) -> bool:
        """Tell whether somebody else has taken `name` over; hold `changed` while relying on it."""
        return self._epochs.get(name) != epoch

    def records(self, topic: str) -> list[RawRecord]:
        """Return everything in `topic`, partition by partition in offset order."""
        with self.changed:
            return [record for log in self._topics.get(topic, []) for record in log]

    def append(self, record: OutRecord) -> int:
        """Write one record to the end of its partition; return its offset.

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
            return len(log) - 1

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
        """Return where each partition begins."""
        with self._broker.changed:
            return {place: self._broker.begin(place) for place in partitions}

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


class MemoryPublisher:
    """See :class:`streaming.transport.Publisher`: everything is appended at once, or one after the other."""

    def __init__(
        self,
        broker: MemoryBroker,
        name: str,
        membership: MemoryMembership | None,
        phases: Phases,
        *,
        exactly_once: bool,
    ) -> None:
        self._exactly_once = exactly_once
        self._broker = broker
        self._name = name
        self._membership = membership
        self._phases = phases
        self._epoch: int | None = None

    def take_over(self) -> None:
        """Fence the others."""
        self._epoch = self._broker.fence(self._name)

    def commit(
        self, journal: OutRecord | None, outputs: Sequence[OutRecord], positions: Mapping[TopicPartition, int]
    ) -> int:
        """Append journal and outputs, keep the positions."""
        if not self._exactly_once:
            return self._write(journal, outputs, positions, self._phases)
        for phase in _BEFORE_COMMIT:
            with self._phases.enter(phase):
                self._refuse_fenced()
        with self._phases.enter("commit"), self._broker.changed:
            self._refuse_fenced()
            return self._write(journal, outputs, positions, Phases())

    def _write(
        self,
        journal: OutRecord | None,
        outputs: Sequence[OutRecord],
        positions: Mapping[TopicPartition, int],
        phases: Phases,
    ) -> int:
        behind = 0
        if journal is not None:
            with phases.enter("journal"):
                behind = self._broker.append(journal) + 1
        for output in outputs:
            with phases.enter("produce"):
                self._broker.append(output)
        with phases.enter("commit"):
            if self._membership is not None:
                self._broker.commit(self._membership.group_name, positions)
        return behind

    def close(self) -> None:
        """Write nothing any more."""
        self._epoch = None

    def _refuse_fenced(self) -> None:
        if self._epoch is None or self._broker.is_fenced(self._name, self._epoch):
            raise FencedError(f"{self._name} was taken over by another worker")
