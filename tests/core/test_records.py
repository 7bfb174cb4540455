from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.durations import DAY
from core.errors import SettingsError
from core.project_file import parse_settings
from core.records import BadRecord, Decoder, Event, Label

NOW = 1_700_000_000_000
PROJECT = """
name: shop
task: {task}
id: meta.id
time: meta.at
time_unit: {unit}
fields:
  amount: {{type: number, path: cart.amount, minimum: 0, maximum: 100, nullable: false}}
  city: {{type: category}}
  gift: {{type: bool}}
  note: {{type: text}}
label: {{id: ref, path: result.value, {label}}}
topics: {{max_bytes: 2000}}
"""
OUTCOMES = {"binary": "positive: paid, negative: unpaid", "multiclass": "classes: [a, b]", "regression": "minimum: 0"}


def decoder(task: str = "binary", unit: str = "ms", label: str | None = None) -> Decoder:
    text = PROJECT.format(task=task, unit=unit, label=OUTCOMES[task] if label is None else label)
    return Decoder(parse_settings(text))


def event(**changes: object) -> dict:
    content = {"meta": {"id": "e1", "at": NOW}, "cart": {"amount": 5}, "city": "Rome", "gift": True, "note": "hi"}
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        if value is ...:
            del node[leaf]
        else:
            node[leaf] = value
    return content


def raw(content: object) -> bytes:
    return json.dumps(content).encode()


def test_an_event_is_read_from_nested_paths():
    read = decoder().event(raw(event()), NOW)
    assert read == Event("e1", NOW, {"amount": 5.0, "city": "Rome", "gift": True, "note": "hi"})
    assert type(read.fields["amount"]) is float


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"{" + b" " * 2000 + b"}", "oversized"),
        (b"{", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b'{"meta": {"id": "\\ud800", "at": 1}}', "malformed"),
        (b"[1]", "wrong_type"),
        (b"[" * 90, "wrong_type"),
        (b"[" * 1900, "malformed"),
        (b'{"z":' + b"[" * 1900, "malformed"),
        (raw(event(cart__amount="5")), "wrong_type"),
        (raw(event(cart__amount=True)), "wrong_type"),
        (raw(event(cart=3)), "wrong_type"),
        (raw(event(gift="yes")), "wrong_type"),
        (raw(event(gift=1)), "wrong_type"),
        (raw(event(city=1.5)), "wrong_type"),
        (raw(event(city={"name": "Rome"})), "wrong_type"),
        (raw(event(cart__amount=...)), "missing_field"),
        (raw(event(cart__amount=None)), "missing_field"),
        (raw(event(cart=...)), "missing_field"),
        (raw(event(cart__amount=-0.1)), "out_of_bounds"),
        (raw(event(cart__amount=101)), "out_of_bounds"),
        (raw(event(city="x" * 300)), "out_of_bounds"),
        (raw(event(cart__amount=math.nan)), "malformed"),
        (raw(event(cart__amount=math.inf)), "malformed"),
        (b'{"meta": {"id": "e", "at": 1}, "cart": {"amount": 1e999}}', "wrong_type"),
        (raw(event(meta__id=...)), "bad_id"),
        (raw(event(meta__id="")), "bad_id"),
        (raw(event(meta__id="x" * 513)), "bad_id"),
        (raw(event(meta=...)), "bad_id"),
        (raw(event(meta__id=1.5)), "wrong_type"),
        (raw(event(meta__at=...)), "bad_time"),
        (raw(event(meta__at="yesterday")), "bad_time"),
        (raw(event(meta__at=-1)), "bad_time"),
        (raw(event(meta__at=10**17)), "bad_time"),
        (raw(event(meta__at="0001-01-01T00:00:00+23:59")), "bad_time"),
        (raw(event(meta__at=NOW + DAY + 1)), "time_ahead"),
    ],
)
def test_each_kind_of_bad_event_has_its_reason(value, reason):
    bad = decoder().event(value, NOW)
    assert isinstance(bad, BadRecord), bad
    assert (bad.kind, bad.reason) == ("event", reason)
    assert 0 < len(bad.detail) <= 400


