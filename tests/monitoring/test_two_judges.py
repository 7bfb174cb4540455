"""Two processes judge the same windows: at whatever step one overtakes the other, it is as if there were one."""

from __future__ import annotations

import itertools

import pytest
from monitoring_lab import ROWS, START, Lab, open_lab

from core.audit import Ledger
from core.durations import DAY
from core.locks import FileLock
from core.status import read_status
from core.store import TableStore
from core.tables import WINDOWS
from monitoring.drift_report import DriftReport
from monitoring.inspection import Inspection, Inspector
from monitoring.monitor import Monitor


@pytest.fixture(autouse=True)
def one_window_has_drifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first, in its data stage; two in a row would be a retraining."""

    def inspect(self, stage, champion):
        far = 2.0 if (stage.start, stage.stage) == (START - START % DAY, "data") else 0.0
        report = DriftReport(features={"speed": far, "colour": 0.0, "wet": 0.0})
        return Inspection(stage, champion, rows=ROWS, labels=ROWS, report=report)

    monkeypatch.setattr(Inspector, "inspect", inspect)


def judged_lab(folder) -> Lab:
    folder.mkdir()
    lab = open_lab(folder)
    lab.promote(1, None)
    lab.reach(START + 2 * DAY)
    return lab


def open_monitor(lab: Lab) -> Monitor:
    return Monitor(lab.project, Ledger(lab.project.ledger), TableStore(lab.project.tables), send_alert=lab.sent.append)


def assert_as_of_one_judge(lab: Lab) -> None:
    stages = [(row["window_start"].day, row["stage"]) for row in lab.store.read(WINDOWS).to_pylist()]
    assert sorted(stages) == [(1, "data"), (1, "labels"), (2, "data")]
    assert len(lab.ledger.history("alert")) == 1
    assert lab.ledger.requests() == [], "one window has drifted: that is no retraining"
    assert lab.ledger.recall("monitor.cursor")["appended"] == 3
    assert read_status(lab.project.status, "monitor")["windows"] == {"closed": 2, "reported": 0, "alerts": 1}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", ["append", "history", "recall"])
def test_one_that_is_overtaken_at_any_step_changes_nothing(tmp_path, monkeypatch, step, before):
    monkeypatch.setattr(FileLock, "acquire", lambda *_: True)  # as if the two did not see each other
    target = TableStore if hasattr(TableStore, step) else Ledger
    original, overtaken = getattr(target, step), 0
    for at in itertools.count(1):
        lab, calls = judged_lab(tmp_path / str(at)), itertools.count(1)
        slow, quick = open_monitor(lab), open_monitor(lab)

        def overtaking(self, *args, slow=slow, quick=quick, calls=calls, at=at, **options):
            turn = self in (slow._store, slow._ledger) and not slow._ledger._depth and next(calls) == at
            if turn and before:
                quick.run_once()
            result = original(self, *args, **options)
            if turn and not before:
                quick.run_once()
            return result

        with monkeypatch.context() as patched:
            patched.setattr(target, step, overtaking)
            slow.run_once()
        assert_as_of_one_judge(lab)
        if next(calls) <= at:
            break
        overtaken += 1
    assert overtaken >= 3


def test_while_one_judges_another_leaves_the_windows_to_it(tmp_path, monkeypatch):
    lab, found, inspect = judged_lab(tmp_path / "lab"), [], Inspector.inspect

    def during(self, *args):
        found.append(open_monitor(lab).run_once())
        return inspect(self, *args)

    monkeypatch.setattr(Inspector, "inspect", during)
    assert open_monitor(lab).run_once() == 3
    assert found == [None] * 3
    assert_as_of_one_judge(lab)
    assert open_monitor(lab).run_once() == 0
