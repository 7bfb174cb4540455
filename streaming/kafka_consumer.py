"""Reads from a Kafka-protocol broker; while it is away there is just nothing to read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.structs import OffsetAndMetadata

from core.errors import BrokerError, TopicError
from streaming.kafka_access import (
    CLOSE_TIMEOUT_S,
    FOREIGN,
    MEBIBYTE,
    REQUEST_TIMEOUT_MS,
    Access,
    IsolationLevel,
    broker_error,
    is_transient,
)
from streaming.transport import RawRecord, TopicPartition

log = logging.getLogger(__name__)


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
        return [raw_record(message) for batch in batches.values() for message in batch]

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


def raw_record(message: Any) -> RawRecord:
    """Return a message of kafka-python as ours."""
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
