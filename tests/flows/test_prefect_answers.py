"""What Prefect's server may answer, or not answer at all."""

from __future__ import annotations

import logging
import socket
import threading

import pytest
from dispatch_lab import status
from fake_prefect import FakePrefect

from core.audit import Ledger
from core.errors import PrefectError
from flows.dispatch import Dispatcher
from flows.prefect_api import PrefectApi


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
