"""``headrace ingest``: what was before the stream becomes rows of the tables, to train a first champion on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import (
    check_writable,
    json_option,
    keep_from_demo,
    log_to_stderr,
    project_argument,
    stop_on_signals,
    write_json,
)
from core.clocks import Clock
from core.errors import UsageError
from core.project import Project, load_project

if TYPE_CHECKING:
    from streaming.ingest import Tell
    from streaming.ingest_tally import Ingested

_SAY_EVERY_S = 5.0


@click.command(epilog="Example: headrace ingest my-project --source past --json -")
@project_argument
@click.option("--source", metavar="NAME", help="Which of the sources under 'history'; needed where there are several.")
@json_option
def ingest(project: Path, source: str | None, json_file: str | None) -> None:
    """Read a file or a database of the past into the tables, so that 'headrace retrain' can train on it.

    The rows go through the decoding, the features and the label join of the stream, in the order of their times. One
    that was stopped or killed goes on where it was; what the tables have already is not written again.
    """
    check_writable(json_file)
    log_to_stderr()
    loaded = load_project(project)
    name = _chosen(loaded, source)
    keep_from_demo(loaded.state)
    stop = stop_on_signals()
    from streaming.ingest import ingest as carry_out

    done = carry_out(loaded, name, _progress(loaded.settings.clock), stop)
    if done is None:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    for line in _lines(done, loaded.settings.clock):
        click.echo(line, err=True)
    if json_file:
        write_json(done.as_dict(), json_file)


def _chosen(project: Project, source: str | None) -> str:
    """Return the name of the source to ingest.

    Raises
    ------
    UsageError
        If the project file has none, or several and none of them was named.
    """
    known = list(project.settings.history)
    if not known:
        raise UsageError(
            f"{project.folder}: headrace.yaml names no history; add 'history: {{past: {{file: past.csv}}}}', "
            "see docs/ingest.md"
        )
    if source is None and len(known) == 1:
        return known[0]
    if source not in known:
        given = "name one with --source" if source is None else f"--source {source}: there is none"
        raise UsageError(f"{given}; history has {', '.join(known)}")
    return source


def _progress(clock: Clock) -> Tell:
    """Return what says now and then on standard error how far it is."""
    last = time.monotonic()

    def tell(what: str, done: int, total: int | None, moment: int | None) -> None:
        nonlocal last
        if done != total and time.monotonic() - last < _SAY_EVERY_S:
            return
        last = time.monotonic()
        if what == "read":
            click.echo(f"read {done:,} rows", err=True)
        else:
            reached = "" if moment is None else f", up to {clock.moment(moment)}"
            click.echo(f"took {done:,} of {total:,} events and labels through features and join{reached}", err=True)

    return tell


def _lines(done: Ingested, clock: Clock) -> list[str]:
    """Return what was done, for people."""
    tally, written, events = done.tally, done.written, done.books.events
    span = "" if done.first is None or done.last is None else f", {clock.between(done.first, done.last)}"
    lines = [
        f"{done.source} ({done.place}): {tally.rows:,} rows{span}",
        f"  written   {written.predictions:,} predictions, {written.examples:,} examples, "
        f"{written.corrections:,} corrections; {events.pending:,} events wait for a label",
    ]
    left = {
        "in the tables already": written.already,
        "of events that a worker has predicted": written.of_workers,
        "of erased ids": written.erased,
        "rows past privacy.retention": tally.too_old,
        "events that came twice": events.duplicates,
        "labels after their horizon": done.books.labels.late,
    }
    told = [f"{count:,} {what}" for what, count in left.items() if count]
    lines += [f"  left out  {'; '.join(told)}"] if told else []
    if tally.refused:
        reasons = sorted(done.books.reasons.items(), key=lambda one: -one[1])
        lines.append(f"  refused   {tally.refused:,}: {', '.join(f'{count:,} {reason}' for reason, count in reasons)}")
        worst = {sample["reason"]: sample for sample in reversed(tally.samples)}
        lines += [f"            {worst[reason]['place']}: {reason}: {worst[reason]['detail']}" for reason, _ in reasons]
    return [*lines, f"  report    {done.report}"]
