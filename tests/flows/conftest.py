from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dispatch_lab import Clock
from fake_prefect import FakePrefect
from flows_lab import Toy, make_toy, write_project

from core.audit import Ledger, RetrainRequest
from core.project import Project
from flows.dispatch import Dispatcher


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path / "project")


@pytest.fixture
def prefect() -> Iterator[FakePrefect]:
    fake = FakePrefect()
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return write_project(tmp_path, "binary")


@pytest.fixture
def ledger(project: Project) -> Ledger:
    """A ledger in which a retraining is requested."""
    made = Ledger(project.ledger)
    made.request_retrain(RetrainRequest("drift-7", "drift", 10, 20))
    return made


@pytest.fixture
def clock() -> Clock:
    """Never jumps: what a dispatcher goes by."""
    return Clock()


@pytest.fixture
def wall() -> Clock:
    return Clock()


@pytest.fixture
def dispatcher(project: Project, ledger: Ledger, prefect: FakePrefect, clock: Clock, wall: Clock) -> Dispatcher:
    return Dispatcher(project, ledger, prefect.url, carry_out=lambda _: None, clock=wall, steady=clock)


@pytest.fixture
def one_off(project: Project, ledger: Ledger, prefect: FakePrefect, wall: Clock) -> Callable[[], None]:
    """Looks once, as the drift check does: nothing is known from before."""

    def look() -> None:
        Dispatcher(project, ledger, prefect.url, carry_out=lambda _: None, one_off=True, clock=wall).run_once()

    return look
