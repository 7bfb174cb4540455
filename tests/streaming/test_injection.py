"""Injected drift: what changes, what does not, and how an injection is written."""

from __future__ import annotations

import json
import math
from statistics import stdev

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_lab import make_project

from core.durations import DAY, HOUR, parse_iso
from core.errors import UsageError
from core.project_file import parse_settings
from core.recorded import FIRST_ROW
from streaming.injection import inject, make_injectors
from streaming.injection_spec import parse_injection
from streaming.replay import read_source

START = parse_iso("2013-06-03")
HORIZON = 6 * HOUR
FIELDS = {
    "x": {"type": "number", "path": "sensors.x"},
    "z": "number",
    "c": "category",
    "on": "bool",
    "note": "text",
}


def settings_of(task="binary", **changes):
    label = {"path": "out.y", "horizon": "6h", **changes.pop("label", {})}
    content = {"name": "a", "task": task, "id": "id", "time": "at", "fields": FIELDS, "label": label, **changes}
    return parse_settings(yaml.safe_dump(content))


SETTINGS = settings_of()
KINDS = [
    "shift:x:+2sd@2013-06-03/1d",
    "shift:x:-5@2013-06-03/1d",
    "shift:c:permute@2013-06-03/1d",
    "shift:on:permute@2013-06-03/1d",
    "shift:c:a=new@2013-06-03/1d",
    "unit:x:f-to-c@2013-06-03/1d",
    "unit:x:-2x+1e3@2013-06-03/1d",
    "missing:note@2013-06-03/1d",
    "missing:x@2013-06-03/1d",
    "gradual:x:+1@2013-06-03/1d",
    "incremental:x:+1@2013-06-03/1d",
    "flip@2013-06-03/1d",
    "outage@2013-06-03/1d",
    "outage:labels@2013-06-03/1d",
]


def event(time, name, x=1.0, c="a", on=True, **more):
    content = {"id": name, "at": time, "sensors": {"x": x, "other": 7}, "c": c, "on": on, "note": "hi", **more}
    return time, "event", name, content


def label(time, name, outcome=True):
    return time, "label", name, {"id": name, "out": {"y": outcome}}


def injected(items, *specs, project=SETTINGS):
    return list(inject(items, make_injectors(specs, project)))


def xs(items):
    return [item[3]["sensors"].get("x") for item in items if item[1] == "event"]


def outcomes(items):
    return {item[2]: item[3]["out"]["y"] for item in items if item[1] == "label"}


def two_days_before():
    """What an injection learns from: numbers, categories, flags and outcomes that vary."""
    for number in range(12):
        time, name = START - 2 * DAY + number * 4 * HOUR, f"before{number}"
        yield event(time, name, float(number % 5), "abc"[number % 3], bool(number % 2))
        yield label(time + 1, name, bool(number % 2))


@st.composite
def streams(draw):
    """Two days before the injection, then events around it; labels come at once, later, twice or never."""
    items = list(two_days_before())
    count = draw(st.integers(0, 25))
    for number in range(count):
        name = f"e{number}"
        time = START + draw(st.integers(-2 * HOUR, 2 * DAY))
        x = draw(st.none() | st.integers(-9, 9) | st.floats(-1e6, 1e6))
        items.append(event(time, name, x, draw(st.sampled_from("abcd")), draw(st.booleans())))
        for _ in range(draw(st.integers(0, 2))):
            items.append(label(time + draw(st.integers(0, HORIZON)), name, draw(st.booleans())))
    order = {"event": 0, "label": 1}
    return sorted(items, key=lambda item: (item[0], order[item[1]]))


def in_span(time):
    return START <= time < START + DAY


@pytest.mark.parametrize("spec", KINDS)
@settings(deadline=None, max_examples=40)
@given(items=streams())
def test_outside_of_its_span_nothing_changes_and_order_and_ids_stay(spec, items):
    before = json.dumps(items)
    found = injected(items, spec)
    assert json.dumps(items) == before, "the source's own payloads are not touched"
    assert [item[:3] for item in found] == [item[:3] for item in items if item[:3] in {one[:3] for one in found}]
    inside = {item[2] for item in items if item[1] == "event" and in_span(item[0])}
    stays = spec.startswith(("gradual", "incremental"))

    def outside(item):
        if stays:
            return item[0] < START
        return not in_span(item[0]) if spec.startswith("outage:labels") else item[2] not in inside

    assert [item for item in found if outside(item)] == [item for item in items if outside(item)]
    if not spec.startswith("outage"):
        assert [item[:3] for item in found] == [item[:3] for item in items]
    assert injected(items, spec) == found, "twice the same"


