"""The page of a stage tells a person what moved, shows the rows that are far, and never stops the monitor."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from monitoring_lab import PROJECT, START, Lab

from core.audit import Ledger, RetrainRequest
from core.durations import DAY, HOUR
from core.project_file import parse_settings
from core.store import TableStore
from core.tables import WINDOWS, examples_schema
from monitoring.calibration import calibrations
from monitoring.comparison import DriftReport
from monitoring.decision import Decision
from monitoring.inspection import Inspection
from monitoring.judgement import Judgement
from monitoring.monitor import Monitor
from monitoring.page.document import Contents, page
from monitoring.page.far_rows import MOST_ROWS, far_rows, farthest
from monitoring.page.files import Pages
from monitoring.page.index import SHEET, Entry, Index
from monitoring.page.moves import moves
from monitoring.reference import Reference
from monitoring.rows import Losses, Sides
from monitoring.windows import WindowStage

HOSTILE = "</title><script>alert('x')</script>&\"\x00\u202e"
DATA = WindowStage(START, START + DAY, "data", START + DAY)
LABELS = WindowStage(START, START + DAY, "labels", START + DAY + 6 * HOUR)
DRIFTED, ALERT = Judgement("drifted", ("speed moved",)), Decision(alert=("speed moved",))


def settings_of(task="binary"):
    label = {
        "binary": "{path: y, horizon: 6h}",
        "multiclass": "{path: y, horizon: 6h, classes: [a, b, c]}",
        "regression": "{path: y, horizon: 6h}",
    }[task]
    text = PROJECT.replace("label: {path: y, horizon: 6h}", f"label: {label}")
    return parse_settings(text if task == "binary" else f"task: {task}\n{text}")


def rows_of(number, settings, **columns):
    """Examples of one day; what is not given is dull."""
    label, served = {
        "binary": (1, 0.5),
        "multiclass": ("a", [("a", 0.75), ("b", 0.25)]),
        "regression": (2.0, 1.5),
    }[settings.task]
    dull = {"speed": 1.0, "colour": "red", "wet": False}
    rows = [
        {
            "id": f"e{at}",
            "event_time": (START + at * 60_000) * 1000,
            "champion_version": 1,
            **{f"f_{name}": columns.get(name, [value] * number)[at] for name, value in dull.items()},
            "p_served": columns.get("served", [served] * number)[at],
            "label": columns.get("label", [label] * number)[at],
        }
        for at in range(number)
    ]
    for row, key in zip(rows, columns.get("id", []), strict=False):
        row["id"] = key
    return pa.Table.from_pylist(rows, schema=examples_schema(settings))


def inspection(current, reference, stage=DATA, **found):
    known = found.pop("known", current)
    report = found.pop("report", DriftReport({"speed": 2.0, "colour": 0.01, "wet": 0.0}, 0.0))
    return Inspection(
        stage,
        1,
        rows=current.num_rows,
        labels=current.num_rows if stage.stage == "labels" else 0,
        reference=Reference(1, "digest", reference, 0.5, 0.4),
        report=report,
        sides=Sides(current, reference, known),
        **found,
    )


def parsed(text):
    """The page as a tree; it is well-formed XML but for the doctype."""
    assert text.startswith("<!DOCTYPE html>\n")
    text.encode()
    return ElementTree.fromstring(text.partition("\n")[2])


def said(tree):
    return "".join(tree.itertext())


def hrefs(tree):
    return [link.get("href") for link in tree.iter("a")]


def open_monitor(lab: Lab) -> Monitor:
    return Monitor(lab.project, Ledger(lab.project.ledger), TableStore(lab.project.tables), send_alert=lab.sent.append)


@pytest.fixture
def drifting(lab: Lab) -> Lab:
    """Two windows that have drifted."""
    lab.fill(range(2), champion=1, shift=2.0)
    lab.reference(1)
    lab.promote(1, None)
    lab.reach(START + 2 * DAY + 6 * HOUR)
    return lab


def test_an_alert_names_a_page_that_says_why_and_leads_on(drifting):
    open_monitor(drifting).run_once()
    alert = drifting.sent[0]
    file = drifting.project.state / alert.body["report"]
    assert file.name == f"{alert.key}_page.html"
    tree = parsed(file.read_text())
    for reason in alert.body["reasons"]:
        assert reason in said(tree)
    assert alert.key in said(tree), "the ledger's key"
    assert f"headrace history {drifting.project.folder}" in said(tree)
    links = [href.partition("#")[0] for href in hrefs(tree)]
    assert {f"{alert.key}.html", "2013-01-01T00-00-00Z_labels_page.html", "index.html"} <= set(links)
    assert all((file.parent / link).is_file() for link in links), "every link leads somewhere"
    row = min(drifting.store.read(WINDOWS).to_pylist(), key=lambda row: row["due"])
    assert row["report"] == f"reports/{alert.key}.html", "the table still names Evidently's"


def test_a_retraining_is_on_the_page_and_what_came_of_it_on_the_index(drifting):
    lab = drifting
    open_monitor(lab).run_once()
    (request,) = lab.ledger.requests()
    page_of = lab.project.reports / "2013-01-02T00-00-00Z_data_page.html"
    assert request.id in said(parsed(page_of.read_text()))
    lab.ledger.advance(request.id, expect=("requested",), status="promoted", flow_run="flow-7")
    body = {"request": request.id, "mlflow_run": "run-8", "version": 2}
    lab.ledger.record("retraining", f"{request.id}/1", event_time=request.event_time, body=body)
    lab.promote(2, START + 2 * DAY + 7 * HOUR)
    lab.reference(2)
    lab.fill(range(2, 3), champion=2, shift=2.0)
    lab.reach(START + 3 * DAY)
    open_monitor(lab).run_once()
    index = said(parsed((lab.project.reports / "index.html").read_text()))
    assert f"{request.id}: promoted, Prefect flow run flow-7, MLflow run run-8, version 2" in index
    later = said(parsed((lab.project.reports / "2013-01-03T00-00-00Z_data_page.html").read_text()))
    assert "version 2, made by" in later and "flow-7" in later and "run-8" in later


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("stage", [DATA, LABELS])
def test_whatever_the_stream_calls_things_is_only_text(task, stage):
    settings = settings_of(task)
    names = [HOSTILE + "x" * 500, HOSTILE, "fine"]
    current = rows_of(3, settings, id=[HOSTILE + "9" * 500, "b", "c"], colour=names)
    losses = Losses({"served": 0.5, "champion": 0.25, "linear": 0.75}, 3, 0.25, 3)
    report = DriftReport({"speed": 0.1, "colour": 0.8, "wet": 0.0}, 0.0, skipped={"x": HOSTILE})
    found = inspection(current, rows_of(3, settings), stage, report=report, losses=losses)
    reason = (f"{HOSTILE} is new",)
    text = page(Contents(found, Judgement("drifted", reason), Decision(alert=reason), settings, history=HOSTILE))
    tree = parsed(text)
    assert not list(tree.iter("script")) and "<script" not in text
    assert "alert('x')" in said(tree)
    assert not re.search("9{200}|x{200}", text), "long values are shortened"
    assert all(len(list(row)) == len(list(tree_head(table))) for table in tree.iter("table") for row in body(table))


def tree_head(table):
    return table.find("thead/tr")


def body(table):
    return list(table.find("tbody"))


def test_the_farthest_numbers_are_those_beyond_the_reference_the_farthest_first():
    before = np.arange(101.0)
    assert [group.tolist() for group in farthest(np.array([50.0, 99.5, -90.0, 500.0, 98.0]), before)] == [[3, 2, 1]]
    assert farthest(np.array([50.0, 10.0, 60.0]), before)[0].tolist() == [1, 2, 0], "none beyond: the largest move"


def test_rows_without_a_value_are_far_where_these_have_become_many():
    before = np.arange(101.0)
    gone, far = farthest(np.array([np.nan, 500.0, np.nan]), before)
    assert (gone.tolist(), far.tolist()) == ([0, 2], [1])
    assert [group.tolist() for group in farthest(np.array([np.nan]), np.array([np.nan, np.nan]))] == []


def test_far_categories_are_the_unseen_and_the_risen():
    groups = farthest(["a", "new", "b", "b", "other", "new"], ["a", "a", "b", "c"])
    assert [group.tolist() for group in groups] == [[1, 5], [4], [2, 3]]


def test_example_rows_are_of_the_features_that_moved_with_their_labels():
    settings = settings_of()
    speeds = [1.0 + at % 10 for at in range(50)]
    reference = rows_of(50, settings, speed=speeds)
    current = rows_of(50, settings, speed=[*speeds[:47], 99.0, 50.0, 70.0], label=[0] * 49 + [1])
    found = inspection(current, reference, known=current.slice(0, 49))
    rows = far_rows(found, moves(found, settings), settings)
    assert [row.id for row in rows] == ["e47", "e48", "e49"]
    assert [row.values["speed"] for row in rows] == ["99", "50", "70"]
    assert [row.values["true label"] for row in rows] == ["0", "0", None]
    assert {row.far for row in rows} == {frozenset({"speed"})}
    assert "colour" not in rows[0].values, "it did not move"


def test_there_are_few_example_rows_and_each_moved_feature_has_some():
    settings = settings_of()
    reference = rows_of(100, settings)
    current = rows_of(100, settings, speed=[9.0] * 100, colour=["new"] * 100)
    found = inspection(current, reference, report=DriftReport({"speed": 9.0, "colour": 0.8, "wet": 0.0}, 0.0))
    rows = far_rows(found, moves(found, settings), settings)
    assert len(rows) <= MOST_ROWS
    assert {name for row in rows for name in row.far} == {"speed", "colour"}


def test_examples_of_labels_are_the_largest_losses_and_unknown_classes():
    settings = settings_of("multiclass")
    sure = [("a", 0.99), ("b", 0.01)]
    served = [sure] * 30
    current = rows_of(30, settings, served=served, label=["a"] * 28 + ["b", "c"])
    found = inspection(current, rows_of(30, settings, label=["a", "b"] * 15), LABELS, report=DriftReport(label=0.3))
    rows = far_rows(found, [], settings)
    by_id = {row.id: row for row in rows}
    assert by_id["e29"].far == {"true label", "loss of the served prediction"}
    assert by_id["e28"].far == {"loss of the served prediction"}
    assert by_id["e28"].values["served prediction"] == "a (0.99)"


def test_a_move_tells_quantiles_shares_and_missing_values_before_and_now():
    settings = settings_of()
    reference = rows_of(4, settings, speed=[1.0, 2.0, 3.0, None], colour=["red"] * 3 + ["blue"])
    current = rows_of(4, settings, speed=[11.0, 12.0, 13.0, 14.0], colour=["red", "new", "new", None])
    found = inspection(current, reference, report=DriftReport({"speed": 9.0, "colour": 0.8, "wet": 0.0}, 0.1))
    speed, colour, wet, prediction = moves(found, settings)
    assert (speed.name, speed.distance, speed.limit, speed.missing) == ("speed", 9.0, 0.25, (0.25, 0.0))
    median = speed.changes[1]
    assert (median.what, median.before, median.now) == ("median", 2.0, 12.5)
    assert [(change.what, change.before, change.now) for change in colour.changes] == [
        ("new", 0.0, 0.5),
        ("blue", 0.25, 0.0),
        ("red", 0.75, 0.25),
    ]
    assert (speed.is_far, colour.is_far, wet.is_far, prediction.is_far) == (True, True, False, False)


def test_what_is_usual_comes_from_the_calibration_unless_the_project_file_sets_limits():
    own = settings_of()
    free = own.model_copy(update={"drift": own.drift.model_copy(update={"feature_threshold": None})})
    draw = np.random.default_rng(0)
    days = rows_of(600, own, speed=draw.normal(size=600).tolist())
    times = pa.array([(START + at * 2 * HOUR) * 1000 for at in range(600)], days["event_time"].type)
    days = days.set_column(days.column_names.index("event_time"), "event_time", times)
    calibrated = calibrations(days, free)
    found = inspection(rows_of(60, own, speed=[5.0] * 60), days)
    surprise = calibrated["data"].surprise(found.report.features, START)
    found = replace(found, surprise=surprise, reference=replace(found.reference, calibrations=calibrated))
    usual = {signal.name: signal.usual for signal in surprise.moved}["speed"]
    assert {move.name: move.limit for move in moves(found, free)}["speed"] == usual
    assert {move.name: move.limit for move in moves(found, own)}["speed"] == 0.25


def test_a_column_that_cannot_be_compared_says_why():
    settings = settings_of()
    report = DriftReport({"colour": 0.0}, 0.0, skipped={"speed": "has no value on one side"})
    found = inspection(rows_of(3, settings, speed=[None] * 3), rows_of(3, settings), report=report)
    tree = parsed(page(Contents(found, DRIFTED, ALERT, settings)))
    assert "not compared: has no value on one side" in said(tree)
    assert "0 % → 100 %" in said(tree), "but that it is gone is seen"


def test_a_sentence_that_leaves_something_out_is_completed():
    settings = settings_of()
    found = inspection(rows_of(3, settings), rows_of(3, settings))
    decision = Decision(alert=("Only 3 events.",), trigger="drift", reasons=("It persists.",), release=(START,))
    text = said(parsed(page(Contents(found, DRIFTED, decision, settings))))
    assert "retrain It persists." in text and "Only 3 events." in text and "from 2013-01-01 00:00 is learned" in text


def test_the_index_tells_of_an_alert_that_was_sent_besides(lab):
    settings, pages = lab.project.settings, Pages(lab.project, lab.ledger)
    found = inspection(rows_of(30, settings), rows_of(30, settings))

    def row(decision):
        pages.write(found, DRIFTED, decision)
        (line,) = body(next(parsed((lab.project.reports / "index.html").read_text()).iter("table")))
        return " ".join(" ".join(line.itertext()).split())

    scheduled = Decision(trigger="schedule", reasons=("It is due.",))
    assert "retrain drifted It is due." in row(scheduled) and "alert" not in row(scheduled)
    both = row(replace(scheduled, alert=("a moved.",)))
    assert "retrain, alert drifted It is due. alert: a moved." in both
    told = row(Decision(alert=("a moved.",), quarantine=("a moved.",)))
    assert "quarantine, alert" in told and told.count("a moved.") == 1
    assert "alert drifted" in row(ALERT) and "alert, alert" not in row(ALERT)


def test_a_stage_that_is_not_judged_is_listed_and_has_a_page_only_if_something_was_decided(lab):
    lab.fill(range(2))
    lab.reach(START + 3 * DAY)
    open_monitor(lab).run_once()
    reports = lab.project.reports
    (decision,) = lab.ledger.history("decision")
    window = decision.body["window"]
    assert [path.name for path in reports.glob("*_page.html")] == [
        f"{window['start'].replace(':', '-')}_{window['stage']}_page.html"
    ]
    index = said(parsed((reports / "index.html").read_text()))
    assert "not judged. No reference: there is no champion yet." in index


def test_a_repeated_stage_writes_the_same_again(drifting):
    open_monitor(drifting).run_once()
    folder, ledger = drifting.project.reports, Ledger(drifting.project.ledger)
    settings = drifting.project.settings
    found = inspection(rows_of(30, settings), rows_of(30, settings))
    pages = Pages(drifting.project, ledger)
    pages.write(found, DRIFTED, ALERT)
    once = {path.name: path.read_bytes() for path in folder.glob("*.html")}
    pages.write(found, DRIFTED, ALERT)
    assert {path.name: path.read_bytes() for path in folder.glob("*.html")} == once


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_does_not_stop_the_monitor(drifting, caplog):
    reports = drifting.project.reports
    reports.mkdir(parents=True)
    for name in ("2013-01-01T00-00-00Z_data_page.html", "index.html"):
        (reports / f".{name}.part").symlink_to("/dev/full")
    assert open_monitor(drifting).run_once() == 4
    assert len(drifting.ledger.history("alert")) == 1 and len(drifting.ledger.requests()) == 1
    assert "its page cannot be written: [Errno 28] No space left on device" in caplog.text
    assert (reports / "2013-01-02T00-00-00Z_data_page.html").is_file()


def test_a_damaged_index_begins_again(drifting, caplog):
    drifting.project.reports.mkdir(parents=True)
    (drifting.project.reports / "index.json").write_text('{"entries": [{"unknown": 1}], "sheets": 0}')
    assert open_monitor(drifting).run_once() == 4
    assert "the index begins again" in caplog.text
    assert len(body(next(parsed((drifting.project.reports / "index.html").read_text()).iter("table")))) == 4


def test_the_index_shows_the_newest_first_and_stays_small(lab):
    settings, pages = lab.project.settings, Pages(lab.project, lab.ledger)
    names = [f"w{number:04d}" for number in range(2 * SHEET)]
    entries = tuple(
        Entry(name, START, START + DAY, "data", "steady", "ignore", "ignore.", None, None) for name in names
    )
    lab.project.reports.mkdir(parents=True)
    (lab.project.reports / "index.json").write_text(json.dumps(Index(entries).to_json()))
    for stage in (DATA, LABELS, LABELS):
        pages.write(Inspection(stage, 1), Judgement("not judged", ("Too few rows.",)), Decision())
    names += [DATA.name, LABELS.name]
    folder = lab.project.reports
    index = parsed((folder / "index.html").read_text())
    shown = [row.get("id") for row in body(next(index.iter("table")))]
    assert shown == names[SHEET:][::-1]
    assert hrefs(index) == ["index-0001.html"]
    older = parsed((folder / "index-0001.html").read_text())
    assert [row.get("id") for row in body(next(older.iter("table")))] == names[:SHEET][::-1]
    assert len(json.loads((folder / "index.json").read_text())["entries"]) == SHEET + 2
    assert settings.name in said(index)


@pytest.mark.parametrize(
    ("uri", "shown"), [("http://mlflow:5000", True), ("sqlite:///x", False), ("https://me:secret@mlflow", False)]
)
def test_mlflow_is_linked_only_where_it_has_an_address(lab, uri, shown):
    settings = lab.project.settings
    found = inspection(rows_of(30, settings), rows_of(30, settings))
    Pages(replace(lab.project, tracking_uri=uri), lab.ledger).write(found, DRIFTED, ALERT)
    text = (lab.project.reports / f"{DATA.name}_page.html").read_text()
    assert (uri in text) == shown


def test_an_open_retraining_is_named(lab):
    settings = lab.project.settings
    lab.ledger.request_retrain(RetrainRequest("manual-1", "manual", START, START))
    found = inspection(rows_of(30, settings), rows_of(30, settings))
    Pages(lab.project, lab.ledger).write(found, DRIFTED, ALERT)
    assert "manual-1, requested" in said(parsed((lab.project.reports / f"{DATA.name}_page.html").read_text()))
