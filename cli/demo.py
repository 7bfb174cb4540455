"""``headrace demo``: broker, worker, monitor, Prefect and a replay, started together and ended together."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from cli.narrator import Narrator
from cli.options import (
    DEMO_MARKER,
    DEMO_VARIABLE,
    Days,
    bootstrap_option,
    check_writable,
    inject_option,
    json_option,
    log_to_stderr,
    project_argument,
    stop_on_signals,
    write_json,
)
from cli.services import parse_speed, run_replay
from core.errors import BooksError, HeadraceError, UsageError
from core.processes import end, start_tied
from core.project import Project, load_project
from core.status import refuse_second
from streaming.injection import Injector, make_injectors
from streaming.replay import source_name

_DEFAULT_DAYS = 130.0


@click.command(epilog="Example: headrace demo examples/flights --days 90 --json out.json")
@project_argument
@bootstrap_option
@json_option
@click.option(
    "--days", default=_DEFAULT_DAYS, show_default=True, type=Days(),
    help="Replay the first so many days; 365 is the whole year.",
)  # fmt: skip
@click.option("--speed", default="max", show_default=True, help="Event seconds per second, or max (in lockstep).")
@click.option("--fresh", is_flag=True, help="Start over, even where an interrupted demo could go on.")
@inject_option
def demo(
    project: Path,
    bootstrap: str | None,
    json_file: str | None,
    days: float,
    speed: str,
    specs: tuple[str, ...],
    *,
    fresh: bool,
) -> None:
    """Run the whole loop on the project's recorded stream, and show what happens.

    Everything it starts ends with it. After Ctrl-C the next start goes on where it was. The exit status is 0
    only if the books balance.
    """
    log_to_stderr()
    pace = parse_speed(speed)
    check_writable(json_file)
    loaded = load_project(project, bootstrap=bootstrap)
    named = source_name(loaded)
    if loaded.settings.replay and loaded.settings.replay.source:
        loaded.load_function(named)
    injectors = make_injectors(specs, loaded.settings)
    for service in ("worker", "monitor"):
        refuse_second(loaded.status, service)
    began = time.monotonic()
    arguments = {"days": days, "speed": speed} | ({"inject": list(specs)} if specs else {})
    goes_on = _prepare_state(loaded, arguments, fresh=fresh)
    click.echo(f"headrace demo: {loaded.settings.name}, the first {days:g} days; state and logs in {loaded.state}")
    if goes_on:
        click.echo("goes on with the demo that was interrupted (--fresh starts over)")
    stop = stop_on_signals()
    finished = _run(loaded, days, pace, stop, began, injectors)
    from cli.summary import imbalances, summary_lines, summary_of

    content = summary_of(loaded, time.monotonic() - began)
    if injectors:
        content["injected"] = [injector.summary() for injector in injectors]
    click.echo("\n".join(summary_lines(content)))
    if json_file:
        write_json(content, json_file)
    if finished:
        _mark(loaded, {**arguments, "finished": True})
    else:
        click.echo("interrupted; the same command goes on from here", err=True)
    if problems := imbalances(content):
        raise BooksError("the books do not balance: " + "; ".join(problems))
    if not finished:
        sys.exit(130)


def _run(
    project: Project,
    days: float,
    speed: float | None,
    stop: threading.Event,
    began: float,
    injectors: Sequence[Injector],
) -> bool:
    """Run everything until the replay is through; return False if it was interrupted."""
    with contextlib.ExitStack() as running:
        connected = running.enter_context(_broker(project))
        lockstep = speed is None
        flags = ["--lockstep"] if lockstep else []
        address = ["--bootstrap", str(connected.bootstrap_servers)]
        children = {
            "worker": running.enter_context(_child(connected, "worker", [*address, *flags])),
            "monitor": running.enter_context(_child(connected, "monitor", ["--poll", "0.1"])),
        }
        failure = threading.Event()
        narrator = running.enter_context(Narrator(connected, began))
        running.enter_context(_watched(children, stop, failure))
        _await_start(connected, children, stop)
        published = run_replay(connected, days, speed, stop, lockstep=lockstep, injectors=injectors)
        if stop.is_set() and not failure.is_set():
            click.echo("stopping; state is made durable first")
        if not failure.is_set() and not stop.is_set():
            _await_worker(connected, published.time, stop)
        if failure.is_set():
            raise HeadraceError(_autopsy(connected, children))
        narrator.catch_up()
        return not stop.is_set()


@contextlib.contextmanager
def _broker(project: Project) -> Iterator[Project]:
    if project.bootstrap_servers:
        yield project
        return
    from streaming.embedded import EmbeddedBroker

    with EmbeddedBroker(project.state) as broker:
        yield project.with_broker(broker.bootstrap_servers)


@contextlib.contextmanager
def _child(project: Project, service: str, options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service of ours as a process; at the end ask it to make its state durable and stop."""
    log = project.logs / f"{service}.log"
    command = [sys.executable, "-m", "headrace", service, str(project.folder), *options]
    environment = {"HEADRACE_STATE": str(project.state), DEMO_VARIABLE: "1"}
    process = start_tied(command, log=log, cwd=project.folder, environment=environment)
    try:
        yield process
    finally:
        end(process, timeout_s=60.0)


