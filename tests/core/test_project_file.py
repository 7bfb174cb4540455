from __future__ import annotations

from pathlib import Path

import pytest

from core.durations import DAY
from core.errors import SettingsError
from core.project import load_project, parse_settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights"
GOOD = """name: shop
id: id
time: at
fields:
  amount: number
  city: {type: category, max_categories: 5}
label:
  path: paid
  horizon: 2d
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("HEADRACE_BOOTSTRAP_SERVERS", "HEADRACE_STATE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def test_the_example_loads():
    settings = load_project(EXAMPLE).settings
    assert (settings.name, settings.task) == ("flights", "binary")
    assert not {"flight", "day"} & settings.batch_kinds.keys()
    assert {"flight", "day"} <= settings.feature_kinds.keys()
    assert settings.expert_names[0] == "champion"


def test_everything_but_five_settings_has_a_default():
    settings = parse_settings("{name: a, id: id, time: at, fields: {x: number}, label: y}")
    assert settings.input_topics == ["a.events", "a.labels"]
    assert (settings.label.path, settings.label.horizon) == ("y", 7 * DAY)
    assert parse_settings(GOOD).label.horizon == 2 * DAY


def with_line(line: str) -> str:
    return f"{GOOD}{line}\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (with_line("onlin: [linear]"), 10, ["onlin", "unknown setting", "'online'"]),
        (with_line("windows: {spam: 7d}"), 10, ["windows.spam", "did you mean 'span'"]),
        (with_line("windows: {zzzz: 7d}"), 10, ["windows.zzzz", "known here: span, sample"]),
        (with_line("windows: {span: 7 days}"), 10, ["windows.span", "not a duration", "28d, 6h"]),
        (with_line("windows: {span: -5}"), 10, ["windows.span"]),
        (with_line("retrain:\n  every: 0s"), 11, ["retrain.every", "1000"]),
        (with_line("task: ranking"), 10, ["task", "binary", "ranking"]),
        (with_line("online: [linear, linear]"), 1, ["two online experts have the same name"]),
        (with_line("online: [{name: Champion, factory: linear}]"), 1, ["reserved name"]),
        (with_line("online: [{name: a b, factory: linear}]"), 10, ["online.0.name", "'a b'", "rename it"]),
        (with_line("online:\n  - linear\n  - {name: x}"), 12, ["online.1.factory", "is missing"]),
        (with_line("topics: {events: t, labels: t}"), 1, ["share a topic", "topics.kind"]),
        (with_line("topics: {predictions: shop.events}"), 1, ["'shop.events' would be read and written"]),
        (with_line("topics: {dead_letters: shop.labels}"), 1, ["'shop.labels' would be read and written"]),
        (with_line("drift: {persistence: 4}"), 10, ["drift", "of_windows"]),
        (with_line("features: {function: 'f.py:g', outputs: {a: number}, online_only: [b]}"), 10, ["'b'", "outputs"]),
        (with_line("name: again"), 10, ["name", "given twice"]),
        (GOOD.replace("  city:", "  amount: {type: text}\n  city:"), 6, ["amount", "given twice"]),
        (GOOD.replace("number", "numbr"), 5, ["fields.amount.type", "'number'", "numbr"]),
        (GOOD.replace("amount:", "am ount:"), 5, ["fields.am ount", "rename it"]),
        (GOOD.replace("max_categories", "max_category"), 6, ["fields.city.max_category", "'max_categories'"]),
        (GOOD.replace("max_categories: 5", "minimum: 3, maximum: 2"), 6, ["fields.city", "swap them"]),
        (GOOD.replace("  city:", "  Amount:"), 1, ["'amount' and 'Amount' differ in case only"]),
        (GOOD.replace("time: at", ""), 1, ["time", "is missing", "'time: ...'"]),
        (GOOD.replace("horizon: 2d", "horizon: 0s"), 9, ["label.horizon"]),
        (GOOD.replace("horizon: 2d", "positive: 1\n  negative: 1.0"), 1, ["the same"]),
        (GOOD.replace("horizon: 2d", "missing: 7"), 9, ["label.missing", "no outcome"]),
        (GOOD.replace("name: shop", "name: My Shop"), 1, ["name", "'My Shop'", "rename it"]),
        (
            GOOD.replace("amount: number", "note: text").replace("category, max_categories: 5", "text"),
            1,
            ["no feature"],
        ),
        ("a: [1", 1, ["not valid YAML"]),
        ("a: !!python/object:os.system x", 1, ["not valid YAML"]),
        ("\tx", 1, ["not valid YAML"]),
        ("", 1, ["key: value"]),
        ("- a", 1, ["key: value"]),
        ("3", 1, ["key: value"]),
    ],
)
def test_a_mistake_is_explained_with_line_key_and_fix(text, line, said):
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, "p.yaml")
    message = str(caught.value)
    assert message.startswith(f"p.yaml:{line}: "), message
    for part in said:
        assert part in message, message
    assert "\n" not in message, "one line for one mistake"


def test_each_mistake_has_its_own_line():
    with pytest.raises(SettingsError) as caught:
        parse_settings(GOOD.replace("number", "numbr") + "onlin: 3\n")
    assert len(str(caught.value).splitlines()) == 2


def test_keys_that_are_not_text_and_loops_do_not_break_the_explanation():
    for text in (with_line("1: 2"), with_line("true: 2"), with_line("online: &a [*a]"), with_line("x: &a {b: *a}")):
        with pytest.raises(SettingsError):
            parse_settings(text)


def test_an_implied_outcome_is_checked_against_the_task():
    assert parse_settings(GOOD.replace("horizon: 2d", "missing: false")).label.missing is False
    with pytest.raises(SettingsError, match=r"label\.missing"):
        parse_settings(GOOD.replace("horizon: 2d", "missing: c\n  classes: [a, b]") + "task: multiclass\n")


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(SettingsError, match=r"no such file.*headrace\.yaml"):
        load_project(tmp_path)
    (tmp_path / "headrace.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_project(tmp_path)


def test_the_environment_says_only_where_things_are(tmp_path, monkeypatch):
    (tmp_path / "headrace.yaml").write_text(GOOD)
    plain = load_project(tmp_path)
    assert plain.bootstrap_servers is None
    assert plain.state == tmp_path.resolve() / ".headrace"
    assert plain.tracking_uri == f"sqlite:///{plain.state}/mlflow.sqlite"
    monkeypatch.setenv("HEADRACE_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    moved = load_project(tmp_path / "headrace.yaml")
    assert (moved.bootstrap_servers, moved.state.name, moved.tracking_uri) == (
        "kafka:9092",
        "elsewhere",
        "http://mlflow:5000",
    )
    assert moved.settings == plain.settings
    given = load_project(tmp_path, bootstrap="other:1", state=tmp_path / "third")
    assert (given.bootstrap_servers, given.state.name) == ("other:1", "third")
    assert plain.with_broker("b:1").bootstrap_servers == "b:1"
