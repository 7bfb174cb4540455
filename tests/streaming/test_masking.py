"""Dead letters of a project with personal values: what they keep, and how they come back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.project_file import parse_settings
from core.pseudonyms import Pseudonyms
from core.records import BadRecord
from streaming import dead_letters
from streaming.dead_letters import originals, plain_publish, read_for_replay, read_letters, replay
from streaming.masking import Mask
from streaming.memory_broker import MemoryBroker
from streaming.messages import dead_letter_message
from streaming.outputs import DeadLetter
from streaming.transport import OutRecord, RawRecord

KEY = Pseudonyms(b"0123456789abcdef")
MARK = "Zq7Marker"
TEXT = (
    "{name: a, id: id, time: at, fields: {x: number, hub: category, mail: {type: category, path: who.mail, pii: hash},"
    " note: {type: text, pii: drop}}, label: {path: y, positive: 1, negative: 0}%s}"
)
FIELDS, IDS = parse_settings(TEXT % ""), parse_settings(TEXT % ", privacy: {id: hash}")
DEAD = "a.dead-letters"


def bad(value: bytes | None, key: bytes | None = b"e1", topic: str = "a.events", headers=((MARK, b"1"),)) -> RawRecord:
    return RawRecord(topic, 0, 3, 7_000, key, value, headers)


def json_of(**content: object) -> bytes:
    return json.dumps(content).encode()


def test_only_what_is_read_in_clear_stays():
    value = json_of(id="e1", at=5, x=2, hub="a", who={"mail": MARK, "name": MARK}, note=MARK, other=MARK)
    masked = Mask(FIELDS, KEY)(bad(value))
    kept = {"id": "e1", "at": 5, "x": 2, "hub": "a", "who": {"mail": KEY.of_field("mail", MARK)}}
    assert json.loads(masked.record.value) == kept
    assert (masked.record.key, masked.record.headers) == (b"e1", ())
    assert masked.headers == {"headrace-masked": "fields"}


def test_text_in_place_of_a_number_and_structures_in_place_of_values_go():
    value = json_of(id=[MARK], at={"a": MARK}, x=MARK, hub=[MARK], who=MARK)
    assert Mask(FIELDS, KEY)(bad(value)).record.value == b"{}"


def test_a_label_keeps_its_outcome_and_the_hash_of_its_id():
    value = json_of(id=MARK, y=3, mail=MARK)
    masked = Mask(IDS, KEY)(bad(value, MARK.encode(), "a.labels"))
    assert json.loads(masked.record.value) == {"y": 3, "id": KEY.of_id(MARK)}
    assert masked.record.key == KEY.of_id(MARK).encode()


@pytest.mark.parametrize("value", [b'{"id": "e1", "note": "Zq7Marker', b"\xffZq7Marker", b'["Zq7Marker"]', b"NaN"])
def test_of_what_is_no_object_length_and_digest_stay(value):
    masked = Mask(FIELDS, KEY)(bad(value, MARK.encode()))
    assert (masked.record.key, masked.record.value) == (None, None)
    assert masked.headers["headrace-bytes"] == str(len(value))
    assert masked.headers["headrace-digest"] == KEY.of_bytes(value)


def test_it_is_kept_raw_where_the_project_says_so():
    settings = parse_settings(TEXT % ", privacy: {undecodable: raw}")
    assert Mask(settings, KEY)(bad(b"{cut")).record.value == b"{cut"


def test_a_key_that_is_not_the_id_goes():
    assert Mask(FIELDS, KEY)(bad(json_of(id="e1"), MARK.encode())).record.key is None
    assert Mask(FIELDS, KEY)(bad(json_of(id=7), b"7")).record.key == b"7"


def test_in_a_shared_topic_a_path_is_hidden_if_it_is_in_either_kind():
    text = (
        "{name: a, id: id, time: at, fields: {x: number, y: {type: text, pii: drop}}, privacy: {id: hash},"
        " label: {path: y, id: of}, topics: {events: t, labels: t, kind: {path: kind}}}"
    )
    masked = Mask(parse_settings(text), KEY)(bad(json_of(id=MARK, of=MARK, y=MARK, kind="event"), topic="t"))
    assert MARK.encode() not in masked.record.value


def test_a_project_without_marks_keeps_everything():
    settings = parse_settings("{name: a, id: id, time: at, fields: {x: number}, label: {path: y}}")
    record = bad(b"anything", b"any")
    assert Mask(settings, None)(record).record is record


def with_marker(values):
    return st.recursive(
        values,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([MARK, "id", "who", "mail", "note", "at", "other"]), inner, max_size=4)
        ),
        max_leaves=12,
    )


@given(
    st.dictionaries(
        st.sampled_from(["x", "who", "mail", "note", "other", MARK]), with_marker(st.sampled_from([MARK, 1, None]))
    ),
    st.integers(0, 60),
)
def test_no_personal_value_survives_wherever_it_is(content, cut):
    """Of everything but the fields in clear: also when the record is cut off."""
    for value in (json_of(**content), json_of(**content)[:cut]):
        message = dead_letter_message(
            DeadLetter(
                (masked := Mask(IDS, KEY)(bad(value, MARK.encode()))).record,
                BadRecord("event", "malformed", ""),
                masked.headers,
            ),
            DEAD,
        )
        written = b"|".join([message.key or b"", message.value or b"", *(n.encode() + c for n, c in message.headers)])
        assert MARK.encode() not in written


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(dead_letters, "QUIET_S", 0.02)


def broker_with(record: OutRecord, settings) -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topics({"a.events": 1, "a.labels": 1, DEAD: 1})
    broker.append(record)
    (lies,) = broker.records("a.events")
    masked = Mask(settings, KEY)(lies)
    broker.append(
        dead_letter_message(DeadLetter(masked.record, BadRecord("event", "wrong_type", ""), masked.headers), DEAD)
    )
    return broker


def test_a_replay_sends_the_record_itself(quick):
    record = OutRecord("a.events", b"e1", json_of(id="e1", note=MARK), 7_000, 0, (("trace", b"1"),))
    broker = broker_with(record, IDS)
    consumer, producer = broker.consumer("g"), broker.producer()
    publish = plain_publish(producer, DEAD)
    letters = read_for_replay(consumer, publish, DEAD, 1, IDS)
    (letter,) = letters.by_place.values()
    assert letter.masked
    assert letter.id == KEY.of_id("e1")
    replay(consumer, publish, DEAD, [letter])
    first, again = broker.records("a.events")
    assert (again.key, again.value, again.timestamp) == (first.key, first.value, first.timestamp)
    assert again.headers[0] == ("trace", b"1")
    assert read_letters(consumer, DEAD, 1, IDS).replays[letter.place] == 1


def test_a_letter_whose_record_is_gone_is_not_replayed(quick):
    broker = broker_with(OutRecord("a.events", b"e1", json_of(id="e1"), 7_000, 0), IDS)
    consumer = broker.consumer("g")
    (letter,) = read_letters(consumer, DEAD, 1, IDS).by_place.values()
    assert [found for found, _ in originals(consumer, [letter])] == [letter]
    assert list(originals(consumer, [replace(letter, offset=9)])) == []
    assert list(originals(consumer, [replace(letter, timestamp=1)])) == []
