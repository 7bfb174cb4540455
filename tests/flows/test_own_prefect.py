"""The own Prefect and the thread that dispatches, without Prefect: what fails is tried again, one server a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_prefect import FakePrefect

from cli import retrain as retrain_command
from core.audit import DISPATCH_PROBLEM, Ledger
from core.errors import AlreadyRunningError, PrefectError
from core.project import Project
from flows import local, service
from flows.local import LocalPrefect
from flows.prefect_api import PrefectApi
from flows.service import Dispatching


class Machine:
    """Starts harmless processes in place of Prefect's; `full` starts fail."""

    def __init__(self) -> None:
        self.full = 0
        self.crashed = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], *, log: Path, **_: Any) -> subprocess.Popen[bytes]:
        log.write_bytes(b"")
        if self.full:
            self.full -= 1
            raise OSError(12, "Cannot allocate memory")
        code = "pass" if "deploy" in command else "import time; time.sleep(600)"
        self.processes.append(subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True))
        return self.processes[-1]

    def crash_unfinished(self) -> int:
        self.crashed += 1
        return 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine()
    monkeypatch.setattr(local, "start_tied", made.start)
    monkeypatch.setattr(PrefectApi, "is_healthy", lambda _: True)
    monkeypatch.setattr(PrefectApi, "has_pool", lambda *_: True)
    monkeypatch.setattr(PrefectApi, "crash_unfinished", lambda _: made.crash_unfinished())
    monkeypatch.setattr(local, "_LOOK_EVERY_S", 0.02)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def await_that(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["server", "worker"])
def test_what_ended_is_started_again_although_starting_fails_at_first(project: Project, machine: Machine, name: str):
    (project.logs).mkdir(parents=True)
    with LocalPrefect(project) as prefect:
        before = prefect.pids
        (project.logs / f"prefect-{name}.log").write_text("out of memory")
        machine.full = 2
        os.kill(before[name], signal.SIGKILL)
        await_that(lambda: prefect.pids[name] != before[name])
        after = prefect.pids
        os.kill(after[name], 0)
    assert list(after) == ["server", "worker"]
    assert (project.logs / f"prefect-{name}.before.log").read_text() == "out of memory"


def test_an_error_that_nobody_expects_does_not_end_the_supervision(
    project: Project, machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    with LocalPrefect(project) as prefect:
        before, crash = prefect.pids, PrefectApi.crash_unfinished

        def surprise(_: PrefectApi) -> int:
            monkeypatch.setattr(PrefectApi, "crash_unfinished", crash)
            raise KeyError("id")

        monkeypatch.setattr(PrefectApi, "crash_unfinished", surprise)
        os.kill(before["worker"], signal.SIGKILL)
        await_that(lambda: prefect.pids["worker"] != before["worker"])


def test_one_server_a_folder_and_the_second_says_whose_it_is(project: Project, machine: Machine):
    with LocalPrefect(project):
        assert machine.crashed == 1
        with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} on "):
            LocalPrefect(project).start()
        assert machine.crashed == 1, "it would have ended the runs of the first"
    with LocalPrefect(project):
        pass


def test_a_start_that_failed_does_not_keep_the_folder(project: Project, machine: Machine):
    machine.full = 1
    with pytest.raises(OSError, match="allocate"):
        LocalPrefect(project).start()
    with LocalPrefect(project):
        pass


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


def own_prefect(prefect: FakePrefect, *failures: Exception) -> type[Any]:
    """A LocalPrefect that does not start as often as there are failures."""
    left = list(failures)

    class Own:
        url = prefect.url

        def __init__(self, _: Project) -> None: ...

        def __enter__(self) -> Own:
            return self.start()

        def __exit__(self, *_: object) -> None: ...

        def start(self) -> Own:
            if left:
                raise left.pop(0)
            return self

        def stop(self) -> None: ...

    return Own


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), RuntimeError("can't start new thread")])
def test_requests_are_dispatched_once_prefect_can_be_started(
    project: Project, ledger: Ledger, prefect: FakePrefect, stop: threading.Event, failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(service, "LocalPrefect", own_prefect(prefect, failure, failure))
    seen: list[Any] = []
    wait = stop.wait

    def look(timeout: float | None = None) -> bool:
        seen.append(ledger.recall(DISPATCH_PROBLEM))
        return wait(timeout)

    monkeypatch.setattr(stop, "wait", look)
    dispatching = Dispatching(project, ledger, stop, 0.01)
    dispatching.start()
    await_that(lambda: ledger.requests()[0].status == "submitted")
    await_that(lambda: ledger.recall(DISPATCH_PROBLEM) is None)
    stop.set()
    dispatching.finish()
    assert seen[0]["problem"] == str(failure)


def test_a_prefect_that_does_not_come_up_ends_the_service_with_an_error(
    project: Project, ledger: Ledger, prefect: FakePrefect, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(service, "LocalPrefect", own_prefect(prefect, PrefectError("Prefect's server ended")))
    dispatching = Dispatching(project, ledger, stop, 0.01)
    dispatching.start()
    with pytest.raises(PrefectError, match="server ended"):
        dispatching.finish()
    assert stop.is_set()


def test_the_monitor_follows_when_the_server_of_a_retraining_by_hand_has_ended(
    project: Project, ledger: Ledger, prefect: FakePrefect, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    taken = AlreadyRunningError("process 7 runs a Prefect server of its own")
    monkeypatch.setattr(service, "LocalPrefect", own_prefect(prefect, taken, taken, taken))
    dispatching = Dispatching(project, ledger, stop, 0.01)
    dispatching.start()
    await_that(lambda: ledger.requests()[0].status == "submitted")
    stop.set()
    dispatching.finish()


@pytest.mark.parametrize("closed", [False, True])
def test_a_retraining_by_hand_waits_for_another_server_to_end_or_to_do_it(
    project: Project, ledger: Ledger, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch, closed: bool
):
    taken = AlreadyRunningError("process 7 runs a Prefect server of its own")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(local, "LocalPrefect", own_prefect(prefect, taken))
    looks: list[float | None] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks.append(timeout)
            if closed and len(looks) == 2:
                ledger.advance("drift-7", expect=("requested",), status="promoted")
            return False

    with retrain_command._dispatched(project, ledger, ledger.requests()[0], Stop()):
        await_that(lambda: ledger.requests()[0].status in ("submitted", "promoted"))
    assert ledger.requests()[0].status == ("promoted" if closed else "submitted")
    assert len(prefect.runs) == (not closed)
