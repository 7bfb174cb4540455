"""Any Kafka-protocol broker, through kafka-python, which only the modules ``streaming/kafka_*.py`` import.

Trouble that passes is retried with growing pauses first (:mod:`streaming.kafka_access`); polling just returns
nothing meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import kafka.errors as kafka_errors
from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaPartition

from core.errors import BrokerError
from streaming import kafka_batches
from streaming.kafka_access import (
    REQUEST_TIMEOUT_MS,
    Access,
    IsolationLevel,
    Result,
    limit_setup_time,
)
from streaming.kafka_address import parse_addresses
from streaming.kafka_consumer import KafkaRecordConsumer
from streaming.kafka_log import limit_kafka_log
from streaming.kafka_membership import GroupMembership, StaticMembership
from streaming.kafka_producer import KafkaRecordProducer
from streaming.kafka_publisher import PlainPublisher, TransactionalPublisher
from streaming.phases import Phases
from streaming.transport import ClusterInfo, Membership, TopicPartition

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

    def create_topics(
        self, partitions: Mapping[str, int], *, kept: Iterable[str] = (), at_most: Mapping[str, int] | None = None
    ) -> None:
        """See :meth:`streaming.transport.Broker.create_topics`; returns when they can be used."""
        keep, limits = frozenset(kept), at_most or {}

        def create(admin: Any) -> None:
            known = {topic["name"] for topic in admin.describe_topics(list(partitions)) if not topic["error_code"]}
            for topic in partitions.keys() - known:
                options: dict[str, Any] = {"num_partitions": partitions[topic]}
                if topic in keep:
                    options["configs"] = {"retention.ms": "-1", "retention.bytes": "-1"}
                elif topic in limits:
                    options["configs"] = {"retention.ms": str(limits[topic])}
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


def _partition_count(topic: Mapping[str, Any]) -> tuple[str, int] | None:
    kind = kafka_errors.for_code(topic["error_code"])
    if kind is kafka_errors.UnknownTopicOrPartitionError:
        return None
    if kind is not kafka_errors.NoError:
        raise kind(topic["name"])
    return topic["name"], len(topic["partitions"])
