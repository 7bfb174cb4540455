"""Policies side by side on a recorded stream that turns half-way."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from turning_stream import ROWS, assert_documented, invoke, run, write, write_times

from backtest.page.wording import metric_name
from core.errors import BacktestError, UsageError
from headrace import cli


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("rows"))
    result, output = run(folder, "never,always,online-only,batch-only,drift")
    return result, output, (folder / "out.html").read_text()


def test_after_a_turn_fitting_again_is_better_than_never_and_costs_what_it_says(found):
    policies = found[0]["policies"]
    champion, served = (
        {name: policy["log_loss"].get(expert) for name, policy in policies.items()} for expert in ("champion", "served")
    )
    assert max(champion["always"], champion["drift"]) < champion["never"]
    assert max(served["always"], served["drift"]) < 1.005 * served["never"], "the online experts cover for it meanwhile"
    assert policies["never"]["retrains"] == 1
    assert policies["never"]["retrainings"][0]["trigger"] == "bootstrap"
    assert 1 < policies["drift"]["retrains"] < policies["always"]["retrains"]
    assert "drift" in {one["trigger"] for one in policies["drift"]["retrainings"]}
    assert policies["online-only"]["retrains"] == 0
    for policy in policies.values():
        assert policy["rows_trained"] == sum(one["rows"] for one in policy["retrainings"])


def test_what_is_served_is_what_the_policy_says(found):
    policies = found[0]["policies"]
    assert policies["batch-only"]["log_loss"]["served"] == policies["batch-only"]["log_loss"]["champion"]
    assert "champion" not in policies["online-only"]["log_loss"]
    online = [
        {name: policy["log_loss"][name] for name in ("linear", "tree", "prior", "no_change")}
        for policy in policies.values()
    ]
    assert all(one == online[0] for one in online), "the online experts do not depend on the policy"


def test_the_table_names_every_policy_and_metric(found):
    output = found[1]
    assert all(name in output for name in ("never", "always", "online-only", "batch-only", "drift"))
    assert "log_loss" in output and "roc_auc" in output


def test_the_loss_over_time_is_that_of_the_whole(found):
    result = found[0]
    for policy in result["policies"].values():
        over_time = policy["over_time"]
        assert sum(over_time["rows"]) == result["rows"]["common"]
        assert over_time["loss"].keys() == policy["log_loss"].keys()
        for name, losses in over_time["loss"].items():
            assert np.average(losses, weights=over_time["rows"]) == pytest.approx(policy["log_loss"][name])
        assert set(np.diff(over_time["from"])) == {500}


def test_a_stream_of_rows_speaks_of_rows_alone(found):
    result, output, page = found[0], found[1], found[2]
    assert (result["first_event"], result["last_event"], result["window"]) == (0, ROWS - 1, "500 rows")
    policy = result["policies"]["drift"]
    first = policy["retrainings"][0]
    assert first["effective_at"] - first["decided_at"] == 10, "what retrain.duration is for a stream of rows"
    assert "examples were gathered in the 2,500 rows since the first event" in " ".join(first["why"])
    (alert, *_) = policy["alerted"]
    assert alert["window"] == f"row-{alert['from']}_{alert['stage']}"
    assert f"window from row {alert['from']:,}" in page
    for text in (json.dumps(result), output, page):
        assert "2000-" not in text and not re.search(r"once in [\d.]+(d|h|m|s)\b", text)
    assert re.search(r"once in [\d,]+ rows \(limit: once in 50,000 rows\)", json.dumps(result))


def test_every_key_of_the_json_is_documented(found):
    assert_documented(found[0])


def test_two_runs_give_the_same(tmp_path):
    folder = write(tmp_path)
    first, second = (
        (without_seconds(run(folder, "never,drift")[0]), (folder / "out.html").read_text()) for _ in range(2)
    )
    assert first == second
    assert all(policy in first[1] for policy in first[0]["policies"])


MODELS = """
from sklearn.linear_model import LogisticRegression

class Own(LogisticRegression):
    pass

def own(kinds, draw, trial):
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline

    return make_pipeline(make_column_transformer(("passthrough", ["x", "z"])), Own())
