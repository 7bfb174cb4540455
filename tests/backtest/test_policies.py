"""The list of policies that a user writes."""

from __future__ import annotations

import pytest
import yaml

from backtest.policies import parse_policies, usual_policies
from core.durations import DAY, ROW
from core.errors import SettingsError, UsageError
from core.project_file import parse_settings

CONTENT = {
    "name": "a",
    "id": "id",
    "time": "at",
    "fields": {"x": "number"},
    "label": "y",
    "windows": {"span": "2d"},
    "retrain": {"every": "14d"},
}
ROWS = {"name": "a", "fields": {"x": "number"}, "label": "y", "replay": {"file": "rows.csv"}}


def parsed(text):
    return {policy.name: policy for policy in parse_policies(text, CONTENT, "headrace.yaml")}


def test_each_name_says_when_to_fit_again_and_what_is_served():
    found = parsed("drift, never,always,every:28d,online-only,batch-only")
    when = {name: (p.settings.retrain.every, p.settings.retrain.on_drift) for name, p in found.items()}
    assert when == {
        "drift": (14 * DAY, True),
        "never": (None, False),
        "always": (2 * DAY, False),
        "every:28d": (28 * DAY, False),
        "online-only": (None, False),
        "batch-only": (14 * DAY, True),
    }
    assert [name for name, p in found.items() if not p.batch] == ["online-only"]
    assert [name for name, p in found.items() if not p.online] == ["batch-only"]


def test_a_setting_of_a_policy_may_be_changed():
    (policy,) = parsed("eager{drift.persistence=1,retrain.every=7d,batch.max_rows=9000}").values()
    assert (policy.name, policy.settings.drift.persistence, policy.settings.retrain.every) == ("eager", 1, 7 * DAY)
    assert policy.settings.windows.span == 2 * DAY


def test_a_setting_that_is_a_list_stands_in_brackets():
    (policy,) = parsed("slow{blend.rates=[0, 0.01],drift.persistence=1,batch.candidates=[linear]}").values()
    assert (policy.settings.blend.rates, policy.settings.drift.persistence) == ([0.0, 0.01], 1)
    assert [one.family for one in policy.settings.batch.candidates] == ["linear"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name at least one"),
        ("drift,drift", "'drift' is named twice"),
        ("sometimes", "'sometimes' is not known; write never, always"),
        ("every:often", "'every:often': the period is no length of time; write a period such as every:28d"),
        ("stream{drift.persistence=1}", "'stream' is what the result calls the recorded stream"),
        ("drift}", "braces open and close behind a name"),
        ("v{drift.persistence=1", "braces open and close behind a name"),
        ("v{drift.persistence=1,drift.persistence=2}", "drift.persistence is given twice"),
        ("every:28d+", r"'every:28d\+': what follows the plus is missing; write every:28d\+28d, or leave the plus out"),
        ("every:28d+0d", "what follows the plus is no time at all; write every:28d"),
        ("every:0d", "'every:0d': the period is no time at all; write a period such as every:28d, or always"),
        ("every:", "'every:': the period is missing; write a period such as every:28d"),
        ("every:5ms", "the period is too short"),
        ("eager{drift}", "'drift' is no change; write section.setting=value"),
        (
            "never{drift.persistence=1}",
            "changes go to the project's own policy, which is not never",
        ),
        ("drift,drift{drift.persistence=1}", "two are named 'drift'; write another name before the braces"),
        ("v{online=[linear]}", "'online=.linear.' is nothing that policies differ in"),
        ("v{fields.temp.type=category}", "is nothing that policies differ in"),
    ],
)
def test_what_is_no_policy_is_said(text, said):
    with pytest.raises(UsageError, match=said):
        parsed(text)


def test_where_rows_are_the_time_a_period_in_rows_is_proposed():
    content = {**ROWS, "windows": {"span": "300 rows"}}
    by_default = parse_policies(usual_policies(parse_settings(yaml.safe_dump(content))), content, "headrace.yaml")
    assert [policy.name for policy in by_default] == ["never", "every:4000rows", "online-only", "drift"]
    assert parse_policies("every:500 rows", content, "headrace.yaml")[0].settings.retrain.every == 500 * ROW
    with pytest.raises(UsageError, match=r"'every:0 rows': the period is no time at all; write a .* every:4000rows"):
        parse_policies("every:0 rows", content, "headrace.yaml")
    for in_days in ("every:28d", "every:4000rows+7d"):
        with pytest.raises(UsageError, match=r"the file has no times, its rows count; write rows, such as every:4000"):
            parse_policies(in_days, content, "headrace.yaml")


def test_a_change_that_does_not_fit_the_project_file_is_said():
    with pytest.raises(SettingsError, match=r"eager.*unknown setting; did you mean 'persistence'"):
        parsed("eager{drift.persistance=1}")
    of_no_line = r"^headrace.yaml \(eager.*\): drift.persistence: "
    with pytest.raises(SettingsError, match=of_no_line):
        parsed("eager{drift.persistence=abc}")


def test_always_waits_a_window_of_rows_where_rows_are_the_time():
    (always,) = parse_policies("always", {**ROWS, "windows": {"span": "300 rows"}}, "headrace.yaml")
    assert always.settings.retrain.every == 300 * ROW


def test_fields_stay_in_the_order_of_the_project_file_as_fits_depend_on_it():
    content = {**CONTENT, "fields": {"z": "number", "x": "number"}}
    (policy,) = parse_policies("drift", content, "headrace.yaml")
    assert list(policy.settings.fields) == ["z", "x"]
