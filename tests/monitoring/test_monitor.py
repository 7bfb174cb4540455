from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace

import monitoring_lab
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from monitoring_lab import ROWS, START, Lab, day_rows

from core.audit import Ledger
from core.durations import DAY, HOUR
from core.errors import AlreadyRunningError, HeadraceError, StoreError
from core.locks import FileLock
from core.status import read_status, write_status
from core.store import TableStore
from core.tables import CORRECTIONS, WINDOWS, corrections_schema
from monitoring.decision import PolicyState
from monitoring.monitor import POLICY, Monitor


def open_monitor(lab: Lab) -> Monitor:
    """As after a restart: nothing is kept but what is on disk."""
    return Monitor(lab.project, Ledger(lab.project.ledger), TableStore(lab.project.tables), send_alert=lab.sent.append)


def rows_of(lab: Lab) -> list[dict[str, object]]:
    return sorted(lab.store.read(WINDOWS).to_pylist(), key=lambda row: (row["due"], row["stage"]))


def finish(lab: Lab, status: str = "promoted") -> None:
    for request in lab.ledger.open_requests():
        lab.ledger.advance(request.id, expect=("requested",), status=status)


@pytest.fixture
def drifting(lab: Lab) -> Lab:
    """Four calm days, then four that have drifted; version 1 is champion from the second day."""
    lab.fill(range(2))
    lab.fill(range(2, 4), champion=1)
    lab.fill(range(4, 8), champion=1, shift=2.0)
    lab.reference(1)
    lab.promote(1, START + 2 * DAY + HOUR)
    lab.reach(START + 8 * DAY)
    return lab


def test_drift_that_persists_alerts_and_retrains_once(drifting):
    lab = drifting
    lab.reach(START + 3 * DAY)
    assert open_monitor(lab).run_once() == 5
    assert lab.ledger.requests() == []
    lab.reach(START + 8 * DAY)
    monitor = open_monitor(lab)
    assert monitor.run_once() == 10
    assert monitor.run_once() == 0
    (request,) = lab.ledger.requests()
    assert (request.id, request.event_time) == ("drift-2013-01-07T00:00:00Z", START + 6 * DAY)
    assert request.effective_at == START + 6 * DAY + lab.project.settings.retrain.duration
    (decision,) = lab.ledger.history("decision")
    assert decision.key == request.id
    assert decision.body["champion"] == 1
    assert "2 of the latest" in decision.body["reasons"][0]
    starts = [alert.key for alert in lab.sent]
    assert starts == [f"2013-01-0{day}T00-00-00Z_data" for day in (5, 8)], "when it begins, and after the cooldown"
    status = read_status(lab.project.status, "monitor")
    assert status["evaluated_through"] == START + 8 * DAY
    assert status["windows"] == {"closed": 8, "reported": 7, "alerts": 2}


def test_the_windows_table_says_what_was_found(drifting):
    open_monitor(drifting).run_once()
    rows = rows_of(drifting)
    assert [row["verdict"] for row in rows if row["stage"] == "data"] == ["not judged"] * 2 + ["steady"] * 2 + [
        "drifted"
    ] * 4
    assert rows[0]["not_judged_because"].startswith("No reference")
    last = rows[-1]
    assert (last["rows"], last["champion_version"], last["judged"]) == (ROWS, 1, True)
    assert dict(last["distances"])["speed"] > 1.5
    assert (drifting.project.state / last["report"]).is_file()
    labels = [row for row in rows if row["stage"] == "labels"][-1]
    assert labels["labels"] == labels["loss_rows"] == ROWS
    assert set(dict(labels["losses"])) == {"served", "champion", "linear", "prior"}
    assert labels["label_distance"] < 0.2


def test_a_champion_that_disappoints_is_drift_once_labels_are_due(lab):
    lab.fill(range(1), champion=1, wrong=True)
    lab.reference(1, loss=0.5)
    lab.promote(1, None)
    lab.reach(START + DAY + 6 * HOUR)
    assert open_monitor(lab).run_once() == 2
    data, labels = rows_of(lab)
    assert labels["verdict"] == "drifted"
    assert any("validation loss" in reason for reason in labels["reasons"])
    assert len(lab.sent) == 1
    assert data["losses"] == []


@pytest.mark.parametrize(("in_company", "known"), [(5, False), (29, False), (30, True)])
def test_how_far_a_champion_fell_behind_is_not_told_by_a_few_labels(lab, in_company, known):
    rows = day_rows(0, champion=1)
    for number, row in enumerate(rows):
        row["p_champion"] = 0.5
        if number >= in_company:
            row["p_linear"] = None
    lab.append(rows)
    lab.reference(1, loss=0.2, served=0.6)
    lab.promote(1, None)
    lab.reach(START + DAY + 6 * HOUR)
    open_monitor(lab).run_once()
    state = PolicyState.from_json(lab.ledger.recall(POLICY))
    assert (state.shortfall > 0.5) is known


