"""The dead-letter topic read again: what is in it, and a way back for what can be used after a fix.

Every letter is replayed once. Its receipt is written into the dead-letter topic itself, together with the replayed
record (`Publish`): in one transaction where the broker has them. A replay first writes a mark into each partition of
the topic and reads up to it, so that it sees every receipt before it, without having to believe a broker's idea of
where the log ends. Who replays under the same transactional id fences the one before, and whatever that one had not
committed never happened. Without transactions the record goes first and the receipt after it: a kill in between can
replay a letter twice, and then its id tells that it is the same.

A replayed record goes to the partition that it came from, with its key, its own headers and its own time stamp: a
label without a time of its own is dated by it, and the order of a partition goes on from where it is anyhow
(:mod:`streaming.ordering`). Only what was refused for its time (`time_ahead`, or a time stamp that is none) is sent as
of now. The record counts as any other that arrives now: a label whose horizon has passed meanwhile is late.

A letter from which personal values were taken (:mod:`streaming.masking`) is not what came. What is replayed then is the
bad record itself, from the topic that it lies in, as long as that keeps it.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from core.durations import EARLIEST, LATEST
from core.errors import BrokerError
from core.reasons import REASON_HEADER
from core.settings import Settings
from streaming.masking import MASKED_HEADER
from streaming.transport import Consumer, OutRecord, Producer, RawRecord, TopicPartition

REPLAY_OF_HEADER = "headrace-replay-of"
RECEIPT_HEADER = "headrace-replayed"
MARK_HEADER = "headrace-replay-begins"
OURS = "headrace-"
QUIET_S = 1.0
PATIENCE_S = 60.0
_POLL_RECORDS = 500
_TOGETHER_RECORDS = 200
_TOGETHER_BYTES = 4 << 20
_MISSING = {
    "headrace-truncated": "its value was cut off",
    "headrace-truncated-key": "its key was cut off",
    "headrace-truncated-headers": "its headers were left out",
}

Publish = Callable[[list[OutRecord]], None]
"""Publishes records so that all of them are there or none; without transactions in order, receipts last."""


class Place(NamedTuple):
    """Where a letter lies in the dead-letter topic; written ``partition:offset``."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """What is known of a dead letter without its bytes.

    Attributes
    ----------
    topic, partition, offset
        Where the bad record lies.
    timestamp : int
        The bad record's, ms; it may be no time at all.
    id : str or None
        The event's id, if the record says one.
    obstacle : str
        Why it cannot be replayed; empty if it can.
    masked : bool
        Whether what is personal was taken out of it: what is replayed is then the bad record itself, from its topic.
    """

    place: Place
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    id: str | None
    obstacle: str
    masked: bool = False


@dataclass
class Letters:
    """All letters by place, and how often each was replayed."""

    by_place: dict[Place, Letter] = field(default_factory=dict)
    replays: Counter[Place] = field(default_factory=Counter)


def parse_place(text: str) -> Place | None:
    """Read ``partition:offset``; None if it is not of that form.

    Examples
    --------
    >>> parse_place("0:17"), parse_place("17")
    (Place(partition=0, offset=17), None)
    """
    partition, separator, offset = text.partition(":")
    if not (separator and partition.isdecimal() and offset.isdecimal()):
        return None
    return Place(int(partition), int(offset))


def read_letter(record: RawRecord, settings: Settings) -> Letter | None:
    """Return the letter in a record of the dead-letter topic; None for what is none (a receipt, a mark).

    Only the headers behind the last reason count: those before it are the bad record's own, whatever they are called.
    """
    start = _start_of_ours(record)
    if start is None:
        return None
    ours = {name: content.decode("utf-8", "replace") for name, content in record.headers[start:]}
    topic, reason = ours.get("headrace-topic", ""), ours[REASON_HEADER]
    obstacle = next((why for name, why in _MISSING.items() if name in ours), "")
    if reason in ("oversized_batch", "unreadable_batch"):
        obstacle = "the record itself could not be had of its batch"
    elif topic not in settings.input_topics:
        obstacle = f"{topic or 'its topic'} is no input topic of this project"
    return Letter(
        place=Place(record.partition, record.offset),
        reason=reason,
        detail=ours.get("headrace-detail", ""),
        topic=topic,
        partition=_whole(ours.get("headrace-partition")),
        offset=_whole(ours.get("headrace-offset")),
        timestamp=_whole(ours.get("headrace-timestamp"), record.timestamp),
        id=_find_id(record.value, settings),
        obstacle=obstacle,
        masked=MASKED_HEADER in ours,
    )


def own_headers(record: RawRecord) -> tuple[tuple[str, bytes], ...]:
    """Return the headers that the bad record had itself."""
    return record.headers[: _start_of_ours(record)]


def _start_of_ours(record: RawRecord) -> int | None:
    found = [index for index, (name, _) in enumerate(record.headers) if name == REASON_HEADER]
    return found[-1] if found else None


def _whole(text: str | None, default: int = -1) -> int:
    return int(text) if text is not None and text.lstrip("-").isdecimal() else default


def _find_id(value: bytes | None, settings: Settings) -> str | None:
    try:
        content: Any = msgspec.json.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    for path in (settings.id, settings.label.id or settings.id):
        found = content
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, (str, int)) and not isinstance(found, bool):
            return str(found)[:100]
    return None


def read_letters(consumer: Consumer, topic: str, partitions: int, settings: Settings, mark: str = "") -> Letters:
    """Read the dead-letter topic from its beginning, without the letters' bytes.

    Parameters
    ----------
    consumer : Consumer
        Reads committed records only, where the broker tells them apart.
    topic : str
        The dead-letter topic.
    partitions : int
        How many it has; 0 where there is no such topic.
    settings : Settings
        The project's.
    mark : str
        Read until this mark was seen in every partition; without one until nothing has come for `QUIET_S` (thrice
        that for the first record), because not every broker says truly where a log ends.

    Raises
    ------
    BrokerError
        If a mark does not come within `PATIENCE_S` of the last record.
    """
    letters = Letters()
    for record in _scan(consumer, topic, partitions, mark):
        if letter := read_letter(record, settings):
            letters.by_place[letter.place] = letter
        elif place := parse_place(dict(record.headers).get(RECEIPT_HEADER, b"").decode("utf-8", "replace")):
            letters.replays[place] += 1
    return letters


def _scan(consumer: Consumer, topic: str, partitions: int, mark: str) -> Iterator[RawRecord]:
    places = [TopicPartition(topic, number) for number in range(partitions)]
    if not places:
        return
    consumer.assign(consumer.beginning(places))
    unmarked, wanted = set(range(partitions)), (MARK_HEADER, mark.encode())
    heard, quiet_s = time.monotonic(), 3 * QUIET_S  # the first fetch has to connect
    while unmarked if mark else time.monotonic() - heard < quiet_s:
        if time.monotonic() - heard > PATIENCE_S:
            raise BrokerError(f"the end of {topic} does not come; check that the broker runs, then start again")
        for record in consumer.poll(200, _POLL_RECORDS):
            heard, quiet_s = time.monotonic(), QUIET_S
            unmarked -= {record.partition} if wanted in record.headers else set()
            yield record


def fetch(consumer: Consumer, topic: str, places: Collection[Place]) -> Iterator[RawRecord]:
    """Yield the records at these places, partition by partition in offset order.

    Raises
    ------
    BrokerError
        If one does not come within `PATIENCE_S`.
    """
    for number in sorted({place.partition for place in places}):
        wanted = sorted(place.offset for place in places if place.partition == number)
        consumer.assign({TopicPartition(topic, number): wanted[0]})
        left, heard = set(wanted), time.monotonic()
        while left:
            for record in consumer.poll(200, _POLL_RECORDS):
                heard = time.monotonic()
                if record.offset in left:
                    left.discard(record.offset)
                    yield record
            if time.monotonic() - heard > PATIENCE_S:
                raise BrokerError(f"offset {min(left)} of {topic} does not come; check that it is still kept there")


def replayed(record: RawRecord, letter: Letter, topic: str) -> OutRecord:
    """Return the bad record as it is sent again; `record` is its letter in the dead-letter topic `topic`."""
    own = tuple(header for header in own_headers(record) if not header[0].startswith(OURS))
    origin = f"{topic}/{letter.place.partition}/{letter.place.offset}"
    refused_for_its_time = letter.reason == "time_ahead" or not EARLIEST <= letter.timestamp <= LATEST
    return OutRecord(
        letter.topic,
        record.key,
        record.value,
        None if refused_for_its_time else letter.timestamp,
        letter.partition,
        (*own, (REPLAY_OF_HEADER, origin.encode())),
    )


def receipt(letter: Letter, topic: str) -> OutRecord:
    """Return the record that says that a letter was replayed; it lies in the letter's partition."""
    return OutRecord(topic, None, b"", None, letter.place.partition, ((RECEIPT_HEADER, str(letter.place).encode()),))


