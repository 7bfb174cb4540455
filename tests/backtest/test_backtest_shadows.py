"""Challengers and former champions in shadow, on a recorded stream that turns."""

from __future__ import annotations

import copy

import pytest
from turning_stream import TURNS_AT, assert_documented, run, write

LATEST = {"trials": 1, "candidates": ["linear"], "holdout": "300 rows", "max_rows": 1_000}
RARELY = {"bootstrap_after": "2000 rows", "min_examples": 500, "every": "2000 rows", "growth": None}


def settings(**promotion):
    return {
        "online": ["prior"],
        "batch": LATEST,
        "retrain": RARELY,
        "gates": {"max_relative_loss": 1.1, "max_alone_loss": 1.1},
        "promotion": {"block": "50 rows", **promotion},
    }


def backtest(folder, policy="every:2000rows", **promotion):
    result, _ = run(write(folder, **settings(**promotion)), policy)
    assert_documented(result)
    return result["policies"][policy]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return [backtest(tmp_path_factory.mktemp("rows"), shadow=shadow) for shadow in (False, True)]


def test_one_that_passed_its_gates_serves_once_it_is_found_better(both):
    at_once, after_shadow = ([one for one in found["retrainings"] if one["promoted"]] for found in both)
    assert at_once[0] == after_shadow[0], "the first has nobody to be compared with"
    (direct, *_), (shadowed, *_) = at_once[1:], after_shadow[1:]
    assert direct["shadow"] is None
    shadow = shadowed["shadow"]
    assert shadow["conclusion"] == "superior" and shadow["saved"] > 0.0
    assert shadow["from"] == shadowed["decided_at"] + 10 and shadow["to"] == shadowed["effective_at"] > shadow["from"]
    assert shadow["labels"] <= shadow["to"] - shadow["from"]
    assert both[0]["log_loss"]["served"] < both[1]["log_loss"]["served"], "waiting has its price"


def test_one_that_is_not_better_is_dropped_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("turning_stream.TURNS_AT", 5_000)
    found = backtest(tmp_path, shadow=True, max_labels=300)
    assert found["promoted"] == 1
    dropped = next(one for one in found["retrainings"] if one["shadow"])
    assert dropped["shadow"]["conclusion"] in ("futile", "spent", "inferior")
    assert not dropped["promoted"] and "The blend with challenger" in " ".join(dropped["not_promoted_because"])


def test_a_canary_changes_what_is_served_and_nothing_that_is_decided(both, tmp_path):
    without, found = copy.deepcopy(both[1]), backtest(tmp_path, shadow=True, canary=0.5)
    served = [one["shadow"].pop("served") for one in found["retrainings"] if one["shadow"]]
    ended = [one for one in without["retrainings"] if one["shadow"]]
    assert [one["shadow"].pop("served") for one in ended] == [0] * len(served)
    assert found["retrainings"] == without["retrainings"]
    behind = [one["shadow"]["to"] - one["shadow"]["from"] for one in ended]
    assert served and all(0.3 * count < some < 0.7 * count for some, count in zip(served, behind, strict=True))
    assert found["log_loss"]["champion"] == without["log_loss"]["champion"]
    assert found["log_loss"]["served"] < without["log_loss"]["served"], "the challenger was better, and some got it"


def test_a_regression_brings_the_former_champion_back(tmp_path):
    """Fitted on a stretch that turns back at once, the second champion is worse, and its gates could not know."""
    folder = write(tmp_path, **settings())
    lines = (folder / "rows.csv").read_text().splitlines()
    header, before, turned = lines[0], lines[1 : TURNS_AT + 1], lines[TURNS_AT + 1 :]
    (folder / "rows.csv").write_text("\n".join([header, *before[:2000], *turned[:2000], *before, *before[:500]]) + "\n")
    result, _ = run(folder, "every:2000rows")
    found = result["policies"]["every:2000rows"]
    assert_documented(result)
    (back,) = found["rolled_back"]
    second = found["retrainings"][1]
    assert second["promoted"] and back["at"] > second["effective_at"]
    assert "Version 1 by itself lost" in back["reasons"][0]