def test_the_moment_at_which_the_loss_rose_is_told_with_the_drift_it_belongs_to(lab):
    lab.fill(range(3), champion=1)
    lab.fill(range(3, 4), champion=1, wrong=True)
    lab.reference(1, loss=0.6)
    lab.promote(1, None)
    lab.reach(START + 4 * DAY + 6 * HOUR)
    open_monitor(lab).run_once()
    detected = {(row["window_start"].day, row["stage"]): row["detected"] for row in rows_of(lab)}
    assert detected[4, "data"] is None
    assert detected[2, "labels"] == []
    (served, *_) = detected[4, "labels"]
    assert served["loss"] == "served"
    assert abs(served["at"].timestamp() * 1000 - START - 3 * DAY) < 4 * HOUR
    assert served["before"] < served["after"]
    (alert,) = lab.ledger.history("alert")
    assert any("see the served loss rise from" in reason for reason in alert.body["reasons"])


def test_windows_are_appended_to_the_table_of_an_older_headrace(lab):
    lab.fill(range(2))
    lab.reach(START + DAY)
    open_monitor(lab).run_once()
    rows = lab.store.read(WINDOWS)
    shutil.rmtree(lab.project.tables / WINDOWS)
    lab.store.append(WINDOWS, rows.drop_columns(["detected"]), app="monitor", sequence=1)
    lab.reach(START + 2 * DAY)
    open_monitor(lab).run_once()
    assert [row["detected"] for row in rows_of(lab)] == [None] * 3


def test_corrected_labels_count(lab):
    lab.fill(range(1), champion=1, wrong=True)
    lab.reference(1, loss=0.5)
    lab.promote(1, None)
    examples = lab.store.read("examples")
    flipped = [
        {"id": key, "label": int(p > 0.5), "label_time": START * 1000, "label_clock": (START + 9 * HOUR) * 1000}
        for key, p in zip(examples["id"].to_pylist(), examples["p_served"].to_pylist(), strict=True)
    ]
    table = pa.Table.from_pylist(flipped, schema=corrections_schema(lab.project.settings))
    lab.store.append(CORRECTIONS, table, app="worker-0", sequence=1)
    lab.reach(START + DAY + 6 * HOUR)
    open_monitor(lab).run_once()
    assert dict(rows_of(lab)[1]["losses"])["champion"] < 0.5


def test_bootstrap_is_decided_once_and_again_after_it_failed(lab):
    lab.fill(range(5))
    lab.reach(START + 4 * DAY)
    open_monitor(lab).run_once()
    assert [request.id for request in lab.ledger.requests()] == ["bootstrap-2013-01-03T06:00:00Z"]
    finish(lab, "failed")
    lab.reach(START + 5 * DAY)
    open_monitor(lab).run_once()
    assert [request.trigger for request in lab.ledger.requests()] == ["bootstrap", "bootstrap"]
    assert lab.sent == []


def test_a_retraining_is_under_way_until_it_takes_effect_however_soon_its_fit_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(monitoring_lab, "PROJECT", monitoring_lab.PROJECT.replace("every: 30d", "duration: 47h"))
    lab = monitoring_lab.open_lab(tmp_path)
    lab.fill(range(6))
    for day in (4, 5, 6):
        lab.reach(START + day * DAY)
        open_monitor(lab).run_once()
        finish(lab, "gated")
    assert [request.id for request in lab.ledger.requests()] == [
        "bootstrap-2013-01-03T06:00:00Z",
        "bootstrap-2013-01-05T06:00:00Z",
    ]


@pytest.mark.parametrize("damage", ["flipped", "exchanged", "missing", "stamp", "foreign"])
def test_a_damaged_reference_is_an_alert_and_the_window_is_not_judged(lab, damage):
    lab.fill(range(1), champion=1, shift=2.0)
    path = lab.reference(1)
    lab.promote(1, None)
    if damage == "flipped":
        path.write_bytes(path.read_bytes()[:200] + b"X" + path.read_bytes()[201:])
    elif damage == "exchanged":
        pq.write_table(pq.read_table(path).slice(1), path)
    elif damage == "missing":
        path.unlink()
    elif damage == "stamp":
        path.with_suffix(".json").write_text("{}")
    else:
        path.with_suffix(".json").write_text(
            path.with_suffix(".json").read_text().replace('"version": 1', '"version": 2')
        )
    lab.reach(START + DAY + 6 * HOUR)
    assert open_monitor(lab).run_once() == 2
    assert [row["judged"] for row in rows_of(lab)] == [False, False]
    assert "reference of champion version 1" in rows_of(lab)[0]["not_judged_because"]
    assert [alert.key for alert in lab.sent] == ["2013-01-01T00-00-00Z_data"]
    assert lab.ledger.requests() == []


