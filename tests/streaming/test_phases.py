"""A phase that does not end is noticed, a pause of the whole process is not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

from streaming.phases import Phases, Watchdog


def watch(phases: Phases, deadline_s: float):
    barks: list[str] = []
    barked = threading.Event()

    def bark(phase: str, lasted_s: float) -> None:
        assert lasted_s > deadline_s
        barks.append(phase)
        barked.set()

    dog = Watchdog(phases, deadline_s, bark)
    dog.start()
    return dog, barks, barked


def test_it_barks_once_at_a_phase_that_does_not_end():
    phases = Phases()
    dog, barks, barked = watch(phases, 0.1)
    with phases.enter("commit"):
        assert barked.wait(20)
    dog.stop()
    assert barks == ["commit"]


def test_it_looks_at_every_thread():
    phases = Phases()
    _, barks, barked = watch(phases, 0.1)
    ends = threading.Event()

    def hang() -> None:
        with phases.enter("commit"):
            ends.wait(20)

    threading.Thread(target=hang, daemon=True).start()
    assert barked.wait(20)
    ends.set()
    assert barks == ["commit"]


def test_it_keeps_quiet_while_phases_end_in_time():
    phases = Phases()
    dog, barks, _ = watch(phases, 5.0)
    for _ in range(2_000):
        with phases.enter("poll"), phases.enter("step"):
            assert phases.current[0][0] == "step"
    dog.stop()
    assert barks == []


def test_it_does_not_look_at_a_thread_that_nobody_waits_for():
    phases = Phases()
    dog, barks, barked = watch(phases, 0.1)
    began, goes_on, ends = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        with phases.enter("produce"):
            began.set()
            goes_on.wait(20)
            with phases.enter("commit"):
                ends.wait(20)

    thread = threading.Thread(target=hang, daemon=True)
    thread.start()
    assert began.wait(20)
    phases.forget(thread)
    goes_on.set()
    assert not barked.wait(0.4)
    dog.stop()
    ends.set()
    assert barks == []


STUCK = """
import json, sys, threading
from pathlib import Path
sys.path.insert(0, "tests/streaming")
from stream_lab import easy_stream, make_project
from worker_lab import fill, run, with_clocks
from streaming.memory_broker import MemoryBroker
project = make_project(Path(sys.argv[1]), state={"deadline": "1s"})
broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 20)))
broker.append = lambda record: threading.Event().wait()
run(project, broker)
"""


def test_a_worker_that_is_stuck_says_so_and_ends_with_its_own_code(tmp_path):
    done = subprocess.run([sys.executable, "-c", STUCK, str(tmp_path)], capture_output=True, timeout=120, check=False)
    assert done.returncode == 12, done.stderr.decode()
    status = json.loads((tmp_path / "state" / "status" / "worker.json").read_text())
    assert status["state"] == "stuck"
