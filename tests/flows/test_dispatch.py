"""The outbox: every request reaches Prefect once, whatever dies, and is given up in the end."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_prefect import FakePrefect
from flows_lab import write_project

from core.audit import Ledger, RetrainRequest
from core.errors import PrefectError, StoreError
from flows.dispatch import LOST_AFTER_S, Dispatcher, pause_before
from flows.lease import MAX_ATTEMPTS, PROMOTING, beat_name, find, take, try_again
from flows.prefect_api import PrefectApi


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "ledger.sqlite")
    made.request_retrain(RetrainRequest("drift-7", "drift", 10, 20))
    return made


class Clock:
    def __init__(self) -> None:
        import time

        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Never jumps: what a dispatcher goes by."""
    return Clock()


@pytest.fixture
def wall() -> Clock:
    return Clock()


@pytest.fixture
def dispatcher(tmp_path: Path, ledger: Ledger, prefect: FakePrefect, clock: Clock, wall: Clock) -> Dispatcher:
    project = write_project(tmp_path, "binary")
    return Dispatcher(project, ledger, prefect.url, carry_out=lambda _: None, clock=wall, steady=clock)


@pytest.fixture
def one_off(tmp_path: Path, ledger: Ledger, prefect: FakePrefect, wall: Clock) -> Callable[[], None]:
    """Looks once, as the drift check does: nothing is known from before."""
    project = write_project(tmp_path, "binary")

    def look() -> None:
        Dispatcher(project, ledger, prefect.url, carry_out=lambda _: None, one_off=True, clock=wall).run_once()

    return look


def beat(ledger: Ledger, at: float = 0.0) -> None:
    """A sign of life of the attempt that has the request."""
    ledger.remember(beat_name(find(ledger, "drift-7")), {"at": at})


def status(ledger: Ledger) -> tuple[str, int]:
    request = find(ledger, "drift-7")
    return request.status, request.attempt


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


def test_a_run_that_shows_no_life_is_lost_long_before_the_time_out(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, clock: Clock
):
    dispatcher.run_once()
    take(ledger, "drift-7", "run-1")
    prefect.end("RUNNING")
    for number in range(30):  # five minutes in which it lives
        clock.now += 10
        beat(ledger, number)
        dispatcher.run_once()
    assert status(ledger) == ("running", 1)
    for _ in range(13):
        clock.now += 10
        dispatcher.run_once()
    assert status(ledger) == ("requested", 2)
    assert prefect.cancelled == ["run-1"]


def test_the_death_of_an_attempt_is_seen_while_the_one_before_it_still_works(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, clock: Clock
):
    dispatcher.run_once()
    first = take(ledger, "drift-7", "run-1")
    with ledger.transaction():
        try_again(ledger, find(ledger, "drift-7"), "it stood still")
    take(ledger, "drift-7", "run-2")
    prefect.end("RUNNING")
    for number in range(14):
        ledger.remember(beat_name(first.request), {"at": number})
        dispatcher.run_once()
        clock.now += 10
    assert status(ledger) == ("requested", 3)


def test_a_run_shows_life_while_it_has_the_request_and_leaves_nothing_behind(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flows.lease.BEAT_S", 0.01)

    def beats() -> list[str]:
        rows = ledger._rows("SELECT name FROM memory WHERE name LIKE 'retraining.beat%'", ())
        return [row["name"] for row in rows]

    lease = take(ledger, "drift-7", "run-1")
    with lease.held():
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "lease"]
        while not beats():
            assert thread.is_alive()
        with ledger.transaction():
            try_again(ledger, find(ledger, "drift-7"), "it stood still")
        thread.join()  # though the run is in a long step
    assert beats() == []
    again = take(ledger, "drift-7", "run-2")
    with again.held():
        while not beats():
            pass
        again.close("gated", [])
    assert beats() == []


def test_what_waits_for_a_worker_of_prefect_is_not_lost(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, clock: Clock
):
    for _ in range(200):  # a weekend without a worker
        dispatcher.run_once()
        clock.now += 15 * 60
    assert status(ledger) == ("submitted", 1)
    prefect.end("PENDING")  # one took it, and died with it
    dispatcher.run_once()
    clock.now += 31 * 60
    dispatcher.run_once()
    assert status(ledger) == ("requested", 2)


def test_a_run_that_stands_still_is_ended_before_the_ledger_is_needed(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch, clock: Clock
):
    dispatcher.run_once()
    take(ledger, "drift-7", "run-1")
    prefect.end("RUNNING")
    dispatcher.run_once()
    clock.now += 31 * 60

    def locked() -> None:
        raise StoreError("database is locked: by the run that stands still")

    monkeypatch.setattr(ledger, "transaction", locked)
    with pytest.raises(StoreError):
        dispatcher.run_once()
    assert prefect.cancelled == ["run-1"]


def test_a_slow_second_dispatcher_does_not_mark_a_later_attempt(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
):
    submit = PrefectApi.submit

    def slow(self: PrefectApi, *args: Any) -> str:
        run = submit(self, *args)
        ledger.advance("drift-7", expect=("requested",), status="requested", next_attempt=True)
        return run

    monkeypatch.setattr(PrefectApi, "submit", slow)
    dispatcher.run_once()
    assert status(ledger) == ("requested", 2)


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


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", b"HTTP/1.1 500"])
def test_a_server_killed_in_the_middle_of_an_answer_is_a_prefect_error(answer: bytes):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def die() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(PrefectError, match=r"Prefect at http://127\.0\.0\.1"):
            PrefectApi(f"http://127.0.0.1:{server.getsockname()[1]}/api").state("run-1")
        thread.join()


def test_a_dispatcher_outlives_an_answer_that_nobody_expects(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect
):
    looks = iter(range(2))

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            look = next(looks, None)
            prefect.deployments["retrain/toy-binary"] = {"id": "d1", "parameters": {} if look else None}
            return look is None

    dispatcher.run(Stop())
    assert status(ledger) == ("submitted", 1)


def test_without_the_deployment_the_request_waits_and_it_is_said_once_how_to_deploy(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, caplog: pytest.LogCaptureFixture
):
    prefect.deployments.clear()
    looks = iter(range(5))

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return next(looks, None) is None

    pauses: list[float | None] = []
    with caplog.at_level(logging.WARNING, "headrace.dispatch"):
        dispatcher.run(Stop(), poll_s=1.0)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("requests wait: ")
    assert "no deployment retrain/toy-binary" in said
    assert "make deploy PROJECT=" in said
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert status(ledger) == ("requested", 1)


def test_an_unreachable_prefect_is_a_prefect_error():
    api = PrefectApi("http://127.0.0.1:9/api", timeout_s=1.0)
    assert not api.is_healthy()
    with pytest.raises(PrefectError, match="cannot be reached"):
        api.state("run-1")
