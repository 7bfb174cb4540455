"""Policies side by side on a recorded stream that turns half-way."""

from __future__ import annotations

import json
import random

import pytest
import yaml
from click.testing import CliRunner

from headrace import cli

ROWS, TURNS_AT = 5_000, 2_500


def write(folder, task="binary", **changes):
    draw = random.Random(3)
    lines = ["x,z,kind,y"]
    for row in range(ROWS):
        x, z, kind = draw.gauss(0, 1), draw.gauss(0, 1), draw.choice("ab")
        value = (x if row < TURNS_AT else -x) * 2 + z + (kind == "a") + draw.gauss(0, 0.3)
        y = {"binary": int(value > 0), "multiclass": "low" if value < -1 else "high" if value > 1 else "mid"}
        lines.append(f"{x:.4f},{z:.4f},{kind},{y.get(task, round(value, 4))}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    content = {
        "name": "rows",
        "task": task,
        "fields": {"x": "number", "z": "number", "kind": "category"},
        "label": "y",
        "batch": {"trials": 1, "candidates": ["linear"], "holdout": "500 rows"},
        "windows": {"span": "500 rows"},
        "retrain": {"min_examples": 500, "every": None},
        "drift": {"min_rows": 200, "cooldown": "500 rows"},
        "replay": {"file": "rows.csv", "label_delay": "20 rows"},
        **changes,
    }
    (folder / "headrace.yaml").write_text(yaml.safe_dump(content))
    return folder


def run(folder, policies):
    ran = CliRunner().invoke(cli, ["backtest", str(folder), "--policies", policies, "--json", str(folder / "out.json")])
    assert ran.exit_code == 0, ran.output
    return json.loads((folder / "out.json").read_text()), ran.output


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(write(tmp_path_factory.mktemp("rows")), "never,always,online-only,batch-only,drift")


def test_after_a_turn_fitting_again_is_better_than_never_and_costs_what_it_says(found):
    policies = found[0]["policies"]
    loss = {name: policy["log_loss"]["served"] for name, policy in policies.items()}
    assert loss["always"] < loss["never"]
    assert loss["drift"] < loss["never"]
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
    online = [{name: policy["log_loss"][name] for name in ("linear", "tree", "prior")} for policy in policies.values()]
    assert all(one == online[0] for one in online), "the online experts do not depend on the policy"


def test_the_table_names_every_policy_and_metric(found):
    output = found[1]
    assert all(name in output for name in ("never", "always", "online-only", "batch-only", "drift"))
    assert "log_loss" in output and "roc_auc" in output


def test_two_runs_give_the_same(tmp_path):
    folder = write(tmp_path)
    first, second = (without_seconds(run(folder, "never,drift")[0]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks(tmp_path, task):
    result, _ = run(write(tmp_path, task), "never,drift")
    metric = "mae" if task == "regression" else "log_loss"
    policies = result["policies"]
    assert policies["drift"][metric]["served"] < policies["never"][metric]["served"]
    assert result["rows"]["common"] > 2_000


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(entry) for key, entry in value.items() if "seconds" not in key}
    return [without_seconds(entry) for entry in value] if isinstance(value, list) else value
