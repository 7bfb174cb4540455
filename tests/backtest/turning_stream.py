"""A recorded stream that turns half-way, and a backtest of it."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import yaml
from click.testing import CliRunner

from headrace import cli

ROWS, TURNS_AT = 5_000, 2_500


def write(folder, task="binary", **changes):
    draw = random.Random(3)
    lines = ["x,z,kind,y"]
    for row in range(ROWS):
        x, z, kind = draw.gauss(0, 1), draw.gauss(0, 1), draw.choice("ab")
        value = (2 * x + z if row < TURNS_AT else 2 * z - x) + (kind == "a") + draw.gauss(0, 0.3)
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
        "retrain": {"min_examples": 500, "every": None, "growth": None},
        "gates": {"max_alone_loss": 1.1},
        "drift": {"min_rows": 200, "cooldown": "500 rows"},
        "replay": {"file": "rows.csv", "label_delay": "20 rows"},
        **changes,
    }
    (folder / "headrace.yaml").write_text(yaml.safe_dump(content))
    return folder


def write_times(folder, every=1, label_times=(0,) * ROWS, label_delay=None, windows="500s"):
    """Let the rows of a project tell their times, in seconds: one each so many, each label so much later."""
    lines, content = (
        (folder / "rows.csv").read_text().splitlines(),
        yaml.safe_load((folder / "headrace.yaml").read_text()),
    )
    timed = [f"{line},{row * every},{row * every + label_times[row]}" for row, line in enumerate(lines[1:])]
    (folder / "rows.csv").write_text("\n".join([f"{lines[0]},at,known", *timed]))
    content |= {"time": "at", "time_unit": "s", "label": {"path": "y", "horizon": label_delay or "100s"}}
    content |= {"windows": {"span": windows}, "batch": {"trials": 1, "candidates": ["linear"], "holdout": windows}}
    content |= {"drift": {"min_rows": 200, "cooldown": windows}}
    known = {"label_time": "known"} if label_delay is None else {"label_delay": label_delay}
    content |= {"replay": {"file": "rows.csv", **known}}
    (folder / "headrace.yaml").write_text(yaml.safe_dump(content))
    return folder


def run(folder, policies, *specs):
    ran = invoke(folder, policies, *specs)
    assert ran.exit_code == 0, ran.output
    return json.loads((folder / "out.json").read_text()), ran.output


def invoke(folder, policies, *specs):
    injected = [argument for spec in specs for argument in ("--inject", spec)]
    files = ["--json", str(folder / "out.json"), "--html", str(folder / "out.html")]
    return CliRunner().invoke(cli, ["backtest", str(folder), "--policies", policies, *injected, *files])


def assert_documented(result):
    """Every key that is no name of a policy, an expert, a metric or a period is in the docs."""
    text = (Path(__file__).parents[2] / "docs" / "backtest.md").read_text().partition("## What comes out")[2]
    documented = set(re.findall(r"`([a-z_]+)`", text.partition("\n## ")[0]))
    periods = {period for policy in result["policies"].values() for period in policy["monthly"]}
    names = {*result["policies"], *result["metrics"], *periods, "champion", "linear", "tree", "prior", "no_change"}
    assert keys_of(result) - names <= documented


def keys_of(value):
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return (set(value) if isinstance(value, dict) else set()).union(*map(keys_of, inside))
