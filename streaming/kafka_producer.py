"""Publishes to a Kafka-protocol broker outside of transactions: recorded streams, replayed letters."""

from __future__ import annotations

import logging
import time
from typing import Any

import kafka.errors as kafka_errors
from kafka import KafkaProducer

from core.errors import BrokerError, TopicError
from streaming.kafka_access import (
    CLOSE_TIMEOUT_S,
    FOREIGN,
    MEBIBYTE,
    REQUEST_TIMEOUT_MS,
    UNFLUSHED_BYTES,
    Access,
    broker_error,
)
from streaming.kafka_publisher import close, send
from streaming.transport import Broker, OutRecord

log = logging.getLogger(__name__)


class KafkaRecordProducer:
    """See :class:`streaming.transport.Producer`; for one thread.

    Once a queued record failed the producer stays failed: every later `send` and `flush` raises,
    so that no caller can take a later success for that of the lost record.
    """

    def __init__(self, broker: Broker, access: Access, delivery_timeout_s: float) -> None:
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
