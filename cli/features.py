"""``headrace features``, ``check-features``, ``backfill-features``: what they are, that they are honest, new ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cli.options import (
    Days,
    bootstrap_option,
    check_writable,
    json_option,
    log_to_stderr,
    project_argument,
    write_json,
)
from core.errors import UsageError
from core.features import load_features
from core.project import load_project
from core.status import refuse_second

_LEAK = 3


@click.command(epilog="Example: headrace features examples/flights")
@project_argument
@json_option
def features(project: Path, json_file: str | None) -> None:
    """Show every feature: its type, what it is made of, by what, and which models see it."""
    check_writable(json_file)
    from core.lineage import lineage

    found = lineage(load_project(project).settings)
    if json_file:
        write_json({"features": [asdict(one) for one in found]}, json_file)
    if json_file != "-":
        width = max(len(one.name) for one in found)
        for one in found:
            made_of = "all fields" if one.made_by == "function" else ", ".join(one.of)
            line = f"{one.name:<{width}}  {one.kind:<8}  {one.made_by:<11}  {made_of}: {one.how}  [{one.used_by}]"
            click.echo(line)


@click.command("check-features", epilog="Example: headrace check-features examples/flights --days 14")
@project_argument
@click.option("--days", type=Days(), help="Only the first days of the stream.")
@json_option
def check_features(project: Path, days: float | None, json_file: str | None) -> None:
    """Check on the recorded stream that no feature depends on what comes after its event.

    The stream is stepped through record by record, where nothing later is there, and in batches, as a worker does.
    Exit 0: every feature is the same; 3: one is not. Needs no broker.
    """
    log_to_stderr()
    check_writable(json_file)
    from backtest.leakage import find_leaks
    from streaming.replay import read_source

    loaded = load_project(project)
    checked = find_leaks(loaded, read_source(loaded, days))
    if json_file:
        write_json(asdict(checked), json_file)
    for leak in checked.leaks:
        click.echo(
            f"{leak.feature}: {leak.alone!r} when event {leak.event!r} is the last that is known, {leak.later!r} when "
            "later records are there: it depends on the future",
            err=True,
        )
    click.echo(f"{checked.events:,} events: {len(checked.leaks)} features depend on what comes later", err=True)
    if checked.leaks:
        click.get_current_context().exit(_LEAK)


@click.command("backfill-features", epilog="Example: headrace backfill-features my-project --bootstrap kafka:9092")
@project_argument
@bootstrap_option
@json_option
def backfill_features(project: Path, bootstrap: str | None, json_file: str | None) -> None:
    """Compute the features of stored events as the project defines them now; then run rebuild-state.

    Stop all workers first. Raw events are read from the topic, as far back as it keeps them. A new version of the
    tables is written; predictions stay as they were served, and earlier versions stay.
    """
    log_to_stderr()
    check_writable(json_file)
    from cli.services import broker_of
    from streaming.backfill import backfill
    from streaming.checkpoint import Checkpoints
    from streaming.privacy_guard import guard

    loaded = load_project(project, bootstrap=bootstrap)
    refuse_second(loaded.status, "worker")
    if loaded.bootstrap_servers is None:
        raise UsageError("raw events are in Kafka: give --bootstrap, or set HEADRACE_BOOTSTRAP_SERVERS")
    function, pseudonyms, checkpoints = load_features(loaded), guard(loaded), Checkpoints(loaded)
    partitions = {}
    for number in checkpoints.partitions():
        file = checkpoints.inspect(number)
        header = file.header if file is not None else {}
        partitions[number] = [(start, end) for start, end in header.get("unlearned", [])]
    if not partitions:
        raise UsageError(f"there is no snapshot in {loaded.checkpoints}: no worker has worked on this project yet")
    reader = broker_of(loaded).consumer(f"headrace.{loaded.settings.name}.backfill")
    try:
        done = backfill(loaded, reader, function, pseudonyms, partitions)
    finally:
        reader.close()
    if json_file:
        write_json(asdict(done), json_file)
    click.echo(
        f"{done.rows:,} events have new features; {done.gone:,} whose raw record is gone and {done.refused:,} that the "
        f"project does not accept any more stay as they are. Now: headrace rebuild-state {loaded.folder}",
        err=True,
    )
