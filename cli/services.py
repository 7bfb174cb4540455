"""``headrace worker``, ``monitor`` and ``replay``: the long-running services and the recorded stream."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import (
    Days,
    bootstrap_option,
    inject_option,
    injected_line,
    keep_from_demo,
    log_to_stderr,
    project_argument,
    stop_on_signals,
)
from core.errors import BrokerError, UsageError
from core.features import load_features
from core.project import Project, load_project
from core.status import read_status, refuse_second

if TYPE_CHECKING:
    from core.registry import Registry
    from streaming.champion import ChampionWatcher
    from streaming.injection import Injector
    from streaming.kafka_client import KafkaBroker
    from streaming.replay import Pace, Published
    from streaming.worker import Worker

_log = logging.getLogger("headrace")
_MAX_PAUSE_S = 30.0
_LAST_MOVE_S = 30.0


@click.command(epilog="Example: headrace worker examples/flights --bootstrap localhost:9092")
@project_argument
@bootstrap_option
@click.option("--lockstep", is_flag=True, help="For replays: wait for the loop at each window; never in production.")
@click.option("--instance", default="", metavar="NAME", help="Tells workers apart that share a state folder.")
def worker(project: Path, bootstrap: str | None, lockstep: bool, instance: str) -> None:
    """Predict every event of the stream and learn from every label, until Ctrl-C.

    Several workers share the partitions of a project. Without a broker of yours it starts the embedded one, for as
    long as it runs.
    """
    _settle_threads()
    log_to_stderr()
    at_work: list[Worker] = []
    stop = stop_on_signals(lambda: not any(one.partitions for one in at_work))
    loaded = load_project(project, bootstrap=bootstrap)
    refuse_second(loaded.status, "worker", instance)
    keep_from_demo(loaded.state)
    load_features(loaded)
    with _some_broker(loaded) as (connected, is_there):
        _work(connected, stop, is_there, at_work, lockstep=lockstep, instance=instance)


def _settle_threads() -> None:
    """One thread predicts, and none spins while it waits; to be said before any numeric library is imported."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def broker_of(project: Project) -> KafkaBroker:
    """Return the project's broker; the embedded one has no transactions that can be relied on."""
    from streaming.embedded import running_broker
    from streaming.kafka_client import KafkaBroker

    address = str(project.bootstrap_servers)
    embedded = running_broker(project.state) == address
    if embedded and project.settings.state.guarantee == "exactly_once":
        _log.info("the embedded broker has no transactions: at least once")
    return KafkaBroker(address, transactional=not embedded)


def _work(
    project: Project,
    stop: threading.Event,
    is_there: Callable[[], bool],
    at_work: list[Worker],
    *,
    lockstep: bool,
    instance: str,
) -> None:
    """Run workers until told to stop; one that lost its broker is followed by another, from the last snapshot.

    The present one is kept in `at_work`.

    Raises
    ------
    BrokerError
        If the embedded broker has ended: it cannot come back with its records.
    """
    from streaming.worker import Worker

    pause = 1.0
    while True:
        running = Worker(project, broker_of(project), _watcher(project), lockstep=lockstep, instance=instance)
        at_work[:] = [running]
        try:
            books = running.run(stop, until=lambda _: not is_there())
        except BrokerError as error:
            if stop.is_set():
                raise
            _refuse_ended(is_there)
            pause = 1.0 if running.records else min(pause * 2, _MAX_PAUSE_S)
            _log.error("%s; goes on from the last snapshot in %.0f s", error, pause)
            if stop.wait(pause):
                raise
        else:
            _refuse_ended(is_there)
            _log.info("stopped: %d events, %d labels", books.events.received, books.labels.received)
            return


def _refuse_ended(is_there: Callable[[], bool]) -> None:
    if not is_there():
        raise BrokerError(
            "the embedded broker has ended; start the worker again: its state goes on, its topics are new"
        )


def _watcher(project: Project) -> ChampionWatcher:
    from streaming.champion import ChampionWatcher

    def connect() -> Registry:
        from core.registry import Registry

        return Registry(project)

    return ChampionWatcher(connect)


@contextlib.contextmanager
def _some_broker(project: Project) -> Iterator[tuple[Project, Callable[[], bool]]]:
    """Yield the project on its broker, the embedded one where none was named, and whether that can come back."""
    if project.bootstrap_servers:
        yield project, lambda: True
        return
    from streaming.embedded import EmbeddedBroker, running_broker

    if address := running_broker(project.state):
        yield project.with_broker(address), lambda: running_broker(project.state) is not None
        return
    with EmbeddedBroker(project.state) as broker:
        click.echo(f"embedded broker at {broker.bootstrap_servers} (in memory; it forgets when this ends)", err=True)
        yield project.with_broker(broker.bootstrap_servers), lambda: broker.is_running


