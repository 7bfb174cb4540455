from __future__ import annotations

import threading

import pytest
from stream_lab import START, make_project

from core.audit import Ledger, RetrainRequest
from core.durations import DAY, HOUR
from core.errors import HeadraceError
from core.spans import window_origin
from core.status import write_status
from streaming.lockstep import LockstepPace

DAYS = window_origin(START, DAY)


class Loop:
    """A worker and a monitor that do at once what time asks of them, and note it."""

    def __init__(self, project) -> None:
        self.project = project
        self.ledger = Ledger(project.ledger)
        self.said: list[int] = []
        self.champion: int | None = None
        self.decide: dict[int, RetrainRequest] = {}
        self.threads: list[threading.Timer] = []

    def say_time(self, reached: int) -> None:
        self.said.append(reached)
        partition = {"first_event": START, "flushed_through": reached}
        worker = {"state": "running", "partitions": {"0": partition}, "champion_ready": self.champion}
        self.later(self.do, worker, reached)

    def later(self, what, *args) -> None:
        timer = threading.Timer(0.01, what, args)
        self.threads.append(timer)
        timer.start()

    def do(self, worker: dict, reached: int) -> None:
        write_status(self.project.status, "worker", worker)
        request = self.decide.pop(reached, None)
        if request is not None:
            self.ledger.request_retrain(request)
        write_status(self.project.status, "monitor", {"state": "running", "evaluated_through": reached})

    def finish_retraining(self, name: str, status: str, version: int | None) -> None:
        assert self.ledger.advance(name, expect=("requested",), status=status, body={"version": version})
        self.champion = version
        if version is not None:
            partition = {"first_event": START, "flushed_through": self.said[-1]}
            body = {"state": "running", "partitions": {"0": partition}, "champion_ready": version}
            write_status(self.project.status, "worker", body)


@pytest.fixture
def loop(tmp_path):
    project = make_project(tmp_path, windows={"span": "1d"}, label={"horizon": "6h"})
    made = Loop(project)
    yield made
    for thread in made.threads:
        thread.join()
    made.ledger.close()


def pace_of(loop, timeout_s=20.0, stop=None):
    return LockstepPace(loop.project, loop.ledger, stop or threading.Event(), timeout_s=timeout_s)


def test_it_holds_where_windows_end_and_where_their_labels_are_due(loop):
    pace = pace_of(loop)
    for moment in (START, START + 60, DAYS + DAY - 1):
        pace.wait_for(moment, loop.say_time)
    assert loop.said == []
    pace.wait_for(DAYS + DAY, loop.say_time)
    assert loop.said == [DAYS + DAY]
    pace.wait_for(DAYS + 2 * DAY + 7 * HOUR, loop.say_time)
    assert loop.said[1:] == [DAYS + DAY + 6 * HOUR, DAYS + 2 * DAY, DAYS + 2 * DAY + 6 * HOUR]
    pace.finish(DAYS + 2 * DAY + 8 * HOUR, loop.say_time)
    assert loop.said[-1] == DAYS + 2 * DAY + 8 * HOUR + 1


def test_it_goes_on_from_the_windows_of_the_first_start(loop):
    partitions = {
        "0": {"first_event": START - 10 * DAY, "flushed_through": 0},
        "1": {"first_event": None, "flushed_through": 0},
    }
    write_status(loop.project.status, "worker", {"state": "running", "partitions": partitions})
    pace = pace_of(loop)
    pace.wait_for(DAYS + 7 * HOUR, loop.say_time)
    pace.wait_for(DAYS + DAY, loop.say_time)
    assert loop.said == [DAYS + DAY]


@pytest.mark.parametrize(("status", "version"), [("promoted", 4), ("gated", None), ("failed", None)])
def test_it_holds_at_the_time_a_retraining_takes_effect_until_it_has(loop, status, version):
    effective = DAYS + DAY + HOUR
    loop.decide[DAYS + DAY] = RetrainRequest("r1", "drift", DAYS + DAY, effective)
    pace, passed = pace_of(loop), []
    pace.wait_for(START, loop.say_time)
    pace.wait_for(DAYS + DAY, loop.say_time)
    assert [r.id for r in loop.ledger.open_requests()] == ["r1"], "it goes on while the retraining runs ..."
    pace.wait_for(effective - 1, loop.say_time)
    waiting = threading.Thread(target=lambda: passed.append(pace.wait_for(effective, loop.say_time)))
    waiting.start()
    while not loop.said or loop.said[-1] != effective:
        waiting.join(0.01)
    waiting.join(0.1)
    assert passed == [], "... and holds where it takes effect"
    loop.finish_retraining("r1", status, version)
    waiting.join(20)
    assert passed == [None]