@settings(deadline=None)
@given(items=streams())
def test_a_flip_turns_every_label_of_the_span_whenever_it_comes_and_two_turn_it_back(items):
    inside = {item[2] for item in items if item[1] == "event" and in_span(item[0])}
    found = injected(items, "flip@2013-06-03/1d")
    for was, now in zip(items, found, strict=True):
        if was[1] == "label":
            assert now[3]["out"]["y"] is (was[3]["out"]["y"] != (was[2] in inside))
        else:
            assert now == was
    assert injected(items, "flip@2013-06-03/1d", "flip@2013-06-03/1d") == items


@settings(deadline=None)
@given(items=streams())
def test_an_outage_takes_its_events_and_their_labels_and_no_others(items):
    inside = {item[2] for item in items if item[1] == "event" and in_span(item[0])}
    assert injected(items, "outage@2013-06-03/1d") == [item for item in items if item[2] not in inside]


@settings(deadline=None)
@given(items=streams())
def test_an_outage_of_labels_takes_those_that_would_have_come_in_it(items):
    kept = [item for item in items if item[1] == "event" or not in_span(item[0])]
    assert injected(items, "outage:labels@2013-06-03/1d") == kept


@pytest.mark.parametrize(
    ("spec", "events", "labels"),
    [
        ("shift:x:+2sd@2013-06-03/1d", 2, 0),
        ("shift:c:a=b@2013-06-03/1d", 1, 0),
        ("missing:x@2013-06-03/1d", 2, 0),
        ("flip@2013-06-03/1d", 0, 4),
        ("outage@2013-06-03/1d", 3, 4),
        ("outage:labels@2013-06-03/1d", 0, 4),
    ],
)
def test_it_says_how_much_it_changed(spec, events, labels):
    items = [*two_days_before(), event(START, "e", 1.0, "a"), label(START, "e"), label(START + 1, "e", False)]
    items += [event(START + 2, "f", 2.0, "c"), event(START + 3, "g", None, "d"), label(START + 3, "g")]
    items += [label(START + HOUR, "f"), event(START + DAY, "h"), label(START + DAY, "h")]
    injectors = make_injectors([spec], SETTINGS)
    list(inject(items, injectors))
    said = injectors[0].summary()
    assert (said["spec"], said["events"], said["labels"]) == (spec, events, labels)
    assert injectors[0].nothing_changed() is None


def test_an_amount_in_standard_deviations_is_in_those_of_what_came_before():
    items = [*two_days_before(), event(START, "e", 1), event(START + DAY, "after", 1.0)]
    injectors = make_injectors(["shift:x:-1.5sd@2013-06-03/1d"], SETTINGS)
    found = list(inject(items, injectors))
    amount = -1.5 * stdev(xs(items)[:12])
    assert xs(found)[-2:] == [pytest.approx(1 + amount), 1.0]
    assert injectors[0].summary()["amount"] == pytest.approx(amount)


def test_units_change_by_name_or_by_factor_and_offset():
    items = [event(START, "e", 212)]
    assert xs(injected(items, "unit:x:f-to-c@2013-06-03")) == [pytest.approx(100)]
    assert xs(injected(items, "unit:x:f-to-c@2013-06-03", "unit:x:c-to-f@2013-06-03")) == [pytest.approx(212)]
    assert xs(injected(items, "unit:x:0.5x-6@2013-06-03")) == [100.0]
    assert xs(injected(items, "unit:x:2x@2013-06-03")) == [424.0]


def test_a_gradual_change_comes_event_by_event_and_an_incremental_one_little_by_little():
    items = [event(START + minute * 60_000, f"e{minute}", 0.0) for minute in range(3 * 1440)]
    gradual = xs(injected(items, "gradual:x:+8@2013-06-03/2d"))
    assert set(gradual) == {0.0, 8.0}
    first, second, after = (sum(gradual[at : at + 1440]) / 8 / 1440 for at in (0, 1440, 2880))
    assert (first, second, after) == (pytest.approx(0.25, abs=0.05), pytest.approx(0.75, abs=0.05), 1.0)
    incremental = xs(injected(items, "incremental:x:+8@2013-06-03/2d"))
    assert incremental == [pytest.approx(8 * min(minute / 2880, 1)) for minute in range(3 * 1440)]


def test_what_recurs_is_there_in_every_period_until_the_end():
    items = [event(START + day * DAY, f"e{day}", 0.0) for day in range(-1, 9)]
    assert xs(injected(items, "shift:x:+1@2013-06-03/2d/every:4d")) == [0, 1, 1, 0, 0, 1, 1, 0, 0, 1]
    assert len(injected(items, "outage@2013-06-03/2d/every:4d")) == 5