class BrokenError(Exception):
    """Stands for the machine going down."""


@pytest.mark.parametrize("where", ["append", "remember", "record", "request_retrain"])
def test_a_restart_anywhere_gives_the_same_records_as_no_restart(drifting, monkeypatch, where):
    lab = drifting
    target = TableStore if where == "append" else Ledger
    original = getattr(target, where)
    calls = {"left": 5}

    def sometimes(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        calls["left"] -= 1
        if calls["left"] <= 0:
            calls["left"] = 7
            raise BrokenError
        return result

    processed = 0
    monkeypatch.setattr(target, where, sometimes)
    for _ in range(40):
        try:
            processed += open_monitor(lab).run_once()
            break
        except BrokenError:
            continue
    monkeypatch.undo()
    rows = rows_of(lab)
    assert len(rows) == len({(row["window_start"], row["stage"]) for row in rows}) == 15
    assert [request.id for request in lab.ledger.requests()] == ["drift-2013-01-07T00:00:00Z"]
    assert len(lab.ledger.history("decision")) == 1
    assert {alert.key for alert in lab.sent} == {alert.key for alert in lab.ledger.history("alert")}
    assert len(lab.ledger.history("alert")) == 2
    assert read_status(lab.project.status, "monitor")["windows"] == {"closed": 8, "reported": 7, "alerts": 2}


def test_a_second_monitor_is_refused_however_long_the_first_is_in_a_stage(lab):
    first = FileLock(lab.project.status / "monitor.lock")
    first.acquire("monitor")
    with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} on"):
        open_monitor(lab).run(threading.Event())


def test_a_monitor_follows_a_drift_check_that_is_at_work(lab):
    lab.fill(range(1))
    lab.reach(START + DAY)
    check = FileLock(lab.project.status / "monitor.lock")
    check.acquire("drift check")

    class Stop(threading.Event):
        def wait(self, timeout=None):
            if threading.current_thread() is not threading.main_thread():
                return super().wait(timeout)  # who sends the alerts waits, too, and must not end what has not begun
            if check._held is None:
                self.set()
            check.release()
            return self.is_set()

    open_monitor(lab).run(Stop(), poll_s=0.01)
    assert len(rows_of(lab)) == 1


@pytest.mark.parametrize("phase", ["running", "recovering"])
def test_a_partition_without_a_record_holds_nothing_back_unless_it_recovers(lab, phase):
    lab.fill(range(5))
    reached = {"phase": "running", "first_event": START + HOUR, "clock": START + 4 * DAY, "step": 7}
    empty = {"phase": phase, "first_event": None, "clock": 0, "flushed_through": 0, "step": 0, "positions": {"e": 0}}
    partitions = {"0": {**reached, "flushed_through": START + 4 * DAY}, "1": empty}
    write_status(lab.project.status, "worker", {"state": "running", "partitions": partitions})
    open_monitor(lab).run_once()
    assert [request.trigger for request in lab.ledger.requests()] == ["bootstrap"] * (phase == "running")
    evaluated = read_status(lab.project.status, "monitor")["evaluated_through"]
    assert evaluated == (START + 4 * DAY if phase == "running" else 0)


def test_a_table_that_cannot_be_read_is_retried_and_then_the_window_is_judged(lab, monkeypatch):
    lab.fill(range(1))
    lab.reach(START + DAY)
    original, seen, stop = TableStore.read, [], threading.Event()

    def broken(self, table, **options):
        seen.append(table)
        if len(seen) < 3:
            raise StoreError("table cannot be read: the disk is gone")
        stop.set()
        return original(self, table, **options)

    monkeypatch.setattr(TableStore, "read", broken)
    monitor = open_monitor(lab)
    with pytest.raises(StoreError):
        monitor.run_once()
    monitor.run(stop, poll_s=0.01)
    assert len(rows_of(lab)) == 1
    status = read_status(lab.project.status, "monitor")
    assert (status["state"], status["evaluated_through"]) == ("stopped", START + DAY)


def test_while_a_stage_fails_nothing_after_it_counts_as_evaluated(lab, monkeypatch):
    lab.fill(range(2))
    lab.reach(START + 2 * DAY)
    stop = threading.Event()

    def broken(*_, **__):
        stop.set()
        raise StoreError("table cannot be read")

    monkeypatch.setattr(TableStore, "read", broken)
    open_monitor(lab).run(stop, poll_s=0.01)
    assert read_status(lab.project.status, "monitor")["evaluated_through"] == START + DAY - 1


