"""Every class of bad input that we know of: one reason, or a good record whose meaning is written down here."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.project_file import parse_settings
from core.reasons import UNREADABLE_HEADER
from core.records import BadRecord, Decoder, Event, Label
from core.strict_json import MAX_DEPTH

NOW = 1_700_000_000_000
DECODER = Decoder(
    parse_settings(
        "{name: a, id: m.id, time: m.at, fields: {x: number, c: category, t: text}, "
        "label: {path: y, positive: 1, negative: 0}}"
    )
)
DIGITS = b"9" * 5_000


def event(more: bytes = b'"x": 1', identifier: bytes = b'"e1"', at: bytes = b"1600000000000") -> bytes:
    return b'{"m": {"id": ' + identifier + b', "at": ' + at + b"}, " + more + b"}"


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


BAD = {
    "a tombstone": (None, "empty"),
    "no bytes": (b"", "empty"),
    "a byte order mark": (b"\xef\xbb\xbf" + event(), "malformed"),
    "UTF-16": (event().decode().encode("utf-16"), "malformed"),
    "not UTF-8 in a value": (event(b'"t": "\xff"'), "malformed"),
    "not UTF-8 where nothing is read": (event(b'"more": "\xff"'), "malformed"),
    "a surrogate in UTF-8": (event(identifier=b'"\xed\xa0\x80"'), "malformed"),
    "a lone surrogate in the id": (event(identifier=b'"\\ud800"'), "malformed"),
    "a lone surrogate in a text": (event(b'"t": "\\udc00"'), "malformed"),
    "a lone surrogate where nothing is read": (event(b'"more": "\\ud800"'), "malformed"),
    "an empty object": (b"{}", "bad_id"),
    "an array": (b"[1, 2]", "wrong_type"),
    "null": (b"null", "wrong_type"),
    "a text": (b'"e1"', "wrong_type"),
    "two documents": (event() + event(), "malformed"),
    "cut off": (event()[:-3], "malformed"),
    "NaN": (event(b'"x": NaN'), "malformed"),
    "minus infinity": (event(b'"x": -Infinity'), "malformed"),
    "1e999": (event(b'"x": 1e999'), "wrong_type"),
    "1e999 as a time": (event(at=b"1e999"), "wrong_type"),
    "an id of 5,000 digits": (event(identifier=DIGITS), "wrong_type"),
    "an id of 4,000 digits": (event(identifier=DIGITS[:4_000]), "bad_id"),
    "a time of 5,000 digits": (event(at=DIGITS), "wrong_type"),
    "a time of 4,000 digits": (event(at=DIGITS[:4_000]), "bad_time"),
    "a number of 5,000 digits": (event(b'"x": ' + DIGITS), "wrong_type"),
    "a category of 5,000 digits": (event(b'"c": ' + DIGITS), "wrong_type"),
    "a category of 4,000 digits": (event(b'"c": ' + DIGITS[:4_000]), "out_of_bounds"),
    "a hundred thousand arrays": (event(b'"more": ' + nested(100_000)), "malformed"),
    "a hundred thousand arrays that do not end": (b"[" * 100_000, "malformed"),
    "a hundred thousand objects": (b'{"m":' * 100_000, "malformed"),
    "nested one level too deep": (event(b'"more": ' + nested(MAX_DEPTH)), "malformed"),
    "nested as deep as msgspec allows": (event(b'"more": ' + nested(900)), "malformed"),
    "a quote that does not end, and brackets": (b'"' + b'\\"[' * 10_000, "malformed"),
    "a text of two megabytes": (event(b'"t": "' + b"x" * 2_000_000 + b'"'), "oversized"),
    "a key twice": (event(b'"x": 1, "x": 2'), "duplicate_key"),
    "a key twice with the same value": (event(b'"x": 1, "x": 1'), "duplicate_key"),
    "a key twice, once as null": (event(b'"x": 1, "x": null'), "duplicate_key"),
    "a key twice, once escaped": (event(b'"x": 1, "\\u0078": 2'), "duplicate_key"),
    "the id twice": (b'{"m": {"id": "a", "at": 1, "id": "b"}}', "duplicate_key"),
    "the parent twice": (b'{"m": {"id": "a", "at": 1}, "m": {"id": "b"}}', "duplicate_key"),
    "a control character in a text": (event(b'"t": "a\x00b"'), "malformed"),
}

GOOD = {
    "a key twice that is not read": (event(b'"more": 1, "more": 2'), Event("e1", 1_600_000_000_000, {}, True)),
    "a name in two objects": (event(b'"x": 1, "more": {"x": 2, "id": 3}'), Event("e1", 1_600_000_000_000, {}, True)),
    "a key's name as a value": (event(b'"c": "x", "t": "id"'), Event("e1", 1_600_000_000_000, {})),
    "an id with a NUL": (event(identifier=b'"a\\u0000b"'), Event("a\0b", 1_600_000_000_000, {})),
    "an id of 25 digits": (event(identifier=DIGITS[:25]), Event("9" * 25, 1_600_000_000_000, {})),
    "an id in composed form": (event(identifier='"é"'.encode()), Event("é", 1_600_000_000_000, {})),
    "an id in decomposed form": (event(identifier=b'"e\xcc\x81"'), Event("e\u0301", 1_600_000_000_000, {})),
    "a surrogate pair": (event(identifier=b'"\\ud83d\\ude00"'), Event("\U0001f600", 1_600_000_000_000, {})),
    "nested as deep as may be": (event(b'"more": ' + nested(MAX_DEPTH - 1)), Event("e1", 1_600_000_000_000, {}, True)),
    "brackets in a text": (event(b'"t": "' + b"[{" * 500 + b'"'), Event("e1", 1_600_000_000_000, {})),
    "many arrays beside each other": (
        event(b'"more": [' + b"[]," * 500 + b"[]]"),
        Event("e1", 1_600_000_000_000, {}, True),
    ),
    "digits where nothing is read": (event(b'"more": ' + DIGITS), Event("e1", 1_600_000_000_000, {}, True)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_one_reason(name):
    value, reason = BAD[name]
    found = DECODER.read("a.events", value, NOW, ())
    assert isinstance(found, BadRecord)
    assert (found.kind, found.reason) == ("event", reason)
    assert 0 < len(found.detail) <= 400


@pytest.mark.parametrize("name", GOOD)
def test_odd_input_that_is_good_means_one_thing(name):
    value, expected = GOOD[name]
    found = DECODER.read("a.events", value, NOW, ())
    assert isinstance(found, Event)
    assert (found.id, found.time, found.unknown) == (expected.id, expected.time, expected.unknown)


def test_ids_are_compared_character_by_character_and_not_normalised():
    composed, decomposed = (
        DECODER.read("a.events", GOOD[f"an id in {form} form"][0], NOW, ()).id for form in ("composed", "decomposed")
    )
    assert composed != decomposed


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"m": {"id": "e1"}, "y": 1, "y": 0}', "duplicate_key"),
        (b'{"m": {"id": "e1"}, "y": ' + DIGITS + b"}", "wrong_type"),
        (b'{"m": {"id": "e1"}, "y": ' + DIGITS[:4_000] + b"}", "bad_label"),
        (b'{"m": {"id": "e1"}, "y": ' + nested(100_000) + b"}", "malformed"),
        (b'{"m": {"id": "e1"}, "y": 1e999}', "wrong_type"),
        (None, "empty"),
    ],
)
def test_bad_labels_have_one_reason(value, reason):
    found = DECODER.read("a.labels", value, NOW, ())
    assert isinstance(found, BadRecord)
    assert (found.kind, found.reason) == ("label", reason)


@pytest.mark.parametrize("reason", ["oversized_batch", "unreadable_batch"])
def test_a_record_that_stands_for_one_of_an_unreadable_batch(reason):
    mark = ((UNREADABLE_HEADER, reason.encode()),)
    for topic, kind in (("a.events", "event"), ("a.labels", "label")):
        found = DECODER.read(topic, None, NOW, mark)
        assert isinstance(found, BadRecord)
        assert (found.kind, found.reason) == (kind, reason)


def test_a_producer_that_forges_the_mark_gains_nothing():
    mark = ((UNREADABLE_HEADER, b"oversized_batch"),)
    assert isinstance(DECODER.read("a.events", event(), NOW, mark), Event)
    assert DECODER.read("a.events", b"", NOW, mark).reason == "empty"
    assert DECODER.read("a.events", None, NOW, ((UNREADABLE_HEADER, b"no such reason"),)).reason == "empty"


def at_depth(frames: int, value: bytes) -> object:
    return DECODER.read("a.events", value, NOW, ()) if frames == 0 else at_depth(frames - 1, value)


@pytest.mark.parametrize(
    "name", [name for name in BAD if "nested" in name or "hundred" in name] + ["nested as deep as may be"]
)
def test_what_a_record_means_does_not_depend_on_the_callers_stack(name):
    value = (BAD | GOOD)[name][0]
    results = []
    thread = threading.Thread(target=lambda: results.extend(at_depth(frames, value) for frames in (0, 300, 700)))
    thread.start()
    thread.join()
    assert results[0] == results[1] == results[2]


def test_what_is_good_does_not_depend_on_pythons_limit_for_integers():
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        for value, _ in BAD.values():
            assert isinstance(DECODER.read("a.events", value, NOW, ()), BadRecord)
        for value, _ in GOOD.values():
            assert isinstance(DECODER.read("a.events", value, NOW, ()), Event)
    finally:
        sys.set_int_max_str_digits(limit)


keys = st.sampled_from(["m", "id", "at", "x", "c", "y", "more"])
tree = st.recursive(
    st.sampled_from([b"1", b'"x"', b"null", b"true", b'"\\u0078"', b"1.5"]),
    lambda inner: st.lists(st.tuples(keys, inner), max_size=4).map(
        lambda pairs: b"{" + b",".join(b'"%s":%s' % (key.encode(), value) for key, value in pairs) + b"}"
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(keys, tree), max_size=4))
def test_whatever_keys_there_are_a_good_record_has_each_that_is_read_once(pairs):
    value = b"{" + b",".join(b'"%s":%s' % (key.encode(), content) for key, content in pairs) + b"}"
    for topic in ("a.events", "a.labels"):
        found = DECODER.read(topic, value, NOW, ())
        if isinstance(found, (Event, Label)):
            read = [key for key, _ in pairs if key != "more"]
            assert len(read) == len(set(read))
