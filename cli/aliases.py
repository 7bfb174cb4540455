"""``headrace promote`` and ``headrace rollback``: a person moves the champion, and it is written down who and why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.options import (
    check_writable,
    json_option,
    keep_from_demo,
    log_to_stderr,
    project_argument,
    user,
    who_option,
    why_option,
    write_json,
)
from core.audit import Ledger
from core.project import Project, load_project
from core.status import is_alive, read_status

_PATIENCE_S = 30.0
_LOOK_S = 0.1


@click.command(epilog='Example: headrace promote examples/flights 3 --why "the new sensor is in 3 only"')
@project_argument
@click.argument("version", type=click.IntRange(min=1))
@who_option
@why_option
@json_option
def promote(project: Path, version: int, who: str | None, why: str | None, json_file: str | None) -> None:
    """Make a registered VERSION the champion, whatever its gates said.

    It must load, and monitoring must have its reference. A retraining under way that was compared with the champion
    so far is not promoted then.
    """
    check_writable(json_file)

    def move(loaded: Project, ledger: Ledger, registry: Any) -> dict[str, Any]:
        from flows import by_hand

        return by_hand.promote(loaded, ledger, registry, version, by=who or user(), why=why)

    _carry_out(project, json_file, move)


@click.command(epilog='Example: headrace rollback examples/flights --why "version 4 is late on Mondays"')
@project_argument
@who_option
@why_option
@json_option
def rollback(project: Path, who: str | None, why: str | None, json_file: str | None) -> None:
    """Make the previous champion the champion again; the one so far becomes the previous one.

    Workers follow within ten seconds; the command waits for them. It does not wait for a retraining under way.
    """
    check_writable(json_file)

    def move(loaded: Project, ledger: Ledger, registry: Any) -> dict[str, Any]:
        from flows import by_hand

        return by_hand.roll_back(loaded, ledger, registry, by=who or user(), why=why)

    _carry_out(project, json_file, move)


def _carry_out(folder: Path, json_file: str | None, move: Callable[[Project, Ledger, Any], dict[str, Any]]) -> None:
    from core.registry import Registry

    log_to_stderr()
    project = load_project(folder)
    keep_from_demo(project.state)
    ledger = Ledger(project.ledger)
    try:
        done = move(project, ledger, Registry(project))
    finally:
        ledger.close()
    was = done["previous"] or "none"
    click.echo(f"champion is version {done['version']} (was {was}), by {done['approved']['by']}", err=bool(json_file))
    served = _await_worker(project, done["version"])
    click.echo(_said(project, done["version"], served), err=bool(json_file))
    if json_file:
        write_json({**done, "served_after_s": served}, json_file)


def _await_worker(project: Project, version: int) -> float | None:
    """Wait until the worker serves a version from the next record on; return for how long, s, None if it did not."""
    begin, pause = time.monotonic(), threading.Event()
    while time.monotonic() - begin < _PATIENCE_S:
        status = read_status(project.status, "worker")
        if not is_alive(status):
            return None
        if (status or {}).get("champion_ready") == version:
            return round(time.monotonic() - begin, 1)
        pause.wait(_LOOK_S)
    return None


def _said(project: Project, version: int, served: float | None) -> str:
    if served is not None:
        return f"the worker serves it from its next record on, {served:g} s later"
    status = read_status(project.status, "worker")
    if not is_alive(status):
        return "no worker runs on this state folder; the next one to start serves it"
    problem = (status or {}).get("champion_problem")
    return f"the worker does not serve {version} yet: {problem or f'not heard of after {_PATIENCE_S:g} s'}"
