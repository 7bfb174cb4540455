from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import pytest

from core.audit import Ledger, RetrainRequest
from core.errors import StoreError


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "deep" / "ledger.sqlite")
    yield made
    made.close()


def request(name: str = "r1") -> RetrainRequest:
    return RetrainRequest(name, "drift", 10, 20, body={"why": "share"})


def test_a_record_is_written_once_and_kept(ledger, tmp_path):
    assert ledger.record("alert", "w1", event_time=5, body={"a": [1, None]})
    assert not ledger.record("alert", "w1", event_time=6, body={"a": 2})
    assert ledger.record("decision", "w1", event_time=None, body={})
    ledger.close()
    again = Ledger(tmp_path / "deep" / "ledger.sqlite")
    assert [(r.kind, r.key, r.event_time, r.body) for r in again.history()] == [
        ("alert", "w1", 5, {"a": [1, None]}),
        ("decision", "w1", None, {}),
    ]
    assert [r.kind for r in again.history("decision")] == ["decision"]


def test_nested_transactions_roll_back_together(ledger):
    def fail():
        with ledger.transaction():
            ledger.record("alert", "a", event_time=0, body={})
            with ledger.transaction():
                ledger.remember("policy", {"n": 1})
                ledger.pin("examples", 3, "run")
            assert ledger.request_retrain(request())
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert (ledger.history(), ledger.recall("policy"), ledger.requests(), ledger.pinned("examples")) == (
        [],
        None,
        [],
        [],
    )
    with ledger.transaction():
        ledger.record("alert", "a", event_time=0, body={})
    assert len(ledger.history()) == 1


def test_a_body_that_cannot_be_written_leaves_the_ledger_usable(ledger):
    with pytest.raises(ValueError, match="JSON"):
        ledger.record("alert", "a", event_time=0, body={"x": float("nan")})
    assert ledger.record("alert", "a", event_time=0, body={})


def test_a_ledger_that_rolled_back_by_itself_reports_the_cause(ledger):
    def interrupted():
        with ledger.transaction():
            ledger._connection.execute("ROLLBACK")  # as SQLite does by itself on a full disk
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        interrupted()
    assert ledger.record("alert", "a", event_time=0, body={})


def test_only_one_request_is_open_and_an_id_is_used_once(ledger):
    assert ledger.request_retrain(request("r1"))
    assert not ledger.request_retrain(request("r2"))
    assert ledger.advance("r1", expect=("requested",), status="running", flow_run="f")
    assert not ledger.request_retrain(request("r2"))
    assert ledger.advance("r1", expect=("running",), status="failed")
    assert not ledger.request_retrain(request("r1"))
    assert ledger.request_retrain(request("r2"))
    first, second = ledger.requests()
    assert (first.status, first.flow_run, first.is_open, first.body) == ("failed", "f", False, {"why": "share"})
    assert ledger.open_requests() == [second]


def test_advance_is_a_compare_and_set(ledger):
    ledger.request_retrain(request())
    assert not ledger.advance("r1", expect=("submitted", "running"), status="promoted")
    assert not ledger.advance("nobody", expect=("requested",), status="running")
    assert ledger.advance("r1", expect=("requested", "failed"), status="requested", next_attempt=True, body={"v": 1})
    (now,) = ledger.requests()
    assert (now.attempt, now.body, now.flow_run) == (2, {"v": 1}, None)


