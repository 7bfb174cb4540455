"""A run shows that it lives: one that does not is lost, and no attempt speaks for another."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from dispatch_lab import Clock, beat, status
from fake_prefect import FakePrefect

from core.audit import Ledger
from core.errors import StoreError
from flows.dispatch import Dispatcher
from flows.lease import beat_name, find, take, try_again
from flows.prefect_api import PrefectApi


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
