"""What was polled for a partition and not stepped through yet: how far, how much, and when to poll no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streaming.transport import RawRecord, TopicPartition

_MAX_BACKLOG, _MAX_BACKLOG_BYTES = 20_000, 128 << 20


class Intake:
    """Counts what waits, by topic.

    Parameters
    ----------
    places : sequence of TopicPartition
        The partition's input topics.
    """

    def __init__(self, places: Sequence[TopicPartition]) -> None:
        self._places = tuple(places)
        self._read_to: dict[TopicPartition, int] = {}
        self._waiting_bytes = dict.fromkeys((place.topic for place in places), 0)

    def add(self, record: RawRecord) -> None:
        """Count a polled record."""
        self._read_to[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._waiting_bytes[record.topic] += _size(record)

    def remove(self, records: Sequence[RawRecord]) -> None:
        """Count records that were stepped through."""
        for record in records:
            self._waiting_bytes[record.topic] -= _size(record)

    def read_from(self, positions: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the next offset to poll of each topic, where the state is at `positions`."""
        return {**positions, **self._read_to}

    def full(self, backlog: Callable[[str], int]) -> list[TopicPartition]:
        """Return the topics that should not be polled now, because the others lag behind."""
        return [
            place
            for place in self._places
            if backlog(place.topic) > _MAX_BACKLOG or self._waiting_bytes[place.topic] > _MAX_BACKLOG_BYTES
        ]


def _size(record: RawRecord) -> int:
    headers = sum(len(name) + len(content or b"") for name, content in record.headers)
    return len(record.value or b"") + len(record.key or b"") + headers