def test_categories_change_places_or_one_becomes_another():
    items = [*two_days_before(), *(event(START, f"e{c}", c=c) for c in ["a", "b", "c", "unseen", 3])]

    def of(spec):
        return [item[3]["c"] for item in injected(items, spec)][-5:]

    items = [item for item in items if item[1] == "event"]
    assert of("shift:c:permute@2013-06-03") == ["b", "c", "a", "unseen", 3]
    assert of("shift:c:b=z=y@2013-06-03") == ["a", "z=y", "c", "unseen", 3]
    assert of("shift:c:3=a@b@2013-06-03") == ["a", "b", "c", "unseen", "a@b"]


def test_a_missing_field_is_not_in_the_payload_whatever_else_is():
    found = injected([event(START, "e")], "missing:x@2013-06-03", "missing:c@2013-06-03")[0][3]
    assert found["sensors"] == {"other": 7}
    assert "c" not in found and found["on"] is True


def test_classes_rotate_and_values_are_mirrored_at_the_mean_of_the_labels_before():
    before = [item for n, y in enumerate("acb") for item in (event(n, f"{n}"), label(n, f"{n}", y))]
    items = [*before, *(item for c in "abcd" for item in (event(START, c), label(START + 1, c, c)))]
    found = outcomes(injected(items, "flip@2013-06-03", project=settings_of("multiclass")))
    assert [found[c] for c in "abcd"] == ["b", "c", "a", "d"]
    known = settings_of("multiclass", label={"classes": ["d", "a", "b", "c"]})
    assert outcomes(injected(items, "flip@2013-06-03", project=known))["d"] == "a"

    before = [item for n in range(5) for item in (event(n, f"{n}"), label(n, f"{n}", n))]  # their mean is 2
    items = [*before, event(START, "e"), event(START, "f"), label(START, "e", 3.5), label(START, "f", 9)]
    found = outcomes(injected(items, "flip@2013-06-03", project=settings_of("regression", label={"minimum": -1})))
    assert (found["e"], found["f"]) == (0.5, -1)


def test_binary_labels_are_flipped_as_the_project_writes_them_and_bad_ones_stay():
    project = settings_of(label={"positive": "yes", "negative": "no"})
    items = [event(START, "e"), *(label(START, "e", outcome) for outcome in ("yes", "no", "perhaps", None))]
    found = injected(items, "flip@2013-06-03", project=project)
    assert [item[3]["out"]["y"] for item in found[1:]] == ["no", "yes", "perhaps", None]


def test_the_events_own_time_tells_whether_it_is_in_the_span():
    late = (START + DAY, "event", "late", event(START, "late")[3])
    items = [event(START - 1, "e"), label(START, "e"), late, label(START + DAY, "late")]
    assert outcomes(injected(items, "flip@2013-06-03/1h")) == {"e": True, "late": False}


def test_a_label_that_stands_before_its_event_at_the_same_time_is_its_label():
    assert outcomes(injected([label(START, "e"), event(START, "e")], "flip@2013-06-03")) == {"e": False}


def test_what_is_remembered_ends_with_the_horizon():
    (injector,) = make_injectors(["flip@2013-06-03"], SETTINGS)
    most = 0
    for _ in injector.stream(event(START + hour * HOUR, f"e{hour}") for hour in range(1_000)):
        most = max(most, len(injector._inside))
    assert most <= 2 * HORIZON / HOUR + 2


def test_payloads_in_bytes_are_changed_and_what_is_no_json_stays():
    items = [(time, kind, name, json.dumps(content).encode()) for time, kind, name, content in (event(START, "e"),)]
    items += [(START, "event", "bad", b"{"), (START, "event", "list", [1])]
    found = injected(items, "shift:x:+1@2013-06-03")
    assert found[0][3]["sensors"]["x"] == 2.0
    assert found[1:] == items[1:]


def test_what_is_no_number_stays_as_it_is():
    items = [event(START, "e", x) for x in (None, "text", True, math.nan, [1])]
    assert injected(items, "shift:x:+1@2013-06-03", "unit:x:2x@2013-06-03") == items


@pytest.mark.parametrize(
    ("spec", "project", "said"),
    [
        ("shift:x:+2sd@2013-06-03", SETTINGS, "0 values came before it"),
        ("shift:c:permute@2013-06-03", SETTINGS, "0 different values came before it"),
        ("flip@2013-06-03", settings_of("regression"), "no labels came before it"),
    ],
)
def test_what_nothing_came_before_cannot_be_told(spec, project, said):
    with pytest.raises(UsageError, match=f"^--inject {spec.replace('+', '[+]')}: {said}"):
        injected([event(START, "e"), label(START, "e", 1.0)], spec, project=project)


