"""Moves of aliases that no retraining makes: decided in the ledger, carried out by whoever comes, until it is done.

1. `decide`, one ledger transaction: what is to move, against which champion that was judged, and who says so.
2. `finish`: the alias moves, only from that champion.
3. One ledger transaction: the record, and an alert where there is one.

Whoever dies behind 1 is followed by the next one that comes: a command, the judge of shadows, or the dispatcher.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.audit import Ledger
from core.line_up import moved
from core.model_versions import ModelVersion
from core.models import CHAMPION
from core.registry import Registry
from flows.lease import MOVE

MoveKind = Literal["promotion", "rollback", "withdrawal", "trust"]
_ENDS: dict[str, MoveKind] = {"promotion": "withdrawal", "rollback": "trust"}
"""What ends a shadow whose move cannot be carried out."""


@dataclass(frozen=True)
class Move:
    """A move as it is kept from its decision to its record.

    Attributes
    ----------
    kind : str
        Also the kind of its record.
    key : str
        Of the record.
    body : dict
        Of the record: ``version``, for promotion and rollback ``previous``, ``effective_at``, ``approved`` ...
    alert : dict or None
        Body of an alert that goes with it.
    of_shadow : bool
        Whether a shadow was judged: one whose move is refused ends.
    """

    kind: MoveKind
    key: str
    body: dict[str, Any]
    alert: dict[str, Any] | None = field(default=None)
    of_shadow: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as it is remembered."""
        return {**vars(self), "at": time.time()}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Move:
        """Read what `as_json` gave, of an older headrace too."""
        names = ("kind", "key", "body", "alert", "of_shadow")
        return cls(**{name: kept[name] for name in names if name in kept})


def about(entry: ModelVersion, aliases: Mapping[str, int], effective_at: int | None) -> dict[str, Any]:
    """Return what the record of a move to a version says of it."""
    return {
        "version": entry.version,
        "previous": aliases.get(CHAMPION),
        "effective_at": effective_at,
        "request": entry.tags.get("request"),
        "mlflow_run": entry.run_id,
        "rows_digest": entry.tags.get("rows_digest"),
        "aliases": moved(aliases, entry.version),
    }


def decide(ledger: Ledger, move: Move) -> bool:
    """Decide a move; return False where another is decided and not carried out yet. May be part of a transaction."""
    with ledger.transaction():
        if ledger.recall(MOVE) is not None:
            return False
        ledger.remember(MOVE, move.as_json())
    return True


def decided(ledger: Ledger) -> Move | None:
    """Return the move that is decided and not carried out, if there is one."""
    kept = ledger.recall(MOVE)
    return None if kept is None else Move.from_json(kept)


def finish(ledger: Ledger, registry: Registry) -> str | None:
    """Carry out what was decided; return what was done, None if there is nothing to do.

    Raises
    ------
    RegistryError
        If MLflow cannot be reached; what is left is done by the next call.
    """
    kept = ledger.recall(MOVE)
    if kept is None:
        return None
    move = Move.from_json(kept)
    if move.kind in _ENDS:
        refusal = _serve(registry, move)
        if refusal is not None:
            return _refuse(ledger, registry, kept, move, refusal)
    else:
        _end(registry, move.kind, move.body["version"])
    _record(ledger, kept, move)
    return _done(move)


def _serve(registry: Registry, move: Move) -> str | None:
    """Make the version the champion; return why not."""
    version, expected = move.body["version"], move.body["previous"]
    current = registry.aliases().get(CHAMPION)
    if current not in (version, expected):
        return f"version {current} became champion meanwhile: {version} is not"
    if move.of_shadow and version not in [entry.version for entry in registry.versions()]:
        return f"version {version} was deleted in MLflow before it could become champion"
    registry.promote(
        version,
        expected=expected,
        serves_from=move.body.get("serves_from"),
        watched=bool(move.body.get("watched")),
    )
    return None


def _end(registry: Registry, kind: str, version: int) -> None:
    if kind == "withdrawal":
        registry.withdraw(version)
    else:
        registry.trust(version)


def _refuse(ledger: Ledger, registry: Registry, kept: dict[str, Any], move: Move, refusal: str) -> str:
    """Forget a move that cannot be carried out any more; a shadow ends with it."""
    if not move.of_shadow:
        _record(ledger, kept, None)
        return refusal
    version = move.body["version" if move.kind == "promotion" else "previous"]
    body = {"version": version, "effective_at": move.body["effective_at"], "end": "refused", "reasons": [refusal]}
    _end(registry, _ENDS[move.kind], version)
    _record(ledger, kept, Move(_ENDS[move.kind], f"{move.key}-refused", body))
    return refusal


def _record(ledger: Ledger, kept: dict[str, Any], move: Move | None) -> None:
    with ledger.transaction():
        if ledger.recall(MOVE) != kept:  # somebody else has finished it meanwhile
            return
        ledger.forget(MOVE)
        if move is not None:
            at = move.body["effective_at"]
            ledger.record(move.kind, move.key, event_time=at, body=move.body)
            if move.alert is not None:
                ledger.record("alert", f"{move.kind}-{move.key}", event_time=at, body=move.alert)


def _done(move: Move) -> str:
    version = move.body["version"]
    if move.kind == "withdrawal":
        return f"challenger {version} is withdrawn"
    return f"champion {version} is watched no more" if move.kind == "trust" else f"version {version} is champion"
