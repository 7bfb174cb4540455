"""Policies run one after another in this process, or side by side in several: what comes out is the same."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path

from joblib import cpu_count

from backtest.outcome import Outcome
from backtest.policies import Policy
from backtest.simulation import Simulation
from backtest.tape import Tape
from backtest.training import Trainer
from backtest.unlearning import Unlearner
from core.errors import BacktestError
from core.processes import tie_to_starter
from core.project import Project

Tell = Callable[[str, int], None]
Ran = tuple[Outcome, float]

_LONG = 50_000
_MOST = 4
_here: Runner


class Runner:
    """Runs policies over a tape; what they ask alike is fitted once.

    Parameters
    ----------
    project : Project
        For its code.
    tape : Tape
        The recorded stream.
    tell : callable
        Told a policy's name and the event time that it has reached, ms; picklable.
    """

    def __init__(self, project: Project, tape: Tape, tell: Tell) -> None:
        self.tape, self._tell = tape, tell
        self._trainer, self._unlearner = Trainer(project), Unlearner(project, tape)

    def run(self, policy: Policy) -> Ran:
        """Return what a policy did, and how long that took, s."""
        began = time.monotonic()
        tell = partial(self._tell, policy.name)
        outcome = Simulation(self.tape, policy, self._trainer, self._unlearner, tell).run()
        return outcome, time.monotonic() - began


def usual_jobs(rows: int, policies: int) -> int:
    """Return how many processes are worth it: one for a short stream, because each takes seconds to start.

    Examples
    --------
    >>> usual_jobs(10_000, 5), usual_jobs(1_000_000, 1)
    (1, 1)
    """
    return 1 if rows < _LONG else min(cpu_count(), policies, _MOST)


def run_policies(project: Project, tape: Tape, policies: Sequence[Policy], jobs: int, tell: Tell) -> Iterator[Ran]:
    """Yield what each policy did, in their order, and how long it took, s.

    Parameters
    ----------
    jobs : int
        Processes, each of which holds the tape; 1 is this one.
    tell : callable
        See `Runner`.

    Raises
    ------
    BacktestError
        If a process ended before its policies had.
    """
    if jobs == 1:
        yield from map(Runner(project, tape, tell).run, policies)
        return
    with tempfile.TemporaryDirectory(prefix="headrace-backtest-") as folder:
        path = Path(folder, "tape")
        path.write_bytes(pickle.dumps(tape, pickle.HIGHEST_PROTOCOL))
        # Not forked: what runs threads here (Arrow, OpenMP) would not run in the copy.
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, fresh, _begin, (project, path, tell)) as pool:
            try:
                for outcome, took in pool.map(_run, policies):
                    yield _of(tape, outcome), took
            except BrokenProcessPool as error:
                raise BacktestError(
                    "a process that ran policies was ended, as happens where memory is short; try --jobs 1"
                ) from error
            except BaseException:  # nobody waits for the other policies any more
                for process in multiprocessing.active_children():
                    process.terminate()
                raise


def _begin(project: Project, path: Path, tell: Tell) -> None:
    global _here  # noqa: PLW0603  a pool gives its processes nothing else to keep things in
    tie_to_starter()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the starter, which ends this one
    _here = Runner(project, pickle.loads(path.read_bytes()), tell)  # noqa: S301  our own, written by the starter


def _run(policy: Policy) -> Ran:
    outcome, took = _here.run(policy)
    if outcome.rows.online is _here.tape.online:  # the starter has them
        outcome = replace(outcome, rows=replace(outcome.rows, online=()))
    return outcome, took


def _of(tape: Tape, outcome: Outcome) -> Outcome:
    return outcome if outcome.rows.online else replace(outcome, rows=replace(outcome.rows, online=tape.online))