def test_an_injection_outside_of_the_stream_says_where_the_stream_is():
    (injector,) = make_injectors(["flip@2014-01-01"], SETTINGS)
    list(injector.stream([event(START, "e"), label(START, "e"), event(START + DAY, "f")]))
    said = str(injector.nothing_changed())
    assert said.startswith("--inject flip@2014-01-01: changed nothing")
    assert "2013-06-03T00:00:00Z to 2013-06-04T00:00:00Z" in said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("shift:x:+2sd", "names no start"),
        ("shock:x:+2sd@2013-06-03", "'shock:x:[+]2sd' is no kind of injection; there are shift, gradual"),
        ("shift:y:+2sd@2013-06-03", "'y' is no field of headrace.yaml; it has c, note, on, x, z"),
        ("shift:x:much@2013-06-03", "'much' does not shift x, a number; write [+]2sd"),
        ("shift:x@2013-06-03", "'' does not shift x"),
        ("shift:x:0@2013-06-03", "'0' does not shift x"),
        ("shift:x:1e999@2013-06-03", "too large"),
        ("shift:x:permute@2013-06-03", "does not shift x, a number"),
        ("shift:c:+2sd@2013-06-03", "does not shift c, a category; write permute, or OLD=NEW"),
        ("shift:on:a=b@2013-06-03", "does not shift on, a bool; write permute$"),
        ("shift:note:permute@2013-06-03", "note is a text field, which shift cannot change"),
        ("unit:c:f-to-c@2013-06-03", "c is a category field, which unit cannot change"),
        ("incremental:c:permute@2013-06-03/1d", "c is a category field, which incremental cannot change"),
        ("unit:x:f-to-k@2013-06-03", "no change of unit; write 1.8x[+]32, or one of f-to-c"),
        ("missing:x:+1@2013-06-03", "missing needs a field only"),
        ("flip:x@2013-06-03", "'flip:x' is no kind of injection"),
        ("flip@soon", "'soon' is no time; write 2013-06-03"),
        ("flip@1900-01-01", "not between the years"),
        ("flip@200rows", "'200rows' is no time"),
        ("flip@2013-06-03/500rows", "'500rows' counts rows"),
        ("flip@2013-06-03/long", "'long' is not a duration"),
        ("flip@2013-06-03/0d", "'0d' is no time at all"),
        ("flip@2013-06-03/1d/2d", "write START, START/DURATION or"),
        ("flip@2013-06-03/every:2d", "write START, START/DURATION or"),
        ("flip@2013-06-03/2d/every:2d", "every:2d is not longer than 2d"),
        ("gradual:x:+1@2013-06-03", "gradual needs to know how long it takes"),
        ("outage@2013-06-03", "outage needs to know how long it takes"),
        ("gradual:x:+1@2013-06-03/1d/every:2d", "gradual comes once and stays"),
    ],
)
def test_what_cannot_be_injected_is_said(spec, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse_injection(spec, SETTINGS)
    assert str(caught.value).startswith(f"--inject {spec}: ")
    assert "\n" not in str(caught.value)


def test_rows_are_the_time_of_a_file_without_times():
    content = {"name": "a", "fields": {"x": "number"}, "label": "y", "replay": {"file": "rows.csv"}}
    project = parse_settings(yaml.safe_dump(content))
    when = parse_injection("flip@20000 rows/500rows/every:1000 rows", project).when
    assert (when.start, when.length, when.every) == (FIRST_ROW + 20_000_000, 500_000, 1_000_000)
    with pytest.raises(UsageError, match="write such as 20000rows"):
        parse_injection("flip@2013-06-03", project)


def test_a_replay_that_goes_on_injects_what_the_first_one_would_have(tmp_path):
    before = [event(hour * HOUR, f"b{hour}", c=hour, x=hour) for hour in range(9)]
    code = f"def stream():\n    yield from {[*before, event(DAY, 'e'), label(DAY, 'e'), event(2 * DAY, 'f')]!r}\n"
    fields = {"x": {"type": "number", "path": "sensors.x"}}
    project = make_project(tmp_path, code=code, replay={"source": "code.py:stream"}, fields=fields)

    def stream(after):
        injectors = make_injectors(["shift:x:+1sd@1970-01-02"], project.settings)
        return list(read_source(project, None, after, lambda items: inject(items, injectors)))

    assert stream(DAY + 1) == stream(None)[-1:]