def read_for_replay(consumer: Consumer, publish: Publish, topic: str, partitions: int, settings: Settings) -> Letters:
    """Mark the end of the topic and read up to it; the publisher must have taken over from any other before."""
    mark = uuid.uuid4().hex
    header = ((MARK_HEADER, mark.encode()),)
    publish([OutRecord(topic, None, b"", None, number, header) for number in range(partitions)])
    return read_letters(consumer, topic, partitions, settings, mark)


def replay(consumer: Consumer, publish: Publish, topic: str, chosen: Sequence[Letter]) -> None:
    """Send letters again, each together with its receipt; they must be replayable and without a receipt so far."""
    by_place = {letter.place: letter for letter in chosen if not letter.masked}
    for records in _together(fetch(consumer, topic, by_place)):
        letters = [by_place[Place(record.partition, record.offset)] for record in records]
        again = [replayed(record, letter, topic) for record, letter in zip(records, letters, strict=True)]
        publish([*again, *(receipt(letter, topic) for letter in letters)])
    for letter, record in originals(consumer, [letter for letter in chosen if letter.masked]):
        publish([replayed(record, letter, topic), receipt(letter, topic)])


def originals(consumer: Consumer, letters: Iterable[Letter]) -> Iterator[tuple[Letter, RawRecord]]:
    """Yield letters with the bad records themselves, from where they lie; not those that are not there any more."""
    by_partition: dict[TopicPartition, list[Letter]] = {}
    for letter in letters:
        by_partition.setdefault(TopicPartition(letter.topic, letter.partition), []).append(letter)
    for place, found in by_partition.items():
        kept = consumer.beginning([place])[place]
        wanted = deque(sorted((x for x in found if x.offset >= kept), key=lambda letter: letter.offset))
        while wanted:
            consumer.assign({place: wanted[0].offset})
            there = {record.offset: record for record in _some(consumer)}
            through = max(there, default=wanted[0].offset)
            while wanted and wanted[0].offset <= through:
                letter = wanted.popleft()
                record = there.get(letter.offset)
                if record is not None and record.timestamp == letter.timestamp:
                    yield letter, record