def test_a_promoted_champion_has_to_be_loaded_first(loop):
    effective = DAYS + DAY + HOUR
    loop.decide[DAYS + DAY] = RetrainRequest("r1", "drift", DAYS + DAY, effective)
    pace = pace_of(loop)
    pace.wait_for(START, loop.say_time)
    pace.wait_for(DAYS + DAY, loop.say_time)
    loop.ledger.advance("r1", expect=("requested",), status="promoted", body={"version": 4})
    short = pace_of(loop, timeout_s=0.05)
    with pytest.raises(HeadraceError, match="load champion 4"):
        short._await_retraining(loop.ledger.requests()[0])
    loop.champion = 4
    loop.later(pace.wait_for, effective, loop.say_time)
    loop.threads[-1].join(20)
    assert loop.said[-1] == effective


def test_the_end_waits_for_what_is_under_way(loop):
    last = START + 100
    loop.decide[last + 1] = RetrainRequest("r1", "manual", last, last + HOUR)
    pace, done = pace_of(loop), []
    pace.wait_for(START, loop.say_time)
    ending = threading.Thread(target=lambda: done.append(pace.finish(last, loop.say_time)))
    ending.start()
    while not loop.ledger.open_requests():
        ending.join(0.01)
    ending.join(0.1)
    assert done == []
    loop.finish_retraining("r1", "gated", None)
    ending.join(20)
    assert done == [None]


def test_a_service_that_ended_is_noticed(loop):
    write_status(loop.project.status, "worker", {"state": "stopped", "partitions": {}})
    with pytest.raises(HeadraceError, match=r"worker has ended; see .*worker\.log"):
        pace_of(loop).finish(START, lambda reached: None)


def test_a_service_that_does_not_come_is_waited_for_only_so_long(loop):
    with pytest.raises(HeadraceError, match="waited 0 s for worker to reach"):
        pace_of(loop, timeout_s=0.05).finish(START, lambda reached: None)


def test_a_stop_ends_every_wait(loop):
    stop = threading.Event()
    stop.set()
    pace = pace_of(loop, stop=stop)
    pace.wait_for(START, loop.say_time)
    pace.wait_for(START + 30 * DAY, loop.say_time)
    pace.finish(START + 30 * DAY, loop.say_time)


def test_while_a_shadow_is_judged_it_holds_at_the_end_of_each_block_until_everybody_follows(tmp_path):
    hours = {"block": "12h"}
    project = make_project(tmp_path, windows={"span": "7d"}, label={"horizon": "6h"}, promotion=hours)
    loop = Loop(project)
    first = {"version": 1, "previous": None, "effective_at": DAYS}
    loop.ledger.record("promotion", "1", event_time=DAYS, body=first)
    begun = {"version": 2, "previous": 1, "effective_at": DAYS + HOUR}
    loop.ledger.record("challenge", "2", event_time=DAYS + HOUR, body=begun)
    write_status(project.status, "shadows", {"state": "running", "judged_through": DAYS + DAY - 1})
    pace, passed = pace_of(loop), []
    pace.wait_for(START, loop.say_time)
    waiting = threading.Thread(target=lambda: passed.append(pace.wait_for(DAYS + DAY, loop.say_time)))
    waiting.start()
    waiting.join(0.2)
    assert (loop.said, passed) == ([DAYS + DAY], []), "it is not judged yet ..."
    won = {"version": 2, "previous": 1, "effective_at": DAYS + DAY, "watched": False}
    loop.ledger.record("promotion", "2", event_time=DAYS + DAY, body=won)
    write_status(project.status, "shadows", {"state": "running", "judged_through": DAYS + DAY})
    waiting.join(0.2)
    assert passed == [], "... and the worker does not follow yet"
    partition = {"first_event": START, "flushed_through": loop.said[-1]}
    worker = {"state": "running", "partitions": {"0": partition}, "line_up": {"champion": 2}}
    write_status(project.status, "worker", worker)
    waiting.join(20)
    assert passed == [None]
    pace.wait_for(DAYS + 6 * DAY, loop.say_time)
    assert loop.said == [DAYS + DAY], "nobody shadows any more"
    for thread in loop.threads:
        thread.join()
    loop.ledger.close()
