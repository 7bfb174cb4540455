"""The order of a partition's input: its topics are merged by (time stamp, topic, offset).

A record waits until no other topic of the partition can still bring an earlier one: because that topic
already shows a later record or clock record, or, outside of lockstep, because it has brought nothing for
``order.max_wait``. A clock record (header ``headrace-clock``, no value) says that everything before its
time stamp has been published; a replay sends them to every topic, so that its order does not depend on any time-out.
At equal time stamps clock records go first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from core.durations import LATEST
from streaming.transport import RawRecord

CLOCK_HEADER = "headrace-clock"
_NEVER = -1
_FIRST = -1


class Merger:
    """Merges the topics of one partition.

    Parameters
    ----------
    topics : sequence of str
        The partition's topics, by rank: at equal time stamps the first goes first.
    max_wait_s : float or None
        Time without a record after which a topic is not waited for, s; None waits for ever (lockstep).
    now_s : float
        The monotonic clock, s; here and below only differences count.
    clocks : dict of str to int, optional
        What `clocks` returned when the state was kept.

    Examples
    --------
    >>> merger = Merger(["events", "labels"], None, 0.0)
    >>> merger.push(RawRecord("events", 0, 0, 10, None, b"e"), 0.0)
    >>> merger.next(0.0) is None
    True
    >>> merger.push(RawRecord("labels", 0, 0, 12, None, b"l"), 0.0)
    >>> merger.next(0.0).value
    b'e'
    """

    def __init__(
        self,
        topics: Sequence[str],
        max_wait_s: float | None,
        now_s: float,
        clocks: dict[str, int] | None = None,
    ) -> None:
        self._topics = list(topics)
        self._queues: dict[str, deque[tuple[int, RawRecord]]] = {topic: deque() for topic in topics}
        self._ahead = dict.fromkeys(topics, _NEVER) | (clocks or {})
        self._passed = dict(self._ahead)
        self._max_wait_s = max_wait_s
        self._arrived = dict.fromkeys(topics, now_s)

    def push(self, record: RawRecord, now_s: float) -> None:
        """Take in the next record of its topic."""
        self._arrived[record.topic] = now_s
        ahead = self._ahead[record.topic]
        if record.timestamp <= LATEST:
            ahead = max(ahead, record.timestamp)
        self._ahead[record.topic] = ahead
        self._queues[record.topic].append((ahead, record))

    def excuse_silence(self, now_s: float) -> None:
        """Count no topic as silent before `order.max_wait` from now: it may have records that were not fetched yet."""
        self._arrived = dict.fromkeys(self._topics, now_s)

    def backlog(self, topic: str) -> int:
        """Return how many records of `topic` wait here."""
        return len(self._queues[topic])

    @property
    def clocks(self) -> dict[str, int]:
        """How far each topic's records have been given out, ms; to be kept with the state."""
        return dict(self._passed)

    def has_reached(self, time: int) -> bool:
        """Tell whether every topic has given out all it had before `time`, ms."""
        return all((queue[0][0] if queue else self._ahead[topic]) >= time for topic, queue in self._queues.items())

    def next(self, now_s: float) -> RawRecord | None:
        """Return the next record whose place in the order is decided, or None; clock records too."""
        heads = [
            (queue[0][0], not is_clock(queue[0][1]), rank) for rank, queue in enumerate(self._queues.values()) if queue
        ]
        if not heads:
            return None
        stamp, is_data, rank = min(heads)
        if self._may_be_overtaken(stamp, rank if is_data else _FIRST, now_s):
            return None
        topic = self._topics[rank]
        self._passed[topic], record = self._queues[topic].popleft()
        return record

    def drain(self) -> list[RawRecord]:
        """Take out everything that waits here, each topic's records in their order."""
        waiting = [record for queue in self._queues.values() for _, record in queue]
        for queue in self._queues.values():
            queue.clear()
        return waiting

    def _may_be_overtaken(self, stamp: int, rank: int, now_s: float) -> bool:
        return any(
            not self._queues[topic]
            and (self._ahead[topic] < stamp or (self._ahead[topic] == stamp and other < rank))
            and (self._max_wait_s is None or now_s - self._arrived[topic] < self._max_wait_s)
            for other, topic in enumerate(self._topics)
        )


def is_clock(record: RawRecord) -> bool:
    """Tell whether this is a clock record."""
    return record.value is None and any(name == CLOCK_HEADER for name, _ in record.headers)
