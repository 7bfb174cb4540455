"""Any Kafka-protocol broker, through kafka-python, which only the modules ``streaming/kafka_*.py`` import.

Trouble that passes is retried with growing pauses first (:mod:`streaming.kafka_access`); polling just returns
nothing meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import kafka.errors as kafka_errors
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.structs import OffsetAndMetadata

from core.errors import BrokerError, TopicError
from streaming import kafka_batches
from streaming.kafka_access import (
    CLOSE_TIMEOUT_S,
    FOREIGN,
    MEBIBYTE,
    REQUEST_TIMEOUT_MS,
    UNFLUSHED_BYTES,
    Access,
    IsolationLevel,
    Result,
    broker_error,
    is_transient,
    limit_setup_time,
)
from streaming.kafka_address import parse_addresses
from streaming.kafka_log import limit_kafka_log
from streaming.kafka_membership import GroupMembership, StaticMembership
from streaming.kafka_publisher import PlainPublisher, TransactionalPublisher, close, send
from streaming.phases import Phases
from streaming.transport import ClusterInfo, Membership, OutRecord, RawRecord, TopicPartition

log = logging.getLogger(__name__)


class KafkaBroker:
    """A Kafka broker at an address; nothing is connected before it is asked for something.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port``, several separated by commas.
    connect_timeout_s : float
        Seconds for which connecting, describing, creating and committing are tried.
    delivery_timeout_s : float
        Seconds after which a record that is not acknowledged counts as failed.
    transactional : bool
        Whether it has transactions and consumer groups that can be relied on; the embedded one has not. With them
        only committed records are read.

    Raises
    ------
    UsageError
        If the address is not of the form HOST:PORT.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        connect_timeout_s: float = 30.0,
        delivery_timeout_s: float = 30.0,
        transactional: bool = True,
    ) -> None:
        parse_addresses(bootstrap_servers)
        limit_kafka_log()
        limit_setup_time()
        kafka_batches.install()
        self._access = Access(bootstrap_servers, connect_timeout_s)
        self._delivery_timeout_s = delivery_timeout_s
        self.transactional = transactional
        self._isolation_level: IsolationLevel = "read_committed" if transactional else "read_uncommitted"

    def describe(self, topics: Sequence[str]) -> ClusterInfo:
        """See :meth:`streaming.transport.Broker.describe`; asks anew each time."""

        def ask(admin: Any) -> ClusterInfo:
            cluster_id = str(admin.describe_cluster()["cluster_id"])
            found = admin.describe_topics(list(topics)) if topics else []
            return ClusterInfo(cluster_id, dict(filter(None, map(_partition_count, found))))

        return self._ask("describing topics", ask)

    def create_topics(self, partitions: Mapping[str, int], *, kept: Iterable[str] = ()) -> None:
        """See :meth:`streaming.transport.Broker.create_topics`; returns when they can be used."""
        keep = frozenset(kept)

        def create(admin: Any) -> None:
            known = {topic["name"] for topic in admin.describe_topics(list(partitions)) if not topic["error_code"]}
            for topic in partitions.keys() - known:
                options: dict[str, Any] = {"num_partitions": partitions[topic]}
                if topic in keep:
                    options["configs"] = {"retention.ms": "-1", "retention.bytes": "-1"}
                try:
                    admin.create_topics({topic: options})
                except kafka_errors.TopicAlreadyExistsError:
                    log.info("topic %s was created by somebody else meanwhile", topic)
            admin.wait_for_topics(list(partitions), timeout_ms=REQUEST_TIMEOUT_MS)

        if partitions:
            self._ask(f"creating {', '.join(partitions)}", create)

    def consumer(self, group: str) -> KafkaRecordConsumer:
        """See :meth:`streaming.transport.Broker.consumer`."""
        return KafkaRecordConsumer(self._access, group, self._isolation_level)

    def producer(self) -> KafkaRecordProducer:
        """See :meth:`streaming.transport.Broker.producer`."""
        return KafkaRecordProducer(self, self._access, self._delivery_timeout_s)

    def membership(self, group: str, topic: str, session_timeout_ms: int) -> GroupMembership | StaticMembership:
        """See :meth:`streaming.transport.Broker.membership`."""
        if self.transactional:
            return GroupMembership(self._access, group, topic, session_timeout_ms)
        return StaticMembership(self.consumer(group), self.describe([topic]).partitions[topic])

    def publisher(
        self, name: str, membership: Membership | None, phases: Phases, *, exactly_once: bool
    ) -> TransactionalPublisher | PlainPublisher:
        """See :meth:`streaming.transport.Broker.publisher`."""
        assert isinstance(membership, GroupMembership | StaticMembership | None)
        if exactly_once:
            group = membership.group if isinstance(membership, GroupMembership) else ""
            return TransactionalPublisher(self._access, name, group, phases)
        return PlainPublisher(self._access, name, membership, phases)

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        """See :meth:`streaming.transport.Broker.trim`."""
        wanted = {KafkaPartition(*place): at for place, at in positions.items()}
        if not self.transactional:
            return
        try:
            self._ask("dropping records that are not needed any more", lambda admin: admin.delete_records(wanted))
        except BrokerError as error:
            log.warning("%s: they stay", error)

    def _ask(self, doing: str, question: Callable[[Any], Result]) -> Result:
        def attempt() -> Result:
            admin = self._access.connect(KafkaAdminClient)
            try:
                return question(admin)
            finally:
                admin.close()

        return self._access.retry(doing, attempt)


