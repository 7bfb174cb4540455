"""``headrace rebuild-state``: after an upgrade, the models learn again what the tables hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import check_writable, json_option, log_to_stderr, project_argument, write_json
from core.errors import CheckpointError, UsageError
from core.features import load_features
from core.project import Project, load_project
from core.status import refuse_second

if TYPE_CHECKING:
    from streaming.checkpoint import Checkpoints
    from streaming.rebuild import Rebuilt, Tell

_SAY_EVERY_S = 5.0


@click.command("rebuild-state", epilog="Example: headrace rebuild-state examples/flights")
@project_argument
@click.option(
    "--partition", type=click.IntRange(min=0), help="Only this partition; all that have a snapshot if left out."
)
@json_option
def rebuild_state(project: Path, partition: int | None, json_file: str | None) -> None:
    """Learn the online models again from the tables, after an upgrade that snapshots cannot follow.

    Offsets, books, clock and what waits go on as they were; stop all workers of the project first. The snapshot that
    was there is kept beside the new one, as .before-rebuild.
    """
    log_to_stderr()
    check_writable(json_file)
    loaded = load_project(project)
    refuse_second(loaded.status, "worker")
    load_features(loaded)
    from streaming.checkpoint import Checkpoints
    from streaming.privacy_guard import guard
    from streaming.rebuild import rebuild

    guard(loaded)
    checkpoints = Checkpoints(loaded)
    done = []
    for number in _wanted(loaded, checkpoints, partition):
        rebuilt = rebuild(loaded, number, checkpoints, _progress(number))
        _say(rebuilt)
        done.append(rebuilt.as_dict())
    if json_file:
        write_json({"partitions": done}, json_file)


def _wanted(project: Project, checkpoints: Checkpoints, partition: int | None) -> list[int]:
    found = checkpoints.partitions()
    if not found:
        raise CheckpointError(
            f"there is no snapshot in {project.checkpoints}: the tables tell what was learned, but not where in the "
            "topics to go on; restore the snapshots from a back-up"
        )
    if partition is not None and partition not in found:
        raise UsageError(f"--partition {partition}: has no snapshot; these have: {', '.join(map(str, found))}")
    return found if partition is None else [partition]


def _progress(partition: int) -> Tell:
    """Return what says on standard error now and then how far a long run is."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SAY_EVERY_S:
            last = time.monotonic()
            click.echo(f"partition {partition}: {done:,} of {total:,} rows", err=True)

    return tell


def _say(rebuilt: Rebuilt) -> None:
    changed = ", ".join(f"{name} {its} is {mine} now" for name, (its, mine) in rebuilt.changed.items())
    click.echo(
        f"partition {rebuilt.partition}: learned {rebuilt.examples:,} examples and {rebuilt.predictions:,} predictions "
        f"again ({changed or 'nothing had changed'}); goes on after step {rebuilt.step:,} with {rebuilt.pending:,} "
        "events that wait for their label",
        err=True,
    )
    for sentence in rebuilt.lost:
        click.echo(f"partition {rebuilt.partition}: not restored: {sentence}", err=True)