@contextlib.contextmanager
def _watched(
    children: dict[str, subprocess.Popen[bytes]], stop: threading.Event, failure: threading.Event
) -> Iterator[None]:
    """Stop everything when a child ends by itself."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            if not stop.is_set() and any(child.poll() is not None for child in children.values()):
                failure.set()
                stop.set()

    thread = threading.Thread(target=watch, name="watch-children", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _await_start(project: Project, children: dict[str, subprocess.Popen[bytes]], stop: threading.Event) -> None:
    """Wait until each service has replaced the status that an earlier run left."""
    from core.status import read_status

    for service, child in children.items():
        while (read_status(project.status, service) or {}).get("pid") != child.pid and not stop.wait(0.05):
            pass


def _await_worker(project: Project, last_time: int, stop: threading.Event) -> None:
    """Without lockstep: wait until the worker has stepped through all that was published."""
    from core.status import read_status

    while not stop.wait(0.2):
        status = read_status(project.status, "worker") or {}
        partitions = (status.get("partitions") or {}).values()
        if partitions and all(part["clock"] >= last_time for part in partitions):
            return


def _autopsy(project: Project, children: dict[str, subprocess.Popen[bytes]]) -> str:
    for service, process in children.items():
        if process.poll() not in (None, 0):
            log = project.logs / f"{service}.log"
            if process.returncode < 0:
                return f"{service} was killed (signal {-process.returncode}); the same command goes on from here"
            tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["(nothing)"]
            return f"{service} ended with exit code {process.returncode}: {tail[0]}; all of it: {log}"
    return f"a service ended; see {project.logs}"


def _prepare_state(project: Project, arguments: dict[str, Any], *, fresh: bool) -> bool:
    """Make the state folder ready; return True if an interrupted demo goes on.

    Raises
    ------
    UsageError
        If the folder holds state that no demo made.
    """
    marker = project.state / DEMO_MARKER
    before = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None
    if before is None and project.state.exists() and any(project.state.iterdir()):
        raise UsageError(
            f"{project.state} holds state that is not a demo's; give the demo a folder of its own with HEADRACE_STATE"
        )
    goes_on = not fresh and before == {**arguments, "finished": False}
    if before is not None and not goes_on:
        why = "--fresh" if fresh else "it had finished" if before.get("finished") else "it had other options"
        click.echo(f"starts over, and removes the state of the last demo: {why}")
        shutil.rmtree(project.state)
    _mark(project, {**arguments, "finished": False})
    return goes_on


def _mark(project: Project, content: dict[str, Any]) -> None:
    project.state.mkdir(parents=True, exist_ok=True)
    (project.state / DEMO_MARKER).write_text(json.dumps(content), encoding="utf-8")
