from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from core.audit import Ledger
from core.errors import HeadraceError
from core.settings import AlertSettings
from monitoring.alerts import AlertOutbox, make_sender


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for number in range(3):
        ledger.record("alert", f"w{number}", event_time=number, body={"reasons": [f"reason {number}"]})
        ledger.record("gate", f"g{number}", event_time=number, body={})
    return ledger


@contextmanager
def webhook(*answers: int) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Serve the given answers in turn, then 200; yield the address and what came."""
    came: list[dict[str, object]] = []
    waiting = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(waiting.pop(0) if waiting else 200)
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


def test_the_webhook_gets_each_alert_as_json(ledger):
    with webhook() as (url, came):
        assert AlertOutbox(ledger, make_sender(AlertSettings(webhook=url))).flush() == 3
    assert [body["key"] for body in came] == ["w0", "w1", "w2"]
    assert came[0]["reasons"] == ["reason 0"]


def test_a_busy_webhook_is_tried_again_and_a_refusal_for_good_is_not(ledger):
    now = [0.0]
    with webhook(503, 200, 400) as (url, came):
        outbox = AlertOutbox(ledger, make_sender(AlertSettings(webhook=url)), clock=lambda: now[0])
        assert outbox.flush() == 0
        now[0] = 10.0
        assert outbox.flush() == 3
    assert [body["key"] for body in came] == ["w0", "w0", "w1", "w2"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://[bad/"])
def test_a_webhook_that_is_not_there_holds_the_alerts(ledger, url):
    assert AlertOutbox(ledger, make_sender(AlertSettings(webhook=url))).flush() == 0


def test_an_address_that_is_no_web_address_is_never_opened(ledger):
    assert AlertOutbox(ledger, make_sender(AlertSettings(webhook="file:///etc/passwd"))).flush() == 3