def test_missing_and_null_are_the_same_where_a_field_may_be_missing():
    absent, null = (decoder().event(raw(event(city=value)), NOW) for value in (..., None))
    assert absent == null
    assert absent.fields["city"] is None


def test_unknown_fields_are_counted_not_refused():
    assert decoder().event(raw(event(extra=[1, {"a": None}])), NOW).unknown
    assert decoder().event(raw(event(cart__more=1)), NOW).unknown
    assert not decoder().event(raw(event()), NOW).unknown
    assert decoder().event(raw(event(extra=1, gift=3)), NOW).reason == "wrong_type"


def test_categories_are_text_whatever_their_json_type():
    assert [decoder().event(raw(event(city=value)), NOW).fields["city"] for value in (7, True, "7")] == [
        "7",
        "True",
        "7",
    ]


def test_a_number_and_its_text_are_the_same_id():
    assert decoder().event(raw(event(meta__id=7)), NOW).id == decoder().event(raw(event(meta__id="7")), NOW).id == "7"


@pytest.mark.parametrize(
    ("unit", "written"),
    [("s", NOW // 1000), ("s", NOW / 1000), ("ms", NOW), ("us", NOW * 1000), ("ns", NOW * 1_000_000)]
    + [("s", text) for text in ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20", "2023-11-15T00:13:20+02:00")],
)
def test_times_as_users_have_them(unit, written):
    assert decoder(unit=unit).event(raw(event(meta__at=written)), NOW).time == NOW


@pytest.mark.parametrize("stamp", [-1, 10**18, 2**63 - 1])
def test_a_record_whose_time_stamp_is_no_time_is_refused(stamp):
    label = raw({"ref": "e1", "result": {"value": "paid"}})
    assert decoder().event(raw(event()), stamp).reason == "bad_time"
    assert decoder().label(label, stamp).reason == "bad_time"


@pytest.mark.parametrize(
    ("task", "label", "value", "outcome"),
    [
        ("binary", None, "paid", 1),
        ("binary", None, "unpaid", 0),
        ("binary", "", True, 1),
        ("binary", "", 0, 0),
        ("binary", "positive: 1, negative: 0", 1.0, 1),
        ("multiclass", None, "b", "b"),
        ("multiclass", "", 3, "3"),
        ("regression", None, 2, 2.0),
        ("regression", "", -1e12, -1e12),
    ],
)
def test_outcomes_of_each_task(task, label, value, outcome):
    read = decoder(task, label=label).label(raw({"ref": "e1", "result": {"value": value}}), 9)
    assert read == Label("e1", 9, outcome)
    assert type(read.outcome) is type(outcome)


@pytest.mark.parametrize(
    ("task", "values"),
    [
        ("binary", ["maybe", 1, True, None, [], {"a": 1}, "1"]),
        ("multiclass", ["c", "", True, 1.5, None, ["a"], "x" * 300]),
        ("regression", ["1", True, None, -1, 1e13, 10**400, -(10**400), [1.0]]),
    ],
)
def test_what_is_no_outcome_is_a_bad_label(task, values):
    for value in values:
        bad = decoder(task).label(raw({"ref": "e1", "result": {"value": value}}), 9)
        assert isinstance(bad, BadRecord), value
        assert (bad.kind, bad.reason) == ("label", "bad_label")


def test_bad_labels_of_other_kinds():
    read = decoder().label
    assert read(raw({"result": {"value": "paid"}}), 9).reason == "bad_id"
    assert read(b"", 9).reason == "empty"
    assert read(b"nope", 9).reason == "malformed"
    assert read(raw({"ref": "e1"}), 9).reason == "bad_label"
    timed = decoder(label="positive: 1, negative: 0, time: known_at").label
    content = {"ref": "e1", "result": {"value": 1}}
    assert timed(raw({**content, "known_at": NOW}), NOW) == Label("e1", NOW, 1)
    assert timed(raw(content), NOW).reason == "bad_time"
    assert timed(raw({**content, "known_at": NOW + 2 * DAY}), NOW).reason == "time_ahead"


ONE = """
name: shop
id: id
time: at
fields: {x: number}
label: {path: y, positive: 1, negative: 0}
topics: {events: all, labels: all, kind: {path: head.kind, event: E, label: L}}
"""


def test_one_topic_for_both_kinds():
    read = Decoder(parse_settings(ONE)).for_topic("all")
    assert read(b'{"head": {"kind": "E"}, "id": 1, "at": 5, "x": 2}', 9) == Event("1", 5, {"x": 2.0})
    assert read(b'{"head": {"kind": "L"}, "id": 1, "y": 1}', 9) == Label("1", 9, 1)
    assert read(b'{"head": {"kind": "L"}, "id": 1, "y": 2}', 9) == BadRecord(
        "label", "bad_label", "y: 2 is no outcome of this task, neither label.positive 1 nor label.negative 0"
    )
    assert read(b'{"head": {"kind": "X"}}', 9).reason == "unknown_kind"
    assert read(b"{}", 9).reason == "unknown_kind"
    assert read(b'{"head": {"kind": 1}}', 9).reason == "wrong_type"
    assert read(b"{", 9).reason == "malformed"


def test_a_text_where_bools_are_wanted_says_to_quote_it():
    label = Decoder(parse_settings("{name: a, id: id, time: at, fields: {x: number}, label: {path: y, positive: yes}}"))
    assert label.label(b'{"id": 1, "y": "yes"}', 9).detail.endswith('so quote a text: "yes"')
    assert "quote" not in label.label(b'{"id": 1, "y": 5}', 9).detail


def test_two_topics_are_told_apart_by_name():
    settings_ = parse_settings("{name: a, id: id, time: at, fields: {x: number}, label: y}")
    read = Decoder(settings_)
    assert isinstance(read.for_topic("a.events")(b'{"id": 1, "at": 5}', 9), Event)
    assert isinstance(read.for_topic("a.labels")(b'{"id": 1, "y": true}', 9), Label)


def test_two_fields_may_read_the_same_path_as_different_types():
    text = "{name: a, id: v, time: v, fields: {n: {type: number, path: v}, c: {type: category, path: v}}, label: y}"
    read = Decoder(parse_settings(text)).event
    assert read(b'{"v": 5}', 9).fields == {"n": 5.0, "c": "5"}
    assert read(b'{"v": "1970-01-01"}', 9).reason == "wrong_type"
    assert read(b'{"v": true}', 9).reason == "bad_id"


def test_a_path_inside_a_value_is_a_mistake_in_the_settings():
    with pytest.raises(SettingsError, match=r"'v\.w'"):
        parse_settings(
            "{name: a, id: id, time: at, fields: {a: {type: number, path: v}, b: {type: text, path: v.w}}, label: y}"
        )


# what follows holds for anything that can be in a topic

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.integers(10**300, 10**320),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
stamps = st.integers(-(2**63), 2**63 - 1) | st.just(NOW)


def all_decoders() -> list:
    made = [decoder(task) for task in OUTCOMES]
    return [read for d in made for read in (d.event, d.label)] + [Decoder(parse_settings(ONE)).either]


READERS = all_decoders()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), stamps)
def test_no_bytes_raise(value, stamp):
    for read in READERS:
        assert isinstance(read(value, stamp), (BadRecord, Event, Label))


@settings(max_examples=300, deadline=None)
@given(st.data(), stamps)
def test_no_json_raises_and_what_passes_is_clean(data, stamp):
    content = event()
    for path in data.draw(st.sets(st.sampled_from(["meta__id", "meta__at", "cart__amount", "city", "gift", "note"]))):
        *parents, leaf = path.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        node[leaf] = data.draw(anything)
    content |= {"ref": data.draw(anything), "result": {"value": data.draw(anything)}}
    content |= {"head": {"kind": data.draw(st.sampled_from(["E", "L"]))}, "id": 1, "at": 1, "y": data.draw(anything)}
    for read in READERS:
        found = read(raw(content), stamp)
        if isinstance(found, BadRecord):
            assert found.detail
            continue
        assert 0 < len(found.id) <= 512
        assert found.id.encode()
        assert 0 <= found.time <= stamp + DAY
        for value in found.fields.values() if isinstance(found, Event) else [found.outcome]:
            assert value is None or isinstance(value, (str, bool)) or math.isfinite(value)
