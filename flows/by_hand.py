"""What a person decides: who is champion, and which window is not to be learned from.

A promotion or rollback is a move (`flows.moves`) from the champion that the person saw. A retraining under way that was
compared with that one then finds another, and is not promoted.
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
from core.quarantine import Span, unlearned
from core.registry import Registry
from core.status import read_status
from flows.moves import Move, about, decide, finish

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


def unlearn(project: Project, ledger: Ledger, window: Span, *, by: str, why: str | None) -> dict[str, Any]:
    """Put a window into quarantine and have every partition learn again without it; return what was recorded.

    Raises
    ------
    UsageError
        If no worker has run here, the stream has not come that far, or the window is unlearned already.
    """
    clock, now, records = project.settings.clock, _stream_time(project), ledger.history()
    said = clock.between(*window)
    if now is None:
        raise UsageError(f"{project.state}: no worker has run here, so nothing was learned that could be forgotten")
    if window[1] > now:
        raise UsageError(f"{said}: the stream is at {clock.moment(now)} only; name a window that has ended")
    if window in unlearned(records):
        raise UsageError(f"{said}: is unlearned already; see 'headrace history'")
    body = {"approved": {"by": by, "why": why}, "reasons": [f"Named by {by}: {why or 'no reason given'}."]}
    key = f"by-hand-{clock.key(window[0])}-{time.time_ns() // 1_000_000:x}"
    with ledger.transaction():
        ledger.record("quarantine", key, event_time=now, body={**body, "span": list(window)})
        ledger.record("unlearn", key, event_time=now, body={**body, "spans": [list(window)]})
    return {"kind": "unlearn", "key": key, "span": [clock.to_json(moment) for moment in window], **body}


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
        **about(entry, aliases, _stream_time(project)),
        "trigger": "manual",
        "watched": kind == "promotion" and CHAMPION in aliases and project.settings.promotion.watch,
        "approved": approved,
        "evidence": _evidence(ledger, entry),
    }
    key = f"{version}-by-hand-{time.time_ns() // 1_000_000:x}"
    if not decide(ledger, Move(kind, key, body)):
        raise ChampionChangedError("somebody else moves the champion at this very moment; look at 'headrace history'")
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
