"""A worker does not start with another key, or with marks that come too late."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stream_lab import EVENTS, LABELS, START, make_machine, make_project
from worker_lab import JOURNAL, PREDICTED, fill, rows_of, run, with_clocks

from core.errors import CheckpointError, SettingsError
from core.pseudonyms import Pseudonyms
from core.tables import EXAMPLES
from streaming.join import Predicted
from streaming.key_check import KeyCheck
from streaming.memory_broker import MemoryBroker
from streaming.transport import OutRecord, RawRecord

KEY, OTHER = "a key of some length", "another key, as long"
CLEAR = {"x": "number", "z": "number", "c": "category"}
HASHED = {**CLEAR, "c": {"type": "category", "pii": "hash"}}
DROPPED = {**CLEAR, "c": {"type": "category", "pii": "drop"}}


def stream(first: int, last: int) -> list[OutRecord]:
    records = []
    for number in range(first, last):
        time, name = START + number * 60_000, f"e{number}"
        content = b'{"id": "%b", "at": %d, "x": 1, "z": 2, "c": "c%d"}' % (name.encode(), time, number % 3)
        records.append(OutRecord(EVENTS, name.encode(), content, time, 0))
        label = b'{"id": "%b", "y": %d}' % (name.encode(), number % 2)
        records.append(OutRecord(LABELS, name.encode(), label, time + 1, 0))
    return with_clocks(records)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_PII_KEY", KEY)
    return tmp_path / "p"


def started(folder, **first) -> MemoryBroker:
    """A project that has run once over some records."""
    broker = fill(MemoryBroker(), stream(0, 20))
    run(make_project(folder, **first), broker)
    for record in stream(20, 40):
        broker.append(record)
    return broker


def test_with_the_same_key_it_goes_on_and_labels_find_their_events(folder):
    broker = started(folder, fields=HASHED, privacy={"id": "hash"})
    project = make_project(folder, fields=HASHED, privacy={"id": "hash"})
    run(project, broker)
    rows, hashes = rows_of(project, EXAMPLES), Pseudonyms(KEY.encode())
    assert {row["id"] for row in rows} == {hashes.of_id(f"e{number}") for number in range(40)}
    assert {row["f_c"] for row in rows} == {hashes.of_field("c", f"c{number}") for number in range(3)}


def test_another_key_is_refused_before_anything_is_taken_over(folder, monkeypatch):
    broker = started(folder, fields=HASHED)
    before = broker.records(JOURNAL), broker.records(PREDICTED)
    monkeypatch.setenv("HEADRACE_PII_KEY", OTHER)
    with pytest.raises(CheckpointError, match=r"is not the one that the state was made with.*Give the earlier key"):
        run(make_project(folder, fields=HASHED), broker)
    assert (broker.records(JOURNAL), broker.records(PREDICTED)) == before
    monkeypatch.delenv("HEADRACE_PII_KEY")
    with pytest.raises(SettingsError, match="give it in HEADRACE_PII_KEY"):
        run(make_project(folder, fields=HASHED), broker)


@pytest.mark.parametrize(
    "late", [{"fields": HASHED}, {"fields": DROPPED}, {"privacy": {"id": "hash"}, "fields": CLEAR}]
)
def test_a_mark_on_what_was_in_clear_is_refused(folder, late):
    broker = started(folder, fields=CLEAR)
    with pytest.raises(CheckpointError, match=r"in clear so far.*start anew: move"):
        run(make_project(folder, **late), broker)


def test_of_a_project_with_marks_a_second_mark_on_what_was_in_clear_is_refused(folder):
    first = {**HASHED, "z": "number"}
    broker = started(folder, fields=first)
    with pytest.raises(CheckpointError, match=r"field 'z' is personal now, and was in clear so far"):
        run(make_project(folder, fields={**first, "z": {"type": "number", "pii": "drop"}}), broker)
    with pytest.raises(CheckpointError, match=r"privacy\.id was clear so far and is hash now"):
        run(make_project(folder, fields=first, privacy={"id": "hash"}), broker)


def test_a_foreign_key_is_noticed_and_not_quoted(folder):
    project = make_project(folder, fields=HASHED, privacy={"id": "hash"})
    hashes = Pseudonyms(KEY.encode())
    machine = make_machine(make_project(folder))
    template = machine.process([RawRecord(EVENTS, 0, 0, START, b"e1", stream(1, 2)[0].value)])[0]
    assert isinstance(template, Predicted)
    predicted = replace(template, id=hashes.of_id("e1"))
    for key, is_foreign in ((b"e1", False), (b"secret", True), (None, True), (b"\xff", True)):
        check = KeyCheck(project.settings, 0, 1, hashes)
        check.look([RawRecord(EVENTS, 0, 0, START, key, b"")], [predicted])
        assert (check.found is not None) == is_foreign
        assert "secret" not in str(check.found)