class KafkaRecordConsumer:
    """See :class:`streaming.transport.Consumer`; for one thread."""

    def __init__(self, access: Access, group: str, isolation_level: IsolationLevel) -> None:
        self._access = access
        self._consumer: Any = access.connect(
            KafkaConsumer,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            isolation_level=isolation_level,
            check_crcs=True,
            fetch_max_wait_ms=100,
            fetch_max_bytes=16 * MEBIBYTE,
            max_partition_fetch_bytes=4 * MEBIBYTE,
            receive_message_max_bytes=64 * MEBIBYTE,
        )
        self._cluster_id = self._current_cluster_id()

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on; replaces an earlier assignment."""
        self._consumer.assign([KafkaPartition(*place) for place in positions])
        self._consumer.resume(*self._consumer.paused())
        for place, offset in positions.items():
            self._consumer.seek(KafkaPartition(*place), offset)

    def poll(self, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return the next records; empty after the time-out, and while the broker is away.

        Raises
        ------
        BrokerError
            If an offset is not kept any more, a record is damaged, or another broker answers.
        """
        self._refuse_other_broker()
        self._release_parked()
        try:
            batches = self._consumer.poll(timeout_ms, max_records=max_records)
        except FOREIGN as error:
            if not is_transient(error):
                raise broker_error(error, self._access.address, "reading") from error
            log.warning("reading from the Kafka broker at %s failed, trying again: %s", self._access.address, error)
            time.sleep(min(timeout_ms / 1000, 0.1))
            return []
        return [_raw_record(message) for batch in batches.values() for message in batch]

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop returning records of exactly these partitions; what was fetched of them is kept."""
        wanted = {KafkaPartition(*place) for place in partitions}
        if foreign := wanted - self._consumer.assignment():
            raise ValueError(f"cannot pause {sorted(foreign)}: not assigned")
        paused = self._consumer.paused()
        self._consumer.resume(*(paused - wanted))
        self._consumer.pause(*(wanted - paused))

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the group's committed offsets; a partition without one is left out."""
        found = {}
        for place in partitions:
            ask = partial(self._consumer.committed, KafkaPartition(*place), timeout_ms=REQUEST_TIMEOUT_MS)
            found[place] = self._access.retry("asking for committed offsets", ask)
        return {place: offset for place, offset in found.items() if offset is not None}

    def beginning(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the first offset still kept of each partition.

        Raises
        ------
        TopicError
            If there is no such partition; some brokers answer zero for it.
        """
        places = [KafkaPartition(*place) for place in partitions]
        partitions_of = self._consumer.partitions_for_topic
        for place in places:
            known = self._access.retry("looking up partitions", partial(partitions_of, place.topic)) or ()
            if place.partition not in known:
                raise TopicError(
                    f"the Kafka broker at {self._access.address} has no partition {place.partition} "
                    f"of topic {place.topic!r}; create the topic first"
                )
        offsets = self._access.retry(
            "asking for first offsets",
            lambda: self._consumer.beginning_offsets(places, timeout_ms=REQUEST_TIMEOUT_MS),
        )
        return {TopicPartition(*place): offset for place, offset in offsets.items()}

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit the offsets of the next records to read."""
        self._refuse_other_broker()
        offsets = {KafkaPartition(*place): OffsetAndMetadata(at, "", -1) for place, at in positions.items()}
        if offsets:
            self._access.retry(
                "committing offsets",
                lambda: self._consumer.commit(offsets, timeout_ms=REQUEST_TIMEOUT_MS),
            )

    def close(self) -> None:
        """Leave; nothing is committed by leaving."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=int(CLOSE_TIMEOUT_S * 1000))
        except FOREIGN as error:
            log.warning("closing a consumer of %s: %s", self._access.address, error)

    def _release_parked(self) -> None:
        # kafka-python 3.0.12 keeps what it fetched of a paused partition aside, and takes it back only
        # while this is None, not while it is used up: a resumed partition would stay silent for ever.
        fetcher = self._consumer._fetcher
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:
            fetcher._next_partition_records = None

    def _current_cluster_id(self) -> str | None:
        # public nowhere, kept fresh by kafka-python whenever it reconnects
        current: str | None = self._consumer._cluster.cluster_id
        return current

    def _refuse_other_broker(self) -> None:
        now = self._current_cluster_id()
        if now is None or now == self._cluster_id:
            return
        if self._cluster_id is None:
            self._cluster_id = now
            return
        raise BrokerError(
            f"another Kafka broker answers at {self._access.address} than before (cluster {now}, was "
            f"{self._cluster_id}): its topics are not the ones that were read; start again"
        )


class KafkaRecordProducer:
    """See :class:`streaming.transport.Producer`; for one thread.

    Once a queued record failed the producer stays failed: every later `send` and `flush` raises,
    so that no caller can take a later success for that of the lost record.
    """

    def __init__(self, broker: KafkaBroker, access: Access, delivery_timeout_s: float) -> None:
        self._broker = broker
        self._access = access
        self._topics: set[str] = set()
        self._futures: list[Any] = []
        self._bytes = 0
        self._failures: list[BaseException] = []
        self._producer: Any = access.connect(
            KafkaProducer,
            acks="all",
            compression_type="lz4",
            linger_ms=5,
            batch_size=MEBIBYTE // 8,
            max_request_size=16 * MEBIBYTE,
            delivery_timeout_ms=int(delivery_timeout_s * 1000),
            request_timeout_ms=min(REQUEST_TIMEOUT_MS, int(delivery_timeout_s * 500)),
            max_block_ms=int(delivery_timeout_s * 1000),
            allow_auto_create_topics=False,
        )

    def send(self, record: OutRecord) -> None:
        """Queue a record; waits where more than 32 MiB are unacknowledged.

        Raises
        ------
        TopicError
            If there is no such topic.
        BrokerError
            If this record cannot be queued, or an earlier one failed.
        """
        self._raise_failures()
        if record.topic not in self._topics:
            self._check_topic(record.topic)
        try:
            future = send(self._producer, record)
        except (*FOREIGN, ValueError, TypeError) as error:
            raise broker_error(error, self._access.address, f"sending to {record.topic}") from error
        future.add_errback(self._failures.append)
        self._futures.append(future)
        self._bytes += len(record.key or b"") + len(record.value or b"") + 100
        if self._bytes > UNFLUSHED_BYTES:
            self.flush()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until every queued record is acknowledged.

        Raises
        ------
        BrokerError
            If one failed, or the time is over; what is still queued then stays queued.
        """
        deadline = time.monotonic() + timeout_s
        try:
            if self._futures and not self._futures[-1].is_done:
                self._producer.flush(timeout=timeout_s)
        except FOREIGN as error:  # the futures below know better: this one also fails when a batch was split
            log.debug("flush: %s", error)
        for future in self._futures:
            if not future.is_done:
                self._wait_for(future, deadline)
        self._raise_failures()
        self._futures.clear()
        self._bytes = 0

    def close(self) -> None:
        """Flush what can be flushed and disconnect; what is lost by it is logged as an error."""
        try:
            self.flush(CLOSE_TIMEOUT_S)
        except BrokerError as error:
            unsent = sum(1 for future in self._futures if not future.is_done or future.failed())
            log.error("%d record(s) are lost with this producer: %s", unsent, error)  # noqa: TRY400 - said in full
        close(self._producer, self._access.address)

    def _wait_for(self, future: Any, deadline: float) -> None:
        try:
            future.get(timeout=max(0.0, deadline - time.monotonic()))
        except FOREIGN as error:
            if not future.is_done:
                raise broker_error(error, self._access.address, "waiting for acknowledgements") from error

    def _raise_failures(self) -> None:
        if self._failures:
            # innocent neighbours of a bad record in its batch only get a bare KafkaError
            telling = (failure for failure in self._failures if type(failure) is not kafka_errors.KafkaError)
            count, first = len(self._failures), next(telling, self._failures[0])
            raise broker_error(first, self._access.address, f"{count} record(s) were not delivered") from first

    def _check_topic(self, topic: str) -> None:
        if topic not in self._broker.describe([topic]).partitions:
            raise TopicError(
                f"the Kafka broker at {self._access.address} has no topic {topic!r}; create it, "
                "or correct its name under 'topics' in headrace.yaml"
            )
        self._topics.add(topic)


def _partition_count(topic: Mapping[str, Any]) -> tuple[str, int] | None:
    kind = kafka_errors.for_code(topic["error_code"])
    if kind is kafka_errors.UnknownTopicOrPartitionError:
        return None
    if kind is not kafka_errors.NoError:
        raise kind(topic["name"])
    return topic["name"], len(topic["partitions"])


def _raw_record(message: Any) -> RawRecord:
    headers = tuple((name, value or b"") for name, value in message.headers)
    return RawRecord(
        message.topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key,
        message.value,
        headers,
    )
