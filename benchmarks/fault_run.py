"""One run of `benchmarks/faults.py`: workers in processes of their own, and what is done to them meanwhile."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka_server import KafkaServer

from core.project import Project
from core.status import read_status
from streaming.kafka_client import KafkaBroker
from streaming.transport import TopicPartition

_WORKER = Path(__file__).resolve().parent / "faults_worker.py"
_LONGEST_S = 1_800.0
_STILL_S = 45.0
_EVERY_S = 0.2
_KILLED = -signal.SIGKILL


@dataclass
class Schedule:
    """What is to be done: kills by (phase, n-th start of it), how many of the others, and whether kills wait.

    With `at_once` the next kill is prepared before the group has settled after the one before: more kills, but how long
    a hand-over takes cannot be told then.
    """

    kills: list[tuple[str, int]]
    leaves: int
    broker_kills: int
    stops: int
    draw: random.Random
    at_once: bool = False

    @classmethod
    def none(cls) -> Schedule:
        """Nothing at all."""
        return cls([], 0, 0, 0, random.Random(0))

    def others(self) -> list[str]:
        """Return the faults that are not kills, mixed."""
        faults = ["leave"] * self.leaves + ["broker kill"] * self.broker_kills + ["stop"] * self.stops
        self.draw.shuffle(faults)
        return faults


@dataclass
class Faults:
    """What was done, and how long it took until the partitions concerned went on, s."""

    kills: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    ended: Counter[int] = field(default_factory=Counter)
    went_on: dict[str, list[float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "kills": sum(self.kills.values()),
            "kills_by_phase": dict(self.kills),
            "others": dict(self.others),
            "ended_by_themselves": {str(code): count for code, count in self.ended.items()},
            "went_on_after_s": {
                name: {"longest": round(max(found), 2), "all": [round(one, 2) for one in found]}
                for name, found in self.went_on.items()
            },
        }


@dataclass
class _Worker:
    name: str
    process: subprocess.Popen[bytes]
    kill: tuple[str, int] | None


class FaultRun:
    """Runs workers until everything in the topics is committed.

    Parameters
    ----------
    project : Project
        The project.
    broker : KafkaBroker
        For watching the committed offsets.
    address : str
        The broker's, for the workers.
    champion_at : int
        Event time from which the champion serves, ms.
    workers, poll_records : int
        How many workers at a time, and how many records they poll at once.
    transactional : bool
        Whether the broker has transactions.
    """

    def __init__(
        self,
        project: Project,
        broker: KafkaBroker,
        address: str,
        champion_at: int,
        workers: int,
        poll_records: int,
        *,
        transactional: bool,
    ) -> None:
        self._project = project
        self._broker = broker
        self._address = address
        self._options = ["--bootstrap", address, "--champion-at", str(champion_at), "--poll-records", str(poll_records)]
        self._options += [] if transactional else ["--not-transactional"]
        self._wanted = workers
        self._workers: list[_Worker] = []
        self._started = 0

    def run(
        self, schedule: Schedule, server: KafkaServer | None, feeding: Future[Any], faults: Faults | None = None
    ) -> float:
        """Work until all that is fed is committed; return the seconds it took."""
        began = time.monotonic()
        self._faults, self._server = faults or Faults(), server
        self._kills, self._others, self._at_once = list(schedule.kills), schedule.others(), schedule.at_once
        self._next_other = time.monotonic() + 15.0
        self._watch = Progress(self._project, self._broker, self._address, feeding)
        try:
            while not self._watch.is_done():
                if time.monotonic() - began > _LONGEST_S:
                    raise SystemExit(f"not done after {_LONGEST_S:.0f} s; see {self._project.logs}")
                self._keep_up()
                self._do_next()
                time.sleep(_EVERY_S)
                self._watch.look(self._faults)
        finally:
            self._end()
        return time.monotonic() - began

    def _keep_up(self) -> None:
        for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
            self._workers.remove(worker)
            if worker.process.returncode == _KILLED and worker.kill:
                self._faults.kills[worker.kill[0]] += 1
                self._watch.expect("kill", self._owned(worker))
            else:
                self._faults.ended[worker.process.returncode] += 1
                if worker.kill:
                    self._kills.insert(0, worker.kill)
        while len(self._workers) < self._wanted:
            self._start()

    def _start(self) -> None:
        settling = self._watch.expects and not self._at_once
        armed = settling or any(worker.kill for worker in self._workers)
        kill = self._kills.pop(0) if self._kills and not armed else None
        self._started += 1
        name = f"w{self._started}"
        options = [*self._options, "--instance", name]
        options += ["--kill-in", kill[0], "--kill-nth", str(kill[1])] if kill else []
        log = self._project.logs / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            command = [sys.executable, str(_WORKER), str(self._project.folder), *options]
            process = subprocess.Popen(command, stderr=output, stdout=output)
        self._workers.append(_Worker(name, process, kill))

    def _do_next(self) -> None:
        """Rearm a worker for the next kill, or do one of the other faults, when the one before is over."""
        now = time.monotonic()
        idle = [worker for worker in self._workers if worker.kill is None and self._owned(worker)]
        if self._at_once and self._kills and idle and not any(worker.kill for worker in self._workers):
            self._leave(idle[0], "rearmed")
            return
        if self._watch.expects or len(idle) < self._wanted:
            return
        if not self._others or now < self._next_other:
            if self._kills:
                self._leave(idle[0], "rearmed")
            return
        fault = self._others.pop()
        self._faults.others[fault] += 1
        self._next_other = now + 10.0
        if fault == "leave":
            self._leave(idle[0], "leave")
        elif fault == "stop":
            self._stand_still(idle[0])
        else:
            assert self._server is not None
            self._watch.expect("broker kill", set(range(self._watch.partitions)))
            self._server.kill()
            time.sleep(1.0)
            self._server.start()

    def _leave(self, worker: _Worker, why: str) -> None:
        """Let a worker leave cleanly; another takes its place."""
        owned = self._owned(worker)
        self._workers.remove(worker)
        worker.process.send_signal(signal.SIGTERM)
        if worker.process.wait(60) != 0:
            self._faults.ended[worker.process.returncode] += 1
        self._watch.expect(why, owned)

    def _stand_still(self, worker: _Worker) -> None:
        worker.process.send_signal(signal.SIGSTOP)
        self._watch.expect("stop", self._owned(worker))
        deadline = time.monotonic() + _STILL_S
        while time.monotonic() < deadline:
            time.sleep(_EVERY_S)
            self._watch.look(self._faults)
        worker.process.send_signal(signal.SIGCONT)

    def _owned(self, worker: _Worker) -> set[int]:
        status = read_status(self._project.status, "worker", worker.name) or {}
        return {int(number) for number in status.get("partitions") or {}}

    def _end(self) -> None:
        """Let the workers leave; where the last was killed in that, let another one find its end."""
        if self._stop_all() == 0:
            return
        self._kills, self._workers = [], []
        self._start()
        deadline = time.monotonic() + 120.0
        while not self._owns_all(self._workers[0]) and time.monotonic() < deadline:
            time.sleep(_EVERY_S)
        self._stop_all()

    def _stop_all(self) -> int:
        """Ask all workers to leave; return how many were killed instead."""
        for worker in self._workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self._workers:
            try:
                worker.process.wait(120)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        killed = [worker.kill[0] for worker in self._workers if worker.kill and worker.process.returncode == _KILLED]
        self._faults.kills.update(killed)
        return sum(worker.process.returncode != 0 for worker in self._workers)

    def _owns_all(self, worker: _Worker) -> bool:
        status = read_status(self._project.status, "worker", worker.name) or {}
        found = status.get("partitions") or {}
        return len(found) == self._watch.partitions and all(part["phase"] == "running" for part in found.values())


class Progress:
    """Watches the committed offsets: when all is done, and when partitions go on after a fault."""

    def __init__(self, project: Project, broker: KafkaBroker, address: str, feeding: Future[Any]) -> None:
        settings = project.settings
        self.partitions = broker.describe([settings.events_topic]).partitions[settings.events_topic]
        self._group = f"headrace-{settings.name}"
        self._admin = KafkaAdminClient(bootstrap_servers=address)
        self._places = [TopicPartition(t, n) for t in settings.input_topics for n in range(self.partitions)]
        self._feeding = feeding
        self._ends_found: dict[TopicPartition, int] | None = None
        self._broker = broker
        self._at: dict[TopicPartition, int] = {}
        self._expected: list[tuple[str, float, set[int]]] = []

    @property
    def expects(self) -> bool:
        """Whether partitions have not gone on yet after a fault."""
        return bool(self._expected)

    def is_done(self) -> bool:
        """Tell whether everything is committed."""
        return self._all_at_end(self._places)

    def expect(self, fault: str, partitions: set[int]) -> None:
        """From now on measure how long it takes until these partitions go on."""
        if partitions:
            self._expected.append((fault, time.monotonic(), set(partitions)))

    def look(self, faults: Faults) -> None:
        """Read the committed offsets."""
        before, self._at = self._at, self._committed()
        moved = {p.partition for p, at in self._at.items() if at > before.get(p, 0)}
        done = {number for number in range(self.partitions) if self._all_at_end(self._of(number))}
        for expected in list(self._expected):
            fault, since, waiting = expected
            waiting.difference_update(moved | done)
            if not waiting:
                self._expected.remove(expected)
                faults.went_on.setdefault(fault, []).append(time.monotonic() - since)

    def _committed(self) -> dict[TopicPartition, int]:
        """Return the committed offsets; a consumer would wait for those of open transactions."""
        try:
            found = self._admin.list_group_offsets(self._group)[self._group]
        except KafkaError:
            return self._at
        return {**self._at, **{TopicPartition(*place): offset.offset for place, offset in found.items()}}

    def _all_at_end(self, places: list[TopicPartition]) -> bool:
        if not self._feeding.done():
            return False
        if self._ends_found is None:
            self._feeding.result()
            self._ends_found = _ends(self._broker, self._places)
        return all(self._at.get(place, 0) >= self._ends_found[place] for place in places)

    def _of(self, number: int) -> list[TopicPartition]:
        return [place for place in self._places if place.partition == number]


def _ends(broker: KafkaBroker, places: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Read everything to learn where it ends; brokers do not all tell it right."""
    consumer = broker.consumer("ends")
    consumer.assign(dict.fromkeys(places, 0))
    ends = dict.fromkeys(places, 0)
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 2.0:
        for record in consumer.poll(200, 10_000):
            ends[TopicPartition(record.topic, record.partition)] = record.offset + 1
            quiet_since = time.monotonic()
    consumer.close()
    return ends
