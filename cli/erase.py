"""``headrace erase``: what headrace holds about one id goes, and what it cannot reach is said."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import check_writable, json_option, log_to_stderr, project_argument, user, who_option, write_json
from core.audit import Ledger
from core.errors import HeadraceError, UsageError
from core.project import Project, load_project
from core.status import is_alive, read_status

if TYPE_CHECKING:
    from flows.erasure import Erased, LogFile
    from streaming.checkpoint import Checkpoints

_NOT_FOUND = 3
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class _Waiting:
    """What the partitions say: by number what they knew of the id; those that have not come to it yet."""

    known: dict[int, str]
    left: list[int]
    worker_runs: bool


@click.command(epilog="Example: headrace erase examples/flights --id 2013-01-01-UA-1545-EWR --json -")
@project_argument
@click.option("--id", "event_id", required=True, metavar="ID", help="The event's id, as producers write it.")
@click.option("--wait", type=float, default=60.0, show_default=True, metavar="SECONDS", help="How long for a worker.")
@who_option
@json_option
def erase(project: Path, event_id: str, wait: float, who: str | None, json_file: str | None) -> None:
    """Erase an id: exit 0 erased, 3 nothing found, 1 failed or not yet complete.

    It goes from tables with all their versions, from waiting state and snapshots, pages and references. A worker that
    runs is waited for; one that does not forgets it when it starts. What cannot be reached is said.
    """
    check_writable(json_file)
    if not event_id:
        raise UsageError("--id is empty: say which event")
    log_to_stderr()
    loaded = load_project(project)
    from core.store import TableStore
    from flows.erasure import erase_written
    from streaming.checkpoint import Checkpoints
    from streaming.erasure import Erasures
    from streaming.privacy_guard import guard

    pseudonyms = guard(loaded)
    stored = pseudonyms.of_id(event_id) if pseudonyms and loaded.settings.privacy.id else event_id
    erasures = Erasures(loaded)
    name = erasures.name(stored)
    request = erasures.ask(name)  # from here on no worker writes a row of it that it has not forgotten yet
    waiting = _wait_for_workers(loaded, Checkpoints(loaded), request, wait)
    ledger = Ledger(loaded.ledger)
    try:
        done = erase_written(loaded, TableStore(loaded.tables), ledger, stored, _into_mlflow(loaded))
        content = _content(loaded, name, done, waiting, who or user())
        ledger.record("erasure", request, event_time=None, body=content)
        fits = [request.id for request in ledger.open_requests() if request.status == "running"]
    finally:
        ledger.close()
    click.echo("\n".join(_lines(content)), err=bool(json_file))
    if json_file:
        write_json(content, json_file)
    _refuse_half(waiting, fits)
    sys.exit(0 if content["found"] else _NOT_FOUND)


def _wait_for_workers(project: Project, checkpoints: Checkpoints, request: str, wait_s: float) -> _Waiting:
    """Wait until every partition has forgotten the id, as its newest snapshot says, or no worker is there to do it."""
    until = time.monotonic() + wait_s
    while True:
        status = read_status(project.status, "worker")
        runs = is_alive(status)
        numbers = {*checkpoints.partitions(), *map(int, (status or {}).get("partitions") or {})}
        known, left = {}, []
        for number in sorted(numbers):
            file = checkpoints.inspect(number)
            erased: dict[str, Any] = {} if file is None else file.header.get("erased", {})
            if request in erased:
                known[number] = str(erased[request][1])
            else:
                left.append(number)
        if not runs or (known and not left) or time.monotonic() >= until:
            return _Waiting(known, left, runs)
        time.sleep(_LOOK_EVERY_S)


def _into_mlflow(project: Project) -> LogFile:
    """Return what replaces a file of a reference in MLflow, which is asked only if there is one."""
    runs: dict[int, str] = {}

    def log_file(version: int, path: Path) -> None:
        from core.registry import Registry

        registry = Registry(project)
        if not runs:
            runs.update({entry.version: entry.run_id for entry in registry.versions()})
        if version in runs:
            registry.log_file(runs[version], path, "reference")

    return log_file


def _content(project: Project, name: str, done: Erased, waiting: _Waiting, who: str) -> dict[str, Any]:
    known = {str(number): was for number, was in waiting.known.items()}
    return {
        "id_hash": name,
        "found": done.found or any(was != "nothing" for was in known.values()),
        **done.as_json(),
        "waiting": known,
        "not_yet": waiting.left,
        "by": who,
        "cannot_reach": list(_beyond(project, done)),
    }


def _beyond(project: Project, done: Erased) -> list[str]:
    settings = project.settings
    topics = [*settings.input_topics, settings.predictions_topic, settings.dead_letters_topic]
    said = [f"Kafka's topics {', '.join(topics)}: their own retention decides"]
    if done.versions:
        versions = ", ".join(map(str, done.versions))
        said.append(
            f"models fitted already, and the input examples in their MLflow runs: versions {versions} may have been "
            "trained on it; retrain, then delete them in MLflow"
        )
    if left := sorted(path.name for path in (project.state / "ingest").glob("*.sqlite")):
        said.append(
            f"what an ingestion that was stopped has read so far ({', '.join(left)} in {project.state / 'ingest'}): "
            "run it to its end, which leaves the id out, or remove the file"
        )
    if any(done.rows.values()):
        said.append("what the online experts learned: headrace rebuild-state learns again without it")
    said.append("copies that others made, such as back-ups and older versions in an object store that keeps them")
    return said


def _refuse_half(waiting: _Waiting, fits: list[str]) -> None:
    again = "run the same again"
    if waiting.worker_runs and (waiting.left or not waiting.known):
        numbers = ", ".join(map(str, waiting.left)) or "any"
        raise HeadraceError(f"not complete: the worker has not forgotten it yet in partition {numbers}; {again}")
    if fits:
        raise HeadraceError(f"not complete: retraining {fits[0]} runs and may hold its row; {again} when it has ended")


def _lines(content: dict[str, Any]) -> list[str]:
    rows = ", ".join(f"{count} of {table}" for table, count in content["rows"].items() if count)
    lines = ["erased" if content["found"] else "nothing found"]
    lines += [f"  rows        {rows}, and {sum(content['files'].values())} older files"] if rows else []
    lines += [f"  pages       {content['pages']}"] if content["pages"] else []
    lines += (
        [f"  references  of versions {', '.join(map(str, content['references']))}"] if content["references"] else []
    )
    lines += [f"  waiting     partition {number}: {was}" for number, was in content["waiting"].items()]
    if content["not_yet"]:
        numbers = ", ".join(map(str, content["not_yet"]))
        lines.append(f"  waiting     partition {numbers}: when a worker next opens it")
    lines += [f"  not reached: {said}" for said in content["cannot_reach"]]
    return [*lines, f"  in the ledger as {content['id_hash']}"]
