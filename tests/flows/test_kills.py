"""A retraining killed between any two adjacent steps, and one that stands still: real processes and signals."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_prefect import FakePrefect
from flows_lab import Toy, in_this_process, later

from core.audit import Ledger, LedgerRecord
from core.models import CHAMPION, PREVIOUS
from core.project import load_project
from core.registry import Registry
from core.store import TableStore
from flows import lease, references, training
from flows.dispatch import Dispatcher
from flows.execution import execute
from flows.upkeep import maintain_tables

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mlflow.tracking", "mlflow.sklearn", "flows.training", "flows.execution", "flows_lab"])
PATIENCE_S = 240.0  # a retraining of seconds, on a machine that does four other things
CALLS = {
    "create_run",
    "log_artifacts",
    "create_model_version",
    "set_terminated",
    "log_artifact",
    "set_registered_model_alias",
}

Fuse = Callable[[str], None]


class FusedLedger(Ledger):
    """Passes a point at the end of each transaction and behind it."""

    fuse: Fuse

    @contextmanager
    def transaction(self) -> Iterator[None]:
        outermost = self._depth == 0
        with super().transaction():
            yield
            if outermost:
                self.fuse("before its commit")
        if outermost:
            self.fuse("after its commit")


class FusedClient:
    """Passes a point after each call that changes something in MLflow."""

    def __init__(self, client: Any, fuse: Fuse) -> None:
        self._client, self._fuse = client, fuse

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in CALLS:
            return call

        def fused(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            self._fuse(name)
            return result

        return fused


def fused_run(folder: Path, fuse: Fuse) -> None:
    """Take r2 and run it, as the flow does."""
    project = load_project(folder, state=folder / "state")
    FusedLedger.fuse = staticmethod(fuse)
    ledger = FusedLedger(project.ledger)

    def connect(project: Any) -> Registry:
        registry = Registry(project)
        registry._client = FusedClient(registry._client, fuse)
        return registry

    put, fit = references._put, training.fit

    def fused_put(*paths: Path) -> None:
        put(*paths)
        fuse("reference file")

    def fused_fit(*arguments: Any) -> Any:
        fuse("fit")
        return fit(*arguments)

    references._put, training.fit = fused_put, fused_fit
    taken = lease.take(ledger, "r2", "run-1", attempt=1)
    assert taken is not None
    execute(training.Retraining(project, taken, TableStore(project.tables), connect, in_this_process))


def killed_at(folder: Path, at: int) -> None:
    passed: list[str] = []
    lease.BEAT_S = 600.0  # its transactions would move the points

    def fuse(name: str) -> None:
        if passed or name == "fit":  # what comes before is read only, but for the pin
            passed.append(name)
        if len(passed) == at:
            (folder / "point").write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    fused_run(folder, fuse)


def stopped(folder: Path, after: bool) -> None:
    """Stand still right before the promotion is decided, or right after."""
    decide = training.decide

    def stopping(*arguments: Any, **named: Any) -> None:
        if after:
            decide(*arguments, **named)
        os.kill(os.getpid(), signal.SIGSTOP)
        if not after:
            decide(*arguments, **named)

    training.decide = stopping
    fused_run(folder, lambda _: None)


@pytest.fixture
def second(toy: Toy, prefect: FakePrefect) -> Toy:
    """A project with a champion, new rows, and a request that Prefect has a run for, which has crashed."""
    assert toy.retrain("r1")["outcome"] == "promoted"
    toy.append(later(toy.project))
    toy.request("r2", "drift")
    Dispatcher(toy.project, toy.ledger, prefect.url).run_once()
    prefect.end("CRASHED")
    toy.ledger.close()
    return toy


def recover(toy: Toy, prefect: FakePrefect) -> None:
    """What the dispatcher and Prefect do after a crash, without the waiting."""
    toy.ledger = Ledger(toy.project.ledger)
    dispatcher = Dispatcher(toy.project, toy.ledger, prefect.url)
    dispatcher.run_once()
    for request in toy.ledger.open_requests():
        assert (request.status, request.attempt) == ("requested", 2)
        taken = lease.take(toy.ledger, request.id, "run-2", attempt=2)
        assert taken is not None
        assert (
            execute(training.Retraining(toy.project, taken, toy.store, apart=in_this_process))["outcome"] == "promoted"
        )
    dispatcher.run_once()


def assert_one_champion(toy: Toy) -> None:
    registry, ledger = Registry(toy.project), toy.ledger
    champion, previous = registry.alias(CHAMPION), registry.alias(PREVIOUS)
    assert champion is not None and previous is not None
    promotions = [record.body for record in ledger.history("promotion")]
    assert [(body["version"], body["previous"]) for body in promotions] == [(1, None), (champion.version, 1)]
    assert previous.version == 1
    assert [(request.id, request.status) for request in ledger.requests()] == [("r1", "promoted"), ("r2", "promoted")]
    promoted = [record.body["version"] for record in ledger.history("retraining") if record.body["promoted"]]
    assert promoted == [1, champion.version]
    assert_kept(toy, champion.version)


def assert_kept(toy: Toy, version: int) -> None:
    """The reference of a version is the one stored with it, and its table version is there to stay."""
    about = json.loads((toy.project.state / "references" / f"{version}.json").read_text())
    sample = (toy.project.state / "references" / f"{version}.parquet").read_bytes()
    assert hashlib.sha256(sample).hexdigest() == about["digest"]
    stored = (toy.project.state / "mlflow-artifacts").rglob(f"reference/{version}.parquet")
    assert [path.read_bytes() for path in stored] == [sample]
    maintain_tables(toy.store, toy.ledger, 0)
    assert len(toy.store.read("examples", version=about["table_version"])) >= 2_000
    owners = toy.ledger._connection.execute("SELECT owner FROM pins").fetchall()
    assert f"model-{version}" in [row["owner"] for row in owners]
    assert "r2" not in [row["owner"] for row in owners]


def restore(kept: Path, state: Path) -> None:
    """Put everything back; MLflow's database in place, because this process has it open."""
    for path in state.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith("mlflow.sqlite"):
            path.unlink()
    shutil.copytree(kept, state, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlflow.sqlite*"))
    with (
        closing(sqlite3.connect(kept / "mlflow.sqlite")) as source,
        closing(sqlite3.connect(state / "mlflow.sqlite")) as target,
    ):
        source.backup(target)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_between_any_two_steps_it_is_promoted_once(second: Toy, prefect: FakePrefect, tmp_path: Path):
    state, kept, points = second.project.state, tmp_path / "kept", []
    shutil.copytree(state, kept)
    for at in itertools.count(1):
        process = CONTEXT.Process(target=killed_at, args=(second.project.folder, at))
        process.start()
        process.join(PATIENCE_S)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        points.append((second.project.folder / "point").read_text())
        recover(second, prefect)
        assert_one_champion(second)
        second.ledger.close()
        restore(kept, state)
    assert points.count("set_registered_model_alias") == 2
    told = 8  # what each step from the fit on said, for who waits
    assert points.count("before its commit") == points.count("after its commit") == 3 + told  # pin, decide, close
    assert {"fit", "reference file", *CALLS} <= set(points)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_stood_still_changes_nothing_when_it_goes_on(second: Toy, prefect: FakePrefect, after: bool):
    process = CONTEXT.Process(target=stopped, args=(second.project.folder, after))
    process.start()
    assert process.pid is not None
    until = time.monotonic() + PATIENCE_S
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED and time.monotonic() < until:
        time.sleep(0.05)
    recover(second, prefect)
    before, reference = remembered(second), files(second.project.state / "references")
    os.kill(process.pid, signal.SIGCONT)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert remembered(second) == before
    assert files(second.project.state / "references") == reference
    assert_one_champion(second)


def remembered(toy: Toy) -> tuple[list[LedgerRecord], list[Any], int]:
    champion = Registry(toy.project).alias(CHAMPION)
    assert champion is not None
    return toy.ledger.history(), toy.ledger.requests(), champion.version


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
