from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from monitoring_lab import START, open_lab

from core.audit import Ledger
from core.durations import DAY
from core.errors import HeadraceError
from core.loop_settings import AlertSettings
from monitoring.alerts import GIVE_UP_AFTER_S, IN_A_ROW, AlertOutbox, idempotency_key, make_sender
from monitoring.monitor import Monitor


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for number in range(3):
        ledger.record("alert", f"w{number}", event_time=number, body={"reasons": [f"reason {number}"]})
        ledger.record("gate", f"g{number}", event_time=number, body={})
    return ledger


@contextmanager
def webhook(*answers: int, location: str | None = None) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Serve the given answers in turn, then 200; yield the address and what came, with its idempotency key."""
    came: list[dict[str, object]] = []
    waiting = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            came.append(body | {"header": self.headers["Idempotency-Key"]})
            self.answer()

        def do_GET(self) -> None:
            came.append({"key": None})
            self.answer()

        def answer(self) -> None:
            self.send_response(waiting.pop(0) if waiting else 200)
            if location is not None:
                self.send_header("Location", location)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", came
    finally:
        server.shutdown()
        server.server_close()


def became(ledger: Ledger) -> list[tuple[str, int, str | None]]:
    """What the ledger says of each alert: status, tries, problem."""
    return [tuple(row) for row in ledger._rows("SELECT status, tries, problem FROM alerts ORDER BY sequence", ())]


def test_alerts_are_sent_in_order_once_and_the_mark_outlives_the_process(ledger, tmp_path):
    sent: list[str] = []
    assert AlertOutbox(ledger, lambda alert: sent.append(alert.key)).flush() == 3
    reopened = Ledger(tmp_path / "ledger.sqlite")
    assert AlertOutbox(reopened, lambda alert: sent.append(alert.key)).flush() == 0
    assert sent == ["w0", "w1", "w2"]


def test_a_failing_alert_is_tried_again_after_a_growing_pause_and_none_is_lost(ledger):
    now, failing, tries = [0.0], [3], []

    def send(alert):
        tries.append(alert.key)
        if alert.key == "w1" and failing[0]:
            failing[0] -= 1
            raise HeadraceError("no answer")

    outbox = AlertOutbox(ledger, send, clock=lambda: now[0])
    assert outbox.flush() == 1
    pauses = []
    while outbox.flush() == 0:
        now[0] += 0.5
        pauses.append(len(tries))
    assert tries == ["w0", "w1", "w1", "w1", "w1", "w2"]
    assert [pauses.count(number) for number in (2, 3, 4)] == sorted(pauses.count(number) for number in (2, 3, 4))
    assert outbox.flush() == 0


def test_an_alert_that_cannot_be_received_does_not_hold_back_the_others(ledger):
    now, tries = [0.0], []

    def send(alert):
        tries.append(alert.key)
        if alert.key == "w0":
            raise HeadraceError("500: it breaks on this one")

    outbox = AlertOutbox(ledger, send, clock=lambda: now[0])
    for _ in range(200):
        outbox.flush()
        now[0] += 10.0
    assert tries[: IN_A_ROW + 2] == ["w0"] * IN_A_ROW + ["w1", "w2"]
    assert [alert.record.key for alert in ledger.waiting_alerts()] == ["w0"]


def test_an_alert_is_given_up_after_three_days_and_not_before(ledger, caplog):
    now, tries = [0.0], []

    def send(alert):
        tries.append(alert.key)
        raise HeadraceError("no answer")

    written = ledger.history("alert")[0].written_at
    outbox = AlertOutbox(ledger, send, clock=lambda: now[0], now=lambda: written + now[0])
    while now[0] < GIVE_UP_AFTER_S:
        outbox.flush()
        now[0] += 60.0
    assert len(ledger.waiting_alerts()) == 3
    for _ in range(10):
        now[0] += 600.0
        outbox.flush()
    assert ledger.waiting_alerts() == []
    assert len(tries) < 3 * GIVE_UP_AFTER_S / 300
    assert "given up" in caplog.text


def test_killed_between_the_sending_and_its_mark_the_receiver_sees_one_key(ledger, tmp_path, monkeypatch):
    with webhook() as (url, came):
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "alert_tried", killed)
            with pytest.raises(KeyboardInterrupt):
                AlertOutbox(ledger, make_sender(AlertSettings(webhook=url))).flush()
        reopened = Ledger(tmp_path / "ledger.sqlite")
        assert AlertOutbox(reopened, make_sender(AlertSettings(webhook=url))).flush() == 3
    assert [body["key"] for body in came] == ["w0", "w0", "w1", "w2"]
    assert [body["id"] for body in came] == [body["header"] for body in came]
    assert came[0]["id"] == came[1]["id"]
    assert len({body["id"] for body in came}) == 3


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_same_alert_of_another_ledger_has_another_key(tmp_path):
    keys = set()
    for name in ("one", "two"):
        other = Ledger(tmp_path / f"{name}.sqlite")
        other.record("alert", "w0", event_time=0, body={})
        keys.add(idempotency_key(other.history("alert")[0]))
    assert len(keys) == 2


def test_a_receiver_that_does_not_answer_does_not_hold_up_the_monitor(tmp_path):
    lab, stop, asked = open_lab(tmp_path), threading.Event(), threading.Event()
    lab.ledger.record("alert", "old", event_time=0, body={})

    def hang(_alert):
        asked.set()
        stop.wait(60)

    monitor = Monitor(lab.project, lab.ledger, lab.store, send_alert=hang)
    thread = threading.Thread(target=monitor.run, args=(stop, 0.02))
    thread.start()
    assert asked.wait(30)
    lab.fill(range(2))
    lab.reach(START + 2 * DAY)
    for _ in range(600):
        if lab.store.exists("windows"):
            break
        time.sleep(0.05)
    held = stop.is_set()
    stop.set()
    thread.join()
    assert lab.store.exists("windows")
    assert not held


def test_the_webhook_gets_each_alert_as_json(ledger):
    with webhook() as (url, came):
        assert AlertOutbox(ledger, make_sender(AlertSettings(webhook=url))).flush() == 3
    assert [body["key"] for body in came] == ["w0", "w1", "w2"]
    assert came[0]["reasons"] == ["reason 0"]


@pytest.mark.parametrize("code", [401, 403, 404, 407, 408, 429, 500, 503])
def test_what_may_pass_is_tried_again(ledger, code):
    now = [0.0]
    with webhook(code) as (url, came):
        outbox = AlertOutbox(ledger, make_sender(AlertSettings(webhook=url)), clock=lambda: now[0])
        assert outbox.flush() == 0
        status, tries, problem = became(ledger)[0]
        assert (status, tries) == ("waiting", 1)
        assert f"HTTP {code}" in problem
        now[0] = 10.0
        assert outbox.flush() == 3
    assert [body["key"] for body in came] == ["w0", "w0", "w1", "w2"]
    assert [status for status, _, _ in became(ledger)] == ["sent"] * 3


@pytest.mark.parametrize("code", [400, 405, 410, 413, 422])
def test_what_is_refused_for_good_is_given_up_and_not_called_sent(ledger, code, caplog):
    with webhook(200, code) as (url, came):
        outbox = AlertOutbox(ledger, make_sender(AlertSettings(webhook=url)))
        assert outbox.flush() == 2
        assert outbox.flush() == 0
    assert [body["key"] for body in came] == ["w0", "w1", "w2"]
    assert [status for status, _, _ in became(ledger)] == ["sent", "given up", "sent"]
    assert f"HTTP {code}" in became(ledger)[1][2]
    assert "alert w1 is given up" in caplog.text


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed_and_the_alert_waits(ledger, code):
    now = [0.0]
    with webhook() as (elsewhere, strayed), webhook(code, location=elsewhere) as (url, came):
        outbox = AlertOutbox(ledger, make_sender(AlertSettings(webhook=url)), clock=lambda: now[0])
        assert outbox.flush() == 0
        status, _, problem = became(ledger)[0]
        assert status == "waiting"
        assert elsewhere in problem
        assert f"HTTP {code}" in problem
        now[0] = 10.0
        assert outbox.flush() == 3
    assert strayed == []
    assert [body["key"] for body in came] == ["w0", "w0", "w1", "w2"]


@pytest.mark.parametrize("location", [None, "", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://[bad/"])
def test_a_redirection_to_nowhere_is_a_failure_as_others(ledger, location):
    with webhook(302, location=location) as (url, _):
        assert AlertOutbox(ledger, make_sender(AlertSettings(webhook=url))).flush() == 0
    assert became(ledger)[0][:2] == ("waiting", 1)


def test_a_webhook_that_is_not_there_holds_the_alerts(ledger):
    assert AlertOutbox(ledger, make_sender(AlertSettings(webhook="http://127.0.0.1:9/"))).flush() == 0
    assert [status for status, _, _ in became(ledger)] == ["waiting"] * 3
