"""The outbox: every request reaches Prefect once, whatever dies, and is given up in the end."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flows_lab import write_project

from core.audit import Ledger, RetrainRequest
from core.errors import PrefectError
from flows.dispatch import Dispatcher
from flows.lease import find, take
from flows.prefect_api import PrefectApi


class FakePrefect:
    """A server that speaks the part of Prefect's REST API that is used; runs are kept by idempotency key."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.cancelled: list[str] = []
        self.deployments = {"retrain/toy-binary": {"id": "d1", "parameters": {"project": "p", "trigger": "schedule"}}}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(outer.get(self.path.removeprefix("/api")))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(outer.post(self.path.removeprefix("/api"), body))

            def _answer(self, content: Any) -> None:
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api"

    def get(self, path: str) -> Any:
        if path.startswith("/deployments/name/"):
            return self.deployments.get(path.removeprefix("/deployments/name/"))
        if path.startswith("/flow_runs/"):
            wanted = path.removeprefix("/flow_runs/")
            return next((run for run in self.runs.values() if run["id"] == wanted), None)
        return True if path == "/health" else None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/set_state"):
            self.cancelled.append(path.split("/")[2])
            return {}
        run = {"id": f"run-{len(self.runs) + 1}", "state_type": "SCHEDULED", "parameters": body["parameters"]}
        return self.runs.setdefault(body["idempotency_key"], run)

    def end(self, state: str) -> None:
        for run in self.runs.values():
            run["state_type"] = state


@pytest.fixture
def prefect() -> Iterator[FakePrefect]:
    fake = FakePrefect()
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


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
    return Clock()


@pytest.fixture
def dispatcher(tmp_path: Path, ledger: Ledger, prefect: FakePrefect, clock: Clock) -> Dispatcher:
    project = write_project(tmp_path, "binary")
    return Dispatcher(project, ledger, prefect.url, repair=lambda: None, clock=clock)


def status(ledger: Ledger) -> tuple[str, int]:
    request = find(ledger, "drift-7")
    return request.status, request.attempt


def test_a_request_becomes_one_run(dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect):
    for _ in range(3):
        dispatcher.run_once()
    assert list(prefect.runs) == ["drift-7/1"]
    assert prefect.runs["drift-7/1"]["parameters"] == {"project": "p", "request_id": "drift-7", "trigger": "drift"}
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
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect, state: str, running: bool
):
    dispatcher.run_once()
    if running:
        take(ledger, "drift-7", "run-1")
    prefect.end(state)
    dispatcher.run_once()
    assert status(ledger) == ("requested", 2)
    dispatcher.run_once()
    assert list(prefect.runs) == ["drift-7/1", "drift-7/2"]


def test_a_run_that_prefect_forgot_is_tried_again(dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect):
    dispatcher.run_once()
    prefect.runs.clear()
    dispatcher.run_once()
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
    clock.now += 31 * 60
    dispatcher.run_once()
    assert status(ledger) == ("requested", 2)
    assert prefect.cancelled == ["run-1"]
    with pytest.raises(Exception, match="stops without promoting"):
        lease.close("promoted", [])


def test_after_three_attempts_it_is_given_up_with_the_reasons(
    dispatcher: Dispatcher, ledger: Ledger, prefect: FakePrefect
):
    for _ in range(8):
        dispatcher.run_once()
        prefect.end("CRASHED")
    assert status(ledger) == ("failed", 3)
    assert len(prefect.runs) == 3
    assert len(find(ledger, "drift-7").body["reasons"]) == 3
    assert ledger.request_retrain(RetrainRequest("next", "drift", 30, 40))


def test_a_promotion_that_was_made_is_repaired_before_giving_up(tmp_path: Path, ledger: Ledger, prefect: FakePrefect):
    def repair() -> str:
        ledger.advance("drift-7", expect=("submitted", "running"), status="promoted")
        return "repaired"

    dispatcher = Dispatcher(write_project(tmp_path, "binary"), ledger, prefect.url, repair=repair)
    for _ in range(8):
        dispatcher.run_once()
        prefect.end("CRASHED")
    assert status(ledger) == ("promoted", 3)


def test_without_prefect_the_request_waits_and_it_is_said_once(
    tmp_path: Path, ledger: Ledger, prefect: FakePrefect, caplog: pytest.LogCaptureFixture
):
    prefect.deployments.clear()
    dispatcher = Dispatcher(write_project(tmp_path, "binary"), ledger, prefect.url, repair=lambda: None)
    with pytest.raises(PrefectError, match="404"):
        dispatcher.run_once()
    looks = iter(range(5))

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return next(looks, None) is None

    pauses: list[float | None] = []
    with caplog.at_level(logging.WARNING, "headrace.dispatch"):
        dispatcher.run(Stop(), poll_s=1.0)
    assert [record.getMessage()[:13] for record in caplog.records] == ["requests wait"]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert status(ledger) == ("requested", 1)


def test_an_unreachable_prefect_is_a_prefect_error():
    api = PrefectApi("http://127.0.0.1:9/api", timeout_s=1.0)
    assert not api.is_healthy()
    with pytest.raises(PrefectError, match="cannot be reached"):
        api.state("run-1")
