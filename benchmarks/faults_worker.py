"""One worker of `benchmarks/faults.py`, in a process of its own; it may kill itself at the n-th start of a phase."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from synthetic import MadeChampion

import streaming.worker
from core.errors import BrokerError
from core.models import BatchModel
from core.project import load_project
from streaming.champion import ChampionWatcher
from streaming.kafka_client import KafkaBroker
from streaming.phases import Phase, Phases


class KillingPhases(Phases):
    """SIGKILL at the n-th start of a phase: nothing runs behind it, in no thread."""

    def __init__(self, phase: str, nth: int) -> None:
        super().__init__()
        self._phase = phase
        self._left = nth

    def enter(self, phase: Phase) -> AbstractContextManager[None]:
        if phase == self._phase:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().enter(phase)


class FixedSource:
    """A champion that may serve from an event time on."""

    def __init__(self, effective_at: int) -> None:
        self._effective_at = effective_at

    def followed(self) -> dict[str, tuple[int, int]]:
        return {"champion": (MadeChampion.version, self._effective_at)}

    def load(self, version: int) -> BatchModel:
        return MadeChampion()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("project", type=Path)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--instance", default="")
    parser.add_argument("--poll-records", type=int, default=2_000)
    parser.add_argument("--champion-at", type=int, required=True)
    parser.add_argument("--kill-in", default="")
    parser.add_argument("--kill-nth", type=int, default=0)
    parser.add_argument("--not-transactional", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    streaming.worker._POLL_RECORDS = given.poll_records
    project = load_project(given.project, state=given.project / "state")
    while not stop.is_set():
        watcher = ChampionWatcher(lambda: FixedSource(given.champion_at))
        watcher.start()
        watcher.wait_for_first_look(30.0)
        watcher.start = lambda: None  # type: ignore[method-assign]
        worker = streaming.worker.Worker(
            project,
            KafkaBroker(given.bootstrap, transactional=not given.not_transactional),
            watcher,
            lockstep=True,
            instance=given.instance,
            phases=KillingPhases(given.kill_in, given.kill_nth),
        )
        try:
            worker.run(stop)
        except BrokerError as error:
            logging.error("starts again after: %s", error)  # noqa: TRY400
            stop.wait(1.0)


if __name__ == "__main__":
    main()