def test_a_report_that_cannot_be_made_is_an_alert_and_the_next_window_goes_on(lab, monkeypatch):
    lab.fill(range(2), champion=1)
    lab.reference(1)
    lab.promote(1, None)
    lab.reach(START + 2 * DAY)

    def broken(*_, **__):
        raise HeadraceError("drift report: cannot be made")

    monkeypatch.setattr("monitoring.inspection.report_data", broken)
    open_monitor(lab).run_once()
    assert [alert.body["reasons"] for alert in lab.sent] == [["drift report: cannot be made"]] * 2
    assert [row["judged"] for row in rows_of(lab) if row["stage"] == "data"] == [False, False]


def test_rows_that_came_after_the_due_time_do_not_count(lab):
    lab.fill(range(1))
    early = lab.store.read("predictions")
    late = pa.array([(START + DAY + HOUR) * 1000] * early.num_rows, early["clock"].type)
    late_rows = early.set_column(early.column_names.index("clock"), "clock", late)
    lab.store.append("predictions", late_rows, app="late", sequence=1)
    lab.reach(START + 2 * DAY)
    open_monitor(lab).run_once()
    assert next(row["rows"] for row in rows_of(lab) if row["stage"] == "data") == ROWS


def test_without_a_worker_nothing_is_evaluated(lab):
    assert open_monitor(lab).run_once() == 0
    assert read_status(lab.project.status, "monitor")["evaluated_through"] == -1


def test_a_long_gap_is_passed_over_in_one_step(lab):
    lab.fill(range(1))
    lab.fill(range(5_000, 5_001))
    lab.reach(START + 5_002 * DAY)
    assert open_monitor(lab).run_once() < 12
    data = [row for row in rows_of(lab) if row["stage"] == "data"]
    assert [row["rows"] for row in data] == [ROWS, 0, ROWS, 0]
    assert sum(row["labels"] for row in rows_of(lab)) == 2 * ROWS


def test_a_short_gap_is_recorded_window_by_window(lab):
    lab.fill(range(1))
    lab.fill(range(4, 5))
    lab.reach(START + 5 * DAY)
    open_monitor(lab).run_once()
    assert [row["rows"] for row in rows_of(lab) if row["stage"] == "data"] == [ROWS, 0, 0, 0, ROWS]


def test_a_lost_ledger_does_not_lose_later_windows(lab):
    lab.fill(range(3))
    lab.reach(START + 2 * DAY)
    open_monitor(lab).run_once()
    lab.ledger.close()
    for path in lab.project.state.glob("ledger.sqlite*"):
        path.unlink()
    lab.reach(START + 3 * DAY)
    again = replace(lab, ledger=Ledger(lab.project.ledger))
    open_monitor(again).run_once()
    assert {row["window_start"].day for row in rows_of(again)} == {1, 2, 3}


def with_volume(lab: Lab, version: int) -> None:
    """A reference that knows how many events a day has."""
    lab.reference(version)
    about = lab.project.state / "references" / f"{version}.json"
    around = {"within": [0.01, 0.02, 0.03, 0.04, 0.05], "across": [0.02, 0.03, 0.04, 0.05, 0.06]}
    volume = {"block": DAY, "expected": [float(ROWS)], "quietest": 0.9, "blocks": 28, **around}
    about.write_text(json.dumps({**json.loads(about.read_text()), "volume": volume}))


def test_an_outage_is_told_when_it_begins_and_after_each_cooldown_though_nothing_can_be_judged(lab):
    lab.fill(range(2), champion=1)
    with_volume(lab, 1)
    lab.promote(1, None)
    lab.reach(START + 7 * DAY)
    open_monitor(lab).run_once()
    assert [alert.key for alert in lab.sent] == ["2013-01-03T00-00-00Z_data", "2013-01-06T00-00-00Z_data"]
    assert lab.sent[0].body["reasons"] == ["No event, where about 80 are usual: is a source down?"]
    assert {row["verdict"] for row in rows_of(lab) if row["rows"] == 0} == {"not judged"}
    assert lab.ledger.requests() == []


def test_a_long_outage_that_is_passed_over_in_one_step_is_told_once(lab):
    lab.fill(range(1), champion=1)
    lab.fill(range(5_000, 5_001), champion=1)
    with_volume(lab, 1)
    lab.promote(1, None)
    lab.reach(START + 5_001 * DAY)
    open_monitor(lab).run_once()
    assert [alert.key for alert in lab.sent] == ["2013-01-02T00-00-00Z_data"]


def test_before_the_first_champion_nothing_is_known_of_volume(lab):
    lab.fill(range(1))
    lab.reach(START + 4 * DAY)
    open_monitor(lab).run_once()
    assert lab.sent == []
