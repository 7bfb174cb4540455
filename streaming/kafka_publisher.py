"""Step 7: what follows from a partition's records is written together with how far they were read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import kafka.errors as kafka_errors
from kafka import KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.structs import OffsetAndMetadata

from streaming.kafka_access import FOREIGN, MEBIBYTE, REQUEST_TIMEOUT_MS, Access, broker_error
from streaming.kafka_membership import GroupMembership, StaticMembership
from streaming.phases import Phases
from streaming.transport import OutRecord, TopicPartition

_TRANSACTION_TIMEOUT_MS = 30_000
_BACKOFF_MS = 20  # "try again" comes while the transaction before is being closed; 100 ms would be most of the time
_PRODUCER_OPTIONS: dict[str, Any] = {
    "acks": "all",
    "compression_type": "lz4",
    "batch_size": MEBIBYTE // 4,
    "max_request_size": 16 * MEBIBYTE,
    "allow_auto_create_topics": False,
}
log = logging.getLogger(__name__)


class TransactionalPublisher:
    """See :class:`streaming.transport.Publisher`: one transaction a commit; its id is the fence.

    Offsets go under the group's name without a member's: whoever may commit is decided by the transactional id alone,
    so that a rebalance of other partitions disturbs nobody.

    Parameters
    ----------
    access : Access
        Where the broker is.
    name : str
        The transactional id.
    group : str
        Under which offsets are committed.
    phases : Phases
        Told what is being done.
    """

    def __init__(self, access: Access, name: str, group: str, phases: Phases) -> None:
        self._access = access
        self._name = name
        self._group = group
        self._phases = phases
        self._producer: Any = access.connect(
            KafkaProducer,
            transactional_id=name,
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            delivery_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_block_ms=_TRANSACTION_TIMEOUT_MS,
            retry_backoff_ms=_BACKOFF_MS,
            linger_ms=0,
            **_PRODUCER_OPTIONS,
        )
        _keep_requests(self._producer)

    def take_over(self) -> None:
        """Fence the others; what they left open is aborted by the broker."""
        with self._phases.enter("commit"), self._translated("taking over"):
            self._producer.init_transactions()

    def commit(
        self, journal: OutRecord | None, outputs: Sequence[OutRecord], positions: Mapping[TopicPartition, int]
    ) -> int:
        """1. begin, 2. journal, 3. outputs, 4. offsets, 5. commit."""
        producer, enter = self._producer, self._phases.enter
        offsets = {KafkaPartition(*place): OffsetAndMetadata(at, "", -1) for place, at in positions.items()}
        with self._translated("committing"):
            producer.begin_transaction()
            with enter("journal"):
                written = None if journal is None else send(producer, journal)
            with enter("produce"):
                futures = [send(producer, _datable(output)) for output in outputs]
                producer.flush(timeout=_TRANSACTION_TIMEOUT_MS / 1000)
                _raise_failure(futures if written is None else [written, *futures])
            with enter("commit"):
                if offsets:
                    producer.send_offsets_to_transaction(offsets, self._group)
                producer.commit_transaction()
                return 0 if written is None else int(written.get(timeout=0).offset) + 1

    def close(self) -> None:
        """Disconnect; an open transaction is aborted by whoever takes over, or by its time-out."""
        close(self._producer, self._name)

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except FOREIGN as error:
            raise broker_error(error, self._access.address, f"{doing} {self._name}") from error


class PlainPublisher:
    """See :class:`streaming.transport.Publisher`, for brokers without transactions: at least once.

    Journal first, then outputs, then offsets: what may be missing after a crash is known from the journal, and is
    published again with the same value.
    """

    def __init__(
        self, access: Access, name: str, membership: GroupMembership | StaticMembership | None, phases: Phases
    ) -> None:
        self._access = access
        self._name = name
        self._membership = membership
        self._phases = phases
        self._producer: Any = access.connect(
            KafkaProducer,
            delivery_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_block_ms=_TRANSACTION_TIMEOUT_MS,
            linger_ms=2,
            **_PRODUCER_OPTIONS,
        )

    def take_over(self) -> None:
        """Nothing to do: the take-over entry in the journal shuts the others out."""

    def commit(
        self, journal: OutRecord | None, outputs: Sequence[OutRecord], positions: Mapping[TopicPartition, int]
    ) -> int:
        """1. journal, 2. outputs, 3. offsets."""
        enter = self._phases.enter
        behind = 0
        try:
            if journal is not None:
                with enter("journal"):
                    behind = self._delivered([send(self._producer, journal)])[0] + 1
            with enter("produce"):
                self._delivered([send(self._producer, _datable(output)) for output in outputs])
        except FOREIGN as error:
            raise broker_error(error, self._access.address, f"committing {self._name}") from error
        if positions and self._membership is not None:
            with enter("commit"):
                self._membership.commit(positions)
        return behind

    def close(self) -> None:
        """Disconnect."""
        close(self._producer, self._name)

    def _delivered(self, futures: list[Any]) -> list[int]:
        self._producer.flush(timeout=_TRANSACTION_TIMEOUT_MS / 1000)
        _raise_failure(futures)
        return [int(future.get(timeout=_TRANSACTION_TIMEOUT_MS / 1000).offset) for future in futures]


def _datable(record: OutRecord) -> OutRecord:
    """Leave the time to the broker where the record's lies ahead: it would refuse the whole batch."""
    ahead = record.timestamp is not None and record.timestamp > time.time() * 1000
    return replace(record, timestamp=None) if ahead else record


def send(producer: Any, record: OutRecord) -> Any:
    """Queue a record with a producer of kafka-python; return its future."""
    return producer.send(
        record.topic,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
        partition=record.partition,
        timestamp_ms=record.timestamp,
    )


def close(producer: Any, name: str) -> None:
    """Disconnect a producer of kafka-python; twice is fine."""
    try:
        producer.close(timeout=1.0)
    except FOREIGN as error:
        log.debug("closing the producer of %s: %s", name, error)
        producer._sender.force_close()  # kafka-python flushes first, and closes nothing when that takes too long


def _keep_requests(producer: Any) -> None:
    """Let a transactional request outlive its coordinator's absence.

    kafka-python 3.0.12 forgets a request while it connects to a coordinator that is away, since `await_ready` raises
    where its only caller there expects False; the transaction then waits for its time-out, long after the broker is
    back.
    """
    client = producer._sender._client
    ask = client.await_ready

    def await_ready(node_id: Any, timeout_ms: float = REQUEST_TIMEOUT_MS) -> bool:
        try:
            return bool(ask(node_id, timeout_ms=timeout_ms))
        except kafka_errors.KafkaError:
            return False

    client.await_ready = await_ready


def _raise_failure(futures: Sequence[Any]) -> None:
    for future in futures:
        if future.is_done and future.failed():
            raise future.exception