def test_of_many_threads_one_gets_the_lease(ledger):
    ledger.request_retrain(request())
    start, won = threading.Barrier(8), []

    def run(name: str) -> None:
        start.wait()
        if ledger.advance("r1", expect=("requested",), status="running", flow_run=name):
            won.append(name)

    threads = [threading.Thread(target=run, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [ledger.requests()[0].flow_run]


def _other_process(path, start, results) -> None:
    start.wait()
    ledger = Ledger(path)
    for number in range(20):
        ledger.record("alert", f"k{number}", event_time=number, body={})
    won = ledger.request_retrain(request(f"r-{multiprocessing.current_process().name}"))
    results.put(won)
    ledger.close()


def test_two_processes_share_one_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    path = tmp_path / "ledger.sqlite"
    processes = [context.Process(target=_other_process, args=(path, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(results.get(timeout=10) for _ in processes) == [False, True]
    ledger = Ledger(path)
    assert sorted(r.key for r in ledger.history()) == sorted(f"k{n}" for n in range(20))
    assert len(ledger.requests()) == 1


def _dies_in_a_transaction(path) -> None:
    ledger = Ledger(path)
    with ledger.transaction():
        ledger.record("alert", "half", event_time=0, body={})
        ledger.request_retrain(request("half"))
        ledger.advance("whole", expect=("requested",), status="running")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_killed_in_a_transaction_leaves_nothing_of_it_and_no_lock(ledger, tmp_path):
    ledger.request_retrain(request("whole"))
    before = ledger.requests()
    process = multiprocessing.get_context("spawn").Process(
        target=_dies_in_a_transaction, args=(tmp_path / "deep" / "ledger.sqlite",)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (ledger.history(), ledger.requests(), ledger.waiting_alerts()) == ([], before, [])
    assert ledger.record("alert", "next", event_time=0, body={})


def test_a_full_disk_is_said_and_what_was_written_stays(ledger):
    ledger.record("alert", "first", event_time=0, body={})
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        with ledger.transaction():
            ledger.pin("examples", 1, "run")
            ledger.record("alert", "big", event_time=0, body={"text": "x" * 100_000})

    with pytest.raises(StoreError, match="full"):
        fill()
    assert [record.key for record in ledger.history()] == ["first"]
    assert ledger.pinned("examples") == []
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    fill()
    assert [waiting.record.key for waiting in ledger.waiting_alerts()] == ["first", "big"]


def test_an_alert_waits_until_it_is_sent_or_given_up(ledger):
    for key in ("a", "b", "c"):
        ledger.record("alert", key, event_time=0, body={})
        ledger.record("decision", key, event_time=0, body={})
        ledger.record("alert", key, event_time=0, body={"again": True})
    first, second, _ = ledger.waiting_alerts()
    ledger.alert_tried(first.sequence, "sent")
    ledger.alert_tried(second.sequence, "waiting", "no answer")
    assert [(alert.record.key, alert.tries) for alert in ledger.waiting_alerts()] == [("b", 1), ("c", 0)]
    ledger.alert_tried(second.sequence, "given up", "no answer")
    assert [alert.record.key for alert in ledger.waiting_alerts()] == ["c"]


def test_an_attempt_is_moved_only_by_who_knows_it(ledger):
    ledger.request_retrain(request())
    assert not ledger.advance("r1", expect=("requested",), attempt=2, status="running")
    assert ledger.advance("r1", expect=("requested",), attempt=1, status="requested", next_attempt=True)
    assert not ledger.advance("r1", expect=("requested",), attempt=1, status="running")
    assert ledger.advance("r1", expect=("requested",), attempt=2, status="running")


def test_pins_are_owned(ledger):
    for version, owner in ((4, "run"), (2, "model"), (4, "model")):
        ledger.pin("examples", version, owner)
        ledger.pin("examples", version, owner)
    ledger.pin("windows", 9, "run")
    assert ledger.pinned("examples") == [2, 4]
    ledger.unpin("model")
    assert ledger.pinned("examples") == [4]
    assert ledger.pinned("windows") == [9]


def test_memory_is_replaced(ledger):
    assert ledger.recall("policy") is None
    ledger.remember("policy", {"n": 1})
    ledger.remember("policy", {"n": 2})
    assert ledger.recall("policy") == {"n": 2}


def test_a_file_that_is_no_ledger_is_a_store_error(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is not a database, by no means " * 50)
    with pytest.raises(StoreError, match=r"ledger\.sqlite"):
        Ledger(path)
