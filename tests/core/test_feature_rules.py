"""Features in the project file: what is made of it, and what is refused and why."""

from __future__ import annotations

import pytest
import yaml

from core.errors import SettingsError
from core.generated import Generator
from core.project_file import parse_settings

BASE = {
    "name": "a",
    "id": "id",
    "time": "at",
    "fields": {"x": "number", "shop": "category", "card": {"type": "category", "pii": "drop"}, "note": "text"},
    "label": "y",
}


def parsed(features, **changes):
    return parse_settings(yaml.safe_dump({**BASE, **changes, "features": features}))


def per_key(**one):
    return {"per_key": [{"name": "f", "key": "shop", "kind": "count", **one}]}


def test_kinds_and_keys():
    settings = parsed(
        {
            "calendar": ["hour", "day"],
            "interactions": [["shop", "event_hour"]],
            "online_only": ["event_day"],
            **per_key(kind="last", of="shop"),
        }
    )
    made = {"event_hour": "category", "event_day": "number", "shop_x_event_hour": "category", "f": "category"}
    assert settings.feature_kinds == {"x": "number", "shop": "category", "note": "text", **made}
    assert "event_day" not in settings.batch_kinds
    assert settings.key_fields == ("shop",)


@pytest.mark.parametrize(
    ("features", "changes", "said"),
    [
        (
            per_key(),
            {"topics": {"partitions": 4}},
            ["4 partitions", "the event's id", "topics.partitions", "key: shop"],
        ),
        (per_key(), {"topics": {"partitions": 4, "key": "note"}}, ["'note' is a text"]),
        (per_key(key="card"), {}, ["'card'", "of which something is kept"]),
        (per_key(key="x"), {}, ["'x' is a number", "category"]),
        (per_key(kind="mean"), {}, ["needs 'of: FEATURE'"]),
        (per_key(kind="mean", of="shop"), {}, ["mean is of numbers"]),
        (per_key(kind="mean", of="nothing"), {}, ["'nothing' is no feature"]),
        (per_key(kind="last", of="note"), {}, ["not of text"]),
        (per_key(kind="time_since", half_life="1d"), {}, ["no half_life"]),
        (per_key(name="x"), {}, ["two features have the name 'x'"]),
        (per_key(kind="label_mean", outcome="a"), {}, ["remove 'outcome'"]),
        (per_key(kind="label_mean"), {"task": "multiclass"}, ["needs 'outcome: CLASS'"]),
        ({"interactions": [["x", "shop"]]}, {}, ["all numbers, or all categories"]),
        ({"interactions": [["x", "y"]]}, {}, ["'y'", "no feature of the event"]),
        ({"time_zone": "Mars/Base"}, {}, ["no time zone"]),
        ({"function": "f.py:g"}, {}, ["needs outputs"]),
        ({"online_only": ["q"]}, {}, ["'q'", "no feature"]),
    ],
)
def test_what_is_refused_says_why_and_what_to_do(features, changes, said):
    with pytest.raises(SettingsError) as found:
        parsed(features, **changes)
    for word in said:
        assert word in str(found.value)


def test_a_key_lives_in_its_partition_where_topics_are_keyed_by_part_of_it():
    features = {"per_key": [{"name": "f", "key": ["shop", "kind"], "kind": "count"}]}
    fields = {**BASE["fields"], "kind": "category"}
    assert parsed(features, fields=fields, topics={"partitions": 4, "key": "shop"}).key_fields == ("kind", "shop")


def test_the_calendar_is_that_of_the_zone_and_interactions_are_missing_with_a_part():
    make = Generator(["hour", "weekday", "weekend", "month"], "America/New_York", [["x", "z"], ["c", "event_weekend"]])
    made = make({"x": 2.0, "z": None, "c": "a"}, 1_700_000_000_000)  # 2023-11-14 22:13:20 UTC
    assert (made["event_hour"], made["event_weekday"], made["event_month"]) == ("17", "tue", "11")
    assert (made["x_x_z"], made["c_x_event_weekend"]) == (None, "a|false")
    assert make({"x": -1e30, "z": 1e30, "c": None}, 0)["x_x_z"] == -1e30