def _some(consumer: Consumer) -> list[RawRecord]:
    """Return the next records; none where nothing comes for thrice `QUIET_S`."""
    until = time.monotonic() + 3 * QUIET_S
    records: list[RawRecord] = []
    while not records and time.monotonic() < until:
        records = list(consumer.poll(200, _POLL_RECORDS))
    return records


def _together(records: Iterable[RawRecord]) -> Iterator[list[RawRecord]]:
    """Yield records in groups that are published together."""
    group: list[RawRecord] = []
    size = 0
    for record in records:
        group.append(record)
        size += len(record.value or b"") + len(record.key or b"")
        if len(group) >= _TOGETHER_RECORDS or size >= _TOGETHER_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def plain_publish(producer: Producer, topic: str) -> Publish:
    """Return what publishes without transactions; what goes into the dead-letter topic `topic` goes last."""

    def publish(records: list[OutRecord]) -> None:
        for is_last in (False, True):
            for record in records:
                if (record.topic == topic) == is_last:
                    producer.send(record)
            producer.flush()

    return publish


def counts(letters: Letters) -> list[dict[str, Any]]:
    """Return a row for each reason and topic, most frequent first: letters, replayed, oldest and newest in ms."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for place, letter in letters.by_place.items():
        row = rows.setdefault(
            (letter.reason, letter.topic),
            {
                "reason": letter.reason,
                "topic": letter.topic,
                "letters": 0,
                "replayed": 0,
                "oldest": None,
                "newest": None,
            },
        )
        row["letters"] += 1
        row["replayed"] += letters.replays[place] > 0
        if EARLIEST <= letter.timestamp <= LATEST:
            row["oldest"] = min(letter.timestamp, row["oldest"] if row["oldest"] is not None else LATEST)
            row["newest"] = max(letter.timestamp, row["newest"] or EARLIEST)
    return sorted(rows.values(), key=lambda row: (-row["letters"], row["reason"], row["topic"]))
