"""The journal: what was decided about a partition's input, so that it can be worked through again, equally.

One entry a commit, in a topic that is partitioned like the others. An entry lists *actions*: records taken
in this order and predicted as one batch, a step of the clock, a swap of the champion or of a shadow, windows
unlearned, ids erased. A take-over entry says who writes from there on: entries of anybody else behind it never count.
So the log's own order decides who owned the partition, also on a broker without transactions.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import msgspec

from core.errors import BrokerError, CheckpointError
from streaming.transport import Consumer, OutRecord, TopicPartition

_POLL_MS = 200
_POLL_RECORDS = 1_000


class Batch(msgspec.Struct, array_like=True, tag=0, frozen=True):
    """Records that were stepped through together.

    Attributes
    ----------
    picks : list of int
        Rank of the input topic and number of records taken from it, alternating.
    stamps : dict of int to int
        Time stamps, ms, that were read otherwise than they lie in the log, by place in the batch.
    """

    picks: list[int]
    stamps: dict[int, int] = {}

    def topics(self) -> Iterator[int]:
        """Yield the rank of each record's topic."""
        for rank, count in zip(self.picks[::2], self.picks[1::2], strict=True):
            for _ in range(count):
                yield rank


class Tick(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """A clock record of the topic of this rank, which moved the clock to `time`, ms."""

    rank: int
    time: int


class Swap(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """From here on this version of the champion predicts; None is none."""

    version: int | None


class Unlearn(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """Here the online experts forgot these windows: first of its entry, all steps before are in the tables.

    Attributes
    ----------
    windows : list of (int, int)
        All that are out from here on: spans of event time, ms.
    since : int
        Step of the snapshot that they were learned again from; 0 for from the beginning.
    most : int
        Examples learned again, at most: the latest.
    """

    windows: list[tuple[int, int]]
    since: int
    most: int


class Follow(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """From here on this version predicts in shadow, in this role, and serves a share of the events; None ends it."""

    role: str
    version: int | None
    share: float = 0.0


class Erase(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """Here ids were forgotten, as was asked for: first of its entry, as all steps before are in the tables."""

    requests: list[str]


Action = Batch | Tick | Swap | Unlearn | Follow | Erase


class Entry(msgspec.Struct, array_like=True, tag="entry", frozen=True):
    """What one commit decided.

    Attributes
    ----------
    owner : str
        Who wrote it.
    step : int
        The partition's step before the first action.
    actions : list of Batch, Tick, Swap, Unlearn, Follow or Erase
        In order.
    clocks : dict of str to int
        How far each topic was given out afterwards, ms; see `streaming.ordering.Merger`.
    digest : bytes
        Of all outputs: whoever repeats the actions must get the same.
    """

    owner: str
    step: int
    actions: list[Action]
    clocks: dict[str, int]
    digest: bytes


class TakeOver(msgspec.Struct, array_like=True, tag="takeover", frozen=True):
    """From here on only entries of `owner` count."""

    owner: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry | TakeOver)


@dataclass(frozen=True)
class Ownership:
    """Who writes the journal at an offset, and the how manieth owner that is."""

    owner: str = ""
    term: int = 0


@dataclass
class Script:
    """What the journal says about the time after a snapshot.

    Attributes
    ----------
    entries : list of (int, Entry)
        Each with its offset in the journal; those that count, in order.
    at : Ownership
        Who owns the partition at the end.
    next_offset : int
        The journal's offset behind all of it.
    """

    at: Ownership
    next_offset: int
    entries: list[tuple[int, Entry]] = field(default_factory=list)


def picks_of(ranks: Iterable[int]) -> list[int]:
    """Return run lengths of topic ranks.

    Examples
    --------
    >>> picks_of([0, 0, 1, 0])
    [0, 2, 1, 1, 0, 1]
    """
    return [number for rank, run in groupby(ranks) for number in (rank, sum(1 for _ in run))]


def digest_of(outputs: Sequence[OutRecord]) -> bytes:
    """Return a digest of published records: keys and values, floats to the last bit."""
    made = hashlib.blake2b(digest_size=8)
    for output in outputs:
        for part in (output.key, output.value):
            made.update(b"-" if part is None else b"%d:" % len(part))
            made.update(part or b"")
    return made.digest()


def journal_record(content: Entry | TakeOver, place: TopicPartition) -> OutRecord:
    """Return the record that holds an entry."""
    return OutRecord(place.topic, b"journal", _encoder.encode(content), None, place.partition)


def read_script(
    consumer: Consumer, place: TopicPartition, start: int, before: Ownership, until: str, timeout_s: float
) -> Script:
    """Read the journal from `start` up to the take-over of `until`.

    Parameters
    ----------
    consumer : Consumer
        Is assigned to the journal's partition and left there.
    place : TopicPartition
        The journal's partition.
    start : int
        Offset that the snapshot names.
    before : Ownership
        Who owned the partition there.
    until : str
        Our own name, written before this call.
    timeout_s : float
        Longest time without a record, s.

    Raises
    ------
    CheckpointError
        If the journal does not go back to `start`, or holds what no version of headrace wrote.
    BrokerError
        If our own take-over does not come.
    """
    kept = consumer.beginning([place])[place]
    if kept > start:
        missing = f"entry {start}" if start else "its beginning, as there is no snapshot"
        raise CheckpointError(
            f"{place.topic}[{place.partition}] is needed from {missing}, but the broker keeps entries only from {kept} "
            "on: what kept snapshots do not need is dropped. Restore newer snapshots from a back-up (and see that the "
            "topic has retention.ms=-1); or start anew: move the state folder away and delete that topic"
        )
    script = Script(before, start)
    consumer.assign({place: start})
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for record in consumer.poll(_POLL_MS, _POLL_RECORDS):
            deadline = time.monotonic() + timeout_s
            _take_in(script, record.offset, record.value, place)
            if script.at.owner == until:
                return script
    raise BrokerError(
        f"{place.topic}[{place.partition}]: what was just written cannot be read within {timeout_s:.0f} s"
    )


def _take_in(script: Script, offset: int, value: bytes | None, place: TopicPartition) -> None:
    try:
        content = _decoder.decode(value or b"")
    except msgspec.MsgspecError as error:
        raise CheckpointError(
            f"{place.topic}[{place.partition}] offset {offset} is no entry of a journal ({error}); nobody but headrace "
            "may write to this topic"
        ) from error
    script.next_offset = offset + 1
    if isinstance(content, TakeOver):
        script.at = Ownership(content.owner, script.at.term + 1)
    elif content.owner == script.at.owner:
        script.entries.append((offset, content))
