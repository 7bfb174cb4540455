"""Ids with a deadline and a value, in several queues; beyond a bound they are kept on disk.

Whether an entry is in memory or on disk changes nothing but the time it takes: what comes out, and in which order, is
what a dictionary and a heap without any bound would give.
"""

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from streaming.spill import Row, Spill

V = TypeVar("V")

_AT_ONCE = 512
_CHUNK = 4_096
_STALE = 1_024


class Deadlines(Generic[V]):
    """A mapping of id to (queue, deadline, value), and the order of deadlines in each queue.

    An id is in one queue at a time. Without `attach` everything stays in memory.

    Parameters
    ----------
    queues : int
        How many there are; they are numbered from 0.
    encode, decode : callable
        Turn (queue, value) into bytes, and (queue, bytes) back. Equal values must give equal bytes.

    Examples
    --------
    >>> ids = Deadlines(1, lambda _, text: text.encode(), lambda _, content: content.decode())
    >>> ids.put(0, 20, "a", "late")
    >>> ids.put(0, 10, "b", "soon")
    >>> ids.pop_due(0, clock=15, most=5), ids.pop_due(0, clock=15, most=5)
    ((10, 'b', 'soon'), None)
    """

    def __init__(self, queues: int, encode: Callable[[int, V], bytes], decode: Callable[[int, bytes], V]) -> None:
        self._encode = encode
        self._decode = decode
        self._held: dict[str, tuple[int, int, V]] = {}
        self._heaps: list[list[tuple[int, str]]] = [[] for _ in range(queues)]
        self._held_in = [0] * queues
        self._count_in = [0] * queues
        self._folder: Path | None = None
        self._most = sys.maxsize
        self._spill: Spill | None = None
        self._absent: str | None = None
        self._kept: deque[bytes] = deque()

    def attach(self, folder: Path, most: int) -> None:
        """Keep at most `most` entries in memory, the others in a file in `folder` that nobody else sees.

        Raises
        ------
        StoreError
            Here and from every other method, when the disk is full or broken.
        """
        self._folder, self._most = folder, most
        self._unpack()
        while len(self._held) > most:
            self._shrink()

    def close(self) -> None:
        """Give the disk space back; what was there is gone, and this cannot be used any more."""
        if self._spill is not None:
            self._spill.close()

    def count(self, queue: int) -> int:
        """Return the number of entries in a queue."""
        if self._kept:
            self._unpack()
        return self._count_in[queue]

    @property
    def in_memory(self) -> int:
        """Number of entries that are in memory."""
        return len(self._held)

    @property
    def on_disk(self) -> int:
        """Number of entries that are on disk."""
        return self._spill.rows if self._spill is not None else 0

    def queue_of(self, entry_id: str) -> int | None:
        """Return the queue that an id is in, None where it is in none."""
        if self._kept:
            self._unpack()
        entry = self._held.get(entry_id)
        if entry is not None:
            return entry[0]
        if self._spill is None or entry_id == self._absent:
            return None
        queue = self._spill.queue_of(entry_id)
        if queue is None:
            self._absent = entry_id
        return queue

    def get(self, entry_id: str) -> tuple[int, int, V] | None:
        """Return (queue, deadline, value) of an id, None where it is in no queue."""
        if self._kept:
            self._unpack()
        entry = self._held.get(entry_id)
        if entry is not None or self._spill is None or entry_id == self._absent:
            return entry
        found = self._spill.find(entry_id)
        if found is None:
            self._absent = entry_id
            return None
        queue, deadline, content = found
        return queue, deadline, self._decode(queue, content)

    def ids(self) -> Iterator[str]:
        """Go through all ids, in any order; nothing may change meanwhile."""
        if self._kept:
            self._unpack()
        yield from self._held
        if self._spill is not None:
            yield from self._spill.ids()

    def put(self, queue: int, deadline: int, entry_id: str, value: V) -> None:
        """Put an id into a queue, out of the one that it was in."""
        self.discard(entry_id)
        self._hold(queue, deadline, entry_id, value)
        self._count_in[queue] += 1
        if len(self._held) > self._most:
            self._shrink()

    def discard(self, entry_id: str) -> None:
        """Take an id out of its queue, if it is in one."""
        if self._kept:
            self._unpack()
        entry = self._held.pop(entry_id, None)
        if entry is not None:
            self._held_in[entry[0]] -= 1
            self._count_in[entry[0]] -= 1
            self._tidy(entry[0])
        elif self._spill is not None and entry_id != self._absent:
            queue = self._spill.remove(entry_id)
            if queue is not None:
                self._count_in[queue] -= 1
        self._absent = entry_id

    def pop_due(self, queue: int, clock: int, most: int) -> tuple[int, str, V] | None:
        """Remove a queue's earliest (deadline, id) if it is before `clock`, or more than `most` are in the queue.

        Returns
        -------
        (int, str, value) or None
            Deadline, id and value; None when nothing is due.
        """
        if self._kept:
            self._unpack()
        first = self._first(queue)
        if first is None or (first[0] >= clock and self._count_in[queue] <= most):
            return None
        deadline, entry_id = first
        if entry_id not in self._held:
            self._fetch(queue)
        heapq.heappop(self._heaps[queue])
        value = self._held.pop(entry_id)[2]
        self._held_in[queue] -= 1
        self._count_in[queue] -= 1
        if len(self._held) > self._most:
            self._shrink()
        return deadline, entry_id, value

    def peek_due(self, queue: int, clock: int) -> list[V]:
        """Return the values that are due before `clock`, by (deadline, id), of those in memory; all stay."""
        if self._kept:
            self._unpack()
        heap, found, places = self._heaps[queue], [], [0]
        while places:  # a heap's children are not before their parent
            place = places.pop()
            if place < len(heap) and heap[place][0] < clock:
                found.append(heap[place])
                places += (2 * place + 1, 2 * place + 2)
        return [self._held[key[1]][2] for key in sorted(set(found)) if self._is_held(queue, key)]

    def dump(self) -> Iterator[bytes]:
        """Go through everything, encoded, in the order of queue, deadline and id; nothing may change meanwhile.

        The pieces are equal for equal content, wherever that is; a piece has at most 4,096 entries.
        """
        if self._kept:
            yield from self._kept
            return
        rows = iter(self._rows())
        while chunk := list(islice(rows, _CHUNK)):
            yield msgspec.msgpack.encode(chunk)

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Take what `dump` gave into an empty object; it stays encoded until `attach` or the first use."""
        self._kept = deque(pieces)

    def _rows(self) -> Iterable[Row]:
        order = sorted((queue, deadline, entry_id) for entry_id, (queue, deadline, _) in self._held.items())
        held = ((*key, self._encode(key[0], self._held[key[2]][2])) for key in order)
        return held if self._spill is None else heapq.merge(held, self._spill.all())

    def _unpack(self) -> None:
        """Decode what `restore` was given: half of what may be in memory, and the rest goes to disk as it is."""
        decoder = msgspec.msgpack.Decoder(list[Row])
        self._absent = None
        while self._kept:
            rows = decoder.decode(self._kept.popleft())
            for queue, *_ in rows:
                self._count_in[queue] += 1
            room = max(0, self._most // 2 - len(self._held))
            for queue, deadline, entry_id, content in rows[:room]:
                self._hold(queue, deadline, entry_id, self._decode(queue, content))
            if rows[room:]:
                self._disk().add(rows[room:])

    def _hold(self, queue: int, deadline: int, entry_id: str, value: V) -> None:
        self._held[entry_id] = (queue, deadline, value)
        self._held_in[queue] += 1
        heapq.heappush(self._heaps[queue], (deadline, entry_id))

    def _first(self, queue: int) -> tuple[int, str] | None:
        heap = self._heaps[queue]
        while heap and not self._is_held(queue, heap[0]):
            heapq.heappop(heap)
        spilled = self._spill.first(queue) if self._spill is not None else None
        if spilled is None or (heap and heap[0] < spilled):
            return heap[0] if heap else None
        return spilled

    def _is_held(self, queue: int, key: tuple[int, str]) -> bool:
        entry = self._held.get(key[1])
        return entry is not None and entry[1] == key[0] and entry[0] == queue

    def _tidy(self, queue: int) -> None:
        """Drop keys of what has left the queue from its heap, as soon as they are more than half of it."""
        heap = self._heaps[queue]
        if len(heap) > 2 * self._held_in[queue] + _STALE:
            heap[:] = {key for key in heap if self._is_held(queue, key)}
            heapq.heapify(heap)

    def _shrink(self) -> None:
        """Move what has been in memory for longest to disk, a batch at once."""
        count = len(self._held) - self._most + min(self._most // 8, _AT_ONCE)
        oldest = list(islice(self._held.items(), min(count, _CHUNK)))
        self._disk().add(
            [(queue, deadline, entry_id, self._encode(queue, value)) for entry_id, (queue, deadline, value) in oldest]
        )
        for entry_id, (queue, _, _) in oldest:
            del self._held[entry_id]
            self._held_in[queue] -= 1
        self._absent = None
        for queue in range(len(self._heaps)):
            self._tidy(queue)

    def _fetch(self, queue: int) -> None:
        """Bring the earliest entries of a queue back from disk, a batch at once."""
        for deadline, entry_id, content in self._disk().take(queue, max(1, min(self._most // 8, _AT_ONCE))):
            self._hold(queue, deadline, entry_id, self._decode(queue, content))

    def _disk(self) -> Spill:
        if self._spill is None:
            assert self._folder is not None
            self._spill = Spill(self._folder, len(self._heaps))
        return self._spill
