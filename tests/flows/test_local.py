"""Prefect itself: the deployments of prefect.yaml, and a request that goes through a real server and worker."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest
import yaml
from flows_lab import Toy

from core.errors import PortInUseError, PrefectError
from core.models import CHAMPION
from core.registry import Registry
from flows.dispatch import Dispatcher
from flows.local import HOME, LocalPrefect
from flows.prefect_api import PrefectApi


def test_the_deployments_hold_no_path_of_a_machine():
    text = (HOME / "prefect.yaml").read_text()
    found = yaml.safe_load(text)["deployments"]
    names = [entry["entrypoint"].rpartition(".")[2] for entry in found]
    assert names == ["retrain", "approve", "check_drift", "maintenance"]
    assert all(entry["work_pool"]["name"] == "headrace" for entry in found)
    assert all(entry["schedules"] for entry in found if not entry["entrypoint"].endswith(".approve"))
    assert {entry["parameters"]["project"] for entry in found} == {"{{ $HEADRACE_PROJECT }}"}
    assert str(HOME) not in text


def test_a_taken_port_is_said(toy: Toy):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUseError, match="is taken"):
            LocalPrefect(toy.project, port=taken.getsockname()[1]).start()


@pytest.mark.slow
def test_a_server_that_does_not_come_up_names_its_log(toy: Toy):
    with pytest.raises(PrefectError, match=r"prefect-server\.log"):
        LocalPrefect(toy.project, ready_timeout_s=0.5).start()


@pytest.mark.slow
def test_from_the_outbox_to_the_promotion(toy: Toy):
    with LocalPrefect(toy.project) as prefect:
        toy.request("drift-1", "drift")
        stop = threading.Event()
        dispatcher = Dispatcher(toy.project, toy.ledger, prefect.url)
        thread = threading.Thread(target=dispatcher.run, args=(stop, 0.3))
        thread.start()
        until = time.monotonic() + 200
        while toy.ledger.open_requests() and time.monotonic() < until:
            time.sleep(0.3)
        stop.set()
        thread.join()
        (request,) = toy.ledger.requests()
        assert request.status == "promoted", request.body
        assert _ended(PrefectApi(prefect.url), request.flow_run) == "COMPLETED"
        _schedules_are_inactive(prefect.environment())
        pids = [process.pid for _name, process in prefect._processes]
    assert Registry(toy.project).alias(CHAMPION).tags["request"] == "drift-1"
    assert [record.kind for record in toy.ledger.history()] == ["gate", "retraining", "promotion"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert (toy.project.state / "prefect" / "prefect.db").is_file()


@pytest.mark.slow
def test_a_server_killed_while_a_run_waits_or_works_comes_back_and_it_is_retrained_once(toy: Toy):
    stop = threading.Event()
    with LocalPrefect(toy.project) as prefect:
        thread = threading.Thread(target=Dispatcher(toy.project, toy.ledger, prefect.url).run, args=(stop, 0.3))
        thread.start()
        toy.request("drift-1", "drift")
        _until(lambda: toy.ledger.requests()[0].status == "submitted")
        killed = prefect.pids
        for pid in killed.values():  # the server and the worker, with the run that it may have begun
            os.killpg(pid, signal.SIGKILL)
        _until(lambda: not toy.ledger.open_requests())
        stop.set()
        thread.join()
        assert set(killed.values()).isdisjoint(prefect.pids.values())
    assert [request.status for request in toy.ledger.requests()] == ["promoted"]
    assert [record.kind for record in toy.ledger.history()] == ["gate", "retraining", "promotion"]


def _until(done: Callable[[], bool], timeout_s: float = 250.0) -> None:
    end = time.monotonic() + timeout_s
    while not done() and time.monotonic() < end:
        time.sleep(0.1)
    assert done()


def _ended(api: PrefectApi, flow_run: str) -> str | None:
    for _ in range(50):
        if (state := api.state(flow_run)) not in {"RUNNING", "PENDING"}:
            return state
        time.sleep(0.2)
    return state


def _schedules_are_inactive(environment: dict[str, str]) -> None:
    import urllib.request

    call = urllib.request.Request(
        environment["PREFECT_API_URL"] + "/deployments/filter", b"{}", {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(call, timeout=10) as answer:
        deployments = yaml.safe_load(answer.read())
    assert sorted(entry["name"] for entry in deployments) == ["toy-binary"] * 4
    assert [schedule["active"] for entry in deployments for schedule in entry["schedules"]] == [False] * 3
