"""What the rest of streaming knows of Kafka: raw records in, raw records out.

Two classes implement these protocols and pass the same specification
(``tests/streaming/broker_spec.py``): :mod:`streaming.kafka_client` for any Kafka-protocol broker and
:mod:`streaming.memory_broker` inside one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streaming.phases import Phases


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it lies in the log.

    Attributes
    ----------
    topic, partition, offset
        Where it lies.
    timestamp : int
        Its time stamp, milliseconds since the epoch.
    key, value : bytes or None
        As sent; nothing is decoded here.
    headers : tuple of (str, bytes)
        As sent.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be sent; `partition` None leaves the choice to the key's hash."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp: int | None = None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class ClusterInfo:
    """Which broker this is, and how many partitions each known topic has."""

    cluster_id: str
    partitions: Mapping[str, int] = field(default_factory=dict)


class Consumer(Protocol):
    """Reads assigned partitions from given offsets; commits only when told. For one thread.

    Trouble that passes (the broker is away) shows as empty polls and in the log; what lasts is
    raised as :class:`core.errors.BrokerError`.
    """

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on; replaces an earlier assignment and its pauses."""

    def poll(self, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return the next records, each partition's in offset order; empty after the time-out.

        Raises
        ------
        BrokerError
            If an offset is not kept any more, a record is damaged, or another broker than before
            answers at the address.
        """

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop returning records of exactly these partitions; every other one resumes.

        Raises
        ------
        ValueError
            If one of them is not assigned.
        """

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the group's committed offsets; a partition without one is left out."""

    def beginning(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the first offset still kept of each partition.

        Raises
        ------
        TopicError
            If there is no such partition.
        """

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit the offsets of the next records to read.

        Raises
        ------
        BrokerError
            If the broker does not take them within the time that connecting may take.
        """

    def close(self) -> None:
        """Leave; nothing is committed by leaving."""


class Producer(Protocol):
    """Sends records; they are safe only after `flush`. For one thread.

    A producer that failed to deliver a queued record stays failed: connect a new one and send again
    from the last commit on.
    """

    def send(self, record: OutRecord) -> None:
        """Queue a record; a failure is raised by the next `send` or `flush`.

        Raises
        ------
        TopicError
            If there is no such topic.
        BrokerError
            If the record cannot be sent as it is, or an earlier one was not delivered.
        """

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until every queued record is acknowledged, or raise `BrokerError`."""

    def close(self) -> None:
        """Flush what can be flushed and disconnect; what is lost by that is logged as an error."""


@dataclass(frozen=True)
class Rebalance:
    """What became of this member's partitions since it was last asked.

    Attributes
    ----------
    assigned
        It may work on these from now on.
    revoked
        It is asked to give these up: make them durable, then `Membership.release` them.
    lost
        Others may have these already: drop them, write nothing.
    """

    assigned: frozenset[int] = frozenset()
    revoked: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()


class Membership(Protocol):
    """A worker's place in the group of workers; says which partitions are its own. For one thread."""

    def poll(self) -> Rebalance:
        """Return what changed; to be called at every turn.

        Raises
        ------
        BrokerError
            If the group cannot be joined for a reason that lasts.
        """

    def release(self, partitions: Iterable[int]) -> None:
        """Let others have partitions that were revoked."""

    def close(self) -> None:
        """Leave the group at once, so that nobody waits for the session time-out."""


class Publisher(Protocol):
    """Writes what follows from one partition's records, together with how far they were read. For one thread.

    Exactly once where the broker has transactions; else journal first, then outputs, then offsets.
    """

    def take_over(self) -> None:
        """Shut out whoever wrote for this partition before; to be called once, first.

        Raises
        ------
        BrokerError
            If the broker does not answer.
        """

    def commit(
        self, journal: OutRecord | None, outputs: Sequence[OutRecord], positions: Mapping[TopicPartition, int]
    ) -> int:
        """Make a journal entry, outputs and positions durable: all or, after a crash, none of them.

        Returns
        -------
        int
            The journal's offset behind the entry; 0 without one.

        Raises
        ------
        FencedError
            If another worker has taken the partition over; it knows from the journal whether this was written.
        BrokerError
            If it is not known whether they were written: only the journal can tell.
        """

    def close(self) -> None:
        """Disconnect; nothing is committed by it."""


class Broker(Protocol):
    """A broker that can be asked about, and connected to.

    Attributes
    ----------
    transactional : bool
        Whether it has transactions that can be relied on.
    """

    @property
    def transactional(self) -> bool:  # noqa: D102
        ...

    def describe(self, topics: Sequence[str]) -> ClusterInfo:
        """Return the cluster's id and the partition count of those topics that exist; never cached."""

    def create_topics(
        self, partitions: Mapping[str, int], *, kept: Iterable[str] = (), at_most: Mapping[str, int] | None = None
    ) -> None:
        """Create those of the topics that do not exist yet, with so many partitions.

        Those in `kept` keep all records, those in `at_most` for so long, ms; the others as the broker is set.
        """

    def consumer(self, group: str) -> Consumer:
        """Connect a consumer; it commits under `group`."""

    def producer(self) -> Producer:
        """Connect a producer."""

    def membership(self, group: str, topic: str, session_timeout_ms: int) -> Membership:
        """Join `group`, which shares out the partitions of `topic`."""

    def publisher(self, name: str, membership: Membership | None, phases: Phases, *, exactly_once: bool) -> Publisher:
        """Connect a publisher; with exactly once only the newest of one `name` can commit.

        Without a `membership` it commits no positions.
        """

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        """Let the broker drop records below these offsets; one that cannot keeps them."""
