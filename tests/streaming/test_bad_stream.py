"""A tenth of the stream is bad, of every class: one dead letter each, and the good records' results to the bit."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.record.memory_records import MemoryRecords
from kafka.structs import TopicPartition
from stream_lab import EVENTS, LABELS, TASKS, as_raw, easy_stream, make_machine, make_project
from test_kafka_batches import GZIP, STAMP, batch, bomb

from core.reasons import UNREADABLE_HEADER
from streaming.join import Predicted
from streaming.kafka_consumer import raw_record
from streaming.messages import dead_letter_message, prediction_message
from streaming.outputs import Correction, DeadLetter, Example
from streaming.transport import RawRecord

NESTED = b"[" * 100_000 + b"]" * 100_000
DIGITS = b"9" * 5_000


def event(more: bytes, identifier: bytes = b'"bad"', at: bytes = b"%d" % STAMP) -> bytes:
    return b'{"id": ' + identifier + b', "at": ' + at + b', "z": 1, "c": "a", ' + more + b"}"


BAD_EVENTS: dict[str, list[bytes | None]] = {
    "empty": [None, b""],
    "oversized": [event(b'"x": 1, "c": "' + b"x" * 1_000_000 + b'"')],
    "malformed": [
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + event(b'"x": 1'),
        event(b'"x": NaN'),
        event(b'"x": 1', b'"\\ud800"'),
        event(b'"more": ' + NESTED),
        event(b'"more": "\xff"'),
    ],
    "duplicate_key": [event(b'"x": 1, "x": 2'), event(b'"x": 1, "id": "e1"')],
    "wrong_type": [b"[]", b"null", event(b'"x": "1"'), event(b'"x": 1e999'), event(b'"x": 1', DIGITS)],
    "out_of_bounds": [event(b'"x": 1e300')],
    "bad_time": [event(b'"x": 1', at=b'"yesterday"'), event(b'"x": 1', at=DIGITS[:4_000])],
    "time_ahead": [event(b'"x": 1', at=b'"2099-01-01"')],
    "bad_id": [b"{}", event(b'"x": 1', b'""'), event(b'"x": 1', DIGITS[:4_000])],
}
BAD_LABELS: dict[str, list[bytes | None]] = {
    "empty": [None],
    "malformed": [b"{", b'{"id": "e1", "y": ' + NESTED + b"}"],
    "duplicate_key": [b'{"id": "e1", "y": 1, "y": 0}', b'{"id": "e1", "id": "e2", "y": 1}'],
    "wrong_type": [b"[]", b'{"id": "e1", "y": ' + DIGITS + b"}"],
    "bad_id": [b'{"y": 1}'],
    "bad_label": [b'{"id": "e1"}', b'{"id": "e1", "y": null}', b'{"id": "e1", "y": [1]}'],
}


def unreadable(data: bytes) -> RawRecord:
    """The one record that a consumer gets of a batch."""
    part = Fetcher.PartitionRecords(0, TopicPartition(EVENTS, 0), MemoryRecords(data))
    (message,) = part.take(10)
    return raw_record(message)


def of_batches() -> list[tuple[str, RawRecord]]:
    bombed, torn = unreadable(bomb(GZIP)), unreadable(batch(gzip.compress(b"x")[:-9], 1, kind=GZIP))
    return [("oversized_batch", bombed), ("unreadable_batch", torn)]


ALL_BAD = [
    (reason, RawRecord(topic, 0, 0, STAMP, b"k", value))
    for topic, classes in ((EVENTS, BAD_EVENTS), (LABELS, BAD_LABELS))
    for reason, values in classes.items()
    for value in values
] + of_batches()


def with_bad_ones(good: list[RawRecord], bad: list[tuple[int, RawRecord]]) -> list[RawRecord]:
    """Put each bad record before the good one at its place, at that one's time; offsets are those of a log."""
    mixed = list(good)
    for place, record in sorted(bad, key=lambda entry: -entry[0]):
        mixed.insert(place, replace(record, timestamp=good[place].timestamp))
    offsets: Counter[str] = Counter()
    placed = []
    for record in mixed:
        placed.append(replace(record, offset=offsets[record.topic]))
        offsets[record.topic] += 1
    return placed


