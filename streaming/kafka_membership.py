"""A worker's place in a Kafka consumer group; it owns partitions through it and reads nothing.

Records are read by another consumer, assigned by hand: so the topics of a partition stay together whatever
the group's assignor does, and what is read does not wait for a rebalance.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import AsyncConsumerRebalanceListener, KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import OffsetAndMetadata

from core.errors import BrokerError
from streaming.kafka_access import CLOSE_TIMEOUT_S, FOREIGN, REQUEST_TIMEOUT_MS, Access, broker_error, is_transient
from streaming.transport import Consumer, Rebalance, TopicPartition

_PAUSE_S = 0.02
_POLL_MS = 500
_HEARTBEATS_PER_SESSION = 4
_RELEASE_S = 60.0

log = logging.getLogger(__name__)


class GroupMembership:
    """See :class:`streaming.transport.Membership`; the group is kept up by a thread of its own.

    Parameters
    ----------
    access : Access
        Where the broker is.
    group, topic : str
        The group, and the topic whose partitions it shares out.
    session_timeout_ms : int
        Silence after which the others take over, ms.
    """

    def __init__(self, access: Access, group: str, topic: str, session_timeout_ms: int) -> None:
        self.group = group
        self._access = access
        self._changes = _Changes()
        self._stop = threading.Event()
        self._error: BrokerError | None = None
        self._consumer: Any = access.connect(
            KafkaConsumer,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            allow_auto_create_topics=False,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=session_timeout_ms // _HEARTBEATS_PER_SESSION,
            partition_assignment_strategy=[CooperativeStickyAssignor],
        )
        self._consumer.subscribe([topic], listener=_listener(self._consumer, self._changes))
        self._thread = threading.Thread(target=self._run, name="membership", daemon=True)
        self._thread.start()

    def poll(self) -> Rebalance:
        """Return what changed."""
        if self._error is not None:
            raise self._error
        return self._changes.take()

    def release(self, partitions: Iterable[int]) -> None:
        """Let others have them."""
        self._changes.release(partitions)

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit offsets, as this member.

        Raises
        ------
        FencedError
            If this worker is no member any more.
        BrokerError
            If the broker does not take them.
        """
        offsets = {KafkaPartition(*place): OffsetAndMetadata(at, "", -1) for place, at in positions.items()}

        self._access.retry("committing offsets", lambda: self._consumer.commit(offsets, timeout_ms=REQUEST_TIMEOUT_MS))

    def close(self) -> None:
        """Leave the group."""
        self._changes.close()
        self._stop.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        try:
            self._consumer.close(autocommit=False, timeout_ms=int(CLOSE_TIMEOUT_S * 1000))
        except FOREIGN as error:
            log.warning("leaving the group %s: %s", self.group, error)

    def _run(self) -> None:
        # kafka-python 3.0.12 starts a join over that ended between two polls: so hardly any time may pass between them
        while not self._stop.is_set():
            try:
                self._consumer.poll(_POLL_MS)
            except Exception as error:  # noqa: BLE001  else this thread ended, and the worker heard of no loss
                if not is_transient(error):
                    self._error = broker_error(error, self._access.address, f"belonging to group {self.group}")
                    return
                log.warning("the group %s cannot be asked, trying again: %s", self.group, error)
                self._stop.wait(1.0)


class StaticMembership:
    """For a broker that does not share partitions out: one worker has all of them.

    Parameters
    ----------
    consumer : Consumer
        Commits under the group.
    partitions : int
        How many there are.
    """

    def __init__(self, consumer: Consumer, partitions: int) -> None:
        self._consumer = consumer
        self._new = frozenset(range(partitions))

    def poll(self) -> Rebalance:
        """Return all partitions, once."""
        change, self._new = Rebalance(assigned=self._new), frozenset()
        return change

    def release(self, partitions: Iterable[int]) -> None:
        """Nobody else is there."""

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit offsets under the group."""
        self._consumer.commit(positions)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


class _Changes:
    """What the group's listener says, until the worker asks; for two threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._assigned: set[int] = set()
        self._revoked: set[int] = set()
        self._lost: set[int] = set()
        self._unreleased: set[int] = set()
        self._closed = False

    def take(self) -> Rebalance:
        with self._lock:
            change = Rebalance(frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost))
            self._assigned, self._revoked, self._lost = set(), set(), set()
            return change

    def assign(self, numbers: set[int]) -> None:
        with self._lock:
            self._assigned |= numbers

    def revoke(self, numbers: set[int]) -> None:
        with self._lock:
            self._revoked |= numbers
            self._unreleased |= numbers
            self._assigned -= numbers

    def lose(self, numbers: set[int]) -> None:
        with self._lock:
            self._lost |= numbers
            self._assigned -= numbers
            self._revoked -= numbers
            self._unreleased -= numbers

    def release(self, numbers: Iterable[int]) -> None:
        with self._lock:
            self._unreleased -= set(numbers)

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def all_released(self) -> bool:
        with self._lock:
            return self._closed or not self._unreleased


def _listener(consumer: Any, changes: _Changes) -> AsyncConsumerRebalanceListener:
    """Return a listener that holds a rebalance until the worker has released what it is to give up.

    It runs on kafka-python's I/O thread: waiting must be awaited there, or heartbeats would stop.
    """

    class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_assigned(self, assigned: set[Any]) -> None:
            consumer.pause(*assigned)
            changes.assign({place.partition for place in assigned})

        async def on_partitions_revoked(self, revoked: set[Any]) -> None:
            changes.revoke({place.partition for place in revoked})
            deadline = time.monotonic() + _RELEASE_S
            while not changes.all_released() and time.monotonic() < deadline:
                await consumer._net.sleep(_PAUSE_S)

        async def on_partitions_lost(self, lost: set[Any]) -> None:
            changes.lose({place.partition for place in lost})

    return Listener()
