"""The outbox: every request reaches Prefect once, whatever dies, and is given up in the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dispatch_lab import Clock, beat, status
from fake_prefect import FakePrefect
from flows_lab import write_project

from core.audit import Ledger, RetrainRequest
from core.errors import PrefectError
from flows.dispatch import LOST_AFTER_S, Dispatcher, pause_before
from flows.lease import MAX_ATTEMPTS, PROMOTING, find, take
from flows.prefect_api import PrefectApi


def test_a_request_becomes_one_run(dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect):
    for _ in range(3):
        dispatcher.run_once()
    assert list(prefect.runs) == ["drift-7/1"]
    assert prefect.runs["drift-7/1"]["parameters"] == {
        "project": "p",
        "request_id": "drift-7",
        "trigger": "drift",
        "attempt": 1,
    }
    assert status(ledger) == ("submitted", 1)
    assert find(ledger, "drift-7").flow_run == "run-1"


def test_dying_between_prefect_and_the_ledger_submits_no_second_run(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "advance", lambda *_, **__: False)
        dispatcher.run_once()
    assert status(ledger) == ("requested", 1)
    dispatcher.run_once()
    assert list(prefect.runs) == ["drift-7/1"]
    assert status(ledger) == ("submitted", 1)


def test_a_run_that_is_quicker_than_the_dispatcher_keeps_its_lease(
    dispatcher: Dispatcher, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    submit = PrefectApi.submit

    def quick(self: PrefectApi, *args: Any) -> str:
        run = submit(self, *args)
        take(ledger, "drift-7", run)
        return run

    monkeypatch.setattr(PrefectApi, "submit", quick)
    dispatcher.run_once()
    assert status(ledger) == ("running", 1)


@pytest.mark.parametrize("state", ["CRASHED", "CANCELLED", "FAILED", "COMPLETED"])
@pytest.mark.parametrize("running", [False, True])
def test_a_run_that_ended_without_closing_is_tried_again(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, clock: Clock, state: str, running: bool
):
    dispatcher.run_once()
    if running:
        take(ledger, "drift-7", "run-1")
    prefect.end(state)
    dispatcher.run_once()
    assert status(ledger) == ("requested", 2)
    dispatcher.run_once()
    assert list(prefect.runs) == ["drift-7/1"], "it rests first"
    clock.now += pause_before(2)
    dispatcher.run_once()
    assert list(prefect.runs) == ["drift-7/1", "drift-7/2"]


@pytest.mark.parametrize("running", [False, True])
def test_a_run_that_prefect_forgot_is_tried_again_once_it_shows_no_life(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, clock: Clock, running: bool
):
    dispatcher.run_once()
    if running:
        take(ledger, "drift-7", "run-1")
    prefect.runs.clear()
    dispatcher.run_once()
    clock.now += LOST_AFTER_S
    dispatcher.run_once()
    assert status(ledger) == ("running" if running else "submitted", 1)
    clock.now += 1
    dispatcher.run_once()
    assert status(ledger) == ("requested", 2)


def test_a_run_that_lives_on_another_server_of_prefects_is_left_alone(
    dispatcher: Dispatcher, one_off: Callable[[], None], ledger: Ledger, prefect: FakePrefect, clock: Clock, wall: Clock
):
    dispatcher.run_once()
    take(ledger, "drift-7", "run-of-the-other-server")
    for _ in range(60):
        clock.now += 10
        wall.now += 10
        beat(ledger, wall.now)
        dispatcher.run_once()
        one_off()
    assert status(ledger) == ("running", 1)
    wall.now += LOST_AFTER_S + 1
    one_off()
    assert status(ledger) == ("requested", 2)


def test_a_run_in_progress_is_left_alone(dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect):
    dispatcher.run_once()
    take(ledger, "drift-7", "run-1")
    prefect.end("RUNNING")
    dispatcher.run_once()
    assert status(ledger) == ("running", 1)


def test_a_run_older_than_the_time_out_is_cancelled_and_tried_again(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, clock: Clock
):
    dispatcher.run_once()
    lease = take(ledger, "drift-7", "run-1")
    prefect.end("RUNNING")
    for minute in range(31):  # it lives, and does not come to its end
        assert status(ledger) == ("running", 1), minute
        beat(ledger, clock.now)
        dispatcher.run_once()
        clock.now += 60
    dispatcher.run_once()
    assert status(ledger) == ("requested", 2)
    assert "not finished after 1800 s" in find(ledger, "drift-7").body["reasons"][0]
    assert prefect.cancelled == ["run-1"]
    with pytest.raises(Exception, match="stops without promoting"):
        lease.close("promoted", [])


def test_a_wall_clock_that_jumps_ends_no_run_and_changes_no_rest(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, clock: Clock, wall: Clock
):
    dispatcher.run_once()
    wall.now += 86_400
    dispatcher.run_once()
    prefect.end("PENDING")
    dispatcher.run_once()
    assert status(ledger) == ("submitted", 1)
    take(ledger, "drift-7", "run-1")
    for jump in (86_400, -3 * 86_400):
        wall.now += jump
        dispatcher.run_once()
        assert status(ledger) == ("running", 1)
    prefect.end("CRASHED")
    dispatcher.run_once()
    clock.now += 1
    dispatcher.run_once()
    clock.now += pause_before(2)
    dispatcher.run_once()
    assert status(ledger) == ("submitted", 2)


def test_who_looks_only_once_goes_by_what_the_ledger_says(
    one_off: Callable[[], None], ledger: Ledger, prefect: FakePrefect, wall: Clock
):
    one_off()
    take(ledger, "drift-7", "run-1")
    prefect.end("RUNNING")
    one_off()
    assert status(ledger) == ("running", 1)
    wall.now += 31 * 60
    one_off()
    assert status(ledger) == ("requested", 2)
    one_off()
    assert status(ledger) == ("submitted", 2)


def test_after_the_last_attempt_it_is_given_up_with_the_reasons_and_an_alert(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, clock: Clock
):
    ledger.pin("examples", 3, "drift-7")
    pauses = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        waited = clock.now
        while f"drift-7/{attempt}" not in prefect.runs:
            clock.now += 5
            dispatcher.run_once()
        pauses.append(clock.now - waited)
        prefect.end("CRASHED")
        dispatcher.run_once()
    assert status(ledger) == ("failed", MAX_ATTEMPTS)
    assert pauses == sorted(pauses)
    assert pauses[-1] >= pause_before(MAX_ATTEMPTS)
    assert len(prefect.runs) == MAX_ATTEMPTS
    assert len(find(ledger, "drift-7").body["reasons"]) == MAX_ATTEMPTS
    assert [alert.record.key for alert in ledger.waiting_alerts()] == ["retraining-drift-7"]
    assert ledger.pinned("examples") == []
    assert ledger.request_retrain(RetrainRequest("next", "drift", 30, 40))


def test_a_decided_promotion_whose_run_died_is_carried_out_and_not_tried_again(
    tmp_path: Path, ledger: Ledger, prefect: FakePrefect
):
    asked: list[str] = []

    def carry_out(request_id: str) -> str:
        asked.append(request_id)
        ledger.advance(request_id, expect=("running",), status="promoted")
        return "version 1 is champion"

    dispatcher = Dispatcher(write_project(tmp_path, "binary"), ledger, prefect.url, carry_out=carry_out)
    dispatcher.run_once()
    take(ledger, "drift-7", "run-1")
    ledger.advance("drift-7", expect=("running",), status="running", body={PROMOTING: {}})
    dispatcher.run_once()
    assert asked == [], "the run lives and does it itself"
    prefect.end("CRASHED")
    for _ in range(3):
        dispatcher.run_once()
    assert asked == ["drift-7"]
    assert status(ledger) == ("promoted", 1)


def test_a_hundred_decisions_in_an_outage_are_one_retraining(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect
):
    deployments, prefect.deployments = prefect.deployments, {}
    for number in range(100):
        assert not ledger.request_retrain(RetrainRequest(f"drift-{number}", "drift", number, number))
        with pytest.raises(PrefectError):
            dispatcher.run_once()
    prefect.deployments = deployments
    for _ in range(5):
        dispatcher.run_once()
    assert list(prefect.runs) == ["drift-7/1"]