def results(outputs) -> list[str]:
    """All that follows from good records, to the bit; but for steps and offsets, which count bad ones too."""
    found = []
    for output in outputs:
        if isinstance(output, (Predicted, Example)):
            predicted = output if isinstance(output, Predicted) else output.predicted
            mixed = [predicted.served, *predicted.predictions.values()]
            bits = [
                p if p is None else {k: v.hex() for k, v in p.items()} if isinstance(p, dict) else p.hex()
                for p in mixed
            ]
            rest = () if isinstance(output, Predicted) else (output.outcome, output.label_time, output.label_clock)
            found.append(repr((prediction_message(predicted, "out"), predicted.clock, predicted.features, bits, rest)))
        elif isinstance(output, Correction):
            found.append(repr((output.label, output.label_clock)))
    return found


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_tenth_of_bad_records_leaves_the_good_ones_results_to_the_bit(tmp_path_factory, task, data):
    project = make_project(tmp_path_factory.mktemp("project"), task, label={"horizon": "1h"})
    good = as_raw(easy_stream(task, 180))
    places = data.draw(st.lists(st.integers(0, len(good) - 1), min_size=len(ALL_BAD), max_size=len(ALL_BAD)))
    bad = [(place, record) for place, (_, record) in zip(places, ALL_BAD, strict=True)]
    alone, among = make_machine(project), make_machine(project)
    expected = alone.process(good)
    found = []
    mixed = with_bad_ones(good, bad)
    for start in range(0, len(mixed), 37):
        found += among.process(mixed[start : start + 37])

    assert len(bad) / len(mixed) >= 0.09
    assert results(found) == results(expected)
    letters = [output for output in found if isinstance(output, DeadLetter)]
    assert Counter(letter.bad.reason for letter in letters) == Counter(reason for reason, _ in ALL_BAD)
    assert len({(letter.record.topic, letter.record.offset) for letter in letters}) == len(ALL_BAD)
    books = among.state.books
    assert books.imbalances() == []
    assert books.events.dead_lettered + books.labels.dead_lettered == len(ALL_BAD)
    assert among.state.blend.weights == alone.state.blend.weights
    assert among.state.scores.means() == alone.state.scores.means()


@pytest.mark.parametrize(("reason", "record"), ALL_BAD)
def test_every_bad_record_can_be_published_as_a_dead_letter(tmp_path, reason, record):
    (letter,) = make_machine(make_project(tmp_path)).process([record])
    message = dead_letter_message(letter, "dead")
    assert dict(message.headers)["headrace-reason"] == reason.encode()
    assert len(message.value or b"") + sum(len(n) + len(v) for n, v in message.headers) < 1_000_000


def test_a_bad_record_moves_the_clock_as_any_other_and_no_further(tmp_path):
    """Its time stamp says that it is so late by now, whatever else it says: what is due by then is due."""
    project = make_project(tmp_path, label={"horizon": "1h", "missing": 0})
    first = as_raw(easy_stream("binary", 1))[0]
    later = first.timestamp + 3_600_001
    outputs = []
    for value in (b"nonsense", json.dumps({"id": "other", "at": later, "x": 0.5, "z": 1, "c": "a"}).encode()):
        machine = make_machine(project)
        machine.process([first])
        outputs.append(machine.process([RawRecord(EVENTS, 0, 1, later, b"k", value)])[0])
    assert isinstance(outputs[0], Example)
    assert outputs[0] == outputs[1]


def test_a_forged_mark_on_a_good_record_changes_nothing(tmp_path):
    machine = make_machine(make_project(tmp_path))
    record = as_raw(easy_stream("binary", 1))[0]
    marked = replace(record, headers=((UNREADABLE_HEADER, b"oversized_batch"),))
    assert isinstance(machine.process([marked])[0], Predicted)
