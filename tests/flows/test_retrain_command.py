"""``headrace retrain``: what it says while it waits, what it exits with, and what is written down of who asked."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from flows_lab import Toy, in_this_process

import headrace
from core.audit import Ledger
from core.status import write_status
from flows.execution import execute
from flows.lease import take
from flows.training import Retraining


@pytest.fixture
def loop(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """A worker that has flushed everything, and a monitor whose dispatcher has each request run at once."""
    part = {"phase": "running", "clock": toy.now, "flushed_through": toy.now, "first_event": 0, "step": 1}
    write_status(toy.project.status, "worker", {"state": "running", "partitions": {"0": part}})
    write_status(toy.project.status, "monitor", {"state": "running"})
    monkeypatch.setenv("HEADRACE_STATE", str(toy.project.state))
    stop = threading.Event()

    def dispatch() -> None:
        with closing(Ledger(toy.project.ledger)) as ledger:
            while not stop.wait(0.05):
                for request in ledger.open_requests():
                    lease = take(ledger, request.id, "run")
                    assert lease is not None
                    execute(Retraining(toy.project, lease, toy.store, apart=in_this_process))

    thread = threading.Thread(target=dispatch)
    thread.start()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield toy
    stop.set()
    thread.join()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def retrain(toy: Toy, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    command = ["headrace", "retrain", str(toy.project.folder), "--json", "-", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        headrace.main()
    return int(ended.value.code or 0)


def test_a_retraining_by_hand_tells_its_steps_and_ends_with_its_outcome(loop: Toy, monkeypatch, capsys):
    assert retrain(loop, monkeypatch, "--who", "anna", "--why", "new terminal") == 0
    said = capsys.readouterr()
    steps = [line.split(":")[0].strip() for line in said.err.splitlines() if line.startswith("  ")]
    assert {"pin", "search", "gate", "refit", "register"} <= set(steps)
    assert len(steps) == len(set(steps)), "each is told once"
    found = json.loads(said.out)
    assert (found["status"], found["version"]) == ("promoted", 1)
    assert {gate["name"] for gate in found["gates"]} >= {"rows", "finite", "servable"}
    (decision,) = loop.bodies("decision")
    assert (decision["by"], decision["reasons"], decision["trigger"]) == ("anna", ["new terminal"], "manual")
    assert loop.bodies("promotion")[0]["evidence"]["decision"] == found["id"]

    assert retrain(loop, monkeypatch) == 3
    said = capsys.readouterr()
    assert "untouched rows" in said.err
    assert json.loads(said.out)["status"] == "gated"