@click.command(epilog="Example: PREFECT_API_URL=http://localhost:4200/api headrace monitor examples/flights")
@project_argument
@click.option("--poll", default=1.0, show_default=True, metavar="SECONDS", help="Time between two looks.")
def monitor(project: Path, poll: float) -> None:
    """Judge every closed window, decide, and have Prefect run what was decided, until Ctrl-C.

    Without PREFECT_API_URL it starts a Prefect server and a process worker of its own.
    """
    log_to_stderr()
    stop = stop_on_signals()
    loaded = load_project(project)
    refuse_second(loaded.status, "monitor")
    keep_from_demo(loaded.state)
    from core.audit import Ledger
    from core.store import TableStore
    from flows.service import Dispatching
    from flows.shadowing import Shadowing
    from monitoring.alerts import make_sender
    from monitoring.monitor import Monitor

    ledger, store = Ledger(loaded.ledger), TableStore(loaded.tables)
    watch = Monitor(loaded, ledger, store, send_alert=make_sender(loaded.settings.alerts))
    if not watch.take_turn(stop, poll):
        return
    shadowing = Shadowing(loaded, ledger, store)
    shadowing.announce()
    judging = threading.Thread(target=shadowing.run, args=(stop, poll), name="shadows", daemon=True)
    judging.start()
    dispatching = Dispatching(loaded, ledger, stop, poll, shadowing.has_judged)
    dispatching.start()
    watch.run(stop, poll)
    judging.join(timeout=_LAST_MOVE_S)
    dispatching.finish()


@click.command(epilog="Example: headrace replay examples/flights --days 90 --speed 86400")
@project_argument
@bootstrap_option
@click.option("--days", type=Days(), help="The first so many days; all if left out.")
@click.option("--speed", default="max", show_default=True, help="Event seconds per second, or max.")
@click.option("--lockstep", is_flag=True, help="Hold at each window until the loop has closed (with --speed max).")
@inject_option
def replay(
    project: Path, bootstrap: str | None, days: float | None, speed: str, lockstep: bool, specs: tuple[str, ...]
) -> None:
    """Publish the project's recorded stream in the order of its own times.

    It needs a worker that runs, or a broker of yours; lockstep needs a worker with --lockstep and a monitor.
    """
    log_to_stderr()
    from streaming.injection import make_injectors

    loaded = load_project(project, bootstrap=bootstrap)
    injectors, stop = make_injectors(specs, loaded.settings), stop_on_signals()
    published = run_replay(
        on_running_broker(loaded), days, parse_speed(speed), stop, lockstep=lockstep, injectors=injectors
    )
    click.echo(f"published {published.events:,} events and {published.labels:,} labels", err=True)


def run_replay(
    project: Project,
    days: float | None,
    speed: float | None,
    stop: threading.Event,
    *,
    lockstep: bool,
    injectors: Sequence[Injector],
) -> Published:
    """Publish the recorded stream; from where the worker's state ends, if it has one; say what was injected.

    Raises
    ------
    UsageError
        If lockstep is asked for and no worker in lockstep runs here.
    """
    from streaming.injection import inject
    from streaming.replay import publish, read_source
    from streaming.topics import ensure_topics

    broker = broker_of(project)
    _, partitions = ensure_topics(broker, project.settings)
    producer = broker.producer()
    try:
        items = read_source(project, days, _resume_after(project), partial(inject, injectors=injectors))
        pace = _pace(project, speed, stop, lockstep=lockstep)
        published = publish(items, project.settings, producer, partitions, pace, stop)
    finally:
        producer.close()
    _say_injected(injectors, interrupted=stop.is_set())
    return published


def _say_injected(injectors: Sequence[Injector], *, interrupted: bool) -> None:
    for injector in injectors:
        message = None if interrupted else injector.nothing_changed()
        if message:
            _log.warning("%s", message)
        else:
            click.echo(injected_line(injector.summary()), err=True)


def parse_speed(text: str) -> float | None:
    """Read ``--speed``: None for ``max``."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed < float("inf"):
        raise UsageError(f"--speed {text}: give event seconds per second, such as 86400 for a day a second, or max")
    return speed


def _pace(project: Project, speed: float | None, stop: threading.Event, *, lockstep: bool) -> Pace:
    from streaming.replay import RealPace

    if not lockstep:
        return RealPace(speed, stop)
    from core.audit import Ledger
    from streaming.lockstep import LockstepPace

    status = read_status(project.status, "worker")
    if status is not None and status.get("state") == "running" and not status.get("lockstep"):
        raise UsageError("the worker is not in lockstep; start it with: headrace worker PROJECT --lockstep")
    return LockstepPace(project, Ledger(project.ledger), stop)


def _resume_after(project: Project) -> int | None:
    """Return the clock up to which every partition has seen the stream, when the broker is a new one."""
    status = read_status(project.status, "worker")
    partitions = (status or {}).get("partitions") or {}
    return min((int(part["clock"]) for part in partitions.values()), default=None) or None


def on_running_broker(project: Project) -> Project:
    """Return the project on its broker, on the embedded one that runs for it where none was named.

    Raises
    ------
    BrokerError
        If there is neither.
    """
    if project.bootstrap_servers:
        return project
    from streaming.embedded import running_broker

    address = running_broker(project.state)
    if address is None:
        raise BrokerError(
            "no broker runs for this project; start 'headrace worker' first, or give --bootstrap HOST:PORT"
        )
    return project.with_broker(address)
