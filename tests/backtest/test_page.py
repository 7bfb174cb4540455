"""The page of a backtest tells everything that came out, whatever the names in it, and needs nothing else."""

from __future__ import annotations

import copy
import re
from xml.etree import ElementTree

import pytest
from page_results import result_of

from backtest.page.document import page

HOSTILE = "</title><script>alert('x')</script>&\"\x00\ud800"


def parsed(result):
    """The page as a tree; it is well-formed XML but for the doctype."""
    text = page(result)
    assert text.startswith("<!DOCTYPE html>\n")
    text.encode()
    return ElementTree.fromstring(text.partition("\n")[2])


def said(tree, *kinds):
    """What a reader can read, in elements of these kinds or in all."""
    found = [one for one in tree.iter() if not kinds or one.tag in kinds]
    return "\n".join("".join(one.itertext()) for one in found)


def drawn(tree, kind):
    """How many lines or marks of a kind stand in each chart or lane."""
    charts = [one for one in tree.iter("svg") if one.get("role") == "img"]
    return [sum(kind in (mark.get("class") or "").split() for mark in chart.iter()) for chart in charts]


def paths(result):
    return [one.get("d") for one in parsed(result).iter("path") if one.get("data-line")]


@pytest.mark.parametrize("time", ["rows", "UTC"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_policy_metric_and_retraining_is_told(task, time):
    tree = parsed(result_of(task, time))
    table, *_ = tree.iter("table")
    metrics = {
        "binary": ["log loss", "ROC AUC"],
        "multiclass": ["log loss", "accuracy", "Cohen's kappa"],
        "regression": ["MAE", "RMSE"],
    }[task]
    for text in ["never", "drift", "online-only", *metrics]:
        assert text in said(table)
    for reason in [
        "There is no champion yet.",
        "The labels moved.",
        "Not promoted: worse by 3 %",
        "x moved by 0.9",
        "x is gone",
    ]:
        assert reason in said(tree, "details")
        assert reason in said(tree, "title"), "it can be read where it is drawn, too"
    assert drawn(tree, "line") == [3, 3, 0, 0, 0]
    assert drawn(tree, "promoted") == [0, 0, 1, 0, 2]
    assert drawn(tree, "refused") == [0, 0, 0, 0, 1]
    assert drawn(tree, "alert") == [0, 0, 0, 0, 1]


def test_the_first_sentence_names_the_best_policy_and_its_cost():
    lead = next(one for one in parsed(result_of()).iter("p") if one.get("class") == "lead")
    assert "".join(lead.itertext()) == (
        "drift served best: log loss 0.4000, with 3 retrainings (2 promoted) on 4,500 rows. "
        "Next is never: log loss 0.5000 (0.1000 more), with 1 retraining (1 promoted) on 1,000 rows."
    )


def test_the_best_of_each_metric_is_marked_whichever_way_is_better():
    result = result_of("binary")
    result["policies"]["never"]["mean_monthly"]["roc_auc"]["served"] = 0.99
    table, *_ = parsed(result).iter("table")
    rows = [[cell.get("class") == "best" for cell in row.iter("td")] for row in table.find("tbody")]
    columns = [list(result["metrics"]).index(metric) for metric in ("log_loss", "roc_auc")]
    assert [[row[column] for column in columns] for row in rows] == [[False, True], [False, False], [True, False]]


def test_times_are_rows_where_the_file_has_none_and_utc_otherwise():
    in_rows, in_time = (said(parsed(result_of(time=time)), "details") for time in ("rows", "UTC"))
    assert "row 2,000" in in_rows and "2000-01-01" not in in_rows
    assert "2000-01-01 00:33:20" in in_time and "row 2,000" not in in_time


def test_hostile_names_and_reasons_are_only_text():
    result = result_of()
    policies = result["policies"]
    policies[HOSTILE] = copy.deepcopy(policies["drift"])
    for part in (*policies[HOSTILE]["mean_monthly"].values(), policies[HOSTILE]["over_time"]["loss"]):
        part[HOSTILE] = part["linear"]
    policies[HOSTILE]["alerted"][0]["reasons"] = [HOSTILE]
    policies[HOSTILE]["retrainings"][0] |= {"why": [HOSTILE], "trigger": HOSTILE}
    result["project"] = HOSTILE
    tree = parsed(result)
    assert len(list(tree.iter("script"))) == 1
    readable = HOSTILE.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    for kind in ("h1", "title", "th", "summary", "td"):
        assert readable in said(tree, kind)


def test_nothing_is_loaded():
    assert not re.search(r"https?:|url\(|@import|\ssrc=|<link", page(result_of()))
    policy = next(one for one in parsed(result_of()).iter("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.get("content").startswith("default-src 'none';")


def test_one_policy_that_was_never_retrained():
    result = result_of()
    result["policies"] = {"online-only": result["policies"]["online-only"]}
    tree = parsed(result)
    assert "online-only: log loss 0.6000, with no retraining." in said(tree)
    assert drawn(tree, "line") == [1, 0]
    assert not {"best", "★"} & set(said(tree, "p", "td").split()), "nothing to be better than"


def test_without_common_rows_it_says_so():
    result = result_of()
    result["rows"]["common"] = 0
    for policy in result["policies"].values():
        policy |= {"mean_monthly": {}, "monthly": {}}
        policy["over_time"] = {"from": [], "rows": [], "loss": {name: [] for name in policy["over_time"]["loss"]}}
    tree = parsed(result)
    assert "The policies cannot be compared" in said(tree)
    assert "nothing to draw" in said(tree)
    assert drawn(tree, "promoted") == [1, 0, 2], "the lanes are there all the same"


def test_a_gap_in_the_stream_is_a_gap_in_the_line():
    result = result_of()
    for policy in result["policies"].values():
        over = policy["over_time"]
        policy["over_time"] = {
            "from": over["from"][:1] + over["from"][2:],
            "rows": over["rows"][1:],
            "loss": {name: values[1:] for name, values in over["loss"].items()},
        }
    lines = paths(result)
    assert len(lines) == 6 and all(line.count("M") == 2 for line in lines)


def test_a_long_stream_of_short_windows_stays_a_page_that_can_be_opened():
    result = result_of(windows=20_000)
    assert len(page(result)) < 1_000_000
    areas = [one for one in parsed(result).iter("rect") if one.get("class") == "window"]
    rows = [int(re.search(r"([\d,]+) rows compared", said(area))[1].replace(",", "")) for area in areas]
    assert sum(rows) == 2 * 20_000 * 500, "no window is left out of the two charts"


@pytest.mark.parametrize("loss", [0.0, 0.25, 1e9])
def test_losses_that_never_change_are_a_line(loss):
    result = result_of("regression")
    for policy in result["policies"].values():
        policy["over_time"]["loss"]["served"] = [loss] * len(policy["over_time"]["rows"])
    assert all(re.fullmatch(r"M[\d.]+ [\d.]+(L[\d.]+ [\d.]+)+", line) for line in paths(result))


def test_a_loss_far_above_all_others_does_not_flatten_them():
    result = result_of()
    result["policies"]["never"]["over_time"]["loss"]["served"][2] = 50.0
    tree = parsed(result)
    ticks = [float(one.text) for one in tree.iter("text") if re.fullmatch(r"\d+\.\d+", one.text)]
    assert max(ticks) < 2
    assert "cut off" in said(tree, "p") and "50.0000  never" in said(tree, "title")