"""


def test_side_by_side_in_processes_policies_do_the_same_with_code_of_the_project_too(tmp_path):
    folder = write(tmp_path, batch={"trials": 1, "candidates": ["models.py:own"], "holdout": "500 rows"})
    (folder / "models.py").write_text(MODELS)
    policies = "never,drift,online-only"
    with_label_flips = ["--inject", "flip@3500rows/500rows"]
    found = []
    for jobs in (1, 2):
        files = ["--json", str(folder / "out.json"), "--jobs", str(jobs)]
        ran = CliRunner().invoke(cli, ["backtest", str(folder), "--policies", policies, *with_label_flips, *files])
        assert ran.exit_code == 0, ran.output
        found.append(without_seconds(json.loads((folder / "out.json").read_text())))
    assert found[0] == found[1]
    assert list(found[1]["policies"]) == policies.split(",")
    assert found[1]["policies"]["never"]["promoted"] == 1


def test_what_a_policy_does_does_not_depend_on_who_ran_before_it(tmp_path):
    again = {"min_examples": 500, "every": "500 rows", "growth": None}
    together = run(write(tmp_path / "together", retrain=again), "drift,slow{blend.rates=[0]},batch-only")[0]["policies"]
    for name in ("slow{blend.rates=[0]}", "batch-only"):
        alone = run(write(tmp_path / name.partition("{")[0], retrain=again), name)[0]["policies"]
        (key,) = alone
        told = ("alerted", "quarantined", "retrainings")
        assert [without_seconds(together[key][what]) for what in told] == [alone[key][what] for what in told]


def test_a_process_that_is_killed_is_said(tmp_path):
    folder = write(tmp_path, batch={"trials": 1, "candidates": ["models.py:ending"], "holdout": "500 rows"})
    (folder / "models.py").write_text("import os, signal\ndef ending(*given): os.kill(os.getpid(), signal.SIGKILL)\n")
    ran = CliRunner().invoke(cli, ["backtest", str(folder), "--policies", "never,drift", "--jobs", "2"])
    assert isinstance(ran.exception, BacktestError)
    assert "--jobs 1" in str(ran.exception)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks(tmp_path, task):
    result, _ = run(write(tmp_path, task), "never,drift")
    metric = "mae" if task == "regression" else "log_loss"
    policies = result["policies"]
    assert policies["drift"][metric]["champion"] < policies["never"][metric]["champion"]
    assert policies["drift"][metric]["served"] < 1.005 * policies["never"][metric]["served"]
    assert "drift" in {one["trigger"] for one in policies["drift"]["retrainings"]}
    assert result["rows"]["common"] > 2_000
    assert metric_name(metric) in (tmp_path / "out.html").read_text()


def test_a_period_that_is_cut_is_not_in_the_means(tmp_path):
    """The first champion serves from row 2,410: of that tenth there are 90 rows."""
    retrain = {"bootstrap_after": "2000 rows", "min_examples": 500}
    result, output = run(write(tmp_path, retrain=retrain, windows={"span": "800 rows"}), "never")
    never = result["policies"]["never"]
    _, *others = (period["log_loss"]["served"] for period in never["monthly"].values())
    assert next(iter(never["monthly"])) == "rows from 2,000" and result["periods"] == len(others) == 5
    assert never["mean_monthly"]["log_loss"]["served"] == pytest.approx(sum(others) / 5)
    assert "mean of 5 periods" in output


def test_what_is_injected_is_said_and_hurts_from_when_it_starts(found, tmp_path):
    specs = ["unit:z:100x@4000rows/500rows", "flip@4000rows/500rows"]
    result, output = run(write(tmp_path), "never", *specs)
    assert result["injected"] == [
        {"spec": specs[0], "events": 500, "labels": 0},
        {"spec": specs[1], "events": 0, "labels": 500},
    ]
    assert f"injected {specs[0]}: 500 events" in output
    assert "injected" not in found[0]
    was, now = (one["policies"]["never"]["monthly"] for one in (found[0], result))
    loss = {period: (was[period]["log_loss"]["served"], now[period]["log_loss"]["served"]) for period in now}
    assert list(loss)[-2:] == ["rows from 4,000", "rows from 4,500"]
    *earlier, (before, after), _ = loss.values()
    assert all(was == now for was, now in earlier)
    assert after > before + 0.5


def test_with_an_injection_two_runs_give_the_same(tmp_path):
    folder, specs = write(tmp_path), ("gradual:x:+1.5sd@2500rows/1000rows", "outage@4800rows/50rows")
    first, second = (without_seconds(run(folder, "never", *specs)[0]) for _ in range(2))
    assert first == second
    assert_documented(first)
    assert first["injected"][0]["amount"] == pytest.approx(1.5, rel=0.1)
    assert first["injected"][1] == {"spec": specs[1], "events": 50, "labels": 50}
    assert first["rows"]["events"] == ROWS - 50


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("flip@9000rows", "changed nothing; the stream has events from row 0 to row 4,999"),
        ("flip@2013-06-03", "is no row"),
        ("unit:x:1x+0@2500rows", "changed nothing"),
        ("shift:x:+1sd@0rows", "0 values came before it"),
    ],
)
def test_what_cannot_be_injected_is_an_error(tmp_path, spec, said):
    ran = invoke(write(tmp_path), "never", spec)
    assert isinstance(ran.exception, UsageError)
    assert f"--inject {spec}: " in str(ran.exception) and said in str(ran.exception)


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(entry) for key, entry in value.items() if "seconds" not in key}
    return [without_seconds(entry) for entry in value] if isinstance(value, list) else value


def test_labels_turned_round_for_a_while_are_kept_out_of_training(tmp_path, monkeypatch):
    monkeypatch.setattr("turning_stream.TURNS_AT", ROWS)
    changes = {"retrain": {"min_examples": 500, "every": "1000 rows", "growth": None}}
    result, _ = run(write(tmp_path, **changes), "drift", "flip@3500rows/500rows")
    policy = result["policies"]["drift"]
    assert_documented(result)
    (window,) = policy["quarantined"]
    assert (window["from"], window["to"]) == (3_500, 4_000)
    assert "contradict the champion" in window["reasons"][0]
    assert any("contradict the champion" in reason for alert in policy["alerted"] for reason in alert["reasons"])
    before, after = policy["retrainings"][-2:]
    assert after["decided_at"] > window["to"] > before["decided_at"]
    rows_between = after["decided_at"] - before["decided_at"]
    assert after["rows"] - before["rows"] == pytest.approx(rows_between - 500, abs=30)


def test_a_break_found_at_the_moment_of_a_retraining_is_kept_out_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("turning_stream.TURNS_AT", ROWS)
    label, retrain = {"path": "y", "horizon": "500 rows"}, {"min_examples": 500, "every": "500 rows", "growth": None}
    folder = write(tmp_path, label=label, retrain=retrain)
    result, _ = run(folder, "drift", "unit:x:1000x@3500rows/500rows")
    policy = result["policies"]["drift"]
    assert [(one["from"], one["to"]) for one in policy["quarantined"]] == [(3_500, 4_000)]
    decided = {one["decided_at"]: one["rows"] for one in policy["retrainings"]}
    assert {3_500, 4_500} <= decided.keys() and 4_000 not in decided, "two stages are due at 4,000: one finds the break"
    assert decided[4_500] - decided[3_500] == 500


def test_the_end_of_the_recording_is_no_outage(tmp_path, monkeypatch):
    monkeypatch.setattr("turning_stream.TURNS_AT", ROWS)
    folder = write_times(
        write(tmp_path, retrain={"min_examples": 1_800, "every": None, "growth": None}),
        every=600,
        label_delay="4d",
        windows="2d",
    )
    assert not [one for one in alerts(folder) if "source down" in one]
    told = [one for one in alerts(folder, "outage@1970-01-29/10d") if one.startswith("No event, where about 2")]
    assert len(told) == 1, "once, of windows that the recording goes beyond"


def alerts(folder, *specs):
    result, _ = run(folder, "drift", *specs)
    return [reason for alert in result["policies"]["drift"]["alerted"] for reason in alert["reasons"]]


def test_data_that_fails_a_check_is_not_trained_on(tmp_path):
    folder = write(tmp_path)
    lines = (folder / "rows.csv").read_text().splitlines()
    leaking = [line.split(",") for line in lines[1:]]
    (folder / "rows.csv").write_text("\n".join([lines[0], *(f"{x},{y}.5,{kind},{y}" for x, _, kind, y in leaking)]))
    _, output = run(folder, "never")
    assert "never got a champion: leak: z alone predicts the label" in " ".join(output.split())
    allowed = write(tmp_path / "allowed", validation={"allow": {"z": ["leak"]}})
    (allowed / "rows.csv").write_text((folder / "rows.csv").read_text())
    assert "never got a champion" not in run(allowed, "never")[1]


def test_a_phase_counts_from_the_bootstrap_that_passed(tmp_path):
    folder = write(tmp_path, retrain={"bootstrap_after": "500 rows", "min_examples": 100, "duration": "10 rows"})
    header, *lines = (folder / "rows.csv").read_text().splitlines()
    lines[:1_000] = [line[:-1] + "1" for line in lines[:1_000]]
    (folder / "rows.csv").write_text("\n".join([header, *lines]))
    retrainings = run(folder, "every:2000rows+500rows")[0]["policies"]["every:2000rows+500rows"]["retrainings"]
    passed = [one["promoted"] for one in retrainings].index(True)
    assert passed > 0
    first, second, *_ = (one["decided_at"] for one in retrainings[passed:])
    assert second - first == 500
