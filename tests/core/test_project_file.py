from __future__ import annotations

from pathlib import Path

import pytest

from core.durations import DAY
from core.errors import SettingsError
from core.project import load_project
from core.project_file import parse_settings
from core.settings import Settings

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


def test_a_state_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for state in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match=r"cannot be the state folder: .*file is a file"):
            load_project(EXAMPLE, state=state)


def with_line(line: str) -> str:
    return f"{GOOD}{line}\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (with_line("onlin: [linear]"), 10, ["onlin", "unknown setting", "'online'"]),
        (with_line("windows: {spam: 7d}"), 10, ["windows.spam", "did you mean 'span'"]),
        (with_line("windows: {zzzz: 7d}"), 10, ["windows.zzzz", "known here: span, sample"]),
        (with_line("windows: {span: 7 moons}"), 10, ["windows.span", "not a duration", "28d, 6h"]),
        (with_line("windows: {span: -5}"), 10, ["windows.span"]),
        (with_line("windows: {span: 30}"), 10, ["windows.span", "needs a unit", "30d, 30h or 30s", "got 30"]),
        (with_line("batch: {candidates: []}"), 10, ["batch.candidates", "has 0 entries; give at least 1"]),
        (with_line("order: {max_wait: 0}"), 10, ["order.max_wait", "needs a unit"]),
        (with_line("promotion: {canary: 0.1}"), 10, ["promotion", "set shadow: true, or remove canary"]),
        (with_line("promotion: {shadow: true, canary: 20 %}"), 10, ["promotion.canary", "write 0.2 (got '20 %')"]),
        (with_line("features:\n  interactions:\n  - [amount,\n    town]"), 13, ["'town'"]),
        (with_line("promotion: {shadow: true, canary: 0.6}"), 10, ["promotion.canary", "0.5"]),
        (with_line("promotion: {shadow: true, canary: -0.1}"), 10, ["promotion.canary", "0"]),
        (with_line("retrain:\n  every: 28"), 11, ["retrain.every", "needs a unit"]),
        (with_line("retrain:\n  every: 0s"), 11, ["retrain.every", "must be at least 1s (got '0s')"]),
        (with_line("retrain: {timeout: 0s}"), 10, ["retrain.timeout", "must be at least 1m (got '0s')"]),
        (with_line("retrain: {duration: 101000w}"), 10, ["retrain.duration", "must be at most 36500d"]),
        (with_line("batch: {seed: -1}"), 10, ["batch.seed", "greater than or equal to 0"]),
        (with_line("batch: {seed: 4294967296}"), 10, ["batch.seed", "4294967295"]),
        (with_line("batch: {holdout: 0s}"), 10, ["batch.holdout", "must be at least 1s"]),
        (with_line("batch: {max_rows: 99}"), 10, ["batch.max_rows", "100"]),
        (with_line("batch: {search_rows: 1}"), 10, ["batch.search_rows", "100"]),
        (with_line("batch: {max_rows: 999}"), 10, ["retrain.min_examples", "batch.max_rows", "nothing would ever"]),
        (
            with_line("batch: {max_rows: 5000}\ngates: {min_holdout_rows: 5000}"),
            11,
            ["gates.min_holdout_rows", "batch.max_rows", "nothing would ever"],
        ),
        (with_line("windows: {sample: 1}"), 10, ["windows.sample", "100"]),
        (with_line("state: {snapshot_every: 0s}"), 10, ["state.snapshot_every", "must be at least 1s"]),
        (with_line("state: {flush_every: 10ms}"), 10, ["state.flush_every", "must be at least 1s"]),
        (with_line("alerts: {webhook: hooks.example.org}"), 10, ["alerts.webhook", "no web address", "https://"]),
        (with_line("alerts:\n  webhook: file:///etc/passwd"), 11, ["alerts.webhook", "no web address"]),
        (with_line("alerts: {webhook: 'http://[bad/'}"), 10, ["alerts.webhook", "no web address"]),
        (with_line("alerts: {webhook: 'https:///hook'}"), 10, ["alerts.webhook", "no web address"]),
        (with_line("alerts: {webhook: 'https://example.org/a b'}"), 10, ["alerts.webhook", "no web address"]),
        (with_line("task: ranking"), 10, ["task", "binary", "ranking"]),
        (with_line("online: [linear, linear]"), 1, ["two online experts have the same name"]),
        (with_line("online: [{name: Champion, factory: linear}]"), 1, ["reserved name"]),
        (with_line("online: [{name: a b, factory: linear}]"), 10, ["online.0.name", "'a b'", "rename it"]),
        (with_line("online:\n  - linear\n  - {name: x}"), 12, ["online.1.factory", "is missing"]),
        (with_line("topics: {events: t, labels: t}"), 1, ["share a topic", "topics.kind"]),
        (with_line("topics: {predictions: shop.events}"), 1, ["'shop.events' would be read and written"]),
        (with_line("topics: {dead_letters: shop.labels}"), 1, ["'shop.labels' would be read and written"]),
        (with_line("drift: {persistence: 4}"), 10, ["drift", "of_windows"]),
        (with_line("drift: {false_alarms: seldom}"), 10, ["drift.false_alarms", "a number per duration", "1 per 90d"]),
        (with_line("drift: {false_alarms: 0 per 90d}"), 10, ["drift.false_alarms", "a number per duration"]),
        (with_line("features: {function: 'f.py:g', outputs: {a: number}, online_only: [b]}"), 10, ["'b'", "outputs"]),
        (with_line("name: again"), 10, ["name", "given twice"]),
        (GOOD.replace("  city:", "  amount: {type: text}\n  city:"), 6, ["amount", "given twice"]),
        (GOOD.replace("number", "numbr"), 5, ["fields.amount.type", "'number'", "numbr"]),
        (
            GOOD.replace("amount:", "am ount:"),
            5,
            ["fields.am ount", "rename it, and say behind it where it is found: {type: ..., path: NAME}"],
        ),
        (GOOD.replace("max_categories", "max_category"), 6, ["fields.city.max_category", "'max_categories'"]),
        (GOOD.replace("max_categories: 5", "minimum: 3, maximum: 2"), 6, ["fields.city", "swap them"]),
        (GOOD.replace("  city:", "  Amount:"), 1, ["'amount' and 'Amount' differ in case only"]),
        (GOOD.replace("time: at", ""), 1, ["time", "is missing", "'time: ...'"]),
        (GOOD.replace("horizon: 2d", "horizon: 0s"), 9, ["label.horizon"]),
        (GOOD.replace("horizon: 2d", "horizon: 30"), 9, ["label.horizon", "needs a unit", "30d"]),
        (GOOD.replace("horizon: 2d", "max_classes: 1"), 9, ["label.max_classes", "2"]),
        (GOOD.replace("horizon: 2d", "classes: [a]"), 9, ["label.classes", "two classes or more"]),
        (GOOD.replace("horizon: 2d", "classes: [a, b, a]"), 9, ["label.classes", "each once"]),
        (GOOD.replace("max_categories: 5", "minimum: .nan"), 6, ["fields.city", "not a number"]),
        (GOOD.replace("horizon: 2d", "positive: 1\n  negative: 1.0"), 9, ["the same"]),
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


def test_code_may_give_a_duration_in_milliseconds():
    content = {"name": "a", "id": "id", "time": "at", "fields": {"x": "number"}, "label": {"horizon": 30}}
    assert Settings.model_validate(content).label.horizon == 30


@pytest.mark.parametrize("address", ["http://127.0.0.1:8080/", "https://user:key@hooks.example.org/x?y=z", "null"])
def test_a_webhook_is_a_web_address_or_none(address):
    expected = None if address == "null" else address
    assert parse_settings(with_line(f"alerts:\n  webhook: {address}")).alerts.webhook == expected


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
