"""Promotion and rollback by hand: decided in the ledger, then carried out, until it is done.

1. One ledger transaction: what is to move, from which champion, who says so and why is kept.
2. The alias moves, only from the champion that the person saw; a retraining under way that was compared with that one
   then finds another, and is not promoted.
3. One ledger transaction: the record.

A command that dies behind 1 is followed by the next one, or by the dispatcher.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from core.audit import Ledger
from core.errors import ChampionChangedError, UsageError
from core.model_versions import ModelVersion
from core.models import CHAMPION, PREVIOUS
from core.progress import stream_of
from core.project import Project
from core.registry import Registry
from core.status import read_status
from flows.lease import MOVE
from flows.promotion import moved

_LATEST_ALERTS = 5


def roll_back(project: Project, ledger: Ledger, registry: Registry, *, by: str, why: str | None) -> dict[str, Any]:
    """Make the previous champion the champion again, and return what was recorded.

    Raises
    ------
    UsageError
        If there is no previous one.
    ChampionChangedError
        If another version becomes champion meanwhile; nothing has moved then.
    RegistryError
        If MLflow cannot be reached, or the previous version cannot be loaded.
    """
    finish(ledger, registry)
    aliases = registry.aliases()
    version = aliases.get(PREVIOUS)
    if version is None or version == aliases.get(CHAMPION):
        raise UsageError(
            f"model {project.settings.name!r} has no previous version to go back to: champion is "
            f"{aliases.get(CHAMPION, 'none yet')}; 'headrace promote PROJECT VERSION' takes any other"
        )
    return _move(project, ledger, registry, "rollback", version, aliases, {"by": by, "why": why})


def promote(
    project: Project, ledger: Ledger, registry: Registry, version: int, *, by: str, why: str | None
) -> dict[str, Any]:
    """Make a version the champion whatever its gates said, and return what was recorded.

    Raises
    ------
    UsageError
        If there is no such version, it is champion already, or monitoring has no reference of it.
    ChampionChangedError
        If another version becomes champion meanwhile; nothing has moved then.
    RegistryError
        If MLflow cannot be reached, or the version cannot be loaded.
    """
    finish(ledger, registry)
    known, aliases = [entry.version for entry in registry.versions()], registry.aliases()
    if version not in known:
        there = f"there are {', '.join(map(str, known))}" if known else "none is registered yet"
        raise UsageError(f"model {project.settings.name!r} has no version {version}; {there}")
    if version == aliases.get(CHAMPION):
        raise UsageError(f"version {version} is champion already")
    reference = project.state / "references" / f"{version}.json"
    if not reference.is_file():
        raise UsageError(
            f"version {version} has no reference ({reference}): windows could not be compared with what it was trained "
            "on; promote another version, or retrain"
        )
    return _move(project, ledger, registry, "promotion", version, aliases, {"by": by, "why": why})


def finish(ledger: Ledger, registry: Registry) -> str | None:
    """Carry out a move that was decided by hand; return what was done, None if there is none.

    Raises
    ------
    RegistryError
        If MLflow cannot be reached; what is left is done by the next call.
    """
    decided = ledger.recall(MOVE)
    if decided is None:
        return None
    body = decided["body"]
    version, expected = body["version"], body["previous"]
    current = registry.aliases().get(CHAMPION)
    if current in (version, expected):
        registry.promote(version, expected=expected)
    with ledger.transaction():
        if ledger.recall(MOVE) == decided:  # nobody else has finished it meanwhile
            ledger.forget(MOVE)
            if current in (version, expected):
                ledger.record(decided["kind"], decided["key"], event_time=body["effective_at"], body=body)
    if current in (version, expected):
        return f"version {version} is champion"
    return f"version {current} became champion meanwhile: {version} is not"


def _move(
    project: Project,
    ledger: Ledger,
    registry: Registry,
    kind: Literal["promotion", "rollback"],
    version: int,
    aliases: Mapping[str, int],
    approved: dict[str, Any],
) -> dict[str, Any]:
    registry.load(version)  # a worker that cannot load it would go on with the one that serves
    entry = next(entry for entry in registry.versions() if entry.version == version)
    body = {
        "version": version,
        "previous": aliases.get(CHAMPION),
        "effective_at": _stream_time(project),
        "request": entry.tags.get("request"),
        "trigger": "manual",
        "mlflow_run": entry.run_id,
        "rows_digest": entry.tags.get("rows_digest"),
        "aliases": moved(aliases, version),
        "approved": approved,
        "evidence": _evidence(ledger, entry),
    }
    key = f"{version}-by-hand-{time.time_ns() // 1_000_000:x}"
    with ledger.transaction():
        if ledger.recall(MOVE) is not None:
            raise ChampionChangedError(
                "somebody else moves the champion at this very moment; look at 'headrace history'"
            )
        ledger.remember(MOVE, {"kind": kind, "key": key, "at": time.time(), "body": body})
    said = finish(ledger, registry)
    if not any(record.key == key for record in ledger.history(kind)):
        raise ChampionChangedError(f"{said}; look at 'headrace history' and try again")
    return {"kind": kind, **body}


def _stream_time(project: Project) -> int | None:
    """Return how far the stream is, ms; None where no worker has run here."""
    stream = stream_of(read_status(project.status, "worker"))
    return None if stream is None else stream.progress


def _evidence(ledger: Ledger, entry: ModelVersion) -> dict[str, Any]:
    """Return the keys of the latest alerts, and of the retraining that made the version."""
    attempt = f"{entry.tags.get('request')}/{entry.tags.get('attempt')}"
    known = any(record.key == attempt for record in ledger.history("retraining"))
    alerts = [record.key for record in ledger.history("alert")][-_LATEST_ALERTS:]
    return {
        "alerts": alerts,
        "decision": None,
        "retraining": attempt if known else None,
        "gate": attempt if known else None,
    }
