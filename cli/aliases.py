"""``headrace promote`` and ``rollback``: a person moves the champion or has a window forgotten; who and why is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
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
from core.clocks import Clock
from core.durations import DAY
from core.errors import UsageError
from core.project import Project, load_project
from core.quarantine import Span, unlearned
from core.status import is_alive, read_status

_PATIENCE_S = 30.0
_PATIENCE_TO_UNLEARN_S = 600.0
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
@click.option("--online", is_flag=True, help="Take the online experts and the blend back instead, see --without.")
@click.option(
    "--without", metavar="START..END", help="With --online: what they forget; END of a date is its last moment."
)
@who_option
@why_option
@json_option
def rollback(
    project: Path, who: str | None, why: str | None, json_file: str | None, without: str | None, *, online: bool
) -> None:
    """Make the previous champion the champion again; the one so far becomes the previous one.

    Workers follow within ten seconds; the command waits for them. It does not wait for a retraining under way.

    With --online the champion stays. Each partition goes back to the last snapshot before a window and learns again
    without it; no retraining uses the window either. The command waits for that, too.
    """
    check_writable(json_file)
    if online != (without is not None):
        raise UsageError("--online and --without START..END belong together, such as --without 2013-03-05..2013-03-08")
    if without is not None:
        _forget(project, without, who or user(), why, json_file)
        return

    def move(loaded: Project, ledger: Ledger, registry: Any) -> dict[str, Any]:
        from flows import by_hand

        return by_hand.roll_back(loaded, ledger, registry, by=who or user(), why=why)

    _carry_out(project, json_file, move)


def _forget(folder: Path, window: str, who: str, why: str | None, json_file: str | None) -> None:
    from flows import by_hand

    log_to_stderr()
    project = load_project(folder)
    keep_from_demo(project.state)
    span = parse_span(window, project.settings.clock)
    ledger = Ledger(project.ledger)
    try:
        done = by_hand.unlearn(project, ledger, span, by=who, why=why)
        count = len(unlearned(ledger.history("unlearn")))
    finally:
        ledger.close()
    said = project.settings.clock.between(*span)
    click.echo(f"{said} is in quarantine, by {who}", err=bool(json_file))
    waited = _await_worker(project, lambda status: _forgotten(status) >= count, _PATIENCE_TO_UNLEARN_S)
    ended = "the worker has not learned again without it yet; see 'headrace status'"
    if waited is not None:
        ended = f"the worker has learned again without it, {waited:g} s later"
    elif not is_alive(read_status(project.status, "worker")):
        ended = "no worker runs on this state folder; the next one to start learns again without it"
    click.echo(ended, err=bool(json_file))
    if json_file:
        write_json({**done, "unlearned_after_s": waited}, json_file)


def parse_span(text: str, clock: Clock) -> Span:
    """Read ``START..END``; the end of a date is its last moment.

    Raises
    ------
    UsageError
        If it is no such span.

    Examples
    --------
    >>> from core.clocks import UTC_CLOCK
    >>> start, end = parse_span("1970-01-02..1970-01-03", UTC_CLOCK)
    >>> UTC_CLOCK.between(start, end)
    '1970-01-02 00:00 to 1970-01-04 00:00 UTC'
    """
    first, dots, last = text.partition("..")
    try:
        start, end = clock.from_json(first), clock.from_json(last)
    except ValueError:
        dots = ""
    if dots and clock.name == "UTC" and len(last.strip()) == len("2013-03-08"):
        end += DAY
    if not dots or end <= start:
        example = "2013-03-05..2013-03-08" if clock.name == "UTC" else "12000..12500 (rows)"
        raise UsageError(f"--without {text}: give a start and a later end, such as {example}")
    return start, end


def _forgotten(status: Mapping[str, Any]) -> int:
    """Return how many windows every partition has unlearned."""
    return min((int(part.get("unlearned", 0)) for part in (status.get("partitions") or {}).values()), default=0)


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
    served = await_champion(project, done["version"], quiet=bool(json_file))
    if json_file:
        write_json({**done, "served_after_s": served}, json_file)


def await_champion(project: Project, version: int, *, quiet: bool) -> float | None:
    """Wait until the worker serves a version from the next record on, and say so; return for how long, s."""
    served = _await_worker(project, lambda status: status.get("champion_ready") == version, _PATIENCE_S)
    click.echo(_said(project, version, served), err=quiet)
    return served


def _await_worker(project: Project, done: Callable[[Mapping[str, Any]], bool], patience_s: float) -> float | None:
    """Wait until the worker says so; return for how long, s, None if it did not."""
    begin, pause = time.monotonic(), threading.Event()
    while time.monotonic() - begin < patience_s:
        status = read_status(project.status, "worker")
        if status is None or not is_alive(status):
            return None
        if done(status):
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
