"""Weeks in which some days break, and some have no events: what is told of a recorded stream with times."""

from __future__ import annotations

import random

import pytest
import yaml
from turning_stream import run

from core.durations import DAY, format_time

START, WEEKS, A_DAY = 1_700_438_400_000, 9, 150  # a Monday, 2023-11-20
TURNED, DOWN = (44, 45), (52, 53)  # days of the seventh week, and of the eighth


def write(folder):
    draw, lines = random.Random(5), ["id,at,x,kind,y"]
    for day in range(7 * WEEKS + 1):
        for number in range(0 if day in DOWN else A_DAY):
            x, kind = draw.gauss(0, 1), draw.choice("ab")
            y = int(2 * x + (kind == "a") + draw.gauss(0, 0.5) > 0)
            at = START + day * DAY + number * DAY // A_DAY
            lines.append(f"{day}-{number},{at},{x:.4f},{kind},{1 - y if day in TURNED else y}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    content = {
        "name": "days",
        "id": "id",
        "time": "at",
        "fields": {"x": "number", "kind": "category"},
        "label": {"path": "y", "horizon": "2h"},
        "batch": {"trials": 1, "candidates": ["linear"], "holdout": "7d"},
        "retrain": {"min_examples": 500, "every": None, "growth": None},
        "gates": {"max_relative_loss": 1.5, "min_holdout_rows": 50},
        "replay": {"file": "rows.csv", "label_delay": "1h"},
    }
    (folder / "headrace.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return run(write(tmp_path_factory.mktemp("days")), "drift")[0]["policies"]["drift"]


def test_a_week_with_two_days_of_turned_labels_is_kept_out_and_the_days_are_named(policy):
    (window,) = policy["quarantined"]
    assert window["from"] == format_time(START + 42 * DAY)
    (reason,) = window["reasons"]
    assert reason.startswith("The labels contradict the champion on 2024-01-03 and 2024-01-04: ")


def test_two_days_without_events_are_told_and_are_no_reason_to_retrain(policy):
    reasons = [reason for alert in policy["alerted"] for reason in alert["reasons"]]
    assert "Hardly any events on 2024-01-11 and 2024-01-12: was a source down?" in reasons
    assert [retraining["trigger"] for retraining in policy["retrainings"]] == ["bootstrap"]
